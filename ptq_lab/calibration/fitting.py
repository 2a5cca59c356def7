"""Make an array be what a model's input wants, or say exactly why it is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec


def fit_array(array: NDArray[Any], spec: TensorSpec, *, where: str, hint: str = "") -> NDArray[Any]:
    """Return one sample with its batch axis, in the input's element type.

    Parameters
    ----------
    array : ndarray
        Of the input's shape, or without the first axis (then it becomes a batch of 1).
    spec : TensorSpec
        What the model wants; a dynamic first axis counts 1, other dynamic axes take any size.
    where : str
        Which sample this is, for messages.
    hint : str
        What to try when the shape is wrong.

    Raises
    ------
    SampleError
        Wrong shape, values that the element type cannot hold, NaN or infinity.

    Examples
    --------
    >>> spec = TensorSpec(name="ids", dtype=np.dtype("int64"), shape=("batch", "length"))
    >>> fit_array(np.array([3.0, 5.0]), spec, where="sample 0")
    array([[3, 5]])
    >>> fit_array(np.array([3.5, 5.0]), spec, where="sample 0")
    Traceback (most recent call last):
    ptq_lab.errors.SampleError: sample 0: ids wants int64, but the values are float64 with fractions, e.g. 3.5
    """
    if not _is_number(spec.dtype):
        raise SampleError(f"{spec.name}: inputs of type {spec.dtype} are not supported, numbers and bool are")
    if not _is_number(array.dtype):  # before the shape: that of a text says nothing
        kind = _KINDS.get(array.dtype.kind, str(array.dtype))
        example = f", e.g. {array.ravel()[:1].tolist()[0]!r}" if array.size else ""
        raise SampleError(
            f"{where}: {spec.name} wants {spec.dtype}, the values are {kind}{example}"
            "; give numbers, or the folder that holds the files"
        )
    return _as_type(_with_batch(array, spec, where, hint), spec, where)


_KINDS = {"U": "text", "S": "bytes", "O": "Python objects"}


def _with_batch(array: NDArray[Any], spec: TensorSpec, where: str, hint: str) -> NDArray[Any]:
    shape = array.shape if array.ndim == len(spec.shape) else (1, *array.shape)
    wanted = batch_of_one(spec.shape)
    if len(shape) == len(wanted) and all(isinstance(w, str) or w == s for w, s in zip(wanted, shape, strict=True)):
        return np.ascontiguousarray(array).reshape(shape)
    if not hint and len(shape) == len(wanted) and shape[0] != wanted[0]:
        hint = "give one item per sample, or set the input's shape (inputShape)"
    raise SampleError(
        f"{where}: shape {shown(array.shape)} does not fit {spec.name}, which wants {shown(wanted)}"
        + (f"; {hint}" if hint else "")
    )


def batch_of_one(shape: Sequence[int | str]) -> tuple[int | str, ...]:
    """Let a dynamic first axis count 1.

    Examples
    --------
    >>> batch_of_one(("batch", 3, "height"))
    (1, 3, 'height')
    """
    return tuple(1 if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(shape))


def shown(shape: Sequence[int | str]) -> str:
    """Spell a shape the same way in every message.

    Examples
    --------
    >>> shown((1, 3, "height"))
    '[1, 3, height]'
    """
    return f"[{', '.join(str(size) for size in shape)}]"


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"  # ml_dtypes' kind says only "V"


def _is_number(dtype: np.dtype[Any]) -> bool:
    return _is_float(dtype) or dtype.kind in "iub"


def _as_type(array: NDArray[Any], spec: TensorSpec, where: str) -> NDArray[Any]:
    if _is_float(array.dtype):
        _check_finite(array, spec, where)
    if array.dtype == spec.dtype:
        return array
    if _is_float(spec.dtype):
        return _as_float(array, spec, where)
    return _as_integer(array, spec, where)


def _check_finite(array: NDArray[Any], spec: TensorSpec, where: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise SampleError(
            f"{where}: {spec.name} holds {int(bad.sum())} values that are not finite, "
            f"the first is {float(array[index])} at {list(index)}"
        )


def _as_float(array: NDArray[Any], spec: TensorSpec, where: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        result = array.astype(spec.dtype)
    if not np.isfinite(result).all():
        largest = float(np.abs(array.astype(np.float64)).max())
        raise SampleError(f"{where}: {spec.name} wants {spec.dtype}, which cannot hold values as large as {largest:g}")
    return result


def _as_integer(array: NDArray[Any], spec: TensorSpec, where: str) -> NDArray[Any]:
    if _is_float(array.dtype) and (fractions := array != np.floor(array)).any():
        example = float(array[fractions][0])
        raise SampleError(
            f"{where}: {spec.name} wants {spec.dtype}, but the values are {array.dtype} with fractions, "
            f"e.g. {example:g}"
        )
    low, high = _limits(spec.dtype)
    if array.size and not (int(array.min()) >= low and int(array.max()) <= high):
        raise SampleError(
            f"{where}: {spec.name} wants {spec.dtype} ({low}..{high}), the values reach from "
            f"{array.min()} to {array.max()}"
        )
    return array.astype(spec.dtype)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    bits = 8 * dtype.itemsize
    return (0, (1 << bits) - 1) if dtype.kind == "u" else (-(1 << bits - 1), (1 << bits - 1) - 1)


def with_shapes(inputs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]] | None) -> tuple[TensorSpec, ...]:
    """Fix dynamic axes to the sizes given by name (``inputShape``); a size below 1 leaves its axis dynamic.

    Raises
    ------
    SampleError
        An unknown name, another number of axes, or a size that contradicts the model.

    Examples
    --------
    >>> spec = TensorSpec(name="x", dtype=np.dtype("float32"), shape=("n", 3, "h", "w"))
    >>> with_shapes([spec], {"x": [1, 3, 32, -1]})[0].shape
    (1, 3, 32, 'w')
    """
    wanted = dict(shapes or {})
    for name in wanted:
        check_name(name, [spec.name for spec in inputs], "inputShape")
    return tuple(_with_shape(spec, wanted.get(spec.name)) for spec in inputs)


def _with_shape(spec: TensorSpec, sizes: Sequence[int] | None) -> TensorSpec:
    if sizes is None:
        return spec
    fits = len(sizes) == len(spec.shape) and all(
        isinstance(own, str) or size < 1 or size == own for own, size in zip(spec.shape, sizes, strict=True)
    )
    if not fits:
        message = f"inputShape {spec.name}:{shown(sizes)} contradicts the model, whose input is {shown(spec.shape)}"
        raise SampleError(message)
    return replace(spec, shape=tuple(size if size > 0 else own for own, size in zip(spec.shape, sizes, strict=True)))


def check_name(name: str, inputs: Iterable[str], where: str) -> None:
    """Refuse a name that no input has, with the nearest one as a hint.

    Raises
    ------
    SampleError
        Always when ``name`` is not among ``inputs``.

    Examples
    --------
    >>> check_name("imgae", ["image"], "samples")
    Traceback (most recent call last):
    ptq_lab.errors.SampleError: samples: no input 'imgae', the model has: image; did you mean 'image'?
    """
    known = list(inputs)
    if name not in known:
        raise SampleError(f"{where}: no input {name!r}, the model has: {', '.join(known)}{nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean ...?"`` when one of ``known`` is close to ``name``, else nothing.

    Examples
    --------
    >>> nearest("lables", ["labels", "image"])
    "; did you mean 'labels'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
