"""The executed copies for readers are of these very notebooks, whole, and fit to be published."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from publish import LIMIT

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "papermill_runs" / "reference"
COPIES = sorted(REFERENCE.glob("*.ipynb"))
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.skipif(not COPIES, reason="no executed copies yet: make reference")
each_copy = pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return [output for cell in cells for output in cell.get("outputs", ())]


def sources(path):
    cells = nbformat.read(path, as_version=4).cells
    injected = [c for c in cells if "injected-parameters" in c.metadata.get("tags", ())]
    return [(c.cell_type, c.source) for c in cells if c not in injected]


def test_there_is_a_copy_of_every_notebook():
    assert [path.name for path in COPIES] == [path.name for path in SOURCES]


@each_copy
def test_a_copy_has_the_text_and_code_of_its_notebook(path):
    """Breaks if somebody edits a notebook and publishes no new copy."""
    assert sources(path) == sources(ROOT / "notebooks" / path.name), "make reference"


@each_copy
def test_a_copy_ran_to_its_end(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip())
    assert not [output for output in outputs(path) if output.output_type == "error"]


@each_copy
def test_every_image_in_a_copy_has_words(path):
    found = []

    class Images(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend([dict(attrs)] if tag == "img" else [])

    for output in outputs(path):
        assert not {"image/png", "image/jpeg", "image/svg+xml"} & output.get("data", {}).keys()
        Images().feed("".join(output.get("data", {}).get("text/html", "")))
    assert all(image.get("alt", "").strip() for image in found)


@each_copy
def test_a_copy_names_no_place_on_the_machine_that_made_it(path):
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
    found = re.search(r"(?<![\w.])/(?:home|Users|root|tmp|work|mnt|opt|usr|var)/\S+", text)
    assert not found, found[0]


def test_the_copies_and_the_figures_of_the_readme_are_small_and_there():
    """Everybody who clones the repository loads them."""
    assert sum(p.stat().st_size for p in REFERENCE.rglob("*") if p.is_file()) < LIMIT
    shown = re.findall(r"\((papermill_runs/reference/[^)]+)\)", (ROOT / "README.md").read_text())
    assert all((ROOT / name).is_file() for name in shown)
