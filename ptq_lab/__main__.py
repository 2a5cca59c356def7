"""The entry of `ptq-lab` and of `python -m ptq_lab`: Ctrl-C is one line from the first moment on.

Importing the command line takes most of a second, and a KeyboardInterrupt in the middle of an import would be a
traceback, or be swallowed by the library that is being imported.
"""

import os
import signal
from typing import NoReturn

INTERRUPTED = 130


def run() -> None:
    """Run ``ptq-lab`` and exit."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # whoever ignores Ctrl-C, such as nohup, goes on ignoring it
        signal.signal(signal.SIGINT, _leave)
    from ptq_lab.cli import main

    signal.signal(signal.SIGINT, usual)
    main()


def _leave(*_: object) -> NoReturn:
    end_of_line = b"\n" if os.isatty(2) else b""  # a terminal shows ^C
    os.write(2, end_of_line + b"ptq-lab: interrupted; nothing was written\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    run()
