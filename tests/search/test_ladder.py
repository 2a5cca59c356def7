"""The quality ladder: every rung is nearer to the float model, or it is dropped, and what cannot be helped is left."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import ptq_lab
from ptq_lab import demo
from ptq_lab.calibration import Samples, open_samples
from ptq_lab.errors import SampleError
from ptq_lab.graph import Model, Rules, apply_plan, find_targets, load_model
from ptq_lab.plan import QuantPlan, make_plan, round_weights
from ptq_lab.progress import Step
from ptq_lab.report.text import render_text
from ptq_lab.search.judging import output_error, outputs_of
from ptq_lab.search.ladder import improve_weights
from ptq_lab.search.layer_inputs import find_linear, read_layer
from ptq_lab.search.layer_rounding import Recipe
from ptq_lab.search.twins import Twins
from ptq_lab.weight_effort import RECIPES
from tests.models import model, node, random
from tests.search.test_bias_correction import EVERY, GRAPHS, convolutions
from tests.search.transformers import sentences

BEST, BALANCED = RECIPES["best"], RECIPES["balanced"]


def rounded(proto: onnx.ModelProto, bits: int, *, per_channel: bool = True) -> tuple[Model, QuantPlan]:
    """Return a float model, and its plan with weights at their nearest steps."""
    before = load_model(proto)
    plan = make_plan(find_targets(before, Rules(min_channels=0)), bits=bits, per_channel=per_channel)
    return before, round_weights(plan, before.weight)


def many(name: str) -> tuple[onnx.ModelProto, Samples, Samples]:
    """Return a graph, samples to learn from and samples to judge by."""
    proto, _ = GRAPHS[name]()
    if name == "convolutions":
        found = [{"x": random(1, 3, 11, 10, seed=100 + index)} for index in range(72)]
        samples = open_samples(found, load_model(proto).inputs)
    else:
        samples = sentences(proto, 72)
    return proto, samples.part(0, 48), samples.part(48, 72)


def error_of(before: Model, plan: QuantPlan, samples: Samples) -> float:
    return output_error(outputs_of(before, list(samples)), outputs_of(apply_plan(before, plan), list(samples)))


@EVERY
@pytest.mark.parametrize("bits", [3, 6])
def test_each_rung_is_nearer_to_the_float_model_on_samples_not_seen(name: str, bits: int) -> None:
    proto, fit, judges = many(name)
    before, plan = rounded(proto, bits)
    plans = [plan, *(improve_weights(plan, before, list(fit), recipe).plan for recipe in (BALANCED, BEST))]
    errors = [error_of(before, each, judges) for each in plans]
    assert errors[1] < errors[0]
    assert errors[2] < 0.8 * errors[1]


@EVERY
def test_a_step_is_kept_only_where_the_error_on_held_out_samples_falls(name: str) -> None:
    proto, fit, _ = many(name)
    before, plan = rounded(proto, 4)
    for layer in improve_weights(plan, before, list(fit), BEST).layers:
        assert layer.steps
        error = layer.steps[0].before
        for step in layer.steps:
            assert step.before == error
            error = step.after if step.kept else error
        assert error < layer.steps[0].before


@pytest.mark.parametrize("name", ["convolutions", "bias behind"])
def test_the_result_does_not_depend_on_how_much_is_kept_in_memory(name: str) -> None:
    proto, fit, _ = many(name)
    before, plan = rounded(proto, 3)
    files = []
    for memory in (0, 20_000, 1 << 30):
        better = improve_weights(plan, before, list(fit), BEST, memory=memory).plan
        files.append(apply_plan(before, better).serialize())
    assert files[0] == files[1] == files[2]


_RUN = """
import hashlib, sys, numpy, ptq_lab
from ptq_lab import demo
card = demo.load("digits_transformer")
few = [{"tokens": tokens} for tokens in numpy.load(card.calib_path)["tokens"][:48]]  # all steps, a third of the work
config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 3}, "ptq_lab": {"effort": "best"}}
result = ptq_lab.quantize(card.model_path, config, samples=few)
assert "weights" in str(result.report.summary.notes)
print(hashlib.sha256(result.model_path.read_bytes()).hexdigest())
"""


def test_the_same_bytes_come_out_whatever_the_number_of_threads() -> None:
    found = []
    for threads in ("1", "2", "7"):
        given = {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", _RUN], env={**os.environ, **given}, capture_output=True, text=True, check=True
        )
        found.append(done.stdout)
    assert len(set(found)) == 1


def test_an_interrupt_keeps_the_layers_that_are_done() -> None:
    proto, fit, _ = many("convolutions")
    before, plan = rounded(proto, 3)

    def stop(step: Step) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    found = improve_weights(plan, before, list(fit), BEST, progress=stop)
    whole = improve_weights(plan, before, list(fit), BEST)
    assert found.stopped
    assert not whole.stopped
    assert len(found.layers) == 2
    changed = [new.weight is not old.weight for new, old in zip(found.plan.entries, plan.entries, strict=True)]
    assert changed == [True, True, False, False, False]
    for entry, other in zip(found.plan.entries[:2], whole.plan.entries[:2], strict=True):
        assert entry.weight is not None
        assert other.weight is not None
        assert np.array_equal(entry.weight.codes, other.weight.codes)


def test_a_layer_that_reads_nan_is_left_alone_and_says_so() -> None:
    nodes = [
        node("Conv", ["x", "w0"], ["c0"]),
        node("Sqrt", ["c0"], ["s"]),
        node("Conv", ["s", "w1"], ["c1"]),
        node("Conv", ["x", "w2"], ["c2"]),
        node("Add", ["c1", "c2"], ["y"]),
    ]
    weights = {f"w{index}": random(4, channels, 1, 1, seed=index) for index, channels in enumerate((3, 4, 3))}
    before, plan = rounded(model(nodes, {"x": (1, 3, 6, 6)}, ["y"], weights), 3)
    feeds = [{"x": random(1, 3, 6, 6, seed=index)} for index in range(24)]
    found = improve_weights(plan, before, feeds, BEST)
    reasons = {layer.node: layer.reason for layer in found.layers}
    assert reasons == {"/c0/Conv": "", "/c1/Conv": "it reads NaN or infinite values", "/c2/Conv": ""}
    assert found.plan["w1"].weight is plan["w1"].weight
    assert found.plan["w2"].weight is not plan["w2"].weight


def test_dead_inputs_zero_channels_and_fewer_positions_than_inputs_are_borne() -> None:
    weight = random(6, 40, seed=3)
    weight[2] = 0.0
    proto = model([node("Gemm", ["x", "w"], ["y"], transB=1)], {"x": (1, 40)}, ["y"], {"w": weight})
    before, plan = rounded(proto, 3)
    feeds = [{"x": random(1, 40, seed=index) * (np.arange(40) % 3 > 0)} for index in range(24)]
    fit, judges = feeds[:16], open_samples(feeds[16:], before.inputs)
    found = improve_weights(plan, before, [{"x": each["x"].astype(np.float32)} for each in fit], BEST).plan
    assert error_of(before, found, judges) < 0.02
    written = outputs_of(apply_plan(before, found), list(judges))
    assert all(np.isfinite(each["y"]).all() for each in written)


def test_a_weight_that_two_layers_share_fits_neither_alone_and_keeps_one_set_of_codes() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["a"]),
        node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "w"], ["g"]),
        node("Add", ["g", "c"], ["y"]),
    ]
    weights = {"w": random(12, 12), "b": random(12, seed=1), "c": random(12, seed=2)}
    before, plan = rounded(model(nodes, {"x": (1, 5, 12)}, ["y"], weights), 3)
    feeds = [{"x": random(1, 5, 12, seed=index)} for index in range(40)]
    judges = open_samples(feeds[32:], before.inputs)
    found = improve_weights(plan, before, feeds[:32], BEST).plan
    assert len(found.entries) == 1
    assert error_of(before, found, judges) < error_of(before, plan, judges)


def test_one_scale_for_a_tensor_stays_one_scale() -> None:
    proto, fit, judges = many("convolutions")
    before, plan = rounded(proto, 5, per_channel=False)
    found = improve_weights(plan, before, list(fit), BEST).plan
    assert all(entry.weight is not None and entry.weight.scale.shape == () for entry in found.entries)
    assert error_of(before, found, judges) < error_of(before, plan, judges)


def test_one_scale_for_a_tensor_comes_with_balanced_ranges_unless_that_is_switched_off(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "v"], ["c"]),
        node("Relu", ["c"], ["h"]),
        node("Conv", ["h", "w"], ["y"]),
    ]
    spread = np.logspace(-2, 2, 8, dtype=np.float32)
    weights = {"v": random(8, 3, 1, 1) * spread[:, None, None, None], "w": random(4, 8, 1, 1) / spread[:, None, None]}
    proto = model(nodes, {"x": (1, 3, 6, 6)}, ["y"], weights)
    samples = [{"x": random(1, 3, 6, 6, seed=index)} for index in range(40)]
    cosines = {}
    for equalize in (True, False):
        config: dict[str, dict[str, object]] = {
            "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 6, "min_quant_weight_channel": 0},
            "weight_quant_param": {"per_channel": False},
            "ptq_lab": {"equalize": equalize},
        }
        result = ptq_lab.quantize(proto, config, tmp_path / f"{equalize}.onnx", samples=samples)
        cosines[equalize] = result.report.summary.cosine_mean
        assert any("balanced between layers" in note for note in result.report.summary.notes) == equalize
    assert 1 - cosines[True] < 0.5 * (1 - cosines[False])


def test_without_offsets_none_are_stored_and_the_file_is_smaller() -> None:
    proto, fit, judges = many("convolutions")
    before, plan = rounded(proto, 5)
    found = improve_weights(plan, before, list(fit), replace(BEST, offsets=0)).plan
    assert all(entry.weight is not None and not entry.weight.offset.any() for entry in found.entries)
    assert error_of(before, found, judges) < error_of(before, plan, judges)
    channels = sum(entry.channels for entry in plan.entries)
    assert sum(e.bytes_after for e in plan.entries) - sum(e.bytes_after for e in found.entries) == 4 * channels


def test_a_recipe_without_steps_changes_nothing() -> None:
    proto, fit, _ = many("convolutions")
    before, plan = rounded(proto, 4)
    found = improve_weights(plan, before, list(fit), RECIPES["fast"])
    assert [entry.weight for entry in found.plan.entries] == [entry.weight for entry in plan.entries]
    assert found.plan.biases == {}


def quantize(folder: Path, *, count: int | None = None, same: bool = False, **lab: Any) -> ptq_lab.QuantResult:
    """Quantize the convolutions to 4 bits, with some samples of their own or with none."""
    proto, _ = convolutions()
    given = [{"x": random(1, 3, 11, 10, seed=7 if same else index)} for index in range(count or 0)]
    weight = lab.pop("weight", {})
    config = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 4, "min_quant_weight_channel": 0},
        "weight_quant_param": weight,
        "ptq_lab": lab.pop("effort", {}),
        "ptq_lab.weights": lab,
    }
    folder.mkdir(exist_ok=True)
    return ptq_lab.quantize(proto, config, folder / "q.onnx", samples=given or None)


def weights_of(result: ptq_lab.QuantResult) -> list[bytes]:
    """Return everything that a model stores, apart from what it says about itself."""
    proto = onnx.load(result.model_path)
    return [array.SerializeToString() for array in proto.graph.initializer]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": 5}, "5 samples are too few to judge by; 16 are needed, 64 or more help"),
        ({"count": 20, "same": True}, "all 20 samples are the same"),
    ],
)
def test_samples_that_teach_nothing_leave_weights_at_their_nearest_steps_and_a_note_says_why(
    given: dict[str, Any], told: str, tmp_path: Path
) -> None:
    plain, found = quantize(tmp_path / "a"), quantize(tmp_path / "b", **given)
    assert weights_of(found) == weights_of(plain)
    assert [note for note in found.report.summary.notes if told in note]


def test_fast_and_no_samples_give_the_same_weights(tmp_path: Path) -> None:
    fast = quantize(tmp_path / "a", count=24, effort={"effort": "fast"})
    assert weights_of(fast) == weights_of(quantize(tmp_path / "b"))


def test_the_summary_says_what_each_rung_lost_on_samples_that_no_step_has_seen(tmp_path: Path) -> None:
    found = quantize(tmp_path, count=40, effort={"effort": "best"})
    notes = [note for note in found.report.summary.notes if note.startswith("weights by best")]
    assert len(notes) == 1
    assert "on 5 samples that shaped no weight" in notes[0]
    errors = [float(part.split()[1]) for part in notes[0].split(": ")[-1].split(", ")]
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 3


def test_gptq_needs_samples_and_says_how_to_give_them(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="needs samples; give samples"):
        quantize(tmp_path, weight={"quant_strategy": "GPTQ"})


SINGLE = {
    "Conv": (node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]), (6, 4, 3, 3), (1, 4, 9, 9)),
    "Conv in groups": (node("Conv", ["x", "w"], ["y"], group=2), (6, 2, 3, 3), (1, 4, 9, 9)),
    "depthwise Conv": (node("Conv", ["x", "w"], ["y"], group=4), (4, 1, 3, 3), (1, 4, 9, 9)),
    "MatMul": (node("MatMul", ["x", "w"], ["y"]), (16, 7), (1, 9, 16)),
    "Gemm": (node("Gemm", ["x", "w"], ["y"], transB=1), (7, 16), (9, 16)),
}


@pytest.mark.parametrize("name", SINGLE)
def test_gptq_alone_beats_nearest_steps_on_every_operator(name: str) -> None:
    layer, shape, size = SINGLE[name]
    before, plan = rounded(model([layer], {"x": size}, ["y"], {"w": random(*shape)}), 3)
    smooth = [np.cumsum(random(*size, seed=index), axis=-1) for index in range(40)]  # neighbours are alike
    recipe = Recipe(ranges=False, bias=False, after_activation=False, gptq=True)
    found = improve_weights(plan, before, [{"x": values} for values in smooth[:32]], recipe)
    judges = open_samples([{"x": values} for values in smooth[32:]], before.inputs)
    wanted = [each["y"] for each in outputs_of(before, list(judges))]
    squares = []
    for each in (found.plan, plan):
        got = outputs_of(apply_plan(before, each), list(judges))
        squares.append(sum(float(np.square(one - other["y"]).sum()) for one, other in zip(wanted, got, strict=True)))
    assert squares[0] < squares[1] or name == "depthwise Conv"  # nine weights leave little to make up for
    assert squares[0] <= squares[1]
    assert found.plan.biases == {}
    assert [step.step for step in found.layers[0].steps] == ["gptq"]


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 11])
def test_codes_keep_their_width_whatever_is_done_to_them(bits: int) -> None:
    proto, fit, _ = many("convolutions")
    before, plan = rounded(proto, bits)
    for entry in improve_weights(plan, before, list(fit), BEST).plan.entries:
        assert entry.weight is not None
        assert entry.weight.bits == bits
        assert entry.weight.codes.min() >= -(2 ** (bits - 1))
        assert entry.weight.codes.max() <= 2 ** (bits - 1) - 1


def test_a_switch_of_its_own_turns_a_step_off(tmp_path: Path) -> None:
    with_all = quantize(tmp_path / "a", count=40, effort={"effort": "best"})
    without = quantize(tmp_path / "b", count=40, effort={"effort": "best"}, correct_biases=False)
    assert with_all.plan.biases
    assert not without.plan.biases


def test_a_demo_at_three_bits_answers_as_the_float_model_does_at_the_best_effort() -> None:
    card = demo.load("photo_denoiser")
    cosines = []
    for effort in ("fast", "balanced", "best"):
        config: dict[str, dict[str, object]] = {
            "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 3},
            "ptq_lab": {"effort": effort},
        }
        cosines.append(ptq_lab.quantize(card.model_path, config, samples=card.calib_path).report.summary.cosine_mean)
    assert cosines == sorted(cosines)
    assert 1 - cosines[2] < 0.25 * (1 - cosines[0])


def test_an_interrupted_rung_is_said_and_not_called_useless(tmp_path: Path) -> None:
    digits = demo.load("digits_cnn")
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 3}, "ptq_lab": {"effort": "best"}}
    seen: list[str] = []

    def stop(step: Step) -> None:
        seen.append(step.stage)
        if step.stage == "round" and seen.count("round") == 20:  # in the second rung
            raise KeyboardInterrupt

    result = ptq_lab.quantize(digits.model_path, config, tmp_path / "q.onnx", samples=digits.calib_path, progress=stop)
    summary = result.report.summary
    assert summary.interrupted.startswith("best was stopped after ")
    assert "did not help" not in " ".join(summary.notes)
    assert "best so far" in render_text(result.report).splitlines()[3]


@EVERY
@pytest.mark.parametrize("on_the_fly", [False, True], ids=["folded", "on the fly"])
def test_weights_in_blocks_climb_the_ladder_as_well_and_keep_their_blocks(name: str, on_the_fly: bool) -> None:
    proto, fit, judges = many(name)
    before, whole = rounded(proto, 4)
    decoder = "MatMulNBits" if on_the_fly else ""
    entries = tuple(
        replace(
            entry,
            block=32 if on_the_fly and entry.op_type == "MatMul" else 8,
            on_the_fly=decoder if entry.op_type == "MatMul" else "",
            weight=None,
        )
        for entry in whole.entries
        if entry.op_type in ("Conv", "MatMul", "Gemm") and len(entry.shape) in (2, 4)
    )
    plan = round_weights(replace(whole, entries=entries), before.weight)
    assert any(entry.block_length for entry in plan.entries)
    better = improve_weights(plan, before, list(fit), BEST).plan
    for old, new in zip(plan.entries, better.entries, strict=True):
        assert old.weight is not None
        assert new.weight is not None
        assert (new.weight.block, new.weight.scale.shape) == (old.weight.block, old.weight.scale.shape)
    assert error_of(before, better, judges) < 0.8 * error_of(before, plan, judges)


def pooled(channels: int, classes: int) -> onnx.ModelProto:
    """Return a convolution, the mean over all positions, and a classifier of as many inputs as there are channels."""
    nodes = [
        node("Conv", ["x", "v"], ["c"]),
        node("Relu", ["c"], ["h"]),
        node("GlobalAveragePool", ["h"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    weights = {
        "v": random(channels, 8, 1, 1),
        "w": random(classes, channels, seed=1),
        "b": random(classes, seed=2),
    }
    return model(nodes, {"x": (1, 8, 7, 7)}, ["y"], weights)


def test_a_classifier_behind_a_pooling_sees_the_positions_in_front_of_it() -> None:
    before, plan = rounded(pooled(24, 10), 4)
    layers = find_linear(before, plan)
    assert [layer.pooled for layer in layers] == ["", "h"]
    feeds = [{"x": random(1, 8, 7, 7, seed=index)} for index in range(20)]
    with Twins(before, feeds) as twins:
        for source in twins.walk(["x", "h", "f"]):
            if source == "f":
                found = read_layer(layers[1], twins, range(20), 20)
    assert found.pooled is not None
    assert found.inputs.shape == (1, 20, 24)
    assert found.pooled.shape[1] > 200
    assert found.pooled.shape[2] == 24


def test_with_few_samples_the_positions_in_front_of_a_pooling_help_the_classifier_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(4):
        before, plan = rounded(pooled(64, 40), 2)
        feeds = [{"x": np.cumsum(random(1, 8, 7, 7, seed=1000 * seed + index), axis=1)} for index in range(124)]
        judges = open_samples(feeds[24:], before.inputs)
        for looks in errors:
            with monkeypatch.context() as patched:
                if not looks:
                    patched.setattr("ptq_lab.search.layer_inputs._in_front", lambda *_: None)
                found = improve_weights(plan, before, feeds[:24], BEST).plan
            errors[looks].append(error_of(before, found, judges))
    assert sum(errors[True]) < sum(errors[False])


def test_what_was_decided_is_done_once_more_with_the_samples_that_decided_it() -> None:
    """The samples held out decide, then shape: other values in one of them alone give other weights."""
    proto, fit, _ = many("convolutions")
    before, plan = rounded(proto, 3)
    recipe = replace(BEST, blend=0.0, ranges=False, after_activation=False)
    feeds = list(fit)
    other = [dict(each) for each in feeds]
    other[7] = {"x": (feeds[7]["x"] * np.float32(1.01)).astype(np.float32)}  # every eighth is held out
    one, two = (improve_weights(plan, before, each, recipe) for each in (feeds, other))
    kept = [[step.kept for step in layer.steps] for layer in one.layers[:1]]
    assert kept == [[step.kept for step in layer.steps] for layer in two.layers[:1]]
    first = one.layers[0].node
    assert not np.array_equal(one.plan.biases[first], two.plan.biases[first])
