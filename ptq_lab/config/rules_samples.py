"""Rules of ``[data_preprocess_param]``.

The original fails on these only where it really feeds samples, in FULL_QUANT; elsewhere they are warnings.
"""

from __future__ import annotations

from collections.abc import Iterator

from ptq_lab.config.finding import Finding, Rule
from ptq_lab.config.options import QuantConfig
from ptq_lab.errors import Level

_SECTION = "data_preprocess_param"
_TYPE = ("common_quant_param", "quant_type")
_IMAGE_KEYS = (
    "image_to_format",
    "normalize_mean",
    "normalize_std",
    "resize_width",
    "resize_height",
    "resize_method",
    "center_crop_width",
    "center_crop_height",
)


def _level(config: QuantConfig) -> Level:
    return "error" if config.common.quant_type == "FULL_QUANT" else "warning"


def _found(level: Level, key: str, message: str, hint: str = "") -> Finding:
    return Finding(level=level, section=_SECTION, key=key, message=message, hint=hint)


def _folders(config: QuantConfig) -> Iterator[Finding]:
    samples = config.preprocess
    if not samples.calibrate_path:
        return  # samples may come with the call
    if samples.calibrate_size is None:
        message = "is given without calibrate_size, which says how many samples to read"
        yield _found(_level(config), "calibrate_path", message, "write calibrate_size=100")
    if samples.input_type is None:
        message = "is given without input_type, which says what the files are"
        yield _found(_level(config), "calibrate_path", message, "write input_type=IMAGE or input_type=BIN")
    names = [name for name, _ in samples.calibrate_path]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield _found(_level(config), "calibrate_path", f"input {name} is named twice")


def _normalisation(config: QuantConfig) -> Iterator[Finding]:
    samples = config.preprocess
    if samples.input_type == "BIN":
        return
    vectors = {"normalize_mean": samples.normalize_mean, "normalize_std": samples.normalize_std}
    given = [key for key, values in vectors.items() if values]
    if len(given) == 1:
        other = "normalize_std" if given == ["normalize_mean"] else "normalize_mean"
        yield _found(_level(config), given[0], f"is given without {other}", f"write {other} too")
    channels = 1 if samples.image_to_format == "GRAY" else 3
    form = samples.image_to_format or "BGR (image_to_format is unset)"
    for key in given:
        if len(vectors[key]) != channels:
            needs = f"{len(vectors[key])} values, but {form} has {channels} channel{'s' if channels > 1 else ''}"
            yield _found(_level(config), key, needs)
    if 0.0 in samples.normalize_std:
        yield _found(_level(config), "normalize_std", "holds 0, and pixels cannot be divided by it")
    if not given and channels > 1 and samples.input_type == "IMAGE":
        hint = "if that is meant, write normalize_mean=[0, 0, 0] and normalize_std=[1, 1, 1]"
        yield _found("warning", "input_type", "images are not normalised: the model gets values 0..255", hint)


def _resize(config: QuantConfig) -> Iterator[Finding]:
    samples = config.preprocess
    if samples.input_type == "BIN":
        return
    sizes = {"resize_width": samples.resize_width, "resize_height": samples.resize_height}
    given = [key for key, size in sizes.items() if size is not None]
    missing = [key for key, size in sizes.items() if size is None]
    if samples.resize_method is None and given:
        message = "nothing is resized, because resize_method is unset"
        yield _found("warning", given[0], message, "write resize_method=LINEAR")
    if samples.resize_method is not None and missing:
        yield _found(_level(config), "resize_method", f"needs {' and '.join(missing)} as well")


def _crop(config: QuantConfig) -> Iterator[Finding]:
    samples = config.preprocess
    if samples.input_type == "BIN":
        return
    width, height = samples.center_crop_width, samples.center_crop_height
    if (width is None) != (height is None):
        has, lacks = ("width", "height") if height is None else ("height", "width")
        message = f"nothing is cropped, because center_crop_{lacks} is unset"
        yield _found("warning", f"center_crop_{has}", message, f"write center_crop_{lacks}")
    if width is None or height is None or samples.resize_method is None:
        return
    for axis, crop, size in (
        ("width", width, samples.resize_width),
        ("height", height, samples.resize_height),
    ):
        if size is not None and crop > size:
            message = f"{crop} does not fit into images resized to a {axis} of {size}"
            yield _found(_level(config), f"center_crop_{axis}", message)


def _raw_bytes(config: QuantConfig) -> Iterator[Finding]:
    if config.preprocess.input_type != "BIN":
        return
    given = [key for key in _IMAGE_KEYS if (_SECTION, key) in config.given]
    if given:
        message = f"input_type is BIN, so these are not used: {', '.join(given)}"
        yield _found("note", given[0], message)


def _reads(*keys: str) -> tuple[tuple[str, str], ...]:
    return (_TYPE, *((_SECTION, key) for key in ("input_type", *keys)))


SAMPLE_RULES = (
    Rule(reads=_reads("calibrate_path", "calibrate_size"), check=_folders),
    Rule(reads=_reads("image_to_format", "normalize_mean", "normalize_std"), check=_normalisation),
    Rule(reads=_reads("resize_width", "resize_height", "resize_method"), check=_resize),
    Rule(
        reads=_reads("center_crop_width", "center_crop_height", "resize_width", "resize_height", "resize_method"),
        check=_crop,
    ),
    Rule(reads=_reads(), check=_raw_bytes),
)
