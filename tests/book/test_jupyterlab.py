"""A calculator live in JupyterLab: the widget view wins over the HTML, and what the reader moves arrives in Python."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from tests.book.conftest import TIMEOUT, is_remote
from tests.book.widget_site import widget_browser  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.slow, pytest.mark.browser]

CELLS = (
    "from labcore.learn.widgets import roofline_explorer\n"
    "calc = roofline_explorer(hardware='h100-sxm', model='llama-3-70b', batch=32, context=4096)\ncalc",
    "import math\nshown = calc.value\nwanted = calc.results(**shown['inputs'])\n"
    "same = math.isclose(shown['results']['t_step'], wanted['t_step'])\n"
    "print('BATCH', shown['inputs']['B'], 'SAME', same)",
)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory):
    """JupyterLab on this machine only, with its own empty settings; yields its address."""
    pytest.importorskip("jupyterlab")
    pytest.importorskip("anywidget")
    home, port = tmp_path_factory.mktemp("jupyter"), free_port()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / "live.ipynb")
    environment = os.environ | {
        name: str(home / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={home / 'work'}", "--ServerApp.port_retries=0"]
    command += [f"--LabApp.workspaces_dir={home / 'spaces'}", f"--LabApp.user_settings_dir={home / 'settings'}"]
    command += ["--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    log = (home / "log.txt").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, address, home / "log.txt")
        yield address
    finally:
        server.terminate()
        server.wait(TIMEOUT / 1000)
        log.close()


def wait_for(server, address, log, seconds=TIMEOUT / 1000):
    """Until the server answers; fails with its log when it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=2) as reply:
                return json.load(reply)
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def execute(page, number, attempts=120):
    """Run a cell; repeated until it starts, because JupyterLab drops the request while the kernel is connecting."""
    cell = page.locator(".jp-CodeCell").nth(number)
    for _ in range(attempts):
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(1000)
        if re.search(r"[\d*]", cell.locator(".jp-InputArea-prompt").inner_text()):
            return cell
    pytest.fail("the kernel never took the cell")


def test_slider_moves_the_trait(jupyter, widget_browser):  # noqa: F811
    context = widget_browser.new_context(viewport={"width": 1400, "height": 1100})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    remote = []
    page.on("request", lambda r: remote.append(r.url) if is_remote(r.url) else None)
    page.goto(f"{jupyter}/lab/tree/live.ipynb")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    widget = execute(page, 0).locator(".labcore-widget")
    widget.wait_for()
    assert page.locator("[data-labcore-widget]").count() == 0, "the HTML fallback was shown beside the live view"

    # arrow keys reach the slider, letters the text box, and not the notebook's own shortcuts
    widget.get_by_role("slider", name="Batch slider").focus()
    page.keyboard.press("ArrowRight")
    assert widget.get_by_role("textbox", name="Batch").input_value() == "48"
    widget.get_by_role("button", name="Reset").focus()
    page.keyboard.press("b")
    assert page.locator(".jp-Cell").count() == len(CELLS), "a key meant for the widget made a new cell"
    widget.get_by_role("slider", name="Batch slider").focus()

    page.wait_for_timeout(500)
    printed = execute(page, 1).locator(".jp-OutputArea-output")
    printed.wait_for()
    assert printed.inner_text().strip() == "BATCH 48 SAME True"
    assert not remote, remote
    context.close()
