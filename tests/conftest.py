"""Shared fixtures, the distribution of tests over processes, and equal seeds for every test."""

import multiprocessing
import os
import random
import sys
import warnings
from itertools import combinations
from multiprocessing import forkserver
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread a test process, one process a core
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start many interpreters: compile once

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip
# Files with tests of half a minute or more.
LONG = ["browser", "docs", "wheel", "endurance", "literature", "distributed", "execute"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that uses the network is a broken test
# jsonschema checks IRIs, which no notebook has, with a package that takes seconds to import.
sys.modules.setdefault("rfc3987_syntax", None)


def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than cores: some wait for browsers, servers and children."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items, config):
    """Run tests that share a fixture of their module in one process, so that it is made once.

    All other tests go to whichever process is idle (`--dist loadgroup`), in this order: those that
    take long come first, so that no process waits for another one in the end.
    """
    order = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    for item in items if hasattr(config, "workerinput") else []:
        shared = (d for own in item._fixtureinfo.name2fixturedefs.values() for d in own)
        if "processes" in item.fixturenames:
            _group(item, "processes")
        elif any(fixture.scope == "module" for fixture in shared):
            _group(item, item.path.stem)


def _group(item, name):
    """Put a test in a group: xdist reads it at the end of the node id.

    From a mark xdist 3.8 writes it to `_nodeid`, which pytest 9.2 reads no more.
    """
    if hasattr(item, "_id"):
        item._id = item._id.parse(f"{item.nodeid}@{name}")
    else:
        item._nodeid = f"{item.nodeid}@{name}"
    assert item.nodeid.endswith(f"@{name}"), "tests that share a fixture would be distributed"


def _need(variable: str, default: Path, what: str) -> Path:
    """Return a folder of real input; where it is absent skip, or fail if it was required."""
    folder = Path(os.environ.get(variable) or default).expanduser().resolve()
    if folder.is_dir():
        return folder
    reason = f"{what} not found: {folder} is no folder; set {variable} to where it is"
    if os.environ.get("WWW_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def real() -> Path:
    """Folder with ``photos/<wnid>/*.jpg``, label files and published labels."""
    return _need("WWW_REAL", ROOT.parent / "shared" / "real", "real photographs and labels")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Folder with the sentence encoder and the networks trained on ImageNet."""
    return _need("WWW_REAL_WEIGHTS", Path("~/.cache/www-real"), "real weights")


@pytest.fixture(scope="module")
def browser():
    """Chromium, which knows no host but this one."""
    if not CHROMIUM.exists():
        reason = f"no browser at {CHROMIUM}: apt-get install chromium"
        (pytest.fail if os.environ.get("WWW_REQUIRE_BROWSER") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _seeded():
    """Start every test from the same random state, so that its order does not matter."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):  # not imported for the tests that do without it
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def processes(request):
    """Real processes, forked from one that has imported what they run, and so torch, only once."""
    context = multiprocessing.get_context("forkserver")
    used = [item for item in request.session.items if "processes" in item.fixturenames]
    libraries = ["torchvision.transforms.v2", "open_clip"]  # imported late by the library
    context.set_forkserver_preload([*{item.module.__name__ for item in used}, *libraries])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


@pytest.fixture
def drawn(monkeypatch):
    """Return a function that draws a figure and gives the texts which truly appear on it."""

    from matplotlib.text import Text  # here, for the tests that do without it

    def draw(figure):
        seen = []
        original = Text.draw

        def noted(text, renderer):
            if text.get_visible() and text.get_text().strip():
                seen.append(text)
            return original(text, renderer)

        with monkeypatch.context() as patched:
            patched.setattr(Text, "draw", noted)
            figure.draw_without_rendering()
        return list(dict.fromkeys(seen))

    return draw


@pytest.fixture
def readable(drawn):
    """Return a function that draws a figure and checks that each text is whole, and covers none."""

    def check(make):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure = make()
            texts = drawn(figure)
        boxes, page = [(text, text.get_window_extent()) for text in texts], figure.bbox
        for text, box in boxes:
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1
            assert inside, f"{text.get_text()!r} at {box} leaves the page {page}"
            assert text.get_fontsize() >= 8 and not text.get_parse_math()
        for (text, box), (other, its) in combinations(boxes, 2):
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert across <= 1 or down <= 1, f"{text.get_text()!r} covers {other.get_text()!r}"
        return [text.get_text() for text in texts]

    return check
