"""Did you mean: the one candidate a mistyped word most likely stands for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.6  # difflib's own default: lets one letter in three be wrong
_PART = 4  # shorter parts of a word say nothing


def closest(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that is meant, or ``""`` when none is near enough.

    Upper and lower case, blanks and dashes count as equal first; then spelling; then a part that only one
    candidate contains.

    Parameters
    ----------
    word : str
        What was written.
    candidates : iterable of str
        What could have been written.

    Returns
    -------
    str
        One of the candidates, or empty.

    Examples
    --------
    >>> closest("bit_nums", ["bit_num", "quant_type"]), closest("preprocess", ["data_preprocess_param"])
    ('bit_num', 'data_preprocess_param')
    >>> closest("zebra", ["bit_num"])
    ''
    """
    folded: dict[str, str] = {}
    for candidate in candidates:
        folded.setdefault(_fold(candidate), candidate)
    target = _fold(word)
    if target in folded:
        return folded[target]
    near = difflib.get_close_matches(target, folded, n=1, cutoff=_CUTOFF)
    if near:
        return folded[near[0]]
    containing = [name for name in folded if target in name] if len(target) >= _PART else []
    return folded[containing[0]] if len(containing) == 1 else ""


def _fold(word: str) -> str:
    return word.strip().casefold().replace("-", "_").replace(" ", "_")
