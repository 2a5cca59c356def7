"""Image folders: decoding, colour, normalisation, crop, layout, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ptq_lab.calibration import Preprocessing, Samples, open_samples
from ptq_lab.errors import SampleError
from ptq_lab.graph.tensors import TensorSpec

# Six colours whose grey values OpenCV (RGB2GRAY, 8 bit) gives as 76 150 29 / 124 151 254.
PIXELS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[200, 100, 50], [17, 230, 99], [254, 255, 253]]], np.uint8)
GREY = [[76, 150, 29], [124, 151, 254]]


def spec(*shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name="image", dtype=np.dtype(dtype), shape=shape or ("batch", 3, "height", "width"))


def folder_with(tmp_path: Path, *images: np.ndarray | Image.Image, suffix: str = ".png") -> Path:
    for number, image in enumerate(images):
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(tmp_path / f"{number:03}{suffix}")
    return tmp_path


def only(samples: Samples) -> np.ndarray:
    (sample,) = samples
    return sample["image"]


def test_channels_come_in_the_order_asked_for_and_first_in_an_nchw_model(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, PIXELS)

    rgb = only(open_samples(folder, [spec()], preprocess=Preprocessing(image_to_format="RGB")))
    bgr = only(open_samples(folder, [spec()], preprocess=Preprocessing(image_to_format="BGR")))

    np.testing.assert_array_equal(rgb, PIXELS.transpose(2, 0, 1)[None].astype(np.float32))
    np.testing.assert_array_equal(bgr, rgb[:, ::-1])
    assert rgb.dtype == np.float32


def test_an_nhwc_model_gets_the_channels_last(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, PIXELS)

    result = only(open_samples(folder, [spec(1, 2, 3, 3)], preprocess=Preprocessing(image_to_format="RGB")))

    np.testing.assert_array_equal(result, PIXELS[None])


def test_the_data_format_decides_where_the_shape_leaves_both_layouts_open(tmp_path: Path) -> None:
    options = Preprocessing(image_to_format="RGB")
    folder = folder_with(tmp_path, PIXELS)
    open_shape = spec("n", "a", "b", "c")

    assert only(open_samples(folder, [open_shape], preprocess=options)).shape == (1, 3, 2, 3)
    last = open_samples(folder, [open_shape], preprocess=options, input_data_format="NHWC")
    assert only(last).shape == (1, 2, 3, 3)


def test_without_a_format_images_stay_bgr_as_in_the_original_and_a_note_says_so(tmp_path: Path) -> None:
    samples = open_samples(folder_with(tmp_path, PIXELS), [spec()])

    np.testing.assert_array_equal(only(samples)[0, :, 0, 0], [0, 0, 255])
    assert any("BGR" in note for note in samples.notes)
    assert any("0..255" in note for note in samples.notes)


def test_grey_values_are_those_of_opencv(tmp_path: Path) -> None:
    options = Preprocessing(image_to_format="GRAY")

    result = only(open_samples(folder_with(tmp_path, PIXELS), [spec("n", 1, "h", "w")], preprocess=options))

    assert result[0, 0].tolist() == GREY


def test_a_grey_file_is_expanded_to_three_channels(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, np.array([[1, 2], [3, 200]], np.uint8))

    result = only(open_samples(folder, [spec()], preprocess=Preprocessing(image_to_format="RGB")))

    assert result[0, 0].tolist() == result[0, 2].tolist() == [[1, 2], [3, 200]]


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, np.array([[[10, 20, 30, 0]]], np.uint8))

    result = only(open_samples(folder, [spec()], preprocess=Preprocessing(image_to_format="RGB")))

    assert result.ravel().tolist() == [10, 20, 30]


def test_a_transparent_palette_is_read_by_its_colours_and_without_a_warning(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpixel((1, 0), 1)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.save(tmp_path / "0.png", transparency=bytes([0, 128]))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = only(open_samples(tmp_path, [spec()], preprocess=Preprocessing(image_to_format="RGB")))

    assert result[0, :, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]


def test_sixteen_bit_grey_keeps_its_upper_eight_bits(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, np.array([[0, 257 * 100, 65535]], np.uint16))
    options = Preprocessing(image_to_format="GRAY")

    result = only(open_samples(folder, [spec("n", 1, "h", "w")], preprocess=options))

    assert result.ravel().tolist() == [0, 100, 255]


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=tag)

    result = only(open_samples(tmp_path, [spec()], preprocess=Preprocessing(image_to_format="RGB")))

    np.testing.assert_array_equal(result[0].transpose(1, 2, 0), np.rot90(PIXELS, -1))


def test_mean_and_deviation_act_in_the_order_after_the_colour_step(tmp_path: Path) -> None:
    options = Preprocessing(image_to_format="BGR", normalize_mean=(1, 2, 3), normalize_std=(2, 4, 8))

    result = only(open_samples(folder_with(tmp_path, PIXELS), [spec()], preprocess=options))

    np.testing.assert_allclose(result[0, :, 1, 0], [(50 - 1) / 2, (100 - 2) / 4, (200 - 3) / 8])


def test_the_crop_takes_the_middle_after_the_resize_and_rounds_its_offsets_down(tmp_path: Path) -> None:
    columns = np.arange(0, 70, 10, dtype=np.uint8)  # 7 pixels wide
    image = np.repeat(columns[None, :, None], 3, axis=2)
    options = Preprocessing(
        image_to_format="RGB",
        resize_method="NEAREST",
        resize_width=14,
        resize_height=2,
        center_crop_width=5,
        center_crop_height=1,
    )

    result = only(open_samples(folder_with(tmp_path, image), [spec("n", 3, 1, 5)], preprocess=options))

    assert result[0, 0, 0].tolist() == [20, 20, 30, 30, 40]  # columns 4..8 of 14


@pytest.mark.parametrize(("size", "crop", "first"), [(7, 4, 1), (8, 3, 2), (5, 5, 0), (5, 1, 2)])
def test_the_crop_is_centred_along_both_axes(tmp_path: Path, size: int, crop: int, first: int) -> None:
    rows, columns = np.mgrid[:size, :size].astype(np.uint8)
    image = np.stack([rows, columns, rows], axis=2)
    options = Preprocessing(image_to_format="RGB", center_crop_width=crop, center_crop_height=crop)

    result = only(open_samples(folder_with(tmp_path, image), [spec()], preprocess=options))

    wanted = list(range(first, first + crop))
    assert result[0, 0, :, 0].tolist() == result[0, 1, 0, :].tolist() == wanted


def test_an_eight_bit_input_gets_whole_numbers_also_after_cubic_overshoot(tmp_path: Path) -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 2:] = 255
    options = Preprocessing(image_to_format="RGB", resize_method="CUBIC", resize_width=9, resize_height=2)

    result = only(open_samples(folder_with(tmp_path, image), [spec(dtype="uint8")], preprocess=options))

    assert result.dtype == np.uint8
    assert result[0, 0, 0].tolist() == sorted(result[0, 0, 0].tolist())  # clipped, not wrapped around


def test_any_object_with_the_keys_as_attributes_serves_as_options(tmp_path: Path) -> None:
    keys = Preprocessing.__dataclass_fields__
    options = SimpleNamespace(**{key: getattr(Preprocessing(), key) for key in keys})
    options.image_to_format = "RGB"
    options.normalize_mean, options.normalize_std = [0, 0, 0], [255, 255, 255]

    result = only(open_samples(folder_with(tmp_path, PIXELS), [spec()], preprocess=options))

    assert result.max() == 1.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            Preprocessing(image_to_format="RGB"),
            r"shape \[3, 2, 3\] does not fit image, .*\[1, 3, 8, 8\].*resize",
        ),
        (Preprocessing(image_to_format="YUV"), "image_to_format=YUV: allowed are RGB, BGR, GRAY"),
        (Preprocessing(image_to_format="GRAY"), "gives 1 channels"),
        (Preprocessing(normalize_mean=(1,), normalize_std=(1,)), "normalize_mean: 1 values given, 3 wanted"),
        (Preprocessing(normalize_mean=(1, 2, 3)), "normalize_std: nothing given, 3 wanted"),
        (Preprocessing(normalize_mean=(1,) * 3, normalize_std=(1, 0, 1)), "deviation of 0"),
        (Preprocessing(resize_method="CUBIC", resize_width=8), "needs both resize_width and resize_height"),
        (Preprocessing(resize_method="AREA", resize_width=8, resize_height=8), "NEAREST, LINEAR, CUBIC"),
        (
            Preprocessing(center_crop_width=8, center_crop_height=8),
            "crop of 8x8 does not fit the image of 3x2",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, options: Preprocessing, expected: str) -> None:
    folder = folder_with(tmp_path, PIXELS)

    with pytest.raises(SampleError, match=expected):
        open_samples(folder, [spec(1, 3, 8, 8)], preprocess=options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Preprocessing(image_to_format="RGB", resize_width=4, resize_height=4), "without resize_method"),
        (Preprocessing(image_to_format="RGB", center_crop_width=1), "nothing is cropped"),
    ],
)
def test_options_that_do_nothing_are_noted(tmp_path: Path, options: Preprocessing, expected: str) -> None:
    samples = open_samples(folder_with(tmp_path, PIXELS), [spec()], preprocess=options)

    assert any(expected in note for note in samples.notes)


def test_a_one_channel_model_without_a_format_is_told_about_gray(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="image_to_format=GRAY makes one channel"):
        open_samples(folder_with(tmp_path, PIXELS), [spec("n", 1, "h", "w")])


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder_with(tmp_path, PIXELS)
    whole = (tmp_path / "000.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])

    samples = open_samples(tmp_path, [spec()])

    with pytest.raises(SampleError, match=r"001\.png: cannot be read as an image") as caught:
        list(samples)
    assert Path(caught.value.path).name == "001.png"


def test_text_under_an_image_name_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_text("no picture")

    with pytest.raises(SampleError, match=r"0\.jpg: cannot be read as an image"):
        open_samples(tmp_path, [spec()])


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, Image.fromarray(np.ones((2, 2), np.float32)), suffix=".tiff")

    with pytest.raises(SampleError, match="floating-point pixels"):
        open_samples(folder, [spec()])


def test_images_for_an_input_of_two_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="4 axes"):
        open_samples(folder_with(tmp_path, PIXELS), [spec("n", 18)])
