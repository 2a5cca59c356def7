"""The calibration room: sample files go in, model inputs come out one at a time (`Samples`).

It owns Pillow (in `images`) and all knowledge of folders, archives, layouts and image preprocessing.
"""

from ptq_lab.calibration.layouts import Layout
from ptq_lab.calibration.opening import open_samples
from ptq_lab.calibration.preprocess import Preprocessing, PreprocessOptions
from ptq_lab.calibration.samples import Samples
from ptq_lab.calibration.seeded import random_samples

__all__ = ["Layout", "PreprocessOptions", "Preprocessing", "Samples", "open_samples", "random_samples"]
