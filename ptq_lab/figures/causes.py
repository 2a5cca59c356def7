"""A diagnosis as HTML that needs no script: causes with their evidence, and what to edit as INI text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptq_lab.figures.depth import depth_html
from ptq_lab.figures.errors import errors_html
from ptq_lab.figures.tables import render
from ptq_lab.report.diagnosis import Cause, Edit
from ptq_lab.report.findings import Explanation
from ptq_lab.report.text import shorten

_NAMED = 3
_NAME = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class CauseView:
    """One cause in words; `first` are a few places, `others` the rest of them."""

    kind: str
    evidence: str
    first: str
    others: Sequence[str]
    edit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplanationView:
    """All causes, and what was looked at."""

    looked_at: str
    causes: tuple[CauseView, ...]


def explanation_html(found: Explanation, *, pictures: bool = True) -> str:
    """Return causes, the error along the depth and the most harmful layers as one script-free piece of HTML.

    Parameters
    ----------
    found : Explanation
    pictures : bool
        Whether to show more than the causes.

    Examples
    --------
    >>> from ptq_lab.report.rows import ErrorRow
    >>> from ptq_lab.report.tables import Table
    >>> cause = Cause(kind="bias shift", nodes=("a<b>",), evidence="..", harm=1.0, edits=(Edit("s", "k", "v"),))
    >>> html = explanation_html(Explanation(Table(ErrorRow), (cause,)))
    >>> "a&lt;b&gt;" in html, "[s]" in html, "<script" in html
    (True, True, False)
    """
    pictures = pictures and bool(found.errors)
    depth, errors = (depth_html(found), errors_html(found)) if pictures else ("", "")
    return render("explanation", view=view_causes(found), pictures=pictures, depth=depth, errors=errors)


def view_causes(found: Explanation) -> ExplanationView:
    """Turn an explanation into words."""
    looked_at = f"Looked at {found.looked_at}" if found.looked_at else ""
    looked_at += f"; for the evaluation, at {found.evaluated_on}" if found.evaluated_on else ""
    return ExplanationView(looked_at=looked_at, causes=tuple(map(_cause, found.causes)))


def ini_text(edits: Sequence[Edit]) -> str:
    """Return edits as the lines of a configuration.

    Examples
    --------
    >>> print(ini_text([Edit("full_quant_param", "per_channel", "true"), Edit("ptq_lab", "equalize", "true")]))
    [full_quant_param]
    per_channel=true
    [ptq_lab]
    equalize=true
    """
    lines, section = [], ""
    for edit in edits:
        if edit.section != section:
            section = edit.section
            lines.append(f"[{section}]")
        lines.append(f"{edit.key}={edit.value}")
    return "\n".join(lines)


def _cause(cause: Cause) -> CauseView:
    names = [shorten(node, _NAME) for node in cause.nodes]
    return CauseView(
        kind=cause.kind,
        evidence=cause.evidence,
        first=", ".join(names[:_NAMED]),
        others=names[_NAMED:],
        edit=ini_text(cause.edits),
    )
