"""The pages made from notebooks: whole, offline, and deaf to what other people's strings ask."""

import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pages
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from profiles import Project
from publish import WIDGET

from wwwlib import world
from wwwlib.studies import figures

ROOT = Path(__file__).resolve().parents[1]
EVIL = (
    "<img src=x onerror=document.title='owned'>",
    "<script>document.title='owned'</script>",
    '"><svg onload="document.title=\'owned\'">',
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "<a href=\"javascript:document.title='owned'\">x</a>",
    "<meta http-equiv=refresh content='0; url=https://example.org'>",
    "<link rel=stylesheet href=https://example.org/x.css>",
    "$\\alpha$ & <b>",
)
FIRST = """# 01 · First

**Question.** WHAT is $D_{rep}$?

**Paper.** Figure 3."""
TRY = """## Try it

1. Why?

<details><summary>What you may find</summary>

1. *Because.*

</details>"""


def show(thing):
    """Return the output that a notebook keeps of something displayed."""
    data = {"text/plain": repr(thing), "text/html": thing._repr_html_()}
    return new_output("display_data", data=data)


def outputs(folder):
    """Everything that notebooks show of foreign words: a figure, tables, lines, a widget."""
    probe = world.image_set(4)
    drawn = figures.samples(probe, [0, 1], list(EVIL[:2]))
    table = pd.DataFrame({EVIL[0]: EVIL, "number": range(len(EVIL))}, index=EVIL)
    widget = {"text/plain": "Box()", WIDGET: {"model_id": "x", "version_major": 2}}
    bar = {"text/plain": "images:  0%|          | 0/24 [00:00<?]", WIDGET: {"model_id": "y"}}
    return [
        show(figures.save(drawn, folder, "fig3", " ".join(EVIL))),
        show(table),
        show(table.style),
        new_output("stream", name="stdout", text="\n".join(EVIL)),
        new_output("execute_result", data={"text/plain": repr(EVIL)}),
        new_output("display_data", data={"text/plain": "HTML", "text/html": "".join(EVIL)}),
        new_output("display_data", data={"text/plain": "J", "application/javascript": "alert(1)"}),
        new_output("display_data", data={"image/svg+xml": EVIL[2], "text/plain": "S"}),
        new_output("display_data", data={"text/markdown": "".join(EVIL), "text/plain": "M"}),
        new_output("display_data", data=widget),
        new_output("display_data", data=bar),
        new_output("error", ename=EVIL[0], evalue=EVIL[1], traceback=[EVIL[1]]),
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Pages of two small notebooks, one of which shows hostile words in every way there is."""
    place = tmp_path_factory.mktemp("site")
    (place / "runs").mkdir()
    formula = (
        r"$$s_j = \frac1K \sum_{o=1}^{K} \big[\cos(v_o, t_j) - \cos(v_o, t_0)\big] \quad (1)$$"
    )
    linked = "See [the second](02_second.ipynb), [a file](../README.md).\n\n|a|b|\n|---|---|\n|1|2|"
    cells = [new_markdown_cell(FIRST), new_code_cell("k = 1  # " + EVIL[1], outputs=outputs(place))]
    cells += [new_markdown_cell(text) for text in (formula, linked, TRY)]
    for cell in cells[1:2]:
        cell.metadata["tags"] = ["parameters"]
    for name, own in (("01_first", cells), ("02_second", [new_markdown_cell("# 02 · Second")])):
        nbformat.write(new_notebook(cells=own), place / "runs" / f"{name}.ipynb")
    (place / "README.md").write_text("# For teachers\n\nBegin with [01](01_first.ipynb).\n")
    pages.build(place / "runs", place / "pages", place / "README.md")
    return place / "pages"


class Seen(HTMLParser):
    """Collects the tags of a page with their attributes, as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Keep a tag."""
        self.tags.append((tag, dict(attrs)))


def tags(path):
    return Seen(path.read_text(encoding="utf-8")).tags


def assert_sound(path):
    """One page: nothing runs, nothing loads, and everything has its words."""
    found = tags(path)
    names = {tag for tag, _ in found}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "svg"}
    for tag, attrs in found:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert attrs.get("src", "data:image/").startswith("data:image/"), (tag, attrs)
        href = attrs.get("href", "#")
        assert re.match(r"#|https://|[\w.-]+\.html(#|$)", href), href
        if re.match(r"[\w.-]+\.html", href):
            assert (path.parent / href.partition("#")[0]).exists(), f"{href} leads nowhere"
        if tag == "meta" and "http-equiv" in attrs:
            assert attrs["http-equiv"] == "Content-Security-Policy"
            assert "default-src 'none'" in attrs["content"] and "script" not in attrs["content"]
    assert ("html", {"lang": "en"}) in found and "title" in names
    assert (
        any(tag == "main" for tag, _ in found)
        and ("a", {"class": "skip", "href": "#main"}) in found
    )
    made = [attrs for tag, attrs in found if tag == "img"]
    assert all("alt" in attrs for attrs in made)
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(ids) == len(set(ids)), "two places of one name"


def test_every_page_loads_nothing_runs_nothing_and_leads_somewhere(site):
    found = sorted(site.glob("*.html"))
    assert [path.name for path in found] == [
        "01_first.html", "02_second.html", "index.html", "teaching.html"
    ]  # fmt: skip
    for path in found:
        assert_sound(path)


def test_a_page_shows_what_the_notebook_shows(site):
    """Breaks if an output is dropped in silence, or a widget leaves a hole."""
    text = (site / "01_first.html").read_text(encoding="utf-8")
    for word in EVIL:
        assert text.count(html.escape(word, quote=False)) >= 2
    assert "when the notebook runs" in text and "0%|" not in text
    assert "<details><summary>What you may find</summary>" in text and "<em>Because.</em>" in text
    assert 'class="code"' in text and "Parameters" in text
    assert 'href="02_second.html">the second</a>' in text and "a file" in text
    assert "README.md" not in text


@pytest.mark.parametrize("made", ["07_x/explorer.html", "07_x.html"], ids=["run", "reference"])
def test_the_page_with_controls_comes_along_where_a_widget_was(tmp_path, made):
    """Breaks if the explorer, without a kernel, is only a hint that something is missing."""
    widget = new_output("display_data", data={"text/plain": "Box()", WIDGET: {"model_id": "x"}})
    cells = [new_markdown_cell("# 07 · X"), new_code_cell("page", outputs=[widget])]
    nbformat.write(new_notebook(cells=cells), tmp_path / "07_x.ipynb")
    index = pages.build(tmp_path, tmp_path / "without")
    assert "as a page" not in index.read_text() + (index.parent / "07_x.html").read_text()
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("with controls")
    index = pages.build(tmp_path, tmp_path / "pages")
    assert (index.parent / "explorer.html").read_text() == "with controls"
    for page in (index, index.parent / "07_x.html"):
        assert '<a href="explorer.html">' in page.read_text(encoding="utf-8")
        assert_sound(page)


def test_formulas_are_mathml_and_bad_ones_are_named(site):
    text = (site / "01_first.html").read_text(encoding="utf-8")
    assert "<math" in text and 'display="block"' in text and "\\frac" not in text
    with pytest.raises(ValueError, match=r"\\nonsense"):
        pages.mathml(r"\nonsense{x}")
    with pytest.raises(ValueError, match="cannot be read"):
        pages.mathml(r"\frac{")
    with pytest.raises(ValueError, match=r"\\\\partial: one backslash"):
        pages.mathml(r"\\partial f")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_formula_of_a_notebook_becomes_mathml(path):
    """Breaks if somebody writes TeX that pages cannot show."""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            made = re.sub("<code>.*?</code>", "", pages._prose(cell.source), flags=re.DOTALL)
            assert "$" not in re.sub("<[^>]*>", "", made), (
                f"a formula was missed: {cell.source:.60}"
            )


def test_contents_name_question_paper_and_figures(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    for words in ("01 · First", "WHAT is", "Paper: Figure 3.", "1 figure", "For teachers"):
        assert words in text, words
    assert '<a href="01_first.html#figure-fig3">fig3</a>' in text
    assert 'id="figure-fig3"' in (site / "01_first.html").read_text(encoding="utf-8")
    image = re.search(r'class="thumb".*?base64,([^"]+)"', text, re.DOTALL)[1]
    assert base64.b64decode(image)[:4] == b"\x89PNG"


def test_nothing_to_show_is_one_sentence(tmp_path, capsys):
    assert pages.main([str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "make reference" in capsys.readouterr().err and not (tmp_path / "o").exists()


def test_pages_of_a_run_leave_those_of_others_alone(tmp_path, monkeypatch):
    """Breaks if the pages of a run go into the folder of another one's, or the reference's."""
    project = Project(tmp_path)
    found = set()
    elsewhere = [tmp_path / one / "a" for one in ("x", "y")]
    for source in (project.reference, project.runs / "a", project.runs / "b", *elsewhere):
        source.mkdir(parents=True)
        monkeypatch.setattr(pages, "build", lambda source, out, teaching: found.add(out) or out)
        assert pages.main([str(source)], project) == 0
    names = {path.name for path in found}
    assert len(names) == 5 and {path.parent for path in found} == {tmp_path / "build"}
    assert names > {"pages", "pages-a", "pages-b"}


def test_tables_of_names_reach_pages_as_text():
    """pandas escapes in `to_html`; a Styler does not, which is why pages clean everything."""
    page = pd.DataFrame({EVIL[0]: [EVIL[1]]}, index=[EVIL[0]])._repr_html_()
    assert "<img" not in page and "<script" not in page
    cleaned = pages.nh3.clean("".join(EVIL), **pages._SAFE)
    assert not re.search(r"<(script|svg|iframe|a|meta|link)\b|onerror|javascript:", cleaned)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800])
def test_pages_open_from_disk_in_a_browser(site, browser, width, scheme):
    """Breaks on a request, an error in the console, a script that ran, or text cut at the side."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked, said = [], []
    page.on("request", lambda r: asked.append(r.url) if r.url.startswith(("http", "ws")) else None)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        assert page.title() and page.title() != "owned"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "cut at the side"
        broken = "[...document.images].filter(i => i.src && !i.naturalWidth).map(i => i.outerHTML)"
        assert page.evaluate(broken) == []
    page.goto((site / "01_first.html").as_uri())
    answer = page.get_by_text("Because.")
    assert not answer.is_visible()
    page.get_by_text("What you may find").click()
    assert answer.is_visible()
    page.keyboard.press("Home")
    page.get_by_role("link", name="02 · Second").first.click()
    assert page.title() == "02 · Second · WWW"
    assert asked == [] and said == []
    page.close()
