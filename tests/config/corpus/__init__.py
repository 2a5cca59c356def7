"""Configurations, valid and broken, and the problems that both checkers must find in them.

``python -m tests.config.corpus`` writes ``expected.json`` again, from what Python's checker says.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ptq_lab.checking import check

FOLDER = Path(__file__).parent
EXPECTED = FOLDER / "expected.json"


def configs() -> dict[str, str]:
    """Return the text of every configuration by its file name; line ends as they are in the file."""
    return {path.name: path.read_bytes().decode() for path in sorted(FOLDER.glob("*.cfg"))}


def expected_text() -> str:
    """Return what ``expected.json`` must hold."""
    found = {name: [asdict(problem) for problem in check(text)] for name, text in configs().items()}
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
