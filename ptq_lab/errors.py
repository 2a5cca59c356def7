"""Every error a user can cause, as one tree.

::

    PtqLabError
    ├── ConfigError(ValueError)         .problems   what is wrong in the configuration, all of it at once
    ├── ModelError(ValueError)          .node .tensor
    ├── SampleError(ValueError)         .path       samples missing, too few, of the wrong shape or kind
    ├── PlanError(ValueError)           .tensor     an edited plan does not fit the model
    ├── InferenceError(RuntimeError)                onnxruntime refused or failed; keeps __cause__
    ├── OutputError(OSError)            .path       the result cannot be written
    ├── NotImplementedYet(NotImplementedError)      an option whose implementation has not landed
    └── MissingExtra(ImportError)                   a part that ``pip install "ptq-lab[lab]"`` brings

Messages read *where: what is wrong with the value seen, what is allowed; hint*. In IPython every one of
them prints as that one line (or one line per problem), without a traceback, and still stops Run All.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing the author of a configuration should know.

    Attributes
    ----------
    message : str
        What is wrong with the value seen, and what is allowed.
    level : {"error", "warning", "note"}
        An error stops the run; a warning says that something surely is not meant; a note informs.
    line, column : int
        Where, counted from 1; 0 when the value did not come from text.
    end_column : int
        One past the last column of what is meant; 0 when unknown.
    section, key : str
        The INI section and key, empty where there is none.
    hint : str
        What to try, e.g. ``"did you mean bit_num?"``.
    suggestion : str
        The bare replacement for what stands at line/column, when there is exactly one.

    Examples
    --------
    >>> print(Problem(line=5, section="common_quant_param", key="bit_num", message="32 is outside 0..16"))
    line 5: [common_quant_param] bit_num: 32 is outside 0..16
    """

    message: str
    level: Level = "error"
    line: int = 0
    column: int = 0
    end_column: int = 0
    section: str = ""
    key: str = ""
    hint: str = ""
    suggestion: str = ""

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line else ""
        section = f"[{self.section}] " if self.section else ""
        key = f"{self.key}: " if self.key else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{line}{section}{key}{self.message}{hint}"


class PtqLabError(Exception):
    """The root: catch this to catch everything that is the input's fault."""

    def _render_traceback_(self, *args: object) -> list[str]:
        """Let IPython print the message alone (its documented hook; harmless elsewhere)."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(PtqLabError, ValueError):
    """The configuration cannot be used; ``problems`` holds every reason, in the order of the text."""

    def __init__(self, problems: Sequence[Problem], *, source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        lines = [str(problem) for problem in self.problems]
        super().__init__("\n".join(f"{source}: {line}" if source else line for line in lines))


class ModelError(PtqLabError, ValueError):
    """The model cannot be read, or cannot be quantized as asked."""

    def __init__(self, message: str, *, node: str = "", tensor: str = "") -> None:
        super().__init__(message)
        self.node = node
        self.tensor = tensor


class SampleError(PtqLabError, ValueError):
    """The samples are missing, too few, unreadable, or do not fit the model's inputs."""

    def __init__(self, message: str, *, path: Path | str = "") -> None:
        super().__init__(message)
        self.path = path


class PlanError(PtqLabError, ValueError):
    """A plan asks for something its model does not have or its storage cannot hold."""

    def __init__(self, message: str, *, tensor: str = "") -> None:
        super().__init__(message)
        self.tensor = tensor


class InferenceError(PtqLabError, RuntimeError):
    """onnxruntime refused to load a model or failed while running it."""


class OutputError(PtqLabError, OSError):
    """The result cannot be written where it was asked for."""

    def __init__(self, message: str, *, path: Path | str = "") -> None:
        super().__init__(message)
        self.path = path

    def __str__(self) -> str:
        return str(self.args[0])


class NotImplementedYet(PtqLabError, NotImplementedError):  # noqa: N818 - reads as a sentence where it is raised
    """An option of the dialect that is declared and checked, but does nothing so far."""


class MissingExtra(PtqLabError, ImportError):  # noqa: N818 - the same
    """A part of ptq_lab needs packages of an extra that is not installed."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(f'{part} needs packages that are not installed; run: pip install "ptq-lab[{extra}]"')
