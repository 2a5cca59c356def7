"""encode=entropy: the container that quantize publishes is what it measured, smaller, and within its budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from ptq_lab import demo, load_session, preview, quantize, unpack
from ptq_lab.errors import ConfigError, OutputError
from ptq_lab.numerics.entropy import code_entropy
from ptq_lab.report.text import render_text
from ptq_lab.result import QuantResult
from ptq_lab.runtime import open_session

WORDS = demo.load("digits_transformer")


def coded(
    output: Path | None = None, chosen: demo.Demo = WORDS, *, quant_type: str = "WEIGHT_QUANT", **mixed: float
) -> QuantResult:
    config = {
        "common_quant_param": {"quant_type": quant_type, "bit_num": 0 if quant_type == "WEIGHT_QUANT" else 8},
        "ptq_lab": {"encode": "entropy"},
        "ptq_lab.mixed_bit": mixed,
    }
    return quantize(chosen.model_path, config, output, samples=chosen.calib_path)


@pytest.mark.parametrize("name", demo.NAMES)
def test_a_container_computes_what_was_measured_bit_for_bit_and_so_does_its_plain_file(
    name: str, tmp_path: Path
) -> None:
    result = coded(tmp_path / "q.ptqz", demo.load(name))
    feeds = dict(next(iter(result.run.samples)))
    wanted = open_session(result.model).run(None, feeds)
    plain = unpack(result.model_path, tmp_path / "plain.onnx")
    for session in (load_session(result.model_path), open_session(plain)):
        for one, other in zip(session.run(None, feeds), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
    summary = result.report.summary
    assert summary.bytes_after == result.model_path.stat().st_size < plain.stat().st_size
    assert any("ptq-lab unpack" in note for note in summary.notes)


@pytest.mark.parametrize("quant_type", ["FULL_QUANT", "DYNAMIC_QUANT"])
def test_integer_arithmetic_goes_into_a_container_too(quant_type: str, tmp_path: Path) -> None:
    result = coded(tmp_path / "q.ptqz", quant_type=quant_type)
    feeds = dict(next(iter(result.run.samples)))
    np.testing.assert_array_equal(
        load_session(result.model_path).run(None, feeds)[0], open_session(result.model).run(None, feeds)[0]
    )


def test_the_report_says_step_levels_entropy_and_packed_width_of_every_weight() -> None:
    report = coded().report
    for row in report.layers:
        if row.quantized:
            assert row.granularity == "per-tensor, one step"
            assert row.storage == f"coded, {8 * row.bytes_after / np.prod(row.shape):.2f} bits"
            assert 0.9 * (row.entropy or 0) < 8 * row.bytes_after / np.prod(row.shape) < 1.1 * (row.entropy or 0) + 0.6
            assert row.bits is not None
            assert row.entropy is not None
            assert row.levels is not None
            assert row.step is not None
            assert row.entropy <= np.log2(row.levels) <= row.bits
            assert row.step > 0.0
            assert row.relative_error is not None
            assert row.relative_error <= 0.0202  # init_scale is 0.02 by default


@pytest.mark.parametrize("megabytes", [0.075, 0.1])
def test_a_size_budget_counts_the_bytes_of_the_container(megabytes: float, tmp_path: Path) -> None:
    result = coded(tmp_path / "q.ptqz", target_size_mb=megabytes)
    assert 0.9e6 * megabytes < result.model_path.stat().st_size <= 1e6 * megabytes


def test_an_average_counts_coded_bits_and_steps_by_sensitivity_beat_the_rule() -> None:
    rule = coded()
    average = sum(np.prod(row.shape) * (row.entropy or 0) for row in rule.report.layers if row.quantized)
    average /= sum(np.prod(row.shape) for row in rule.report.layers if row.quantized)
    ours = coded(average_bits=average)
    assert ours.report.summary.bytes_after <= 1.02 * rule.report.summary.bytes_after
    assert 1 - ours.report.summary.cosine_mean < 0.7 * (1 - rule.report.summary.cosine_mean)


def test_a_budget_out_of_reach_says_what_can_be_reached() -> None:
    with pytest.raises(ConfigError, match=r"target_size_mb: no allocation is so small; with encode=entropy it takes"):
        coded(target_size_mb=0.001)


def test_the_suffix_follows_the_encoding_and_may_not_contradict_it(tmp_path: Path) -> None:
    assert coded(tmp_path / "q").model_path == tmp_path / "q.ptqz"
    with pytest.raises(OutputError, match=r"encode=entropy writes \.ptqz files; name it q\.ptqz"):
        coded(tmp_path / "q.onnx")
    packed = {"common_quant_param": {"quant_type": "WEIGHT_QUANT"}}
    with pytest.raises(OutputError, match=r"encode=packed writes \.onnx files; name it w\.onnx"):
        quantize(WORDS.model_path, packed, tmp_path / "w.ptqz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.ptqz"]


def test_equal_input_gives_equal_bytes_and_a_saved_run_holds_the_container(tmp_path: Path) -> None:
    first, second = coded(tmp_path / "a.ptqz"), coded(tmp_path / "b.ptqz")
    assert first.model_path.read_bytes() == second.model_path.read_bytes()
    folder = first.save(tmp_path / "run")
    assert (folder / "a.ptqz").read_bytes() == first.model_path.read_bytes()


def test_a_dry_run_shows_the_steps_it_would_take() -> None:
    config = {"common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 0}, "ptq_lab": {"encode": "entropy"}}
    plan = preview(WORDS.model_path, config)
    assert all(entry.has_single_step for entry in plan.entries)
    assert "coded, " in str(plan)


def test_the_entropy_of_a_pinned_weight_is_that_of_the_codes_that_are_written() -> None:
    config = {
        "common_quant_param": {"quant_type": "WEIGHT_QUANT", "bit_num": 0},
        "ptq_lab": {"encode": "entropy", "effort": "balanced"},
        "ptq_lab.layer_bits": {"type:Gemm": 3, "type:MatMul": 3},
    }
    plan = quantize(WORDS.model_path, config, samples=WORDS.calib_path).plan
    pinned = [entry for entry in plan.entries if not entry.has_single_step]
    assert pinned
    for entry in plan.entries:
        assert entry.coding is not None
        assert entry.weight is not None
        assert entry.coding.entropy == code_entropy(entry.weight.codes)


def fixed(bits: int, *, samples: bool = False, **sections: Mapping[str, object]) -> QuantResult:
    """Quantize the picture classifier, which has depthwise layers, at one width."""
    chosen = demo.load("digits_cnn")
    common: dict[str, object] = {"quant_type": "WEIGHT_QUANT", "bit_num": bits}
    config = {"common_quant_param": common, "ptq_lab": {"encode": "entropy"}, **sections}
    return quantize(chosen.model_path, config, samples=chosen.calib_path if samples else None)


@pytest.mark.parametrize("bits", [3, 4, 6])
@pytest.mark.parametrize("samples", [False, True])
def test_a_given_width_is_the_error_that_one_step_may_make_and_is_taken_where_it_is_smaller(
    bits: int, samples: bool
) -> None:
    grids = fixed(bits, samples=samples, weight_quant_param={"per_channel": True})
    chosen = fixed(bits, samples=samples)
    assert not any(entry.has_single_step for entry in grids.plan.entries)
    assert any(entry.has_single_step for entry in chosen.plan.entries)
    assert chosen.report.summary.bytes_after < 0.99 * grids.report.summary.bytes_after
    assert any("one step for the tensor instead of a grid" in note for note in chosen.report.summary.notes)
    if samples:
        return  # the steps of the ladder change errors
    for ours, theirs in zip(chosen.report.layers, grids.report.layers, strict=True):
        if ours.quantized:
            assert ours.relative_error is not None
            assert theirs.relative_error is not None
            assert ours.relative_error <= 1.011 * theirs.relative_error
            assert ours.bytes_after <= 1.01 * theirs.bytes_after + 16


def test_a_pinned_width_and_uncorrected_weights_keep_their_grids() -> None:
    layer_bits = {"ptq_lab.layer_bits": {"type:Gemm": 4}}
    pinned = fixed(4, samples=False, **layer_bits)
    assert not any(entry.has_single_step for entry in pinned.plan.entries if entry.op_type == "Gemm")
    bare = fixed(4, weight_quant_param={"bias_correction": False})
    assert not any(entry.has_single_step for entry in bare.plan.entries)


def test_a_dry_run_of_a_given_width_shows_the_steps_of_the_run() -> None:
    common: dict[str, object] = {"quant_type": "WEIGHT_QUANT", "bit_num": 4}
    plan = preview(demo.load("digits_cnn").model_path, {"common_quant_param": common, "ptq_lab": {"encode": "entropy"}})
    assert [entry.has_single_step for entry in plan.entries] == [
        entry.has_single_step for entry in fixed(4).plan.entries
    ]


def test_the_report_of_a_container_has_a_bound_below_the_entropy_of_every_layer() -> None:
    report = fixed(4).report
    for row in report.layers:
        if row.quantized:
            assert row.bound is not None
            assert row.entropy is not None
            assert 0.0 < row.bound <= row.entropy
            assert row.bound < row.entropy or np.prod(row.shape) < 3000  # of few values nobody knows the density
    assert "Shannon bound" in render_text(report)
