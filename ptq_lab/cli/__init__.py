"""The command line: `ptq-lab`, the magic's headless twin. Owns click (the words) and rich (the bar).

Exit codes: 0 done, 3 done but a gate failed, 2 the input is wrong, 1 a fault of ours.
"""

from ptq_lab.cli.main import main

__all__ = ["main"]
