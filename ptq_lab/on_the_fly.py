"""``dequant_strategy=ON_THE_FLY`` and ``block_size``: which weights are divided into blocks, and which stay codes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.metadata import version

from ptq_lab.config import QuantConfig
from ptq_lab.entries import TensorPlan
from ptq_lab.errors import ConfigError, Problem
from ptq_lab.graph import Model, apply_plan, raise_opset, required_opset
from ptq_lab.graph.on_the_fly import DECODING, PRODUCT, RELEASES, ROWS, decoder_for
from ptq_lab.plan import QuantPlan
from ptq_lab.route import Quantized

DEFAULT_BLOCK = 32
_DIVIDED = ("MatMul", "Gemm", "Conv")


def divide_weights(plan: QuantPlan, model: Model, config: QuantConfig) -> QuantPlan:
    """Return the plan with the blocks, and with the operators that take codes at run time, as the configuration says.

    Parameters
    ----------
    plan : QuantPlan
        Of weights alone, without codes.
    model : Model
        The float model.
    config : QuantConfig

    Raises
    ------
    ConfigError
        If the onnxruntime installed cannot multiply codes of a width.
    """
    size, stays = config.rounding.block_size or 0, config.weight.dequant_strategy == "ON_THE_FLY"
    if not size and not stays:
        return plan
    entries = []
    for entry in plan.entries:
        block = size if _has_blocks(entry) else 0
        decoder = decoder_for(model, entry.tensor, entry.channel_axis)[0] if stays else ""
        if decoder == PRODUCT:
            block = size or DEFAULT_BLOCK
        entries.append(
            replace(
                entry,
                block=block,
                on_the_fly=decoder if decoder in (PRODUCT, DECODING) else "",
                int8_activations=decoder == PRODUCT and config.rounding.run_time_arithmetic == "int8",
            )
        )
    _require_release(entries)
    return replace(plan, entries=tuple(entries))


def about_run_time(plan: QuantPlan, model: Model) -> tuple[str, ...]:
    """Say what the weights of a plan are at run time, and what is computed with them; nothing if all become float."""
    if not any(entry.on_the_fly for entry in plan.entries):
        return ()
    products = [entry for entry in plan.entries if entry.decoder == PRODUCT]
    decoded = [entry for entry in plan.entries if entry.decoder == DECODING]
    parts = []
    if products:
        rounded = products[0].int8_activations
        how = "on inputs rounded to int8 block by block" if rounded else "in float32"
        parts.append(f"{_count(len(products), 'stay')} codes that MatMulNBits multiplies {how}")
    if decoded:
        parts.append(f"{_count(len(decoded), 'stay')} codes that are decoded layer by layer on every run, for float32")
    rest: Counter[str] = Counter()
    for entry in plan.entries:
        if not entry.decoder:
            rest[_why_not(entry, model)] += 1
    if rows := rest.pop(ROWS, 0):
        parts.append(f"{_count(rows, 'stay')} codes of which rows are decoded as they are looked up")
    parts += [f"{_count(number, 'become')} float at load: {reason}" for reason, number in rest.items()]
    return (f"ON_THE_FLY: {'; '.join(parts)}",)


def folded_model(done: Quantized) -> Model | None:
    """Return the same codes stored so that they become float at load; ``None`` if that is what they do already."""
    if not any(entry.decoder for entry in done.plan.entries):
        return None
    plan = replace(done.plan, entries=tuple(replace(entry, on_the_fly="") for entry in done.plan.entries))
    return apply_plan(raise_opset(done.prepared, required_opset(plan)), plan)


def _has_blocks(entry: TensorPlan) -> bool:
    """Tell whether channels of a weight can be divided: of a matrix, or of a convolution."""
    if entry.op_type not in _DIVIDED or entry.by_row or entry.axis is None:
        return False
    return len(entry.shape) == 2 or (entry.op_type == "Conv" and entry.channel_axis == 0)


def _why_not(entry: TensorPlan, model: Model) -> str:
    decoder, reason = decoder_for(model, entry.tensor, entry.channel_axis)
    if decoder == ROWS:
        return ROWS
    return reason or f"no operator takes {entry.bits} bits"


def _require_release(entries: list[TensorPlan]) -> None:
    installed = version("onnxruntime")
    for bits in sorted({entry.bits for entry in entries if entry.decoder == PRODUCT}):
        if _numbers(installed) < _numbers(RELEASES[bits]):
            message = f"ON_THE_FLY with {bits} bits needs onnxruntime {RELEASES[bits]}, and {installed} is installed"
            hint = "install a newer onnxruntime, choose bit_num=4, or leave dequant_strategy out"
            problem = Problem(section="weight_quant_param", key="dequant_strategy", message=message, hint=hint)
            raise ConfigError([problem])


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split(".")[:2])


def _count(number: int, verb: str) -> str:
    return f"1 weight {verb}s" if number == 1 else f"{number} weights {verb}"
