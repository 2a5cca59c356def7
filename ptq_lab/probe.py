"""A process of its own that loads models, runs each once, and says how much memory that took.

Run as ``python probe.py FEEDS.npz MODEL...``; it imports nothing but numpy and onnxruntime, and loads every model in
a fork of itself, so that what it measures is the model.
"""

from __future__ import annotations

import os
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


def main(feeds: str, *models: str) -> None:
    """Print, for each model, how many bytes loading it has added, and running it once as well; ``-`` if it failed."""
    with np.load(feeds) as archive:
        arrays = dict(archive)
    for model in models:
        receive, send = os.pipe()
        child = os.fork()
        if not child:
            os.write(send, _added(model, arrays).encode())
            os._exit(0)
        os.close(send)
        with os.fdopen(receive, "rb") as stream:
            print(stream.read().decode() or "-")
        os.waitpid(child, 0)


def _added(model: str, arrays: dict[str, np.ndarray]) -> str:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    before = resident_bytes()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        loaded = resident_bytes()
        session.run(None, arrays)
    except Exception:  # its exception classes share no base of their own
        return "-"
    return f"{loaded - before} {resident_bytes() - before}"


if __name__ == "__main__":
    main(*sys.argv[1:])
