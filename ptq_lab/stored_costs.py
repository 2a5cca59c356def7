"""Where fewer bits make a file larger: the nodes that decode them, and a newer opset, cost bytes too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ptq_lab.graph import Model, required_opset
from ptq_lab.plan import QuantPlan, TensorPlan
from ptq_lab.report.text import format_bytes
from ptq_lab.search.file_size import measure_file_sizes

PLAIN = 8  # bits that need no unpacking and no newer opset
_MATTERS = 1000  # a loss below this part of the file is not worth a word
_NAMED = 3
_MOST_DECODING = 1300  # bytes that decoding takes beyond that of whole bytes
_MOST_RAISING = 100_000  # bytes that a newer opset may cost; what saves more is not looked at


def costly_widths(model: Model, plan: QuantPlan) -> tuple[str, ...]:
    """Return what to say of weights whose narrow codes cost more bytes than they save beside 8 bits.

    Parameters
    ----------
    model : Model
        The float model.
    plan : QuantPlan
        Packed codes; of coded ones nothing is said, because no nodes decode them, nor of those decoded at
        run time, whose form is asked for because of memory.

    Returns
    -------
    tuple of str
        A note about the nodes that decode, one about the opset, or nothing; losses below a thousandth of the file are
        passed over.
    """
    if any(entry.coding is not None or entry.on_the_fly for entry in plan.entries):
        return ()
    narrow = [entry for entry in plan.entries if entry.bits < PLAIN]
    few = [entry for entry in narrow if _saved(entry) < _MOST_DECODING]
    saved = sum(map(_saved, narrow))
    reach = len(few) * _MOST_DECODING + (_MOST_RAISING if saved < _MOST_RAISING else 0)
    if not narrow or reach * _MATTERS < model.size:
        return ()
    plan = replace(plan, biases={})  # they change no size, and what is written to be weighed has no room for them
    sizes = measure_file_sizes(model, plan, sorted({PLAIN, *(entry.bits for entry in narrow)}))
    losses = {entry.tensor: sizes.decoding[entry.bits] - sizes.decoding[PLAIN] - _saved(entry) for entry in narrow}
    lost = sorted((entry for entry in few if losses[entry.tensor] > 0), key=lambda entry: -losses[entry.tensor])
    needed, plain = required_opset(plan), required_opset(_with(plan, PLAIN))
    raising = sizes.rest[needed] - sizes.rest[plain] if needed > max(plain, model.opset) else 0
    gain = sum(-losses[entry.tensor] for entry in narrow if required_opset(replace(plan, entries=(entry,))) == needed)
    least = (sizes.rest[needed] + sum(entry.packed_bytes for entry in plan.entries)) / _MATTERS
    notes = []
    if lost and sum(losses[entry.tensor] for entry in lost) >= least:
        notes.append(_about_decoding(lost, losses))
    if raising - max(gain, 0) >= least:
        saves = f"save {format_bytes(gain)}" if gain > 0 else "save nothing"
        notes.append(
            f"opset {needed}, which some of the widths need, takes {format_bytes(raising)} of the file, and they "
            f"{saves}; at {PLAIN} bits it would be smaller"
        )
    return tuple(notes)


def _saved(entry: TensorPlan) -> int:
    """Return the bytes of codes that are saved beside 8 bits."""
    return replace(entry, bits=PLAIN).packed_bytes - entry.packed_bytes


def _with(plan: QuantPlan, bits: int) -> QuantPlan:
    return replace(plan, entries=tuple(replace(entry, bits=min(16, max(bits, entry.bits))) for entry in plan.entries))


def _about_decoding(lost: Sequence[TensorPlan], losses: Mapping[str, int]) -> str:
    named = ", ".join(f"{entry.tensor} ({entry.bits} bits)" for entry in lost[:_NAMED])
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    total = format_bytes(sum(losses[entry.tensor] for entry in lost))
    return (
        f"the nodes that decode {named}{more} take more bytes than the narrow codes save: "
        f"with {PLAIN} bits there the file would be about {total} smaller"
    )
