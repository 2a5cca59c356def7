"""``[data_preprocess_param]``: where samples are and how a file becomes an input of the model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from ptq_lab.config.kinds import Choice, Whole
from ptq_lab.config.lists import Pairs, Vector
from ptq_lab.config.option import Option, OptionGroup
from ptq_lab.config.sections.quantization import LARGEST_COUNT

InputType = Literal["IMAGE", "BIN"]
ImageFormat = Literal["RGB", "GRAY", "BGR"]
ResizeMethod = Literal["NEAREST", "LINEAR", "CUBIC"]

_BIN = "input_type is BIN"
_PIXELS = Whole(low=1, high=LARGEST_COUNT)


class PreprocessOptions(OptionGroup):
    """Samples for calibration and comparison, and the way from image file to tensor."""

    section: ClassVar[str] = "data_preprocess_param"

    calibrate_path: Annotated[
        tuple[tuple[str, str], ...],
        Option(
            kind=Pairs(),
            what="The folder of samples for each input of the model.",
            when="For FULL_QUANT always; for the others to measure the result on your data.",
            ignored="samples are passed in the call",
            example="input_1:./samples",
        ),
    ] = ()
    calibrate_size: Annotated[
        int | None,
        Option(
            kind=Whole(low=1, high=LARGEST_COUNT),
            what="How many samples are used: the first files by name.",
            when="100 to 500 give steady ranges.",
            ignored="samples are passed in the call",
            example="100",
        ),
    ] = None
    input_type: Annotated[
        InputType | None,
        Option(
            kind=Choice(values=get_args(InputType)),
            what="What the files are: images, or raw bytes of the input tensor.",
            when="BIN for everything that is not an image, or for images you prepared yourself.",
            example="IMAGE",
        ),
    ] = None
    image_to_format: Annotated[
        ImageFormat | None,
        Option(
            kind=Choice(values=get_args(ImageFormat)),
            what="The order of channels after decoding; unset leaves BGR.",
            when="When the model was trained on RGB or on grey images.",
            ignored=_BIN,
            example="RGB",
        ),
    ] = None
    normalize_mean: Annotated[
        tuple[float, ...],
        Option(
            kind=Vector(),
            what="What is subtracted from each channel, in pixel values 0..255.",
            when="Whatever the model was trained with.",
            ignored=_BIN,
            example="[127.5, 127.5, 127.5]",
        ),
    ] = ()
    normalize_std: Annotated[
        tuple[float, ...],
        Option(
            kind=Vector(),
            what="What each channel is divided by after the mean is subtracted, in pixel values 0..255.",
            when="Whatever the model was trained with.",
            ignored=_BIN,
            example="[127.5, 127.5, 127.5]",
        ),
    ] = ()
    resize_width: Annotated[
        int | None,
        Option(
            kind=_PIXELS,
            what="The width images are resized to, in pixels.",
            when="When images are not of the model's input size.",
            ignored=f"resize_method is unset; {_BIN}",
            example="224",
        ),
    ] = None
    resize_height: Annotated[
        int | None,
        Option(
            kind=_PIXELS,
            what="The height images are resized to, in pixels.",
            when="When images are not of the model's input size.",
            ignored=f"resize_method is unset; {_BIN}",
            example="224",
        ),
    ] = None
    resize_method: Annotated[
        ResizeMethod | None,
        Option(
            kind=Choice(values=get_args(ResizeMethod), aliases={"NEARST": "NEAREST"}),
            what="How pixels are interpolated; unset means that nothing is resized.",
            when="Whatever the model was trained with; LINEAR is the usual one.",
            ignored=_BIN,
            example="LINEAR",
        ),
    ] = None
    center_crop_width: Annotated[
        int | None,
        Option(
            kind=_PIXELS,
            what="The width of the middle part that is kept, in pixels.",
            when="When the model was trained on crops of larger images.",
            ignored=f"center_crop_height is unset; {_BIN}",
            example="224",
        ),
    ] = None
    center_crop_height: Annotated[
        int | None,
        Option(
            kind=_PIXELS,
            what="The height of the middle part that is kept, in pixels.",
            when="When the model was trained on crops of larger images.",
            ignored=f"center_crop_width is unset; {_BIN}",
            example="224",
        ),
    ] = None
