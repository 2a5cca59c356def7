"""The converter's command-line values that the magic and the Python call take as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from ptq_lab.errors import ConfigError, Problem

OPTIMIZE = ("none", "general", "gpu_oriented", "ascend_oriented")


class Judge(Protocol):
    """A task metric; higher is better."""

    @property
    def name(self) -> str: ...  # noqa: D102
    def score(self, session: Any) -> float: ...  # noqa: D102
    def judge_float(self, model: Any, providers: Sequence[str]) -> Any: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command says beside the configuration.

    Attributes
    ----------
    fp16 : bool
        Store what stays float in 16 bits.
    optimize : str or None
        The original's graph passes.
    shapes : mapping of str to tuple of int
        Sizes of inputs that were given, by name.
    executor : concurrent.futures.Executor or None
        Where steps that split into tasks may run.
    metric : Judge or None
        What scores a model, where a search is to keep its score.
    """

    fp16: bool = False
    optimize: str | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    executor: Executor | None = None
    metric: Judge | None = None


InputShape = str | Mapping[str, Sequence[int]]


def parse_input_shape(value: InputShape | None) -> dict[str, tuple[int, ...]]:
    """Read ``--inputShape``: shapes by input name, from a mapping or from ``name:1,2,3;name2:4``.

    The last colon separates name and sizes, so names such as ``input:0`` work.

    Raises
    ------
    ConfigError
        If an item has no name, or a size is not a positive whole number.

    Examples
    --------
    >>> parse_input_shape("image:1,3,224,224;scale:0:4")
    {'image': (1, 3, 224, 224), 'scale:0': (4,)}
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {name: _sizes(name, _listed(sizes), f"{name}:{sizes}") for name, sizes in value.items()}
    if not isinstance(value, str):
        raise ConfigError(
            [Problem(key="inputShape", message=f"{value!r} is neither text nor a mapping from inputs to sizes")]
        )
    shapes = {}
    for item in filter(None, (part.strip() for part in value.split(";"))):
        name, _, sizes = item.rpartition(":")
        shapes[name] = _sizes(name, sizes.split(","), item)
    return shapes


def _listed(sizes: object) -> list[str]:
    """Return sizes as text; none for what is no sequence, which is refused like any other wrong size."""
    return list(map(str, sizes)) if isinstance(sizes, Iterable) and not isinstance(sizes, str | bytes) else [""]


def _sizes(name: str, sizes: Iterable[str], item: str) -> tuple[int, ...]:
    numbers = [size.strip() for size in sizes]
    if not name or not all(size.isdecimal() and int(size) > 0 for size in numbers):
        message = f"'{item}' is not a name with sizes above 0, such as image:1,3,224,224"
        raise ConfigError([Problem(key="inputShape", message=message, hint="several are separated by ;")])
    return tuple(int(size) for size in numbers)


def check_optimize(value: str | None, device: str) -> tuple[str, ...]:
    """Return what is to be said about ``--optimize``: it chooses the original's graph passes, which are not ours.

    Only for ASCEND it has a meaning here too, as the device's own confirmation.

    Raises
    ------
    ConfigError
        If the original would not accept the value either.
    """
    if value is None:
        return ()
    if device == "ASCEND" and "ascend_oriented" in str(value):
        return ()
    if value not in OPTIMIZE and "ascend_oriented" not in str(value):
        raise ConfigError([Problem(key="optimize", message=f"'{value}' is not one of {', '.join(OPTIMIZE)}")])
    return (f"optimize={value} has no meaning for an ONNX model and was not used",)


def check_values(fp16: object, layout: object, progress: object = None, executor: object = None) -> None:
    """Refuse values that Python would take for something else or stumble over, such as ``fp16="off"``.

    Raises
    ------
    ConfigError
        If `fp16` is not a truth value, `layout` is neither a layout nor ``None``, `progress` cannot be called, or
        `executor` is none.
    """
    if progress is not None and not callable(progress):
        raise ConfigError([Problem(key="progress", message=f"{progress!r} is no function that takes a Step")])
    if executor is not None and not hasattr(executor, "submit"):
        raise ConfigError([Problem(key="executor", message=f"{executor!r} is no concurrent.futures.Executor")])
    if not isinstance(fp16, bool):
        raise ConfigError([Problem(key="fp16", message=f"{fp16!r} is neither True nor False")])
    if layout not in (None, "NHWC", "NCHW"):
        raise ConfigError([Problem(key="inputDataFormat", message=f"{layout!r} is not one of NHWC, NCHW")])
