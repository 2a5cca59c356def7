"""Which tools there are, and where their environments lie.

    python benchmarks/peers/installed.py                builds every environment that is missing
    python benchmarks/peers/installed.py ort nncf       only these

Each tool gets a virtual environment ``<folder>/<tool>`` of its own, as their requirements contradict each other. The
folder is `PTQ_LAB_PEERS`; without it, ``.peers`` beside the repository.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = Path(os.environ.get("PTQ_LAB_PEERS") or HERE.parents[2] / ".peers").resolve()
TORCH = "torch==2.13.0"
TORCH_CPU = "https://download.pytorch.org/whl/cpu"  # torch of the usual index brings gigabytes for graphics cards


@dataclass(frozen=True)
class Tool:
    """A quantizer.

    Attributes
    ----------
    title : str
        For tables.
    package : str
        Whose version is the tool's.
    pins : tuple of str
        What its environment is made of; empty: it runs in ours.
    """

    title: str
    package: str
    pins: tuple[str, ...] = ()


TOOLS = {
    "ptqlab": Tool("ptq_lab", "ptq-lab"),
    "naive": Tool("round to nearest", "numpy"),
    "ort": Tool("onnxruntime", "onnxruntime", ("onnxruntime==1.32.0", "onnx==1.23.2", "sympy", "onnx-ir")),
    "nncf": Tool("NNCF", "nncf", (TORCH, "nncf==3.4.0", "onnx", "onnxruntime")),
    "quark": Tool("AMD Quark", "amd-quark", (TORCH, "amd-quark==0.13", "onnx", "onnxruntime")),
    "aimet": Tool("AIMET", "aimet-onnx", (TORCH, "aimet-onnx==2.42.0")),
    "onnxsim": Tool("onnxsim", "onnxsim", ("onnxsim==0.8.1", "onnx==1.23.2", "onnxruntime==1.32.0")),
    "inc": Tool(
        "Neural Compressor",
        "neural-compressor",
        # It imports some packages that it does not ask for, and others in releases that are long gone.
        (
            TORCH,
            "neural-compressor==2.6",
            "onnx==1.16.2",
            "onnxruntime==1.18.1",
            "onnxruntime-extensions",
            "numpy<2",
            "setuptools<81",
            "six",
            "psutil",
        ),
    ),
}
OURS = (
    "ptqlab",
    "naive",
    "ort",
)  # these need nothing that we do not have; ort gets its own environment if there is one


def python_of(tool: str) -> Path | None:
    """Return the interpreter that runs a tool's adapter; None if the tool is not installed."""
    own = PEERS / tool / "bin" / "python"
    if own.exists() and TOOLS[tool].pins:
        return own
    return Path(sys.executable) if tool in OURS else None


def build(tool: str) -> str:
    """Make the environment of a tool; return what came of it, in words."""
    folder, start = PEERS / tool, time.monotonic()
    if not (folder / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pins = TOOLS[tool].pins
    steps = [["--extra-index-url", TORCH_CPU, TORCH]] if TORCH in pins else []
    for step in (*steps, list(pins)):
        command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *step]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"failed: {done.stderr.strip().splitlines()[-1]}"
    return f"built in {time.monotonic() - start:.0f} s"


def main() -> None:
    buildable = [name for name, tool in TOOLS.items() if tool.pins]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tools", nargs="*", metavar="tool", help=f"any of {', '.join(buildable)}; default: all")
    wanted = parser.parse_args().tools or buildable
    unknown = [name for name in wanted if name not in buildable]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(buildable)}")
    for name in wanted:
        print(f"{name}: {build(name)}", flush=True)


if __name__ == "__main__":
    main()
