"""What was displayed last, by mime type and size, so that ``%quantize_doctor`` can tell what a front end was sent."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

Sizes = dict[str, int]  # bytes by mime type

_KEPT = 8
_last: deque[Sizes] = deque(maxlen=_KEPT)


def remember(bundle: Mapping[str, Any]) -> None:
    """Note the mime types of a bundle and their sizes in bytes.

    Examples
    --------
    >>> forget()
    >>> remember({"text/plain": "five!", "application/json": {"a": 1}})
    >>> last_displayed()
    ({'text/plain': 5, 'application/json': 8},)
    """
    _last.append({kind: len(_text(value).encode()) for kind, value in bundle.items()})


def last_displayed() -> tuple[Sizes, ...]:
    """Return what was displayed last, the latest at the end."""
    return tuple(_last)


def forget() -> None:
    """Forget it."""
    _last.clear()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
