"""What is asked of each tool, for each kind of model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """One mode of one tool."""

    tool: str
    mode: str
    variant: str = ""

    @property
    def label(self) -> str:
        """For progress and names of files."""
        return "-".join(filter(None, (self.tool, self.mode, self.variant)))


# Settings are each tool's defaults, or what its documentation advises for a CPU; `fold` where it does not fold
# BatchNormalization by itself but gains from it.
MATRIX = {
    "vision": """
        ptqlab weight8 | ptqlab weight8 best | ptqlab weight6 best | ptqlab weight5 best | ptqlab weight4 best
        ptqlab weight4 best-mixed | ptqlab weight3 best | ptqlab weight3 best-mixed
        ptqlab full8-maxmin | ptqlab full8-best
        naive weight8 fold | naive weight4 fold
        ort weight8 | ort weight4 | ort full8-maxmin | ort full8-percentile
        nncf weight8 fold | nncf weight4 fold | nncf full8-maxmin fold | nncf full8-best fold
        quark weight8 | quark weight4 | quark full8-maxmin pc | quark full8-maxmin pc-bc | quark full8-best pc
        aimet weight8 fold | aimet weight4 fold-enh | aimet full8-maxmin fold | aimet full8-best fold
        onnxsim weight8 fold | onnxsim weight4 fold | onnxsim full8-maxmin fold | onnxsim full8-best fold
        inc weight4 | inc full8-maxmin
    """,
    "language": """
        ptqlab weight8 | ptqlab weight8 best | ptqlab weight6 best | ptqlab weight5 best | ptqlab weight4 best
        ptqlab weight4 best-mixed | ptqlab weight3 best | ptqlab weight3 best-mixed
        ptqlab full8-maxmin | ptqlab full8-best
        ptqlab dynamic8 | ptqlab dynamic8 samples | ptqlab dynamic8 acwc-samples
        naive weight8 gather | naive weight4 gather
        ort weight8 b32-gather | ort weight4 b32-gather | ort dynamic8 | ort full8-maxmin
        nncf weight8 sym | nncf weight4 g32 | nncf weight4 g32-se | nncf full8-maxmin
        quark weight8 | quark weight4 | quark dynamic8
        aimet weight8 | aimet weight4 enh
        onnxsim weight8 | onnxsim weight4 | onnxsim dynamic8
        inc weight8 | inc weight4 | inc dynamic8
    """,
}


def tasks(kind: str, tools: Collection[str], modes: Collection[str], variants: Collection[str]) -> list[Task]:
    """Return what is to be measured; empty collections leave nothing out.

    ``full8`` in `modes` means all its ways, ``weight`` all widths; a variant is written as in the table, and ``-``
    means none.
    """
    lines = [part.split() for line in MATRIX[kind].splitlines() for part in line.split("|") if part.strip()]
    return [
        task
        for task in (Task(*parts) for parts in lines)
        if (not tools or task.tool in tools)
        and (not modes or any(task.mode == mode or task.mode.rstrip("0123456789") == mode for mode in _spread(modes)))
        and (not variants or (task.variant or "-") in variants)
    ]


def _spread(modes: Collection[str]) -> list[str]:
    full = [f"full8-{way}" for way in ("maxmin", "kl", "percentile", "best")]
    return [each for mode in modes for each in (full if mode == "full8" else [mode])]
