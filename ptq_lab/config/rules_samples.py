"""Rules of ``[data_preprocess_param]``.

The original fails on these only where it really feeds samples, in FULL_QUANT; elsewhere they are warnings.
"""

from __future__ import annotations

from collections.abc import Iterator

from ptq_lab.config.finding import Finding, Key, Rule
from ptq_lab.config.options import QuantConfig
from ptq_lab.config.row import SAMPLES, TYPE, Condition, Row, is_, is_not, set_, unset
from ptq_lab.errors import Level

_SECTION = "data_preprocess_param"
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


def _own(key: str) -> Key:
    return (_SECTION, key)


_INPUT, _FORMAT, _PATH, _COUNT = map(_own, ("input_type", "image_to_format", "calibrate_path", "calibrate_size"))
_MEAN, _STD, _METHOD = map(_own, ("normalize_mean", "normalize_std", "resize_method"))
_SIZES = {axis: _own(f"resize_{axis}") for axis in ("width", "height")}
_CROPS = {axis: _own(f"center_crop_{axis}") for axis in ("width", "height")}
_IMAGES = is_not(_INPUT, "BIN")


def _row(option: Key, message: str, *when: Condition, hint: str = "", warning: bool = False) -> Row:
    return Row(
        level="warning" if warning else SAMPLES,
        section=_SECTION,
        key=option[1],
        message=message,
        hint=hint,
        when=when,
    )


def _found(config: QuantConfig, key: str, message: str) -> Finding:
    level: Level = "error" if config.common.quant_type == "FULL_QUANT" else "warning"
    return Finding(level=level, section=_SECTION, key=key, message=message)


def _twice(config: QuantConfig) -> Iterator[Finding]:
    names = [name for name, _ in config.preprocess.calibrate_path]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield _found(config, "calibrate_path", f"input {name} is named twice")


def _channels(config: QuantConfig) -> Iterator[Finding]:
    samples = config.preprocess
    if samples.input_type == "BIN":
        return
    channels = 1 if samples.image_to_format == "GRAY" else 3
    form = samples.image_to_format or "BGR (image_to_format is unset)"
    for key, values in (("normalize_mean", samples.normalize_mean), ("normalize_std", samples.normalize_std)):
        if values and len(values) != channels:
            needs = f"{len(values)} values, but {form} has {channels} channel{'s' if channels > 1 else ''}"
            yield _found(config, key, needs)


def _raw_bytes(config: QuantConfig) -> Iterator[Finding]:
    if config.preprocess.input_type != "BIN":
        return
    given = [key for key in _IMAGE_KEYS if (_SECTION, key) in config.given]
    if given:
        message = f"input_type is BIN, so these are not used: {', '.join(given)}"
        yield Finding(level="note", section=_SECTION, key=given[0], message=message)


def _pairs() -> Iterator[Row]:
    """Name what is lost, or wrong, when only one of two sizes is given."""
    for has, lacks in (("width", "height"), ("height", "width")):
        yield _row(
            _METHOD,
            f"needs resize_{lacks} as well",
            _IMAGES,
            set_(_METHOD),
            set_(_SIZES[has]),
            unset(_SIZES[lacks]),
        )
    for has, lacks in (("width", "height"), ("height", "width")):
        yield _row(
            _CROPS[has],
            f"nothing is cropped, because center_crop_{lacks} is unset",
            _IMAGES,
            set_(_CROPS[has]),
            unset(_CROPS[lacks]),
            hint=f"write center_crop_{lacks}",
            warning=True,
        )


def _too_large() -> Iterator[Row]:
    for axis in ("width", "height"):
        yield _row(
            _CROPS[axis],
            f"{{center_crop_{axis}}} does not fit into images resized to a {axis} of {{resize_{axis}}}",
            _IMAGES,
            set_(_METHOD),
            *map(set_, _CROPS.values()),
            Condition(option=_CROPS[axis], operation="above", values=_SIZES[axis]),
        )


def _unscaled() -> Iterator[Row]:
    """Name sizes that nothing uses, once: at the first of them."""
    message = "nothing is resized, because resize_method is unset"
    hint = "write resize_method=LINEAR"
    width, height = _SIZES.values()
    yield _row(width, message, _IMAGES, unset(_METHOD), set_(width), hint=hint, warning=True)
    yield _row(height, message, _IMAGES, unset(_METHOD), unset(width), set_(height), hint=hint, warning=True)


SAMPLE_RULES: tuple[Row | Rule, ...] = (
    _row(
        _PATH,
        "is given without calibrate_size, which says how many samples to read",
        set_(_PATH),
        unset(_COUNT),
        hint="write calibrate_size=100",
    ),
    _row(
        _PATH,
        "is given without input_type, which says what the files are",
        set_(_PATH),
        unset(_INPUT),
        hint="write input_type=IMAGE or input_type=BIN",
    ),
    Rule(reads=(TYPE, _PATH), check=_twice),
    _row(_MEAN, "is given without normalize_std", _IMAGES, set_(_MEAN), unset(_STD), hint="write normalize_std too"),
    _row(_STD, "is given without normalize_mean", _IMAGES, set_(_STD), unset(_MEAN), hint="write normalize_mean too"),
    Rule(reads=(TYPE, _INPUT, _FORMAT, _MEAN, _STD), check=_channels),
    _row(
        _STD,
        "holds 0, and pixels cannot be divided by it",
        _IMAGES,
        Condition(option=_STD, operation="holds", values=(0,)),
    ),
    _row(
        _INPUT,
        "images are not normalised: the model gets values 0..255",
        is_(_INPUT, "IMAGE"),
        unset(_MEAN),
        unset(_STD),
        is_not(_FORMAT, "GRAY"),
        hint="if that is meant, write normalize_mean=[0, 0, 0] and normalize_std=[1, 1, 1]",
        warning=True,
    ),
    *_unscaled(),
    _row(_METHOD, "needs resize_width and resize_height as well", _IMAGES, set_(_METHOD), *map(unset, _SIZES.values())),
    *_pairs(),
    *_too_large(),
    Rule(reads=(TYPE, _INPUT), check=_raw_bytes),
)
