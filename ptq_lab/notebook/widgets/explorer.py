"""The mixed-bit explorer as a live part: sliders on the page, predictions from the kernel, the truth on demand."""

# mypy: disallow-untyped-calls=False
# (IPython's and ipywidgets' functions carry no types.)

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import traitlets
from anywidget import AnyWidget
from IPython.core.getipython import get_ipython

from ptq_lab.edits import Widths
from ptq_lab.errors import PtqLabError
from ptq_lab.explorer import MixedBitExplorer
from ptq_lab.figures.front import front_html, front_text
from ptq_lab.figures.tables import widths_html
from ptq_lab.notebook.widgets.parts import Stays, script, show_live, styles
from ptq_lab.report.text import format_bytes, shorten
from ptq_lab.report.widths import FrontData, FrontPoint, Prediction, WidthRow, widths_text

AGAIN = "Run the cell again to move the sliders."
CURVE = 80  # points of the front that a page gets; more cannot be told apart

_TEXT_LAYERS = 40
_AFTER_CELL = "post_run_cell"
_log = logging.getLogger(__name__)

Json = dict[str, Any]


class ExplorerPart(AnyWidget):
    """A live view of an explorer: each move is an edit of it, and its edits from code show here.

    The page sends one small message per move and gets numbers back; weights never leave the kernel.

    Parameters
    ----------
    explorer : MixedBitExplorer

    Attributes
    ----------
    explorer : MixedBitExplorer
    layers : list
        Name, operator, bytes as float, and shape of every weight, for the page.
    now : dict
        The current choice: widths, errors and bytes by weight, what to expect, what was measured, possible undos.
    front : dict
        What the choice is compared with, and how far a budget can go.
    said : dict
        The answer to the last message: its text, and whether it is a fault.

    Examples
    --------
    >>> from ptq_lab import demo, explore
    >>> digits = demo.load("digits_cnn")
    >>> part = ExplorerPart(explore(digits.model_path, digits.calib_path))
    >>> part.answer({"do": "set", "layer": 0, "bits": 3})
    >>> part.explorer.layers[0].bits, part.now["bits"][0]
    (3, 3)
    """

    _esm = script("explorer")
    _css = styles("explorer")

    title = traitlets.Unicode().tag(sync=True)
    layers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    now = traitlets.Dict().tag(sync=True)
    front = traitlets.Dict().tag(sync=True)
    said = traitlets.Dict().tag(sync=True)

    def __init__(self, explorer: MixedBitExplorer) -> None:
        self.explorer = explorer
        self._shell = get_ipython()
        self._shown: Widths | None = None
        self._stays: Stays | None = None
        self._gesture: tuple[object, Widths, Widths] = (None, explorer.widths, explorer.widths)
        self._asked_cosine = -math.inf
        self._size = explorer.original.size  # of a model in memory that takes as long as writing it
        self._rows = tuple(explorer.layers)
        super().__init__(title=explorer.original.label, layers=_names(self._rows), now=self._choice(None))
        self.on_msg(lambda _, content, __: self.answer(content))
        self._watch(True)

    def answer(self, message: Mapping[str, Any]) -> None:
        """Do what a page asks for, and tell it what came of it; what goes wrong is told there in one line.

        Parameters
        ----------
        message : mapping
            ``do`` names the act, ``seq`` comes back in :attr:`now`; the rest belongs to the act.
        """
        try:
            act = ACTS.get(str(message.get("do")))
            said = act(self, message) if act is not None else f"there is nothing called {message.get('do')!r} to do"
            faulty = act is None
        except KeyboardInterrupt:
            said, faulty = "stopped", True
        except PtqLabError as fault:
            said, faulty = _line(fault), True
        except Exception as fault:
            _log.exception("the explorer could not answer %s", dict(message))
            said, faulty = f"{type(fault).__name__}: {_line(fault)}", True
        answer = {"text": said, "bad": faulty} if isinstance(said, str) else dict(said or {})
        with self.hold_sync():
            self.said = answer
            self.now = self._choice(message.get("seq"))

    def refresh(self, *_: object) -> None:
        """Show what the explorer has become, if code has edited it."""
        if self.explorer.widths is not self._shown:
            self.now = self._choice(None)

    def show(self) -> None:
        """Publish the part, and below it what stays without a kernel."""
        picture = self.explorer.picture()
        self._draw(picture)
        self._stays = show_live(self, **self._twin(picture), again=AGAIN)

    def _ipython_display_(self) -> None:
        self.show()

    def close(self) -> None:
        """Part from the page; the explorer stays."""
        self._watch(False)
        super().close()

    def _choice(self, seq: object) -> Json:
        explorer = self.explorer
        self._rows = rows = tuple(explorer.layers)
        self._shown = explorer.widths
        prediction = explorer.predict()
        bits = tuple(row.bits for row in rows)
        measured = next((point.measured for point in explorer.verified if point.bits == bits), None)
        return {
            "seq": seq,
            "bits": [row.bits or 0 for row in rows],
            "errors": [float(f"{row.output_error:.3g}") for row in rows],
            "bytes": [row.bytes_after for row in rows],
            "pins": [index for index, row in enumerate(rows) if row.pinned],
            "cosine": prediction.cosine,
            "measured": None if measured is None else 1.0 - measured,
            "file": prediction.file_bytes,
            "ratio": self._size / prediction.file_bytes,
            "average": prediction.average_bits if any(bits) else None,
            "steps": list(explorer.steps),
        }

    def _draw(self, picture: FrontData) -> None:
        curve = _few(picture.curve, CURVE)
        allowed = [max(width or 0 for width in point.bits) for point in picture.uniform]
        self.front = {
            "curve": [_place(point) for point in curve],
            "uniform": [[point.label, *_place(point)] for point in picture.uniform],
            "rule": [[point.label, *_place(point)] for point in picture.rule],
            "verified": [_place(point) for point in picture.verified],
            "sizes": [curve[0].file_bytes, curve[-1].file_bytes],
            "widths": [min(allowed), max(allowed)],
        }

    def _twin(self, picture: FrontData) -> dict[str, str]:
        title = f"{self.explorer.original.label}: {self.explorer.predict()}"
        table = widths_html(title, self._rows)
        text = f"{title}\n{widths_text(self._rows, _TEXT_LAYERS)}\n{front_text(picture)}"
        return {"html": table + front_html(picture), "text": text}

    def _watch(self, on: bool) -> None:
        shell = self._shell
        if shell is None:
            return
        if on:
            shell.events.register(_AFTER_CELL, self.refresh)
        elif self.refresh in shell.events.callbacks[_AFTER_CELL]:
            shell.events.unregister(_AFTER_CELL, self.refresh)

    def _in_gesture(self, message: Mapping[str, Any], edit: Callable[[], Prediction]) -> None:
        """Edit; moves of one drag or one run of key presses become a single step to undo."""
        explorer, name = self.explorer, message.get("gesture")
        before, start, last = self._gesture
        going_on = name is not None and name == before and explorer.widths is last
        if not going_on:
            start = explorer.widths
        undone = going_on and last != start and explorer.undo()
        try:
            edit()
        except BaseException:
            if undone:
                explorer.redo()
            raise
        self._gesture = (name, start, explorer.widths)

    def _tensor(self, message: Mapping[str, Any]) -> str:
        return self._rows[int(message["layer"])].tensor

    def _set(self, message: Mapping[str, Any]) -> None:
        tensor, bits = self._tensor(message), int(message["bits"])
        explorer = self.explorer
        self._in_gesture(message, lambda: explorer.set_bits(tensor, bits) if bits else explorer.skip(tensor))

    def _pin(self, message: Mapping[str, Any]) -> None:
        tensor = self._tensor(message)
        (self.explorer.pin if message["on"] else self.explorer.unpin)(tensor)

    def _free(self, _: Mapping[str, Any]) -> None:
        self.explorer.unpin()

    def _fit(self, message: Mapping[str, Any]) -> str:
        key, value = str(message["key"]), float(message["value"])
        if key not in BUDGETS:
            raise KeyError(key)
        self._in_gesture(message, lambda: self.explorer.fit(**{key: value}))
        self._asked_cosine = value if key == "min_cosine" else -math.inf
        return BUDGETS[key]

    def _take(self, message: Mapping[str, Any]) -> str:
        picture = self.explorer.picture()
        label = str(message["label"])
        point = next(point for point in (*picture.uniform, *picture.rule) if point.label == label)
        self.explorer.take(point)
        kept = len(self.explorer.widths.pins)
        return f"{label} for all layers{f' but the {kept} that are pinned' if kept else ''}"

    def _undo(self, _: Mapping[str, Any]) -> str | None:
        return None if self.explorer.undo() else "there is nothing to undo"

    def _redo(self, _: Mapping[str, Any]) -> str | None:
        return None if self.explorer.redo() else "there is nothing to redo"

    def _verify(self, _: Mapping[str, Any]) -> str:
        expected, cosine = self.explorer.predict().cosine, self.explorer.verify()
        missed = f"; {self._asked_cosine:.6f} was asked for, so ask for more" * (cosine < self._asked_cosine)
        return f"run on samples: cosine {cosine:.6f}; expected were {expected:.6f}{missed}"

    def _what_if(self, message: Mapping[str, Any]) -> Json:
        explorer, row = self.explorer, self._rows[int(message["layer"])]
        if row.bits is None:
            return {
                "text": f"{shorten(row.node)} is in float already; give it bits again with its slider",
                "bad": False,
            }
        here = explorer.predict()
        there = explorer.predict(replace(explorer.widths, skipped=explorer.widths.skipped | {row.node}))
        text = (
            f"{shorten(row.node)} in float: cosine {here.cosine:.6f} -> {there.cosine:.6f} expected, "
            f"file {format_bytes(here.file_bytes)} -> {format_bytes(there.file_bytes)}"
        )
        return {"text": text, "bad": False, "offer": int(message["layer"])}

    def _recipe(self, _: Mapping[str, Any]) -> Json:
        """Send the choice as INI text; it is no part of the state, because it is as long as the model is deep."""
        self.send({"recipe": self.explorer.to_config()})
        return dict(self.said)

    def _settle(self, _: Mapping[str, Any]) -> Json:
        """Draw again what follows the choice at leisure: the front, and what stays."""
        picture = self.explorer.picture()
        self._draw(picture)
        if self._stays is not None:
            self._stays.update(**self._twin(picture))
        return dict(self.said)


BUDGETS = {
    "target_size_mb": "",
    "average_bits": "",
    "min_cosine": "the cosine is expected, not measured; Verify runs it",
}

ACTS: dict[str, Callable[[ExplorerPart, Mapping[str, Any]], str | Json | None]] = {
    "set": ExplorerPart._set,
    "pin": ExplorerPart._pin,
    "free": ExplorerPart._free,
    "fit": ExplorerPart._fit,
    "take": ExplorerPart._take,
    "undo": ExplorerPart._undo,
    "redo": ExplorerPart._redo,
    "verify": ExplorerPart._verify,
    "what_if": ExplorerPart._what_if,
    "recipe": ExplorerPart._recipe,
    "settle": ExplorerPart._settle,
}


def _names(rows: tuple[WidthRow, ...]) -> list[list[object]]:
    """Return what does not change; a node with several weights is told apart by theirs.

    Of each name only what differs from the one before: how much of its start and end is the same, and the middle.
    """
    nodes = Counter(row.node for row in rows)
    found: list[list[object]] = []
    before = ""
    for row in rows:
        name = row.node if nodes[row.node] == 1 else f"{row.node} · {row.tensor}"
        start = _shared(before, name)
        end = _shared(before[start:][::-1], name[start:][::-1])
        middle = name[start : len(name) - end]
        found.append([[start, end, middle], row.op_type, row.bytes_before, "x".join(map(str, row.shape))])
        before = name
    return found


def _shared(one: str, other: str) -> int:
    """Return how many letters two texts have in common from the start on."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))


def _place(point: FrontPoint) -> list[float]:
    return [point.file_bytes, float(f"{max(point.best_known, 1e-7):.4g}")]


def _few(points: tuple[FrontPoint, ...], count: int) -> list[FrontPoint]:
    """Return some points, both ends among them."""
    last, steps = len(points) - 1, max(1, min(count, len(points)) - 1)
    return [points[round(index * last / steps)] for index in range(steps + 1)] if last > 0 else list(points)


def _line(fault: BaseException) -> str:
    return " · ".join(str(fault).splitlines()) or type(fault).__name__
