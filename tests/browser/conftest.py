"""One JupyterLab server on a loopback port and one Chromium that may talk to nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import ptq_lab

ROOT = Path(ptq_lab.__file__).parent.parent
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
    "codemirror-extension/plugin": {"defaultConfig": {"codeFolding": True}},
    "completer-extension/manager": {"showDocumentationPanel": True},
}
# What the front ends write and throw by themselves, for pages or kernels that lack a part they look for.
OF_FRONTS = (
    "Failed to load resource",
    "Could not restore the debugger state",
    "Canceled future for debug_request",
    "Cannot read properties of undefined (reading 'schema')",
    "Cannot read properties of null (reading 'updateRenderOption')",
)
OURS = "extensions/ptq-lab/"  # in the address of every script of ours
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("PTQ_LAB_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    found = find_chromium()
    if found is None:
        reason = "no Chromium found (chromium, chromium-browser, google-chrome or PTQ_LAB_CHROMIUM)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


@dataclass
class Lab:
    """A running server and the application it serves."""

    folder: Path
    settings: Path
    url: str = ""
    app: str = "lab"  # or "notebook"

    def set(self, setting: str, values: dict[str, Any], *, owner: str = "@jupyterlab") -> None:
        """Write one settings file of an extension, e.g. ``apputils-extension/themes``."""
        path = self.settings / owner / f"{setting}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def page(self, name: str) -> str:
        """Return the address at which a file opens."""
        if self.app == "lab":
            return f"{self.url}/lab/tree/{name}?reset"
        if name.endswith(".onnx"):
            return f"{self.url}/edit/{name}?factory=ONNX%20summary"
        return f"{self.url}/{'notebooks' if name.endswith('.ipynb') else 'edit'}/{name}"


def install_extension(share: Path) -> None:
    """Put the committed assets of the editor extension where the wheel would put them."""
    target = share / "labextensions" / "ptq-lab"
    shutil.copytree(ROOT / "ptq_lab" / "labextension", target)
    shutil.copy(ROOT / "labextension" / "install.json", target)
    shutil.copy(ROOT / "notebooks" / "01_quickstart.ipynb", target / "quickstart.ipynb")


@contextmanager
def serve(command: Sequence[str], home: Path, app: str = "lab") -> Iterator[Lab]:
    """Run a server on a loopback port, in folders of its own, with the editor extension."""
    folder = home / "work"
    folder.mkdir()
    install_extension(home / "share")
    made = Lab(folder=folder, settings=home / "settings", app=app)
    for setting, values in SETTINGS.items():
        made.set(setting, values)
    names = {
        "JUPYTER_PATH": home / "share",
        "JUPYTERLAB_SETTINGS_DIR": made.settings,
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "PYTHONPATH": ROOT,
    }
    name = "LabApp" if app == "lab" else "JupyterNotebookApp"
    flags = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0"]
    flags += ["--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True"]
    flags += [f"--{name}.expose_app_in_browser=True", f"--ServerApp.root_dir={folder}"]
    with (home / "server.log").open("w") as log:
        environment = os.environ | {name: str(value) for name, value in names.items()}
        server = subprocess.Popen([*command, *flags], env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        made.url = _address(server, home)
        yield made
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:  # it waits for a kernel
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serve([sys.executable, "-m", "jupyterlab"], tmp_path_factory.mktemp("lab")) as made:
        yield made


FRONTS: dict[str, tuple[str, str, str]] = {
    "lab": ("lab", "jupyterlab", ""),
    "notebook": ("notebook", "notebook", "PTQ_LAB_NOTEBOOK7"),
    "lab42": ("lab", "", "PTQ_LAB_LAB42"),
}
"""Front end -> the application, the module that runs it here, and the variable that names a `jupyter` elsewhere."""


def front_command(name: str) -> list[str] | None:
    app, module, variable = FRONTS[name]
    elsewhere = os.environ.get(variable) if variable else None
    if elsewhere:
        return [elsewhere, app]
    return [sys.executable, "-m", module] if module and find_spec(module) else None


@pytest.fixture(scope="session", params=FRONTS)
def front(request: pytest.FixtureRequest, chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    command = front_command(request.param)
    app, module, variable = FRONTS[request.param]
    if command is None:
        required = module and os.environ.get("CI") == "true"
        reason = f"no {request.param}: install {module or 'it elsewhere'}, or set {variable} to its jupyter executable"
        pytest.fail(reason) if required else pytest.skip(reason)
    with serve(command, tmp_path_factory.mktemp(request.param), app) as made:
        yield made


def _address(server: subprocess.Popen[bytes], home: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        for note in (home / "runtime").glob("jpserver-*.json"):
            try:
                return str(json.loads(note.read_text())["url"]).rstrip("/")
            except ValueError:  # still being written
                break
        time.sleep(0.1)
    pytest.fail("the server did not start:\n" + (home / "server.log").read_text()[-2000:])


@dataclass
class Visit:
    """A page, what it asked of the outside, and the errors it reported."""

    page: Any
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def allow_loopback_only(self) -> None:
        """Abort and record every request that would leave the machine."""

        def judge(route: Any) -> None:
            address = urlsplit(route.request.url)
            if address.scheme in ("data", "blob", "file") or address.hostname in LOOPBACK:
                route.continue_()
            else:
                self.foreign.append(route.request.url)
                route.abort()

        self.page.route("**/*", judge)
        self.page.on("pageerror", self._note)

    def _note(self, error: Any) -> None:
        trace = f"{error}\n{error.stack}"
        if OURS in trace or not any(part in trace for part in OF_FRONTS):
            self.errors.append(trace)

    def collect_console_errors(self) -> None:
        """Count what the page writes as an error, besides files that are asked for and are not there."""

        def judge(message: Any) -> None:
            if message.type == "error" and not any(part in message.text for part in OF_FRONTS):
                self.errors.append(message.text)

        self.page.on("console", judge)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, headless=True, args=list(FLAGS))
        yield made
        made.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 2300})
    made = Visit(page=context.new_page())
    made.allow_loopback_only()
    yield made
    context.close()
