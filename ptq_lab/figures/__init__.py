"""Report tables in; plotly figures, script-free HTML and one self-contained page out.

Owns plotly and jinja2. Every figure is one ``draw_*()`` file and has a twin that needs no script; nothing
here displays anything or computes a statistic.
"""

from ptq_lab.figures.front import draw_front
from ptq_lab.figures.layers import draw_layers
from ptq_lab.figures.page import write_page
from ptq_lab.figures.ranges import draw_ranges
from ptq_lab.figures.sizes import draw_sizes
from ptq_lab.figures.tables import report_html
from ptq_lab.figures.thresholds import draw_threshold

__all__ = ["draw_front", "draw_layers", "draw_ranges", "draw_sizes", "draw_threshold", "report_html", "write_page"]
