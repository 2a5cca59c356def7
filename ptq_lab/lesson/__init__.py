"""The lesson room: a model enters; numbers that make quantization visible leave, ready to be drawn.

All arithmetic is that of `numerics`, on real weights and activations. It is headless: every object prints itself, and
the notebook gives it a live part. Owns Pillow's PNG writer, for pictures that models make.
"""

from ptq_lab.lesson.gallery import Gallery, gallery
from ptq_lab.lesson.granularity import Granularity, granularity
from ptq_lab.lesson.handing_on import HandingOn, handing_on
from ptq_lab.lesson.inspection import Inspection, inspect
from ptq_lab.lesson.number_line import NumberLine, number_line
from ptq_lab.lesson.pictures import Pictures, pictures
from ptq_lab.lesson.widths import WidthCurves, widths

__all__ = [
    "Gallery",
    "Granularity",
    "HandingOn",
    "Inspection",
    "NumberLine",
    "Pictures",
    "WidthCurves",
    "gallery",
    "granularity",
    "handing_on",
    "inspect",
    "number_line",
    "pictures",
    "widths",
]
