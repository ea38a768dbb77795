"""The layout of the package, the form of the notebooks, and what no code here may do."""

import ast
import difflib
import importlib
import io
import re
import subprocess
import tokenize
import tomllib
from pathlib import Path
from statistics import median

import nbformat
import pytest
from import_graph import CORE, FOLDERS, LIBRARY, MODULES, imports, part
from parameters import cells, declared
from profiles import Project, load, names

ROOT = Path(__file__).resolve().parents[1]
PROJECT = Project(ROOT)
SCRIPTS = sorted(
    path for folder in ("papermill_runs", "data", "docs") for path in (ROOT / folder).glob("*.py")
)
CODE = LIBRARY + SCRIPTS
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

each_module = pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


# Modules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"wwwlib"}))
def test_a_module_imports_only_what_its_part_may(name):
    """The core imports none of the four folders, and its own steps in one direction only."""
    here = part(name)
    assert here in {*CORE, *FOLDERS}, f"{name} belongs to no part of the package"
    allowed = {here, *CORE, *FOLDERS[here]} if here in FOLDERS else {*CORE[: CORE.index(here) + 1]}
    wrong = {one for one in imports(name) if part(one) not in allowed}
    assert not wrong, f"{name} imports {sorted(wrong)}"


def test_nothing_imports_in_a_circle():
    left = {name: imports(name) for name in MODULES}
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"in a circle: {sorted(left)}"


def test_contributing_follows_one_image_through_the_code_as_it_is():
    """Breaks if a step is missing from its table, stands elsewhere, or a name in it is gone."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    steps = re.findall(r"^\| `(\w+)/?` \|", text, re.M)
    assert steps == [*(one for one in CORE if one != "__main__"), *FOLDERS]
    story = text[text.index("## One image") : text.index("## Code")]
    names = re.findall(r"`((?:[a-z_]+|Atlas|Explanation|ConceptSet)\.\w+)`", story)
    homes = {"Atlas": "atlas", "Explanation": "atlas", "ConceptSet": "language"}
    assert len(names) > 15
    for name in names:
        head, _, last = name.partition(".")
        module = importlib.import_module(f"wwwlib.{homes.get(head, head)}")
        owner = getattr(module, head) if head in homes else module
        assert hasattr(owner, last) or f"{module.__name__}.{last}" in MODULES, name


def lines_of_code(path):
    """Count the lines that are neither blank, nor comment, nor docstring."""
    source, lines = path.read_text(), set()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped | {tokenize.ENDMARKER}:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_core_and_package_keep_their_budgets_of_lines():
    counted = {path: lines_of_code(path) for path in LIBRARY}
    core = sum(n for path, n in counted.items() if path.relative_to(ROOT).parts[1] not in FOLDERS)
    assert core <= 5_000, f"the core has {core} lines of code"
    assert sum(counted.values()) <= 10_000, f"the package has {sum(counted.values())} lines of code"


def test_the_types_of_the_whole_core_are_checked():
    """Breaks if a new module of the core is not among the files that mypy reads."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    found = [path for one in listed for path in ROOT.glob(one)]
    checked = {path for one in found for path in ([one] if one.is_file() else one.rglob("*.py"))}
    core = {path for path in LIBRARY if path.relative_to(ROOT).parts[1] not in FOLDERS}
    assert checked == core


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_what_is_public_is_annotated(path):
    top = ast.parse(path.read_text()).body
    classes = [one for one in top if isinstance(one, ast.ClassDef) and one.name[0] != "_"]
    top += [one for cls in classes for one in cls.body]
    for one in (n for n in top if isinstance(n, ast.FunctionDef) and n.name[0] != "_"):
        own = (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)
        bare = [a.arg for a in own if not a.annotation and a.arg not in ("self", "cls")]
        assert not bare and one.returns, f"{one.name}: {', '.join(bare) or 'what it returns'}"


@each_module
def test_a_module_begins_with_its_purpose_and_is_of_readable_length(path):
    source = path.read_text()
    assert ast.get_docstring(ast.parse(source)), "its first lines say what it is for"
    assert source.count("\n") <= 500 or lines_of_code(path) <= 350, "make it a folder"
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", source)


def lengths(path):
    """Yield name and number of lines of each function of a file, without its docstring."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, node.end_lineno - body[0].lineno + 1 if body else 0


@each_module
def test_a_function_has_at_most_70_lines(path):
    for name, length in lengths(path):
        assert length <= 70, f"{name} has {length} lines without its docstring"


def test_half_of_all_functions_are_short():
    assert median(length for path in LIBRARY for _, length in lengths(path)) <= 14


UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
HARMLESS = {"pickle", "pickle.UnpicklingError"}  # what torch.load raises on a file it refuses


def unsafe(source):
    """Yield unsafe code: unpickling, running text, devices of one maker."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", "?")
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            imported = {base + alias.name + (".as" if alias.asname else "") for alias in node.names}
            if any(one.split(".")[0] in UNSAFE for one in imported - HARMLESS):
                yield f"line {line}: {ast.unparse(node)}"
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.split(".")[0] in UNSAFE and name not in HARMLESS:
                yield f"line {line}: {name}"
        elif isinstance(node, ast.Call):
            name, given = ast.unparse(node.func), {k.arg: k.value for k in node.keywords}
            safe = ast.unparse(given["weights_only"]) if "weights_only" in given else None
            if (
                name in {"eval", "exec", "__import__", "os.system", "yaml.load", "yaml.unsafe_load"}
                or name.endswith(".cuda")
                or {"allow_pickle", "shell"} & given.keys()
                or (name == "torch.load" and safe != "True")
                or safe not in (None, "True")
            ):
                yield f"line {line}: {ast.unparse(node)}"


@each_module
def test_nothing_is_unpickled_or_run_from_text(path):
    assert not list(unsafe(path.read_text()))


@pytest.mark.parametrize(
    "source",
    ["from pickle import load", "import pickle as p", "from joblib import load", "import dill",
     "pickle.load(f)", "torch.load(f)", "torch.load(f, weights_only=False)", "model.cuda()",
     "hub.load(f, weights_only=anything)", "np.load(f, allow_pickle=True)", "eval(text)",
     "exec(text)", "os.system(text)"],
)  # fmt: skip
def test_the_search_for_unsafe_code_finds_it(source):
    assert list(unsafe(source))


def test_what_is_safe_is_not_called_unsafe():
    assert not list(
        unsafe(
            "import pickle; model.eval(); torch.load(f, weights_only=True); pickle.UnpicklingError"
        )
    )


def test_no_file_names_somebodys_home():
    try:
        command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "-z"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so nobody knows which files belong to it")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        if b"\0" not in data[:8000]:
            found = re.search(rb"/(?:home|Users)/\w+|/root/\w+|[A-Z]:\\+Users\\+\w+", data)
            assert not found, f"{name} contains {found[0]}"


# Notebooks ----------------------------------------------------------------------------------

HEAD = ("question", "paper", "needs", "run time")


def code(path):
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def prose(path):
    return [cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown"]


def tree(cell):
    """Parse a code cell, IPython's own lines (%matplotlib inline) left out."""
    lines = cell["source"].splitlines()
    return ast.parse("\n".join("" if re.match(r"\s*[%!?]", line) else line for line in lines))


@each_notebook
def test_notebook_is_valid_and_carries_no_outputs(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert not {"papermill", "widgets"} & book.metadata.keys()
    for cell in code(path):
        assert cell["outputs"] == [] and cell["execution_count"] is None


@each_notebook
def test_notebook_begins_with_title_question_paper_needs_and_run_time(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown" and first["source"].startswith("# ")
    for label in HEAD:
        assert f"**{label}" in first["source"].lower(), f"the first cell has no **{label}**"
    assert "?" in first["source"]
    run_time = first["source"].lower().partition("**run time")[2]
    for profile in names(PROJECT):
        if path.stem in load(PROJECT, profile).notebooks:
            assert profile in run_time, f"it does not tell its run time in profile {profile}"


@each_notebook
def test_second_cell_declares_the_parameters_and_out_is_one(path):
    assert "parameters" in cells(path)[1]["metadata"].get("tags", [])
    parameters = declared(path)
    assert parameters["out"].type == "str", "the runner says through `out` where to write"


@each_notebook
def test_third_cell_imports_and_no_other_does(path):
    assert cells(path)[2]["cell_type"] == "code"
    for cell in [*cells(path)[:2], *cells(path)[3:]]:
        if cell["cell_type"] == "code":
            found = [n for n in ast.walk(tree(cell)) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not found, f"imports belong into the third cell: {ast.unparse(found[0])}"


@each_notebook
def test_middle_is_idea_code_reading_and_then_try_it(path):
    middle = cells(path)[3:-1]
    end = next(
        (i for i, c in enumerate(middle) if c["source"].startswith("## Try it")), len(middle)
    )
    assert end < len(middle), 'there is no cell that begins with "## Try it"'
    assert end % 3 == 0, f"{end} cells do not make triples of idea, code and how to read it"
    for i in range(0, end, 3):
        idea, do, read = middle[i : i + 3]
        kinds = [cell["cell_type"] for cell in (idea, do, read)]
        assert kinds == ["markdown", "code", "markdown"], f"cells {i + 4} to {i + 6} are {kinds}"
        assert read["source"].startswith("**How to read"), (
            f"cell {i + 6} tells how to read cell {i + 5}"
        )
        assert isinstance(tree(do).body[-1], ast.Expr), f"cell {i + 5} ends in no table or figure"
    assert any("<details>" in cell["source"] for cell in middle[end:]), "answers are folded"


@each_notebook
def test_last_cell_writes_the_results(path):
    last = cells(path)[-1]
    assert last["cell_type"] == "code" and "results.json" in last["source"]
    assert re.search(r"\bout\b", "".join(cell["source"] for cell in code(path)[1:]))


@each_notebook
def test_a_cell_is_short_and_safe_and_defines_short_functions_only(path):
    for cell in code(path):
        if "parameters" not in cell["metadata"].get("tags", []) and cell != cells(path)[2]:
            lines = cell["source"].splitlines()
            assert len(lines) <= 25, f"{len(lines)} lines: {lines[0]}"
        for node in ast.walk(tree(cell)):
            assert not isinstance(node, ast.ClassDef | ast.AsyncFunctionDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 8, f"{node.name} belongs in wwwlib.studies"
        assert not list(unsafe(ast.unparse(tree(cell))))
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.match(r"(/|~|[A-Z]:\\)\w", node.value), f"absolute path {node.value}"


@each_notebook
def test_prose_holds_no_number_that_a_parameter_could_change(path):
    """Numbers of one digit are left alone: they count equations and figures as well."""
    said = [re.sub(r"\]\([^)]*\)|\barXiv:\S+", "", text) for text in prose(path)[1:]]
    for parameter in declared(path).values():
        value = parameter.default
        if type(value) is float or (type(value) is int and abs(value) > 9):
            digits = re.escape(f"{value:g}".removeprefix("0"))
            pattern = rf"(?<![\d.])0?{digits}(?![\d]|\.\d)"
            found = [text for text in said if re.search(pattern, text)]
            assert not found, f"{parameter.name} = {value} stands in prose: {found[0]:.80}"


@each_notebook
def test_names_in_displayed_tables_are_not_typeset(path):
    """A class called $x$ would otherwise be shown as a formula."""
    sources = [cell["source"] for cell in code(path)]
    if any("import pandas" in source for source in sources):
        assert any("pd.options.display.html.use_mathjax = False" in source for source in sources)


@each_notebook
def test_notebook_does_not_differ_from_its_neighbours_in_name(path):
    """Parameters of one meaning have one name everywhere, or `common` would miss some."""
    mine = set(declared(path))
    others = {name for other in NOTEBOOKS for name in declared(other)} - mine
    for name in mine:
        close = difflib.get_close_matches(name, others, n=1, cutoff=0.9)
        assert not close, f"{name!r} here is {close[0]!r} elsewhere"


@pytest.mark.parametrize("name", names(PROJECT))
def test_profile_reads_and_tells_what_it_is_for(name):
    profile = load(PROJECT, name)
    assert profile.description
    assert profile.minutes or profile.needs, "how long, or what must be there before one can tell"
