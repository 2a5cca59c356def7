"""Live parts: anywidgets written by hand, one ``.js`` file each, on top of ``shared.js`` and ``shared.css``.

In: the core's objects. Out: small states a page can show; every result also stands in an output without scripts.
Owns anywidget and traitlets.
"""

from ptq_lab.errors import MissingExtra

try:
    import anywidget  # noqa: F401
    import IPython  # noqa: F401
except ModuleNotFoundError as missing:
    raise MissingExtra("a live part of the notebook", "lab") from missing
