"""docs/debug.md names every column, and its quartiles are those of the files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ptq_lab.numerics.description import describe
from ptq_lab.report.debug_files import PARAMETERS, STATISTICS, SUMMARY

TEXT = (Path(__file__).parents[2] / "docs" / "debug.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("title", "columns"),
    [("report_<round>.csv", STATISTICS), ("quant_param.csv", PARAMETERS), ("output_summary.csv", SUMMARY)],
)
def test_every_column_is_described_in_its_order(title: str, columns: tuple[str, ...]) -> None:
    part = TEXT.partition(f"## Columns of `{title}`")[2].partition("\n## ")[0]
    heads = [row.split("|")[1] for row in part.splitlines() if row.startswith("| `")]
    described = [name for head in heads for name in re.findall(r"`(\w+)`", head)]
    assert sorted(described) == sorted(columns)


def test_the_quartiles_are_those_that_are_described() -> None:
    found = describe(np.array([4, 2, 1, 3], np.float32))
    assert f"of 1, 2, 3, 4 they are {found.q1:g}, {found.median:g} and {found.q3:g}" in TEXT.replace("\n", " ")
    values = np.sort(np.random.default_rng(3).normal(size=1003).astype(np.float32))
    found = describe(values)
    assert (found.q1, found.median, found.q3) == tuple(float(values[1003 * k // 4]) for k in (1, 2, 3))
