"""The page about other tools says what its CSV file says, and the command behind it measures and survives."""

from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnxruntime
import pytest

from ptq_lab import demo

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / "benchmarks" / "side_by_side.py"
ADAPTERS = ROOT / "benchmarks" / "peers"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that makes the page."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("peers.page")


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(str(each) for each in arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_page_pictures_and_readme_are_what_the_csv_file_makes_of_them() -> None:
    done = called(COMMAND, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_number_typed_into_the_readme_is_overwritten(page: Any) -> None:
    readme = page.README.read_text(encoding="utf-8")
    table = readme.partition(page.BEGIN)[2].partition(page.END)[0]
    assert table.count("**ptq_lab**") > 1
    typed = readme.replace(table, table.replace(" MB |", "9 MB |"))
    assert typed != readme
    assert page.with_short_table(typed, page.read_rows(page.RESULTS)) == readme


def test_pictures_show_every_usable_row(page: Any) -> None:
    rows = page.read_rows(page.RESULTS)
    for path, axis in page.PICTURES.items():
        drawn = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        tips = [each for each in drawn.iter() if each.tag.endswith("title")]
        assert len(tips) == sum(1 for row in rows if row.usable and axis.value(row) > 0) > 0


def test_no_point_lies_below_and_left_of_the_line(page: Any) -> None:
    picture = importlib.import_module("peers.picture")
    rows = [row for row in page.read_rows(page.RESULTS) if row.usable]
    for model in {row.model for row in rows}:
        some = [row for row in rows if row.model == model]
        best = picture.frontier(some, picture.SIZE)
        for row in some:
            assert row in best or any(each.bytes <= row.bytes and each.error <= row.error for each in best)
        assert all(a.bytes < b.bytes and a.error > b.error for a, b in pairwise(best))


def test_rows_come_back_from_the_file_as_they_were_written(page: Any, tmp_path: Path) -> None:
    module = importlib.import_module("peers.rows")
    rows = page.read_rows(page.RESULTS)
    module.write_rows(tmp_path / "again.csv", rows)
    assert (tmp_path / "again.csv").read_bytes() == page.RESULTS.read_bytes()


def test_our_adapter_writes_a_model_and_one_line_about_it(tmp_path: Path) -> None:
    card, out = demo.load("digits_cnn"), tmp_path / "q.onnx"
    common = ("--model", card.model_path, "--calib", card.calib_path, "--calib-size", "20", "--out", out)
    done = called(ADAPTERS / "peer_ptqlab.py", *common, "--mode", "weight4", "--variant", "balanced")
    last = done.stdout.splitlines()[-1]
    assert last.startswith("PEER_RESULT "), done.stderr
    told = json.loads(last.removeprefix("PEER_RESULT "))
    assert told["ok"] is True
    assert "bit_num=4" in told["notes"]
    assert card.evaluate(onnxruntime.InferenceSession(out)) > 0.9
    assert out.stat().st_size < 0.3 * card.model_path.stat().st_size


def test_an_adapter_that_dies_is_a_row_and_rows_measured_again_replace_it(tmp_path: Path) -> None:
    (tmp_path / "peer_naive.py").write_text("import os\nprint('out of luck', flush=True)\nos.abort()\n")
    results = tmp_path / "r.csv"
    common = ("--models", "digits_cnn", "--only", "naive", "--rounds", "1", "--results", results)
    done = called(COMMAND, *common, "--adapters", tmp_path)
    assert done.returncode == 0, done.stderr
    assert [(row["mode"], row["status"], row["reason"]) for row in rows_of(results)] == [
        ("weight8", "failed", "out of luck"),
        ("weight4", "failed", "out of luck"),
    ]
    assert str(tmp_path) not in results.read_text(encoding="utf-8")
    called(COMMAND, *common, "--modes", "weight8")
    first, second = rows_of(results)
    assert (first["mode"], first["status"]) == ("weight8", "ok")
    assert float(first["cosine"]) > 0.999
    assert float(first["cpu_s"]) > 0
    assert float(first["latency"]) > 0
    assert (second["mode"], second["status"]) == ("weight4", "failed")


def test_what_takes_too_long_is_stopped_and_said(tmp_path: Path) -> None:
    (tmp_path / "peer_naive.py").write_text("import time\ntime.sleep(60)\n")
    results = tmp_path / "r.csv"
    limits = ("--rounds", "2", "--timeout", "1", "--modes", "weight8", "--adapters", tmp_path)
    called(COMMAND, "--models", "digits_cnn", "--only", "naive", "--results", results, *limits)
    (row,) = rows_of(results)
    assert (row["status"], row["reason"]) == ("timed out", "stopped after 1 s")
