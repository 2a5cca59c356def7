"""A choice of widths as a configuration: one line per weight."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ptq_lab.config import QuantConfig, dump_config
from ptq_lab.config.sections.lab import BudgetOptions
from ptq_lab.config.sections.quantization import CommonOptions
from ptq_lab.config.sections.weights import MixedBitOptions
from ptq_lab.edits import Widths
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.graph import Model
from ptq_lab.manifest import metadata
from ptq_lab.plan import QuantPlan

BITS = 8  # what the file says for all weights; every one of them has a line of its own

_UNWRITABLE = '"\r\n'
_ENTRY = 16  # bytes around a name and its value
_PATTERN = re.compile(r're:|type:|.*[*?["\r\n]', re.DOTALL)  # what would mean other names too, or fits in no line


def fixed_config(config: QuantConfig, plan: QuantPlan, widths: Widths) -> QuantConfig:
    """Return a configuration without any search: a line for each width, and what stays float by name.

    Parameters
    ----------
    config : QuantConfig
        Whose other options are kept.
    plan : QuantPlan
        Its weights.
    widths : Widths
    """
    out = [node for entry in plan.entries for node in entry.nodes if node in widths.skipped]
    skip = (*config.common.skip_quant_node, *(exact(node) for node in dict.fromkeys(out)))
    named = {"quant_type": "WEIGHT_QUANT", "bit_num": BITS, "skip_quant_node": skip}
    searches = (BudgetOptions.section, MixedBitOptions.section)
    given = {pair for pair in config.given if pair[0] not in searches}
    given |= {("common_quant_param", key) for key, value in named.items() if value != ()}
    common = config.common.model_copy(update=named)
    changed: Mapping[str, object] = {
        "common": common,
        "layer_bits": _lines(widths.quantized(plan)),
        "mixed_bit": MixedBitOptions(),
        "budget": BudgetOptions(),
        "given": frozenset(given),
        "problems": (),
        "places": (),
    }
    return config.model_copy(update=changed)


def write_recipe(config: QuantConfig, plan: QuantPlan, widths: Widths) -> str:
    """Return INI text that gives every weight its width.

    Parameters
    ----------
    config, plan, widths
        As for :func:`fixed_config`.
    """
    return dump_config(fixed_config(config, plan, widths), comments=False, only_given=True)


def weights_only(config: QuantConfig) -> QuantConfig:
    """Return a configuration in which there are widths to choose, and weights are rounded as predictions take it.

    An effort that is written stays: it makes the model better than what was verified, and its file another.

    Raises
    ------
    ConfigError
        If it quantizes more than weights, or stores 8 and 16 bits only.
    """
    kind = config.common.quant_type or "WEIGHT_QUANT"
    if kind != "WEIGHT_QUANT":
        problem = Problem(
            section="common_quant_param", key="quant_type", message=f"{kind} has 8 bits throughout; WEIGHT_QUANT wanted"
        )
        raise ConfigError([problem])
    if not config.common.enable_encode:
        message = "false stores 8 and 16 bits only, so there are no widths to choose"
        problem = Problem(section="common_quant_param", key="enable_encode", message=message, hint="leave it out")
        raise ConfigError([problem])
    if config.lab.effort is not None:
        return config
    lab = config.lab.model_copy(update={"effort": "fast"})
    return config.model_copy(update={"lab": lab, "given": config.given | {("ptq_lab", "effort")}})


def thin_weights(config: QuantConfig, plan: QuantPlan) -> tuple[str, ...]:
    """Return a remark on weights that are only quantized because fewer channels are asked for than by default."""
    channels = CommonOptions.default("min_quant_weight_channel")
    if config.common.min_quant_weight_channel >= channels:
        return ()
    axes = ((entry, entry.channel_axis) for entry in plan.entries)
    thin = sum(axis is not None and entry.shape[axis] <= channels for entry, axis in axes)
    used = config.common.min_quant_weight_channel
    said = f"weights with {channels} channels or fewer: {thin}; min_quant_weight_channel is {used} here, {channels} "
    said += "by default, and to_config() writes it down"
    return (said,) if thin else ()


def recipe_bytes(original: Model, config: QuantConfig, plan: QuantPlan) -> int:
    """Return how many bytes a file takes to say where it comes from and how it was made."""
    widths = Widths({entry.tensor: entry.bits for entry in plan.entries})
    said = metadata(original, fixed_config(config, plan, widths), plan)
    return sum(len(name) + len(value.encode()) + _ENTRY for name, value in said.items())


def _lines(plan: QuantPlan) -> tuple[tuple[str, int], ...]:
    """Return a line per weight; first those whose name is a node's as well, because later lines win."""
    nodes = {node for entry in plan.entries for node in entry.nodes}
    ordered = sorted(plan.entries, key=lambda entry: entry.tensor not in nodes)
    return tuple((exact(entry.tensor), entry.bits) for entry in ordered)


def exact(name: str) -> str:
    r"""Return a pattern that matches a name and no other: the name itself, where it is no pattern.

    Examples
    --------
    >>> exact("/layer1/conv/Conv"), exact("w[0]"), exact('say "x"')
    ('/layer1/conv/Conv', 're:^w\\[0\\]$', 're:^say\\ \\x22x\\x22$')
    """
    if not _PATTERN.match(name):
        return name
    return f"re:^{''.join(map(_escaped, name))}$"


def _escaped(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if letter in _UNWRITABLE else re.escape(letter)
