"""The devices room: what each ``target_device`` computes in integers and how its toolchain wants that written, as data.

A name goes in, a `Preset` comes out; `validate` tells in words where a written model breaks the rules of one.
"""

from collections.abc import Mapping

from ptq_lab.devices.ascend import ASCEND
from ptq_lab.devices.ascend_shapes import Profiles, atc_arguments, expand_profiles
from ptq_lab.devices.checks import unmet_needs, validate
from ptq_lab.devices.cpu import CPU
from ptq_lab.devices.dsp import DSP
from ptq_lab.devices.kirin import KIRIN
from ptq_lab.devices.nvgpu import NVGPU
from ptq_lab.devices.preset import Forced, Preset
from ptq_lab.errors import ConfigError, Problem

PRESETS: Mapping[str, Preset] = {preset.name: preset for preset in (CPU, KIRIN, NVGPU, DSP, ASCEND)}
"""``target_device`` to its preset; a new device is a data file and a name in this line."""


def preset(name: str) -> Preset:
    """Return the preset of a ``target_device``.

    Raises
    ------
    ConfigError
        If there is no such device.

    Examples
    --------
    >>> preset("NVGPU").symmetric
    True
    """
    if name not in PRESETS:
        message = f"there is no device {name!r}; allowed: {', '.join(PRESETS)}"
        raise ConfigError([Problem(section="full_quant_param", key="target_device", message=message)])
    return PRESETS[name]


__all__ = [
    "PRESETS",
    "Forced",
    "Preset",
    "Profiles",
    "atc_arguments",
    "expand_profiles",
    "preset",
    "unmet_needs",
    "validate",
]
