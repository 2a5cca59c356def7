"""The calibration room: sample files go in, model inputs (`Samples`) and statistics of a model's activations come out.

It owns Pillow (in `images`) and all knowledge of folders, archives, layouts and image preprocessing. `Samples` gives
one sample at a time; `collect_statistics` feeds them to a model and never holds more than a few of them.
"""

from ptq_lab.calibration.layouts import Layout
from ptq_lab.calibration.opening import open_samples
from ptq_lab.calibration.preprocess import Preprocessing, PreprocessOptions
from ptq_lab.calibration.samples import Samples
from ptq_lab.calibration.seeded import random_samples
from ptq_lab.calibration.statistics import collect_statistics

__all__ = [
    "Layout",
    "PreprocessOptions",
    "Preprocessing",
    "Samples",
    "collect_statistics",
    "open_samples",
    "random_samples",
]
