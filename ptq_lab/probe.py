"""A process of its own that loads one model, runs it once, and says how much memory that took.

Run as ``python probe.py MODEL FEEDS.npz``; it imports nothing but numpy and onnxruntime, so that what it
measures is the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def resident_bytes() -> int:
    """Return how much memory this process holds (Linux: pages in memory times their size)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * _page_size()


def _page_size() -> int:
    import resource

    return resource.getpagesize()


def main(model: str, feeds: str) -> None:
    """Print how many bytes loading a model and running it once have added."""
    with np.load(feeds) as archive:
        arrays = dict(archive)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    before = resident_bytes()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session.run(None, arrays)
    print(resident_bytes() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
