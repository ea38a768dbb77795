"""The explorer in a real browser: played with in JupyterLab and under Voilà, with no network.

Debian's chromium, driven by Playwright, can reach this machine alone, so a page that needed
anything from elsewhere would stay blank. Screenshots go to ``build/screenshots``.
"""

import asyncio
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from PIL import Image
from tornado.web import HTTPError
from traitlets.config.loader import PyFileConfigLoader

from wwwlib.explorer.serve import SETTINGS, command, environment

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "build" / "screenshots"
SMALL = {"probe_count": 96, "tested": 24, "layers": ["layer4"], "also": [], "ks": [4], "boxes": 1}
TOKEN = "a-token-for-this-test"
WAIT = 240_000  # milliseconds; a page that is ready sooner is not waited for

EVIL = r"""
import numpy as np, torch
from pathlib import Path
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor
from wwwlib import atlas, images, language, targets
from wwwlib.explorer import explorer

hit = "document.title='hit'"
names = [f'<img src=x onerror="{hit}">', f"<script>{hit}</script>"]
root = Path("pictures")
for c in range(2):
    folder = root / f"<img src=x onerror={hit}>{c}".replace("/", "")
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(4):
        noise = np.random.default_rng(4 * c + i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"<img src=x onerror={hit}>{i}.png")
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                    nn.Linear(4, 2))
prepare = lambda image: pil_to_tensor(image.resize((16, 16))).float() / 255
probe, clip = images.folder(root), language.encoder("world")
net = targets.wrap(net, prepare, names, names[0])
book = atlas.build(net, probe, clip, language.ConceptSet(names), ["1"], k=2, progress=False)
page = explorer({names[0]: book}, {names[1]: probe}, clip)
page
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    """A folder with a small notebook 07, and one with its page and one of names that are markup."""
    folder = tmp_path_factory.mktemp("notebooks")
    book = load_notebook_node(str(ROOT / "notebooks" / "07_explorer.ipynb"))
    made = parameterize_notebook(book, {**SMALL, "out": str(folder / "out")})
    for cell in made.cells:  # names are tested on few images, as no parameter has their number
        cell.source = cell.source.replace("datasets.truth(probe, ", "datasets.truth(probe, 48, ")
    assert any("datasets.truth(probe, 48" in cell.source for cell in made.cells)
    nbformat.write(made, folder / "explorer.ipynb")
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    end = next(i for i, cell in enumerate(code) if cell.source.endswith("\npage"))
    pages = new_code_cell(f"{code[end].source.removesuffix('page')}display(page)\n{EVIL}")
    both = new_notebook(cells=[*code[:end], pages], metadata=made.metadata)
    nbformat.write(both, folder / "both.ipynb")
    return folder


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def answers(address):
    """Return the status of a page, following no redirection; None while there is no answer."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args):
            return None

    try:
        return urllib.request.build_opener(Stay).open(address, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Server:
    """A server that runs as long as the block does."""

    def __init__(self, line, notebooks, port):
        self.address, self.notebooks = f"http://127.0.0.1:{port}", notebooks
        settings = {"WWW_STORE": str(notebooks / "store"), "PYTHONPATH": str(ROOT)}
        settings["JUPYTER_CONFIG_DIR"] = str(notebooks / "config")
        self.log = notebooks / f"{port}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                line, cwd=notebooks, env=environment(TOKEN) | settings, stdout=log, stderr=log
            )

    def __enter__(self):
        until = time.monotonic() + 180
        while answers(self.address) is None:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture(scope="module", params=["light", "dark"])
def voila(notebooks, request):
    """Voilà with notebook 07 in light, in dark with the notebook that has both pages."""
    port, name = free_port(), {"light": "explorer.ipynb", "dark": "both.ipynb"}[request.param]
    with Server(command(notebooks / name, port, request.param), notebooks, port) as server:
        server.theme = request.param
        yield server


@pytest.fixture(scope="module")
def lab(notebooks):
    port, config = free_port(), notebooks / "config" / "labconfig"
    config.mkdir(parents=True)
    plugin = "@jupyterlab/apputils-extension:announcements"
    (config / "page_config.json").write_text(f'{{"disabledExtensions": {{"{plugin}": true}}}}')
    line = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--ip=127.0.0.1",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={notebooks}",
    ]
    with Server(line, notebooks, port) as server:
        yield server


@pytest.fixture
def page(browser):
    """A page that remembers what it failed to load, and what went wrong in it."""
    made = browser.new_page(viewport={"width": 1280, "height": 1000})
    made.set_default_timeout(WAIT)
    made.outside = []
    made.on(
        "request",
        lambda r: (
            r.url.startswith(("http:", "https:"))
            and "//127.0.0.1:" not in r.url
            and made.outside.append(r.url)
        ),
    )
    yield made
    made.close()


def shoot(page, name):
    """Keep the page as it is seen at two widths."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width in (800, 1280):
        page.set_viewport_size({"width": width, "height": 3200})
        page.wait_for_timeout(300)
        page.locator(".www-explorer").first.screenshot(path=SHOTS / f"{name}-{width}.png")


def part(page, name, number=0):
    """Return a part of the first explorer on the page, or of another one."""
    return page.locator(f".www-{name}").nth(number)


def changes(page, name, act, number=0):
    """Do something, and return what a part of the page says once that is something else."""
    before = part(page, name, number).inner_text()
    act()
    page.wait_for_function(
        "([name, n, before]) => document.querySelectorAll('.www-' + name)[n].innerText !== before",
        arg=[name, number, before],
    )
    return part(page, name, number).inner_text()


def play(page, notebooks):
    """Use every control, and look at what the page says."""
    part(page, "explanation").locator("img").first.wait_for()
    told = changes(
        page, "explanation", lambda: part(page, "picture-5").locator("visible=true").click()
    )
    assert "Predicted:" in told and "Sample: this prediction" in told
    chosen = part(page, "cls").locator("select")
    told = changes(page, "explanation", lambda: chosen.select_option(label="boat"))
    assert "Class: boat, from 4 images" in told
    number = part(page, "neuron").locator("input")
    told = changes(page, "neuron-page", lambda: (number.fill("12"), number.press("Enter")))
    assert "Neuron 12 of layer4" in told and "Classes to which it contributes most" in told
    word = part(page, "word").locator("input")
    told = changes(page, "found", lambda: (word.fill("wheel"), word.press("Enter")))
    assert "Neurons nearest to wheel" in told
    handle = part(page, "alpha").locator(".noUi-handle")
    told = changes(page, "neuron-page", lambda: [handle.press("ArrowLeft") for _ in range(20)])
    scene = part(page, "scene").locator("select")
    told = changes(page, "changed", lambda: scene.select_option(label="night"))
    assert "before:" in told and "now:" in told
    upload(page, notebooks / "own.png")
    page.wait_for_function(
        "document.querySelector('.www-explanation').innerText.includes('class is not known')"
    )
    told = changes(page, "message", lambda: upload(page, notebooks / "no.png"))
    assert "That did not work." in told and "cannot be used" in told
    assert "class is not known" in part(page, "explanation").inner_text()


def upload(page, path):
    if path.name == "own.png":
        Image.new("RGB", (90, 60), (40, 160, 60)).save(path)
    else:
        path.write_text("<svg onload=alert(1)>")
    with page.expect_file_chooser() as chooser:
        part(page, "upload").click()
    chooser.value.set_files(str(path))


def upload_large(page, notebooks):
    """Upload a picture of more than 10 MiB, which works, and one that is refused in a sentence."""
    noise = np.random.default_rng(0).integers(0, 256, (2100, 2100, 3), dtype=np.uint8)
    part(page, "picture-3").click()
    page.wait_for_function(
        "!document.querySelector('.www-explanation').innerText.includes('class is not known')"
    )
    Image.fromarray(noise).save(notebooks / "large.bmp")
    assert (notebooks / "large.bmp").stat().st_size > 11 * 2**20
    with page.expect_file_chooser() as chooser:
        part(page, "upload").click()
    chooser.value.set_files(str(notebooks / "large.bmp"))
    page.wait_for_function(
        "document.querySelector('.www-explanation').innerText.includes('class is not known')"
    )
    refused = []
    page.once("dialog", lambda dialog: (refused.append(dialog.message), dialog.accept()))
    with (notebooks / "huge.png").open("wb") as file:
        file.truncate(65 * 2**20)
    with page.expect_file_chooser() as chooser:
        part(page, "upload").click()
    chooser.value.set_files(str(notebooks / "huge.png"))
    page.wait_for_timeout(1000)
    assert refused == ["huge.png has 65 MiB; choose a picture of at most 64 MiB."]


def run_in_lab(page, lab, name):
    page.goto(f"{lab.address}/lab/tree/{name}?token={TOKEN}&reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for()
    page.locator(".jp-Notebook").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    part(page, "explanation", 1).locator("img").first.wait_for()


def check_markup(page):
    """Check that names with handlers that would change the page's title are shown as text."""
    assert page.title() != "hit"
    assert "onerror" in part(page, "explanation", 1).inner_text()
    assert page.locator(".www-explorer img:not([src^='data:image/png'])").count() == 0
    assert page.locator(".www-explorer script").count() == 0


# Tests --------------------------------------------------------------------------------------


def test_voila_shows_nothing_to_those_without_the_token(browser, voila):
    """Breaks if Voilà answers requests without the token, as it does by default."""
    assert answers(voila.address) == 302
    for path in ("api/kernels", "voila/files/explorer.ipynb", "api/contents", "voila/files/store"):
        assert answers(f"{voila.address}/{path}") in (302, 403, 404), path


def test_voila_sends_a_policy_and_logs_out(voila):
    with urllib.request.urlopen(f"{voila.address}/login") as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert answers(f"{voila.address}/logout") == 200
    assert answers(f"{voila.address}/no/such/page") in (302, 404)


def test_at_most_four_pages_are_open_and_those_that_were_left_make_room(monkeypatch):
    """Breaks if reloading a page leaves kernels until memory runs out."""
    settings = PyFileConfigLoader("voila.py", str(SETTINGS)).load_config()
    assert 0 < settings.MappingKernelManager.cull_idle_timeout <= 600
    kernels = settings.VoilaConfiguration.multi_kernel_manager_class()
    states = {"a": "idle", "b": "idle", "c": "busy", "d": "idle"}
    ended = []

    async def end(name):
        ended.append(states.pop(name) and name)

    async def start(self):
        return "new"

    base = type(kernels).__mro__[1]
    monkeypatch.setattr(base, "start_kernel", start)
    monkeypatch.setattr(base, "__len__", lambda self: len(states))
    monkeypatch.setattr(base, "list_kernel_ids", lambda self: list(states))
    found = {name: SimpleNamespace(execution_state=state) for name, state in states.items()}
    monkeypatch.setattr(base, "get_kernel", lambda self, name: found[name])
    monkeypatch.setattr(base, "shutdown_kernel", lambda self, name: end(name))
    kernels._kernel_connections = {"a": 1, "b": 0, "c": 0, "d": 0}
    assert finished(kernels.start_kernel()) == "new" and ended == ["b"]
    states["e"] = "idle"
    kernels._kernel_connections = dict.fromkeys("acde", 1)
    with pytest.raises(HTTPError, match="4 pages are open already"):
        finished(kernels.start_kernel())


def finished(coroutine):
    """Return the result of a coroutine; Playwright's own loop runs in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def serious_faults(page):
    """Return what axe finds in our own part of the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, ".www-explorer").response["violations"]
    return [
        (one["id"], node["html"][:200])
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
        if "noUi-handle" not in node["html"]  # ipywidgets leaves its sliders' handles unnamed
    ]


def test_it_is_accessible_and_played_under_voila(page, voila, notebooks):
    """In dark, class, concept, folder and file names of a second explorer are markup."""
    page.goto(f"{voila.address}/?token={TOKEN}")
    part(page, "explanation", int(voila.theme == "dark")).locator("img").first.wait_for()
    assert not serious_faults(page)
    if voila.theme == "light":
        play(page, notebooks)
        upload_large(page, notebooks)
    else:
        check_markup(page)
    shoot(page, f"voila-{voila.theme}")
    assert "import json" not in page.locator("#rendered_cells").inner_text()  # no code is shown
    assert not page.outside


def test_played_in_jupyterlab_where_names_that_are_markup_run_nowhere(page, lab, notebooks):
    run_in_lab(page, lab, "both.ipynb")
    play(page, notebooks)
    shoot(page, "lab-light")
    word = part(page, "word", 1).locator("input")
    evil = "<img src=x onerror=\"document.title='hit'\">"
    changes(page, "found", lambda: (word.fill(evil), word.press("Enter")), 1)
    check_markup(page)
    assert not page.outside
