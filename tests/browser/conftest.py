"""One JupyterLab server on a loopback port and one Chromium that may talk to nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
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
}
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
    """A running server."""

    folder: Path
    settings: Path
    url: str

    def set(self, setting: str, values: dict[str, Any]) -> None:
        """Write one settings file of a JupyterLab extension, e.g. ``apputils-extension/themes``."""
        path = self.settings / "@jupyterlab" / f"{setting}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


@pytest.fixture(scope="session")
def lab(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    flags = ["--LabApp.expose_app_in_browser=True"]
    yield from _served("jupyterlab", flags, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def notebook7(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    flags = ["--JupyterNotebookApp.expose_app_in_browser=True"]
    yield from _served("notebook", flags, tmp_path_factory.mktemp("notebook7"))


def _served(module: str, flags: list[str], home: Path) -> Iterator[Lab]:
    folder = home / "work"
    folder.mkdir()
    made = Lab(folder=folder, settings=home / "settings", url="")
    for setting, values in SETTINGS.items():
        made.set(setting, values)
    names = {
        "JUPYTERLAB_SETTINGS_DIR": made.settings,
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "IPYTHONDIR": home / "ipython",
        "PYTHONPATH": ROOT,
    }
    command = [sys.executable, "-m", module, "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", "--IdentityProvider.token=", "--ServerApp.password="]
    command += ["--ServerApp.disable_check_xsrf=True", f"--ServerApp.root_dir={folder}", *flags]
    with (home / "server.log").open("w") as log:
        environment = os.environ | {name: str(value) for name, value in names.items()}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        made.url = _address(server, home)
        yield made
    finally:
        server.terminate()
        server.wait(timeout=20)


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
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))


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
