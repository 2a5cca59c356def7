"""Where the kernel is talked to from, as far as a kernel can know."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

_SIGNS = (  # an environment variable that is there, and what it means; the first that holds
    ("COLAB_RELEASE_TAG", "Colab"),
    ("VSCODE_PID", "VS Code"),
    ("VSCODE_CWD", "VS Code"),
    ("VOILA_REQUEST_URL", "Voila"),
    ("JPY_SESSION_NAME", "a Jupyter server (JupyterLab or Notebook)"),
)


def front_end(shell: Any, environment: Mapping[str, str] = os.environ) -> str:
    """Return what most likely shows the output of a shell.

    Parameters
    ----------
    shell : InteractiveShell
    environment : mapping of str to str
        Front ends leave signs in it; a kernel is told nothing else.

    Examples
    --------
    >>> front_end(object(), {})
    'a terminal'
    """
    if not hasattr(shell, "kernel"):
        return "a terminal"
    for name, means in _SIGNS:
        if environment.get(name):
            return means
    if "google.colab" in sys.modules:
        return "Colab"
    return "a kernel without a Jupyter server"
