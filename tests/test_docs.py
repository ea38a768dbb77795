"""The documentation site: built without a warning, no dead link, no request; its examples run."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import import_graph
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_pages import EVIL, outputs

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site; a warning is an error."""
    out = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-d", str(out / "doctrees"), str(DOCS), str(out / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return out / "html"


class Seen(HTMLParser):
    """Collects ids, links and what a page loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.images = set(), [], [], []
        self.tags, self.handlers = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        """Keep what a tag refers to."""
        given = dict(attrs)
        self.tags.add(tag)
        self.handlers += [name for name in given if name.startswith("on")]
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical",):
            self.loads.append(given["href"])
        elif "src" in given:
            self.loads.append(given["src"])
        if tag == "img":
            self.images.append(given)


@pytest.fixture(scope="module")
def seen(site):
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path: Seen(path) for path in pages}


def dead(seen, links):
    """Yield the links of pages, as `links` gives them, that lead to no file or no place in it."""
    for path, page in seen.items():
        for link in links(page):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not to.exists():
                yield f"{path.name}: {link}"
            elif parts.fragment and to in seen and unquote(parts.fragment) not in seen[to].ids:
                yield f"{path.name}: {link} has no such place"


def test_no_link_is_dead(seen):
    assert len(seen) > 55
    assert not list(dead(seen, lambda page: page.links))


def test_the_search_for_dead_links_finds_them(tmp_path):
    """A missing page, and a missing place in one that is there."""
    page = tmp_path / "a.html"
    page.write_text('<a href="b.html">b</a><a href="#x">x</a><a href="#y">y</a><p id="y">')
    found = list(dead({page: Seen(page)}, lambda page: page.links))
    assert found == ["a.html: b.html", "a.html: #x has no such place"]


def test_pages_load_only_what_lies_beside_them(seen, site):
    """Breaks if a theme or an extension loads fonts, scripts or styles from elsewhere."""
    for path, page in seen.items():
        outside = [one for one in page.loads if re.match(r"(https?:)?//", one)]
        assert not outside, (path.name, outside)
    assert not list(dead(seen, lambda page: [a for a in page.loads if not a.startswith("data:")]))
    for path in site.rglob("*.css"):
        found = re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text("utf-8"))
        assert not found, (path.name, found)


def test_every_image_has_words(seen):
    images = [image for page in seen.values() for image in page.images]
    assert len(images) > 50 and all(image.get("alt", "").strip() for image in images)


def test_every_notebook_and_module_has_its_page(site):
    for path in NOTEBOOKS:
        assert (site / "notebooks" / f"{path.stem}.html").exists(), path.stem
    pages = {path.stem: path.read_text("utf-8") for path in (site / "api").glob("*.html")}
    for name in import_graph.MODULES.keys() - {"wwwlib", "wwwlib.__main__"}:
        part = import_graph.part(name)
        if part in ("baselines", "studies", "explorer") and ".voila" not in name:
            assert f"module-{name}" in pages[part], name
        assert f"module-wwwlib.{part}" in pages[part], part
    assert 'id="wwwlib.atlas.build"' in pages["atlas"]
    assert 'id="wwwlib.targets.wrap"' in pages["targets"]


def test_names_from_files_are_inert_on_the_site(tmp_path):
    """What notebooks show of other people's words reaches the pages as text."""
    conf = importlib.import_module("conf")
    (tmp_path / "runs").mkdir()
    book = new_notebook(cells=[new_code_cell("1", outputs=outputs(tmp_path))])
    nbformat.write(book, tmp_path / "runs" / "01_first.ipynb")
    conf.notebooks(tmp_path / "runs", tmp_path / "out")
    [cell] = nbformat.read(tmp_path / "out" / "01_first.ipynb", as_version=4).cells
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "text/html"}
    shown = "".join(output.get("data", {}).get("text/html", "") for output in cell.outputs)
    assert "<img" in shown and "This control works" in shown
    (tmp_path / "shown.html").write_text(shown, encoding="utf-8")
    page = Seen(tmp_path / "shown.html")
    assert not page.tags & {"script", "svg", "iframe", "a", "meta", "link"} and not page.handlers
    assert all(one.startswith("data:image/") for one in page.loads)
    assert any(EVIL[1] in output.get("data", {}).get("text/plain", "") for output in cell.outputs)


@pytest.mark.parametrize("width", [1280, 360])
def test_the_site_opens_from_disk(site, browser, width):
    """Breaks on a request, an error in the console, cut text, or a search without hits."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, failed = [], []
    local = ("file:", "data:")
    page.on("request", lambda r: None if r.url.startswith(local) else asked.append(r.url))
    page.on("requestfailed", lambda r: failed.append(r.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda m: failed.append(m.text) if m.type == "error" else None)
    for name in ("index", "method", "trust", "howto/network", "api/atlas", "project/architecture"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.goto((site / "method.html").as_uri())
    assert page.locator("math").first.bounding_box()["height"] > 5
    assert page.locator("svg.pipeline").bounding_box()["width"] > 300
    page.goto((site / "search.html").as_uri() + "?q=abstains")
    page.locator("#search-results li", has_text="Glossary").first.wait_for()
    assert not asked and not failed
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_site_is_accessible(site, browser, scheme):
    """Breaks on too little contrast, drawings and regions without a name, links without words."""
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for name in ("index", "trust", "api/concepts", "project/architecture"):
        page.goto((site / f"{name}.html").as_uri())
        found = Axe().run(page).response["violations"]
        bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] != "minor"]
        assert not bad, name
    page.close()


# Examples -------------------------------------------------------------------------------------


def examples(path):
    """Return the examples of a page: its blocks of pycon, one after the other."""
    return "\n".join(re.findall(r"^```pycon\n(.*?)^```", path.read_text("utf-8"), re.M | re.S))


WITH_EXAMPLES = [path for path in sorted(DOCS.glob("**/*.md")) if examples(path)]
WITH_DOCTESTS = [
    name for name, path in import_graph.MODULES.items() if ">>>" in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_of_a_page_give_what_it_shows(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(examples(path), {}, path.stem, str(path), 0)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("name", WITH_DOCTESTS)
def test_examples_in_docstrings_give_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WWW_STORE", str(tmp_path / "store"))
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_examples_are_tested_wherever_they_stand():
    """Breaks if examples in a docstring or a page are no longer found."""
    assert {"start", "network", "images", "masks", "words", "encoder"} <= {
        path.stem for path in WITH_EXAMPLES
    }
    assert len(WITH_DOCTESTS) >= 4


# Sources --------------------------------------------------------------------------------------


def test_the_pipeline_has_words_for_those_who_do_not_see_it():
    text = (DOCS / "pipeline.svg").read_text("utf-8")
    assert 'role="img"' in text and len(re.search("<title[^>]*>(.*?)</title>", text)[1]) > 200


def test_the_picture_of_imports_shows_every_import():
    made, count = import_graph.picture(), import_graph.between_parts()
    for pair in (("atlas", "maps"), ("language", "images"), ("studies", "world")):
        assert count[pair], pair
    assert made.count("<circle") == sum(1 for pair in count if "__main__" not in pair)
    for (row, column), n in count.items():
        if "__main__" not in (row, column):
            assert f"<title>{row} imports {column}: {n}</title>" in made


def test_what_the_site_writes_beside_its_sources_is_ignored_by_git():
    names = [f"docs/{name}" for name in ("notebooks/x.ipynb", "api/x.md", "_made/imports.svg")]
    command = ["git", "-C", str(ROOT), "check-ignore", *names]
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
    assert done.stdout.split() == names
