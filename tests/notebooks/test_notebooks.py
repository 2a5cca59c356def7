"""Every notebook of the ladder runs from top to bottom and stays small."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

import ptq_lab

ROOT = Path(ptq_lab.__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
VIEW = "application/vnd.jupyter.widget-view+json"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@dataclass(frozen=True, slots=True)
class Executed:
    """A notebook with its outputs, and the folder it ran in."""

    notebook: nbformat.NotebookNode
    folder: Path


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Executed]:
    """Return what runs a notebook by name; all tests that look at it share one run."""

    @cache
    def run(name: str) -> Executed:
        folder = tmp_path_factory.mktemp(name)
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        client = NotebookClient(
            notebook,
            timeout=300,  # for a cell; one that sweeps takes minutes on a busy machine
            kernel_name="python3",
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")})
        return Executed(notebook, folder)

    return run


def bundles_of(notebook: nbformat.NotebookNode) -> list[dict]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    return [output.data for output in outputs if "data" in output]


def test_the_ladder_has_its_first_rung() -> None:
    assert [path.name for path in NOTEBOOKS][:2] == ["00_what_is_quantization.ipynb", "01_quickstart.ipynb"]


@every_notebook
def test_a_notebook_is_stored_without_outputs_and_is_valid(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.notebook
@every_notebook
def test_a_notebook_runs_and_its_results_survive_without_scripts_and_widgets(
    path: Path, executed: Callable[[str], Executed]
) -> None:
    notebook = executed(path.stem).notebook
    bundles = bundles_of(notebook)
    assert all("text/plain" in bundle for bundle in bundles)
    assert all("text/html" in bundle for bundle in bundles if PLOTLY in bundle)
    assert not any("<script" in bundle.get("text/html", "") for bundle in bundles)
    assert "widgets" not in notebook.metadata
    for place, bundle in enumerate(bundles):  # a live part is followed by what stays of it without a kernel
        assert VIEW not in bundle or "ptq-stays" in bundles[place + 1]["text/html"]
    assert len(nbformat.writes(notebook).encode()) < 400_000


@pytest.mark.notebook
def test_weight_quantization_compares_widths_shows_a_plan_and_prints_code(executed: Callable[[str], Executed]) -> None:
    run = executed("02_weight_quantization")
    notebook = run.notebook
    said = [bundle["text/plain"] for bundle in bundles_of(notebook)]
    widths, ways = (text for text in said if "1 - cosine on evaluation" in text)
    errors = re.search(r"1 - cosine on calibration +(\S+) +(\S+) +(\S+)", widths)
    assert errors is not None
    eight, four, three = map(float, errors.groups())
    assert eight < four < three
    assert "[weight_quant_param] per_channel      true" in ways
    assert sum("'sten' matches no node" in text for text in said) == 1
    assert sum("min_quant_weight_channel=16" in text and "block7/depthwise/Conv" in text for text in said) == 1
    assert sum("ptq-lab convert" in text and "output='digits_4_bits.onnx'" in text for text in said) == 1
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    rows = re.findall(r"([\d.]+)% per channel +([\d.]+)% per layer", printed)
    assert len(rows) == 5
    assert all(float(fine) < float(shared) for fine, shared in rows)
    assert (run.folder / "digits_4_bits.onnx").exists()


@pytest.mark.notebook
def test_the_lesson_asks_before_it_shows_and_its_words_agree_with_what_it_measures(
    executed: Callable[[str], Executed],
) -> None:
    notebook = executed("00_what_is_quantization").notebook
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    questions = [cell for cell in notebook.cells if "**Question.**" in cell.source]
    answers = [cell for cell in notebook.cells if "<details>" in cell.source]
    guesses = [cell for cell in notebook.cells if cell.source.startswith("guess = None")]
    assert len(questions) == len(answers) == len(guesses) == said.count("measured: ") == 8
    assert sum(VIEW in bundle for bundle in bundles_of(notebook)) == 7

    off = dict(re.findall(r"(0\.7|2\.9) is off by ([+-][0-9.]+)", said))
    assert abs(float(off["2.9"])) > float(re.findall(r"half a step is ([0-9.]+)", said)[0]) > abs(float(off["0.7"]))
    assert all(
        float(place) < 60 for place in re.findall(r"^[42] bits: .* best threshold .* at (\d+)%", said, re.MULTILINE)
    )
    assert all(5.8 < float(slope) < 6.2 for slope in re.findall(r"([0-9.]+) dB per bit[,\n]", said))
    assert float(re.findall(r"measured: ([0-9.]+) times", said)[0]) > 3
    scores = dict(re.findall(r"calibrated on digits (as they are|too faint) +top-1 ([0-9.]+)", said))
    assert float(scores["as they are"]) > 0.98 > 0.7 > float(scores["too faint"])
    assert re.search(r"first drop of more than one point at [23] bits", said)


@pytest.mark.notebook
def test_the_lesson_can_be_read_as_a_page_without_scripts(executed: Callable[[str], Executed]) -> None:
    notebook = executed("00_what_is_quantization").notebook
    page, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    for words in ("<summary>Answer</summary>", "scale 0.4286", "best threshold", "bits per weight", "against the true"):
        assert words in page
    assert page.count("data:image/png;base64,") >= 5
    assert "widget-view" not in page


@pytest.mark.notebook
def test_full_quantization_shows_integer_layers_ranges_a_threshold_and_a_layer_left_in_float(
    executed: Callable[[str], Executed],
) -> None:
    bundles = bundles_of(executed("03_full_quantization").notebook)
    titles = [bundle[PLOTLY]["layout"]["title"]["text"] for bundle in bundles if PLOTLY in bundle]
    assert sum(title.startswith("Range of every activation tensor") for title in titles) == 3
    assert sum("non-zero values cut off" in title for title in titles) == 1
    reports = [bundle for bundle in bundles if "layers run as int8" in bundle["text/plain"]]
    assert ["16 of 16" in report["text/plain"] for report in reports] == [True, True, False]
    assert "15 of 15 layers run as int8" in reports[2]["text/plain"]
    assert "skip_quant_node=block1/depthwise/Conv" in reports[2]["text/plain"]
    assert all("data:image/png;base64," in report["text/html"] for report in reports)


@pytest.mark.notebook
def test_dynamic_quantization_compares_strategies_and_shows_what_they_cost_and_lose(
    executed: Callable[[str], Executed],
) -> None:
    notebook = executed("06_dynamic_quantization").notebook
    bundles = bundles_of(notebook)
    reports = [bundle for bundle in bundles if "activations quantized at run time" in bundle["text/plain"]]
    said = [report["text/plain"] for report in reports]
    assert [text.splitlines()[0] for text in said] == [
        f"model.onnx: DYNAMIC_QUANT {strategy}, 8 bits" for strategy in ("ALWC", "ACWL", "ACWC", "ALWC")
    ]
    assert ["17 products computed in int8" in text for text in said] == [True, False, False, True]
    assert ["4 products of two activations stayed float" in text for text in said] == [False, True, True, False]
    assert ["WEIGHT_QUANT, 8 bits" in text for text in said] == [True, False, False, False]
    assert ["not measured: no samples were given" in text for text in said] == [True, True, True, False]
    assert "<- lowest" in said[3]
    assert "smoothed with alpha" in said[3]
    assert all("Memory compared to FP32" in report["text/html"] for report in reports)
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    cosines = dict(re.findall(r"^(plain|smoothed) +cosine ([0-9.]+)", printed, flags=re.MULTILINE))
    assert float(cosines["plain"]) < float(cosines["smoothed"])
    assert len(re.findall(r"^(?:ALWC|ACWL|ACWC) +0\.9", printed, flags=re.MULTILINE)) == 3


@pytest.mark.notebook
def test_the_quickstart_shows_two_reports_a_warning_and_leaves_its_files(executed: Callable[[str], Executed]) -> None:
    run = executed("01_quickstart")
    notebook = run.notebook
    bundles = bundles_of(notebook)
    assert len(notebook.cells) < 10
    assert (
        sum(PLOTLY in bundle for bundle in bundles) == 7
    )  # layers, answers and sizes of two runs, and the steps of one
    assert sum("Left in float" in bundle.get("text/html", "") for bundle in bundles) == 2
    assert any(
        "weight_quant_params" in bundle["text/plain"] and "warning" in bundle["text/plain"] for bundle in bundles
    )
    assert list((run.folder / "digits_4_bits").glob("*.onnx"))
    assert (run.folder / "digits_4_bits.html").stat().st_size > 4_000_000


@pytest.mark.notebook
def test_mixed_bits_compares_three_ways_draws_the_front_and_writes_what_it_chose(
    executed: Callable[[str], Executed],
) -> None:
    run = executed("04_mixed_bits")
    notebook = run.notebook
    bundles = bundles_of(notebook)
    (figure,) = [bundle[PLOTLY] for bundle in bundles if PLOTLY in bundle]
    names = {trace["name"] for trace in figure["data"]}
    assert names == {"best for its size", "one width for all", "the original's rule", "verified", "now"}
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    rows = [line.split() for line in said.splitlines() if " kB " in line and ("bits " in line or "init_scale" in line)]
    errors = [(float(row[-2]), float(row[-1])) for row in rows if row[3] == "kB"]
    assert len(errors) == 6
    assert all(ours < theirs for theirs, ours in errors)
    assert "50.0 kB cannot be reached" in said
    assert "the same widths: True" in said
    assert (run.folder / "digits_mixed.onnx").exists()


@pytest.mark.notebook
def test_low_bits_lose_with_every_bit_less_by_rounding_and_much_less_at_the_best_effort(
    executed: Callable[[str], Executed],
) -> None:
    notebook = executed("08_low_bits").notebook
    bundles = bundles_of(notebook)
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    rows = re.findall(r"^ +(\d) +[\d.]+ kB +([\d.]+) +([\d.]+) +([\d.]+) ", said, re.MULTILINE)
    sweep = {int(bits): tuple(map(float, psnr)) for bits, *psnr in rows}
    assert list(sweep) == [8, 6, 4, 3, 2]
    fast = [psnr[0] for psnr in sweep.values()]
    assert fast == sorted(fast, reverse=True)
    assert all(psnr[2] > max(psnr[:2]) for bits, psnr in sweep.items() if bits < 8)
    assert max(sweep[8]) - min(sweep[8]) < 0.1
    assert sweep[2][2] - sweep[2][0] > 5

    steps = re.findall(r"^([a-zA-Z0-9. ]{10}) +([\d.]+) 0\.\d+ +([\d.]+) 0\.\d+$", said, re.MULTILINE)
    ladders = {name.strip(): (float(three), float(two)) for name, three, two in steps}
    assert list(ladders) == ["rounding", "biases", "gains", "ranges", "GPTQ", "sweeps", "scales", "blend 0.5", "best"]
    assert ladders["rounding"] == (sweep[3][0], sweep[2][0])
    for at in (0, 1):  # W3, W2
        assert ladders["rounding"][at] < ladders["biases"][at] < ladders["ranges"][at] < ladders["GPTQ"][at]
        assert ladders["blend 0.5"][at] > ladders["GPTQ"][at]

    answers = re.findall(r"^ +([42])  (fast|balanced|best) +([\d.]+) ", said, re.MULTILINE)
    top1 = {(bits, effort): float(share) for bits, effort, share in answers}
    assert len(top1) == 6
    assert top1["2", "best"] > top1["2", "fast"] + 0.1
    (gallery,) = [bundle for bundle in bundles if "One picture through 8 runs" in bundle.get("text/html", "")]
    assert gallery["text/html"].count("data:image/png;base64,") == 3 + 2 * 8
    (figure,) = [bundle[PLOTLY] for bundle in bundles if PLOTLY in bundle]
    before, after = (trace["y"] for trace in figure["data"])
    assert max(after) < min(0.1, max(before))


@pytest.mark.notebook
def test_storage_shows_where_bytes_are_what_codes_are_worth_and_loads_what_it_packed(
    executed: Callable[[str], Executed],
) -> None:
    notebook = executed("05_storage").notebook
    bundles = bundles_of(notebook)
    (sizes, bits) = [bundle for bundle in bundles if PLOTLY in bundle]
    assert "Where the bytes are" in sizes[PLOTLY]["layout"]["title"]["text"]
    assert {trace["name"] for trace in bits[PLOTLY]["data"]} >= {"packed", "coded, with scales", "Shannon bound"}
    assert "Shannon bound" in bits["text/html"]
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    files = dict(re.findall(r"^digits\.(onnx|ptqz) +([\d,]+) bytes", said, re.MULTILINE))
    assert int(files["ptqz"].replace(",", "")) < 0.9 * int(files["onnx"].replace(",", ""))
    rows = re.findall(r"^ +(\d) +([\d.]+) +([\d.]+) +([\d.]+)$", said, re.MULTILINE)
    assert len(rows) == 5
    assert all(float(bound) < float(entropy) < float(width) for width, entropy, _, bound in rows)
    ways = re.findall(r"^\d bits +([\d,]+) +([\d.]+) +([\d,]+) +([\d.]+) +\d+ of \d+", said, re.MULTILINE)
    assert len(ways) == 3
    for grids, error, chosen, ours in ways:
        assert int(chosen.replace(",", "")) < int(grids.replace(",", ""))
        assert float(ours) <= float(error)
    assert "the same answers to the last bit: True" in said
    assert "packed and unpacked, the same file: True" in said
    assert re.search(r"damaged\.ptqz: the tensor \S+ cannot be decoded: its checksum is wrong", said)
