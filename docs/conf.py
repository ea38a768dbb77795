"""The documentation site, which `make docs` builds from this folder into build/docs.

It opens from disk and loads nothing from elsewhere: formulas become MathML when it is built, and
fonts, icons and search lie beside its pages. The notebooks are the executed copies of
`papermill_runs/reference`; they, the pages of the API reference and the picture of the imports are
written beside these sources first, where git ignores them.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "papermill_runs"), str(HERE)]

import import_graph
import nbformat
import nh3
import pages
from docutils import nodes
from publish import WIDGET
from sphinx import addnodes

import wwwlib

project, author, version = "WWW", "WWW contributors", wwwlib.__version__
copyright = author
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_static"]
suppress_warnings = ["mystnb.mime_priority"]
nitpicky = False

# Markdown and notebooks: never executed here.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# The API reference: docstrings are numpydoc, and single backticks are names of Python.
default_role = "name"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"
numpydoc_show_class_members = False

# Pages.
html_theme = "pydata_sphinx_theme"
html_title = "WWW"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {name: [] for name in ("index", "start", "method", "trust", "glossary")}
html_show_sourcelink = False
html_show_search_summary = False  # it would load pages, which a browser refuses from disk
html_copy_source = False
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}  # light or dark, as the system
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "collapse_navigation": True,  # without toggles, which have no name for screen readers
    "header_links_before_dropdown": 7,
}


def math(self, node):
    """Write a formula as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    made = pages.mathml(node.astext(), display)
    self.body.append(f'<div class="formula">{made}</div>' if display == "block" else made)
    raise nodes.SkipNode


def name(role, rawtext, text, lineno, inliner, options=None, content=None):
    """Link a name in a docstring to its page.

    Names with a dot are looked up everywhere, others in their own module or class only: a parameter
    called `top` is no method of that name elsewhere.
    """
    node = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=text, refwarn=False)
    if "." in text:
        node["refspecific"] = True
    node["py:module"] = inliner.document.settings.env.ref_context.get("py:module")
    node["py:class"] = inliner.document.settings.env.ref_context.get("py:class")
    shown = text.removeprefix("wwwlib.")
    node += nodes.literal(rawtext, shown, classes=["xref", "py", "py-obj"])
    return [node], []


def notebooks(source: Path, out: Path) -> None:
    """Copy executed notebooks, their HTML cleaned and their widgets replaced by a sentence.

    The outputs of notebooks hold names from files. What `pages.py` removes from them is removed
    here, too.
    """
    out.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        book = pages.tidy(nbformat.read(path, as_version=4))
        book.metadata.pop("widgets", None)
        for output in (o for cell in book.cells for o in cell.get("outputs", ())):
            data = output.get("data", {})
            if data.pop(WIDGET, None):
                data["text/html"] = "<p><em>This control works when the notebook runs.</em></p>"
            if "text/html" in data:
                cleaned = nh3.clean(data["text/html"], **pages._SAFE)
                data["text/html"] = f'<div class="output-html">{cleaned}</div>'
            for kind in data.keys() - {"text/html", "text/plain", "image/png"}:
                del data[kind]
        write(out / path.name, nbformat.writes(book))
    write(out / "teaching.md", (ROOT / "notebooks" / "README.md").read_text("utf-8"))


def write(path: Path, text: str) -> None:
    """Write a file unless it has this content, so that a second build has less to do."""
    if not path.exists() or path.read_text("utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def reference() -> None:
    """Write a page of the API reference for each step of the core, and for each other folder."""
    core = [name for name in import_graph.CORE if name != "__main__"]
    for part in [*core, *import_graph.FOLDERS]:
        found = sorted(name for name in import_graph.MODULES if name.split(".")[1:2] == [part])
        if part in ("baselines", "studies", "explorer"):  # used module by module
            found = [name for name in found if ".voila" not in name]
        else:
            found = [f"wwwlib.{part}"]
        found += ["wwwlib.targets.layout"] if part == "activations" else []  # what it captures
        lines = [f"# {part}", ""]
        for name in found:
            lines += [] if name == f"wwwlib.{part}" else [f"## {name.removeprefix('wwwlib.')}", ""]
            options = ""
            if import_graph.MODULES[name].name == "__init__.py" and len(found) == 1:
                options = "\n   :imported-members:"
            if part == "atlas":  # which passes on a function of `images`
                options += "\n   :exclude-members: match_labels"
            lines += ["```{eval-rst}", f".. automodule:: {name}{options}", "```", ""]
        write(HERE / "api" / f"{part}.md", "\n".join(lines))


def setup(app):
    """Register the formulas, and write what is made from other files of the repository."""
    app.add_role("name", name)
    app.add_html_math_renderer("mathml", (math, None), (math, None))
    notebooks(ROOT / "papermill_runs" / "reference", HERE / "notebooks")
    reference()
    write(HERE / "_made" / "imports.svg", import_graph.picture())
