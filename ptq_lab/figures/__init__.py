"""Report tables in; plotly figures, script-free HTML and one self-contained page out.

Owns plotly and jinja2. Every figure is one ``draw_*()`` file and has a twin that needs no script; nothing
here displays anything or computes a statistic.
"""

from ptq_lab.figures.activations import draw_activations
from ptq_lab.figures.bits import draw_bits
from ptq_lab.figures.causes import explanation_html
from ptq_lab.figures.channels import draw_channels
from ptq_lab.figures.coding import draw_coding
from ptq_lab.figures.confusion import draw_confusion
from ptq_lab.figures.depth import draw_depth
from ptq_lab.figures.errors import draw_errors
from ptq_lab.figures.front import draw_front
from ptq_lab.figures.layers import draw_layers
from ptq_lab.figures.lessons import Line
from ptq_lab.figures.page import write_page
from ptq_lab.figures.ranges import draw_ranges
from ptq_lab.figures.sizes import draw_sizes
from ptq_lab.figures.steps import draw_steps
from ptq_lab.figures.tables import report_html
from ptq_lab.figures.thresholds import draw_threshold
from ptq_lab.figures.weights import draw_weights

__all__ = [
    "Line",
    "draw_activations",
    "draw_bits",
    "draw_channels",
    "draw_coding",
    "draw_confusion",
    "draw_depth",
    "draw_errors",
    "draw_front",
    "draw_layers",
    "draw_ranges",
    "draw_sizes",
    "draw_steps",
    "draw_threshold",
    "draw_weights",
    "explanation_html",
    "report_html",
    "write_page",
]
