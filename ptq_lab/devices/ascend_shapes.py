"""Dynamic shapes for Ascend's compiler: profiles written out, and the arguments of ``atc``.

Source: the document's section *Ascend*, the original's expansion of ranges, and CANN's guide to ``atc``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from ptq_lab.errors import ConfigError, Problem

Shapes = Sequence[tuple[str, Sequence[int]]]
Groups = Sequence[Sequence[Sequence[str]]]

OPTIONS: Mapping[str, str] = {
    "input_format": "input_format",
    "precision_mode": "precision_mode",
    "op_select_impl_mode": "op_select_implmode",
    "fusion_switch_config_file_path": "fusion_switch_file",
    "buffer_optimize": "buffer_optimize",
    "insert_op_config_file_path": "insert_op_conf",
    "output_type": "output_type",
}
"""Option of the configuration to argument of ``atc``."""

_FEWEST, _MOST = 2, 100  # profiles that atc takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The sizes that dynamic axes may take, all written out.

    Attributes
    ----------
    batches : tuple of int
        Sizes of a dynamic batch; empty if it is fixed.
    images : tuple of (int, int)
        Pairs of the two dynamic axes, in the order of the shape; empty if they are fixed.
    """

    batches: tuple[int, ...] = ()
    images: tuple[tuple[int, ...], ...] = ()


def expand_profiles(shapes: Shapes, groups: Groups) -> Profiles:
    """Write out the profiles of dynamic inputs.

    Parameters
    ----------
    shapes : sequence of (str, sequence of int)
        Input name and sizes, -1 for a dynamic axis, as ``config.ascend.input_shapes`` reads them.
    groups : sequence
        Input, profile, entry as text (``"4"`` or ``"1~4"``), as ``config.ascend.profile_groups`` reads them; its fit
        to the shapes is checked already.

    Returns
    -------
    Profiles
        Every size once, in the order written.

    Raises
    ------
    ConfigError
        If there are fewer than 2 profiles or more than 100, which ``atc`` does not take.

    Examples
    --------
    >>> expand_profiles([("x", (-1, 32, 32, 4))], [[["1~4"], ["8"], ["16"]]]).batches
    (1, 2, 3, 4, 8, 16)
    >>> expand_profiles([("x", (1, -1, -1, 3))], [[["8~9", "4"], ["16", "16"]]]).images
    ((8, 4), (9, 4), (16, 16))
    """
    dynamic = [(shape, group) for (_, shape), group in zip(shapes, groups, strict=True) if -1 in shape]
    if not dynamic:
        return Profiles()
    shape, group = dynamic[0]  # all dynamic inputs have the same profiles
    sizes = tuple(dict.fromkeys(size for profile in group for size in product(*map(_range, profile))))
    if not _FEWEST <= len(sizes) <= _MOST:
        message = f"gives {len(sizes)} profiles, and atc takes {_FEWEST} to {_MOST}"
        raise ConfigError([Problem(section="ascend_context", key="dynamic_dims", message=message)])
    return Profiles(batches=tuple(size for (size,) in sizes)) if shape[0] == -1 else Profiles(images=sizes)


def atc_arguments(
    model: str, shapes: Shapes, profiles: Profiles, options: Mapping[str, str | None] | None = None
) -> tuple[str, ...]:
    """Return the arguments with which ``atc`` compiles the model that AMCT made of the written file.

    Parameters
    ----------
    model : str
        File name of the ONNX model.
    shapes : sequence of (str, sequence of int)
        Input name and sizes, -1 for a dynamic axis.
    profiles : Profiles
        Empty for fixed shapes.
    options : mapping of str to str, optional
        ``[ascend_context]`` by option; those without a meaning for ``atc`` are passed over.

    Returns
    -------
    tuple of str
        The chip (``--soc_version``) is for the user to add.

    Examples
    --------
    >>> atc_arguments("q.onnx", [("x", (-1, 8, 8, 3))], Profiles(batches=(1, 4)))[2:]
    ('--output=q', '--input_shape=x:-1,8,8,3', '--dynamic_batch_size=1,4')
    """
    arguments = ["--framework=5", f"--model={model}", f"--output={model.removesuffix('.onnx')}"]
    arguments.append("--input_shape=" + ";".join(f"{name}:{_commas(shape)}" for name, shape in shapes))
    if profiles.batches:
        arguments.append(f"--dynamic_batch_size={_commas(profiles.batches)}")
    if profiles.images:
        arguments.append("--dynamic_image_size=" + ";".join(map(_commas, profiles.images)))
    given = options or {}
    arguments.extend(f"--{argument}={given[key]}" for key, argument in OPTIONS.items() if given.get(key))
    return tuple(arguments)


def _range(entry: str) -> range:
    low, _, high = entry.partition("~")
    return range(int(low), int(high or low) + 1)


def _commas(sizes: Sequence[int]) -> str:
    return ",".join(map(str, sizes))
