"""Raw buffers: size, element type, layout, dynamic axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptq_lab.calibration import Layout, Preprocessing, open_samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec


def spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="x", dtype=np.dtype(dtype), shape=shape)


def picture(channels: int = 3, height: int = 12, width: int = 16) -> np.ndarray:
    """Make a smooth CHW array whose channels differ."""
    y, x = np.mgrid[:height, :width] / 10.0
    return np.stack([np.sin(x + channel) + np.cos(2 * y * channel) for channel in range(channels)]).astype("<f4")


def test_four_axes_are_read_as_nhwc_and_moved_to_the_layout_of_the_model(tmp_path: Path) -> None:
    picture().transpose(1, 2, 0).tofile(tmp_path / "0.bin")

    samples = open_samples(tmp_path, [spec("n", 3, 12, 16)])

    np.testing.assert_array_equal(next(iter(samples))["x"][0], picture())
    (note,) = samples.notes
    assert "read as NHWC [1, 12, 16, 3] and moved to the model's NCHW" in note
    assert "inputDataFormat=NCHW" in note


def test_the_data_format_nchw_leaves_the_bytes_in_their_order(tmp_path: Path) -> None:
    picture().tofile(tmp_path / "0.bin")

    samples = open_samples(tmp_path, [spec("n", 3, 12, 16)], input_data_format="NCHW")

    np.testing.assert_array_equal(next(iter(samples))["x"][0], picture())
    assert samples.notes == ()


def test_an_nhwc_model_takes_nhwc_bytes_as_they_are_and_nchw_bytes_moved(tmp_path: Path) -> None:
    last = picture().transpose(1, 2, 0)
    (tmp_path / "last").mkdir()
    (tmp_path / "first").mkdir()
    last.tofile(tmp_path / "last" / "0.bin")
    picture().tofile(tmp_path / "first" / "0.bin")
    inputs = [spec(1, 12, 16, 3)]

    plain = open_samples(tmp_path / "last", inputs)
    moved = open_samples(tmp_path / "first", inputs, input_data_format="NCHW")

    np.testing.assert_array_equal(next(iter(plain))["x"][0], last)
    np.testing.assert_array_equal(next(iter(moved))["x"][0], last)


@pytest.mark.parametrize("stored", ["NCHW", "NHWC"])
def test_a_wrong_layout_is_noticed_because_the_other_is_smoother(tmp_path: Path, stored: Layout) -> None:
    image = picture(height=24, width=24)
    (image if stored == "NCHW" else image.transpose(1, 2, 0)).tofile(tmp_path / "0.bin")
    wrong: Layout = "NHWC" if stored == "NCHW" else "NCHW"
    inputs = [spec("n", 3, 24, 24)]

    right_notes = open_samples(tmp_path, inputs, input_data_format=stored).notes
    wrong_notes = open_samples(tmp_path, inputs, input_data_format=wrong).notes

    assert not any("smoother" in note for note in right_notes)
    assert any(f"as {stored} the .bin files look clearly smoother" in note for note in wrong_notes)


@pytest.mark.parametrize("shape", [(1, 1, 6, 5), (1, 30, 1, 1), ("n", 30), (1, 5, 6)])
def test_where_layouts_do_not_differ_nothing_moves_and_nothing_is_noted(
    tmp_path: Path, shape: tuple[int | str, ...]
) -> None:
    values = np.arange(30, dtype="<f4")
    values.tofile(tmp_path / "0.bin")

    samples = open_samples(tmp_path, [spec(*shape)])

    np.testing.assert_array_equal(next(iter(samples))["x"].ravel(), values)
    assert samples.notes == ()


@given(
    dtype=st.sampled_from(["float32", "float64", "float16", "int64", "int32", "int8", "uint8", "bool"]),
    count=st.integers(1, 9),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_element_type_is_read_back_as_written(tmp_path: Path, dtype: str, count: int) -> None:
    values = (np.arange(count) % 2).astype(dtype)
    values.tofile(tmp_path / "0.bin")

    result = next(iter(open_samples(tmp_path, [spec("n", count, dtype=dtype)])))["x"]

    assert result.dtype == values.dtype
    np.testing.assert_array_equal(result[0], values)


@pytest.mark.parametrize("count", [0, 29, 31, 60])
def test_any_other_size_is_refused_with_both_sizes_and_how_they_come_about(tmp_path: Path, count: int) -> None:
    np.zeros(count, "<f4").tofile(tmp_path / "0.bin")

    expected = rf"0\.bin: {4 * count} bytes, 120 wanted \(1 x 5 x 2 x 3 values of 4 bytes, float32\)"
    with pytest.raises(SampleError, match=expected):
        open_samples(tmp_path, [spec("n", 3, 5, 2)])


def test_a_later_file_of_the_wrong_size_is_found_before_any_work(tmp_path: Path) -> None:
    np.ones(4, "<f4").tofile(tmp_path / "0.bin")
    np.ones(3, "<f4").tofile(tmp_path / "1.bin")

    with pytest.raises(SampleError, match=r"1\.bin: 12 bytes, 16 wanted"):
        open_samples(tmp_path, [spec("n", 4)])
    assert len(open_samples(tmp_path, [spec("n", 4)], limit=1)) == 1


def test_a_dynamic_axis_beside_the_batch_needs_the_input_shape(tmp_path: Path) -> None:
    np.arange(8, dtype="<i8").tofile(tmp_path / "0.bin")
    inputs = [spec("batch", "length", dtype="int64")]

    with pytest.raises(SampleError, match=r"cannot tell the size of length; give it, e\.g\. inputShape=x:1,8"):
        open_samples(tmp_path, inputs)
    samples = open_samples(tmp_path, inputs, input_shape={"x": [1, 8]})
    assert next(iter(samples))["x"].tolist() == [list(range(8))]


def test_a_fixed_batch_is_part_of_the_file(tmp_path: Path) -> None:
    np.arange(8, dtype="<f4").tofile(tmp_path / "0.bin")

    assert next(iter(open_samples(tmp_path, [spec(2, 4)])))["x"].shape == (2, 4)


def test_bytes_that_are_neither_true_nor_false_are_refused_for_bool(tmp_path: Path) -> None:
    np.array([0, 7], np.uint8).tofile(tmp_path / "0.bin")

    with pytest.raises(SampleError, match=r"wants bool \(0\.\.1\), the values reach from 0 to 7"):
        open_samples(tmp_path, [spec("n", 2, dtype="bool")])


def test_values_of_another_element_type_look_implausible(tmp_path: Path) -> None:
    np.full(4, 0x7F000000, "<i4").tofile(tmp_path / "0.bin")

    assert any("element type" in note for note in open_samples(tmp_path, [spec("n", 4)]).notes)


def test_input_type_bin_takes_files_without_the_suffix_as_the_original_does(tmp_path: Path) -> None:
    np.ones(2, "<f4").tofile(tmp_path / "0.raw")
    (tmp_path / "labels.txt").write_text("0.raw 1")

    with pytest.raises(SampleError, match=r"holds no samples, only 1 \.raw, 1 \.txt"):
        open_samples(tmp_path, [spec("n", 2)])
    assert len(open_samples(tmp_path, [spec("n", 2)], preprocess=Preprocessing(input_type="BIN"))) == 1
