"""The mixed-bit explorer as a live part, without a page: messages in, traits out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

import ptq_lab
from ptq_lab.notebook.widgets.explorer import BUDGETS, ExplorerPart
from ptq_lab.notebook.widgets.parts import script
from tests.models import model, node, random

Part = ExplorerPart


@pytest.fixture(scope="module")
def digits() -> Any:
    demo = ptq_lab.demo.load("digits_cnn")
    return lambda: ptq_lab.explore(demo.model_path, demo.calib_path)


@pytest.fixture
def part(digits: Any) -> Part:
    return ExplorerPart(digits())


def say(part: Part, do: str, **more: Any) -> dict[str, Any]:
    part.answer({"do": do, "seq": "1", **more})
    return dict(part.said)


def state_size(part: Any) -> int:
    return len(json.dumps(part.get_state(), default=str).encode())


def names(part: Part) -> list[str]:
    """Return the names as a page puts them together."""
    found = [""]
    for (start, end, middle), *_ in part.layers:
        before = found[-1]
        found.append(before[:start] + middle + before[len(before) - end :])
    return found[1:]


def deep_explorer(layers: int) -> ptq_lab.MixedBitExplorer:
    nodes = [
        node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"/encoder/layer.{i}/attention/self/query/MatMul")
        for i in range(layers)
    ]
    weights = {f"w{i}": random(6, 6, seed=i, scale=0.4) for i in range(layers)}
    proto = model(nodes, {"h0": (1, 6)}, [f"h{layers}"], weights)
    return ptq_lab.explore(proto, [{"h0": random(1, 6, seed=0)}])  # what is looked at depends on no sample


def test_a_move_edits_the_explorer_and_answers_with_what_it_predicts(part: Part) -> None:
    say(part, "set", layer=2, bits=3)
    row, prediction = part.explorer.layers[2], part.explorer.predict()
    assert (row.bits, row.pinned) == (3, True)
    assert part.now["bits"][2] == 3
    assert part.now["pins"] == [2]
    assert part.now["seq"] == "1"
    assert part.now["cosine"] == prediction.cosine
    assert part.now["file"] == prediction.file_bytes
    assert part.now["errors"][2] == pytest.approx(row.output_error, rel=5e-3)


def test_zero_bits_keep_a_layer_in_float_and_bits_bring_it_back(part: Part) -> None:
    say(part, "set", layer=1, bits=0)
    assert part.explorer.layers[1].bits is None
    assert part.now["bits"][1] == 0
    assert part.now["errors"][1] == 0
    say(part, "set", layer=1, bits=6)
    assert part.explorer.layers[1].bits == 6


def test_all_layers_in_float_are_an_answer_not_a_fault(part: Part) -> None:
    for index in range(len(part.layers)):
        say(part, "set", layer=index, bits=0)
    assert not part.said.get("bad")
    assert part.now["average"] is None
    assert part.now["cosine"] == 1.0
    json.dumps(part.get_state(), allow_nan=False)  # a page could not read NaN
    said = say(part, "fit", key="average_bits", value=4)
    assert said["bad"]
    assert "nothing to fit" in said["text"]


def test_moves_of_one_gesture_are_one_step_to_undo(part: Part) -> None:
    say(part, "set", layer=0, bits=5)
    for bits in (7, 6, 5, 4):
        say(part, "set", layer=3, bits=bits, gesture="g1")
    for bits in (9, 10):
        say(part, "set", layer=3, bits=bits, gesture="g2")
    assert part.now["steps"] == [3, 0]
    say(part, "undo")
    assert part.now["bits"][3] == 4
    say(part, "undo")
    assert (part.now["bits"][3], part.now["bits"][0]) == (8, 5)
    say(part, "redo")
    assert part.now["bits"][3] == 4


def test_a_gesture_that_comes_back_to_its_start_leaves_the_step_before_it_alone(part: Part) -> None:
    say(part, "set", layer=0, bits=5)
    say(part, "pin", layer=3, on=True)
    for bits in (8, 7, 8, 6, 8):
        say(part, "set", layer=3, bits=bits, gesture="g1")
    assert part.now["steps"][0] == 2
    say(part, "undo")
    assert part.now["pins"] == [0]


def test_a_refused_move_changes_nothing_and_is_said_in_one_line(part: Part) -> None:
    say(part, "fit", key="average_bits", value=5, gesture="b")
    before, steps = part.explorer.widths, part.now["steps"]
    said = say(part, "fit", key="target_size_mb", value=1e-3, gesture="b")
    assert said["bad"]
    assert "cannot be reached" in said["text"]
    assert "\n" not in said["text"]
    assert part.explorer.widths == before
    assert part.now["steps"] == steps


def test_budgets_hold_what_they_promise(part: Part) -> None:
    assert set(BUDGETS) == {"target_size_mb", "average_bits", "min_cosine"}
    say(part, "set", layer=0, bits=12)
    say(part, "fit", key="average_bits", value=4.0)
    assert part.now["average"] <= 4.0
    assert part.now["bits"][0] == 12
    say(part, "fit", key="target_size_mb", value=0.12)
    assert part.now["file"] <= 120_000
    said = say(part, "fit", key="min_cosine", value=0.999)
    assert part.now["cosine"] >= 0.999
    assert "not measured" in said["text"]


def test_verify_tells_the_true_value_and_an_edit_makes_it_unknown_again(part: Part) -> None:
    say(part, "set", layer=4, bits=4)
    said = say(part, "verify")
    assert part.now["measured"] == pytest.approx(part.explorer.verify(), abs=1e-12)
    assert f"{part.now['measured']:.6f}" in said["text"]
    say(part, "set", layer=4, bits=5)
    assert part.now["measured"] is None
    say(part, "undo")
    assert part.now["measured"] is not None


def test_verify_says_when_the_cosine_asked_for_is_missed(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    say(part, "fit", key="min_cosine", value=0.999)
    true = part.explorer.verify()
    assert ("so ask for more" in say(part, "verify")["text"]) == (true < 0.999)
    monkeypatch.setattr(part.explorer, "verify", lambda: 0.9)
    assert "0.999000 was asked for, so ask for more" in say(part, "verify")["text"]


def test_asking_what_float_would_do_changes_nothing_and_foretells_it_exactly(part: Part) -> None:
    before = part.explorer.widths
    said = say(part, "what_if", layer=5)
    assert part.explorer.widths is before
    assert said["offer"] == 5
    say(part, "set", layer=5, bits=0)
    assert f"-> {part.now['cosine']:.6f} expected" in said["text"]
    assert "in float already" in say(part, "what_if", layer=5)["text"]


def test_settling_draws_the_front_and_leaves_the_last_word(part: Part) -> None:
    say(part, "set", layer=2, bits=5)
    say(part, "set", layer=7, bits=0)
    said = dict(part.said)
    say(part, "settle")
    assert part.said == said
    sizes = [point[0] for point in part.front["curve"]]
    errors = [point[1] for point in part.front["curve"]]
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert len(part.front["uniform"]) > 4


def test_the_text_it_hands_out_gives_the_same_widths(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []
    monkeypatch.setattr(part, "send", lambda content, buffers=None: sent.append(content))
    say(part, "set", layer=2, bits=5)
    say(part, "set", layer=7, bits=0)
    say(part, "recipe")
    demo = ptq_lab.demo.load("digits_cnn")
    again = ptq_lab.explore(demo.model_path, demo.calib_path, sent[-1]["recipe"])
    kept = [row.bits for row in part.explorer.layers if row.bits is not None]
    assert [row.bits for row in again.layers] == kept


def test_starting_from_a_rival_takes_its_widths_but_leaves_pins(part: Part) -> None:
    say(part, "settle")
    say(part, "set", layer=0, bits=9)
    said = say(part, "take", label="4 bits")
    assert part.now["bits"] == [9] + [4] * (len(part.layers) - 1)
    assert "1 that are pinned" in said["text"]
    say(part, "free")
    assert part.now["pins"] == []


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": None},
        {"do": "close"},
        {"do": "set"},
        {"do": "set", "layer": 99, "bits": 4},
        {"do": "set", "layer": 0, "bits": 17},
        {"do": "set", "layer": 0, "bits": "x"},
        {"do": "fit", "key": "shell", "value": 1},
        {"do": "fit", "key": "min_cosine", "value": "nan"},
        {"do": "take", "label": "no such"},
    ],
)
def test_a_message_that_makes_no_sense_gets_one_line_and_harms_nothing(part: Part, message: dict[str, Any]) -> None:
    before = part.explorer.widths
    part.answer(message)
    assert part.said["bad"]
    assert part.said["text"]
    assert "\n" not in part.said["text"]
    assert part.explorer.widths is before


def test_an_interrupt_is_told_and_the_part_goes_on(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: Any = None) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(part.explorer, "verify", stopped)
    assert say(part, "verify") == {"text": "stopped", "bad": True}
    say(part, "set", layer=0, bits=4)
    assert part.now["bits"][0] == 4


def test_closing_while_it_runs_breaks_nothing(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    verify = part.explorer.verify

    def closing(samples: Any = None) -> float:
        part.close()
        return verify(samples)

    monkeypatch.setattr(part.explorer, "verify", closing)
    say(part, "verify")
    part.close()
    part.explorer.set_bits(part.explorer.layers[0].tensor, 4)
    say(part, "settle")
    assert part.now["bits"][0] == 4


def test_three_hundred_layers_fit_into_fifty_kilobytes_and_no_weight_is_sent() -> None:
    part = ExplorerPart(deep_explorer(300))
    say(part, "set", layer=299, bits=2)
    say(part, "settle")
    assert names(part) == [row.node for row in part.explorer.layers]
    assert state_size(part) < 50_000
    assert len(script("explorer").encode()) < 20_000


def test_the_state_of_a_demo_is_small(part: Part) -> None:
    say(part, "settle")
    assert state_size(part) < 50_000


def test_a_node_with_two_weights_has_two_rows_that_are_told_apart() -> None:
    from tests.models import recurrent

    tiny = recurrent("LSTM")
    part = ExplorerPart(ptq_lab.explore(tiny.proto, [tiny.feeds]))
    first, second = names(part)
    assert first != second
    say(part, "set", layer=0, bits=0)
    assert part.now["bits"] == [0, 0]  # skip_quant_node keeps all weights of a node in float


def test_the_picture_never_holds_what_a_page_cannot_read(part: Part) -> None:
    say(part, "settle")
    for points in ([p[1] for p in part.front["curve"]], [p[2] for p in part.front["uniform"] + part.front["rule"]]):
        assert all(math.isfinite(error) and error > 0 for error in points)
    json.dumps(part.get_state(), allow_nan=False, default=str)


def test_displaying_it_publishes_the_part_and_a_twin_without_scripts(shell: Any) -> None:
    shell.outputs_of("explorer = __import__('ptq_lab').explore(demo.model_path, demo.calib_path)")
    for cell in ("explorer.widget()", "%quantize_explore explorer"):
        bundles = [output.data for output in shell.outputs_of(cell)]
        assert sum("application/vnd.jupyter.widget-view+json" in bundle for bundle in bundles) == 1
        (twin,) = [bundle["text/html"] for bundle in bundles if "text/html" in bundle]
        assert "ptq-stays" in twin
        assert "Run the cell again" in twin
        assert "<table" in twin
        assert "<svg" in twin
        assert "<script" not in twin


def test_edits_from_code_show_in_the_part_after_the_cell(shell: Any) -> None:
    shell.outputs_of("%quantize_explore demo.model_path --samples demo.calib_path -r explorer")
    shell.outputs_of("part = explorer.widget()")
    shell.outputs_of("_ = explorer.set_bits(explorer.layers[0].tensor, 3)")
    part = shell.user_ns["part"]
    assert part.now["bits"][0] == 3
    part.close()
    shell.outputs_of("_ = explorer.undo()")
    assert part.now["bits"][0] == 3


def test_interact_measures_what_the_cell_says_and_leaves_the_explorer_in_the_variable(shell: Any, cell: Any) -> None:
    shell.outputs_of(cell("demo.model_path --samples demo.calib_path --interact -r explorer", bits=5))
    assert {row.bits for row in shell.user_ns["explorer"].layers} == {5}


def test_the_default_says_that_thin_weights_are_among_the_layers(digits: Any) -> None:
    assert any("16 channels or fewer" in note for note in digits().notes)
    demo = ptq_lab.demo.load("digits_cnn")
    config = "[common_quant_param]\nquant_type=WEIGHT_QUANT\n"
    assert not any("16 channels or fewer" in n for n in ptq_lab.explore(demo.model_path, demo.calib_path, config).notes)


def test_a_model_without_weights_is_refused_in_one_line(shell: Any) -> None:
    proto = model([node("Relu", ["x"], ["y"])], {"x": (1, 4)}, ["y"])
    shell.user_ns["bare"] = proto
    with pytest.raises(ptq_lab.ModelError, match="no weight can be quantized"):
        shell.outputs_of("%quantize_explore bare")
