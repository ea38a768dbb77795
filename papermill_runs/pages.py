"""Turn executed notebooks into pages that open from disk, with no script and no network.

    python papermill_runs/pages.py                                 the reference copies
    python papermill_runs/pages.py papermill_runs/runs/photos      a run of your own

They go into build/pages, those of a run into build/pages-<its name>, with a digest of its path
where it lies outside papermill_runs/runs. Formulas become MathML when a page is made. Outputs hold
text from outside, such as concept and file names: their HTML is reduced to tables, images and text,
and each page's policy forbids scripts and requests. The explorer's page with controls, which
notebook 07 has made, comes along unchanged: its script is its own, and it sends no request either.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import io
import os
import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import nh3
from execute import one_line
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from PIL import Image
from profiles import Project
from publish import PAGES, tidy
from pygments.formatters import HtmlFormatter

PROJECT = Project(Path(__file__).resolve().parents[1])
TEMPLATES = Path(__file__).with_name("templates")
TEACHING = "teaching.html"  # the page made from notebooks/README.md
_SAFE = {
    "tags": nh3.ALLOWED_TAGS - {"a", "area", "map"},  # nothing leads elsewhere
    "attributes": nh3.ALLOWED_ATTRIBUTES | {"table": {"class"}},
    "url_schemes": {"data"},
    "attribute_filter": lambda tag, name, value: (
        value if name != "src" or value.startswith("data:image/") else None
    ),
}
_SCROLLS = ' tabindex="0" role="group" aria-label="Table"'  # by keyboard, too
_SAVED = re.compile(r"([A-Za-z0-9][\w.-]*)\.png: (.*)", re.DOTALL)  # the repr of plots.Shown


class Figure(NamedTuple):
    """A figure inside a page: its file name without ending, alt text and bytes."""

    name: str
    alt: str
    data: bytes


class Page(NamedTuple):
    """A page of the site, with its entry on the contents page."""

    file: str
    book: nbformat.NotebookNode
    title: str
    question: str = ""
    paper: str = ""
    figures: tuple[Figure, ...] = ()
    controls: str = ""  # file of the page with controls, if there is one

    @property
    def thumbnail(self) -> str:
        """The first figure with a number of the paper, else the last one, small, as a data URI."""
        numbered = [figure for figure in self.figures if figure.name.startswith("fig")]
        for figure in (*numbered[:1], *self.figures[-1:])[:1]:
            small = Image.open(io.BytesIO(figure.data)).convert("RGB")
            small.thumbnail((480, 720))
            buffer = io.BytesIO()
            small.quantize(128).save(buffer, format="PNG", optimize=True)
            return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        return ""


def main(argv: list[str] | None = None, project: Project = PROJECT) -> int:
    """Carry out a command line and return the exit code."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("source", nargs="?", type=Path, default=project.reference, help="executed notebooks")
    add("--out", type=Path, help="folder for the pages; default: as above")
    options = parser.parse_args(argv)
    run = options.source.resolve()
    own = "pages" if run == project.reference.resolve() else f"pages-{run.name}"
    if run.parent not in (project.runs.resolve(), project.reference.resolve().parent):
        own += f"-{hashlib.sha256(os.fsencode(run)).hexdigest()[:8]}"
    out = options.out or project.root / "build" / own
    try:
        index = build(options.source, out, project.notebooks / "README.md")
    except (ValueError, OSError) as error:
        print(one_line(str(error), 2000), file=sys.stderr)
        return 2
    print(f"Open {os.path.relpath(index)} in a browser: no network is needed.")
    return 0


def build(source: Path, out: Path, teaching: Path | None = None) -> Path:
    """Write a page for each executed notebook of a folder, and return a contents page.

    Other files in the folder of the pages stay; a page in Markdown may come last. Raises ValueError
    if there is no executed notebook, or one of them has a formula that cannot be read.
    """
    found = [path for path in sorted(source.glob("*.ipynb")) if "." not in path.stem]
    if not found:
        raise ValueError(
            f"There is no executed notebook in {source}; make some with `make reference`, or name "
            "the folder of a run."
        )
    out.mkdir(parents=True, exist_ok=True)
    pages = [read(path)._replace(controls=_controls(path, out)) for path in found]
    if teaching and teaching.exists():
        text = teaching.read_text(encoding="utf-8")
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
        pages.append(Page(TEACHING, book, _title(text) or "Teaching", "How do I teach with this?"))
    filters = {"prose": _prose, "harmless": lambda text: nh3.clean(text, **_SAFE), "frame": _frame}
    folders, style = [str(TEMPLATES)], _style()
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=folders, filters=filters)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    around = zip([None, *pages], pages, [*pages[1:], None], strict=False)
    for previous, page, following in around:
        resources = {"page": page, "previous": previous, "next": following, "style": style}
        try:
            text, _ = exporter.from_notebook_node(page.book, resources)
        except ValueError as error:
            raise ValueError(f"{page.title}: {error}") from error
        (out / page.file).write_text(text, encoding="utf-8")
    contents = exporter.environment.get_template("contents.html.j2")
    (out / "index.html").write_text(contents.render(pages=pages, style=style), encoding="utf-8")
    return out / "index.html"


def read(path: Path) -> Page:
    """Read an executed notebook and its entry on the contents page."""
    book = tidy(nbformat.read(path, as_version=4))
    first = book.cells[0].source if book.cells else ""
    labelled = dict(re.findall(r"\*\*(Question|Paper)\.?\*\*\.? *(.+)", first))
    outputs = [o for cell in book.cells for o in cell.get("outputs", ())]
    figures = [figure for output in outputs if (figure := figure_of(output))]
    title = _title(first) or path.stem
    question, paper = labelled.get("Question", ""), labelled.get("Paper", "")
    return Page(f"{path.stem}.html", book, title, question, paper, tuple(figures))


def _controls(path: Path, out: Path) -> str:
    """Copy the page with controls that a notebook has made; return its name, or an empty one."""
    found = ""
    for name, kept in PAGES.items():
        for made in (path.with_suffix("") / name, path.with_name(f"{path.stem}{kept}")):
            if made.is_file():
                shutil.copyfile(made, out / name)
                found = found or name
    return found


def figure_of(output: nbformat.NotebookNode) -> Figure | None:
    """Return the figure that an output shows, None if it shows none that was saved."""
    data = output.get("data", {})
    saved = _SAVED.fullmatch(data.get("text/plain", ""))
    inside = re.search(r'src="data:image/png;base64,([^"]+)"', data.get("text/html", ""))
    if not (saved and inside):
        return None
    return Figure(saved[1], " ".join(saved[2].split()), base64.b64decode(inside[1]))


def mathml(formula: str, display: str = "inline") -> str:
    """Return a TeX formula as MathML, which browsers draw without a script.

    Raises ValueError if a command in it is not known, or its backslash is doubled.
    """
    if doubled := re.search(r"\\\\[A-Za-z]+", formula):
        raise ValueError(f"The formula ${formula}$ has {doubled[0]}: one backslash is enough.")
    try:
        made = convert(re.sub(r"\\arg\b", r"\\operatorname{arg}", formula), display=display)
    except Exception as error:  # the library has no common class of its own errors
        raise ValueError(f"The formula ${formula}$ cannot be read; correct it.") from error
    if unknown := re.search(r">(\\[A-Za-z]+)<", made):  # shown as letters
        raise ValueError(f"The formula ${formula}$ has {unknown[1]}, which has no MathML.")
    return made


class _Prose(IPythonRenderer):
    """Markdown as in a notebook, with formulas as MathML and links that lead to pages."""

    def inline_math(self, body: str) -> str:
        return mathml(body)

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def table(self, text: str) -> str:
        return f'<div class="table"{_SCROLLS}><table>\n{text}</table></div>\n'

    def heading(self, text: str, level: int, **attrs) -> str:
        plain = html.unescape(re.sub("<[^>]*>", "", text)).lower()
        place = re.sub(r"\W+", "-", plain).strip("-")
        return f'<h{level} id="{html.escape(place)}">{text}</h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith(("https://", "http://", "#")):
            return super().link(text, url, title)
        beside = re.fullmatch(r"(?:\./)?(\w+)\.ipynb", url)
        return f'<a href="{beside[1]}.html">{text}</a>' if beside else text


def _title(markdown: str) -> str:
    return found[1].strip() if (found := re.match(r"# (.+)", markdown)) else ""


def _prose(source: str) -> str:
    return MarkdownWithMath(renderer=_Prose(escape=False)).render(source)


def _frame(output: nbformat.NotebookNode) -> str:
    """Return the attributes of the box around an HTML output: a place to link to, a name."""
    if figure := figure_of(output):
        return f' id="figure-{figure.name}"'
    return _SCROLLS if "<table" in output.data["text/html"] else ""


def _style() -> str:
    """Return the style sheet, with the colours of code in light and in dark."""
    own = (TEMPLATES / "page" / "style.css").read_text(encoding="utf-8")
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n{own}"


if __name__ == "__main__":
    sys.exit(main())
