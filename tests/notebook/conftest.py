"""A shell in this process that re-raises, a real kernel that is asked over its protocol, and a demo."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output
from traitlets.config import Config

import ptq_lab
from ptq_lab import demo

ROOT = Path(ptq_lab.__file__).parent.parent
INI = "[common_quant_param]\nquant_type=WEIGHT_QUANT\nbit_num={bits}\nmin_quant_weight_channel=0\n"


class RaisingShell(InteractiveShell):
    """A shell whose cells raise what went wrong, so that a test sees it."""

    def outputs_of(self, cell: str) -> list[RichOutput]:
        """Run a cell; return what it displays, a printed text as ``text/plain``."""
        with capture_output() as seen:
            self.run_cell(cell, store_history=True).raise_error()
        printed = [RichOutput(data={"text/plain": seen.stdout})] if seen.stdout else []
        return [*printed, *seen.outputs]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RaisingShell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    made = RaisingShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    made.outputs_of("%load_ext ptq_lab")
    made.user_ns["demo"] = demo.load("digits_cnn")
    yield made
    atexit.unregister(made.atexit_operations)
    RaisingShell.clear_instance()


@pytest.fixture
def cell() -> Any:
    """Return a builder of ``%%quantize`` cells: the rest of the first line, then the width of the codes."""
    return lambda line, bits=8: f"%%quantize {line}\n{INI.format(bits=bits)}"


@dataclass
class Answer:
    """What a kernel said to one cell."""

    status: str
    error: dict[str, Any] = field(default_factory=dict)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def bundles(self) -> list[dict[str, Any]]:
        return [output["data"] for output in self.outputs if "data" in output]


class Kernel:
    """A kernel of its own process; outputs are kept as a front end keeps them."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, code: str, *, timeout: float = 60) -> Answer:
        message = self.client.execute(code)
        answer = Answer(status="")
        deadline = time.monotonic() + timeout
        while True:
            heard = self.client.get_iopub_msg(timeout=max(0.1, deadline - time.monotonic()))
            if heard["parent_header"].get("msg_id") != message:
                continue
            kind, content = heard["msg_type"], heard["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            self._hear(answer, kind, content)
        answer.status = self._reply(message)["status"]
        return answer

    def complete(self, code: str, at: int | None = None) -> dict[str, Any]:
        """Ask for completions at a place of a cell, at its end if none is given."""
        return self._reply(self.client.complete(code, len(code) if at is None else at))

    def _reply(self, message: str) -> dict[str, Any]:
        while True:
            reply = self.client.get_shell_msg(timeout=20)
            if reply["parent_header"].get("msg_id") == message:
                return dict(reply["content"])

    def _hear(self, answer: Answer, kind: str, content: dict[str, Any]) -> None:
        answer.messages.append(kind)
        if kind in ("display_data", "execute_result", "stream"):
            answer.outputs.append(content)
        elif kind == "error":
            answer.error = content
        elif kind == "update_display_data":
            for output in answer.outputs:
                if output.get("transient", {}).get("display_id") == content["transient"]["display_id"]:
                    output["data"] = content["data"]
        elif kind == "clear_output":
            answer.outputs.clear()


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    from jupyter_client.manager import start_new_kernel

    folder = tmp_path_factory.mktemp("kernel")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(folder / "ipython")}
    manager, client = start_new_kernel(cwd=str(folder), env=environment, startup_timeout=60)
    made = Kernel(client)
    made.run("%load_ext ptq_lab\nimport ptq_lab\ndemo = ptq_lab.demo.load('digits_cnn')")
    yield made
    client.stop_channels()
    manager.shutdown_kernel(now=True)
