"""The set-up files agree on what is needed, why, and in which release."""

import ast
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import distributions, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]


def extra(*names):
    """Return the requirements of extras, with those of the extras that they contain."""
    found = []
    for requirement in (Requirement(line) for name in names for line in EXTRAS[name]):
        own = requirement.name == "wwwlib"
        found += extra(*sorted(requirement.extras)) if own else [requirement]
    return found


ALL = sorted({*CORE, *extra(*EXTRAS)}, key=str)
LOCK = {
    canonicalize_name(name): Version(release)
    for name, release in re.findall(
        r"^(\S+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
}


def test_every_dependency_says_beside_it_what_it_is_for():
    lines = [line.strip() for line in PYPROJECT.splitlines()]
    for dependency in chain(PROJECT["dependencies"], *EXTRAS.values()):
        line = next(line for line in lines if line.startswith(f'"{dependency}"'))
        assert re.fullmatch(r'"[^"]+", *# \S.{9,}', line), f"{line} does not tell its purpose"


def test_lock_holds_exact_releases_and_nothing_of_the_machine_it_was_made_on():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == sorted(set(pins))
    for pin in pins:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", pin), pin


@pytest.mark.parametrize("requirement", ALL, ids=str)
def test_locked_release_is_one_that_pyproject_allows(requirement):
    locked = LOCK.get(canonicalize_name(requirement.name))
    assert locked is not None, f"{requirement.name} is not in requirements.lock; run make lock"
    assert requirement.specifier.contains(locked), f"{requirement} does not allow {locked}"


def test_the_core_needs_few_packages():
    assert len(CORE) <= 14
    assert not any(r.extras or "==" in str(r.specifier) for r in CORE), "pins belong in the lock"


def test_uv_lock_holds_the_same_releases_with_hashes():
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    locked = {p["name"]: Version(p["version"]) for p in packages if p["name"] != "wwwlib"}
    assert {name: LOCK[name] for name in locked if name in LOCK} == {
        name: release for name, release in locked.items() if name in LOCK
    }
    assert not LOCK.keys() - locked.keys()
    for package in packages:
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        assert package["name"] == "wwwlib" or all(f["hash"].startswith("sha256:") for f in files)


def test_locked_releases_are_for_every_patch_of_the_lowest_python():
    """Breaks where one needs 3.11.5, and the project 3.11; packages as in the next test."""
    lowest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for found in distributions():
        name, needed = canonicalize_name(found.metadata["Name"]), found.metadata["Requires-Python"]
        if name in LOCK and Version(found.version).public == LOCK[name].public and needed:
            assert SpecifierSet(needed).contains(lowest), f"{name} needs {needed}"


def test_lock_is_closed_and_free_of_contradictions():
    """Every locked package finds each of its own requirements in the lock, in a release it allows.

    Only packages installed here in the locked release can be asked.
    """
    for found in distributions():
        name = canonicalize_name(found.metadata["Name"])
        if name in LOCK and Version(found.version).public == LOCK[name].public:
            for requirement in map(Requirement, found.requires or []):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    locked = LOCK.get(canonicalize_name(requirement.name))
                    assert locked is not None, f"{name} needs {requirement}, which is not locked"
                    assert requirement.specifier.contains(locked, prereleases=True), (
                        f"{name} needs {requirement}, but {locked} is locked"
                    )


def test_conda_environment_points_to_pyproject_and_lock_and_repeats_neither():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-c requirements.lock", "-e .[test]"]}
    names = {re.split("[=<>]", package)[0] for package in conda}
    assert names == {"python", "pip", "make"}
    python = next(p for p in conda if p.startswith("python")).partition("=")[2]
    assert PROJECT["requires-python"] == f">={python}"


PARTS = {  # of the code, and the extras that each may import from, beside the core
    "wwwlib/*.py": [],
    "wwwlib/*/": [],
    "wwwlib/world/": [],
    "wwwlib/baselines/": ["baselines"],
    "wwwlib/studies/": ["notebooks"],
    "wwwlib/explorer/": ["explorer"],
    "papermill_runs/": ["notebooks", "docs", "ray"],
    "docs/": ["docs", "notebooks"],
    "tests/": ["all", "test"],
    "noxfile.py": ["test"],
}


@cache
def owners():
    """Return the distributions of every package that is installed here."""
    return packages_distributions()


def imported(path):
    """Yield the packages that a file imports, except for annotations alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("require"):
            module, name = (argument.value for argument in node.args)
            package = module.split(".")[0]
            known = owners().get(package, [package])
            assert {canonicalize_name(r.name) for r in extra(name)} & {
                canonicalize_name(owner) for owner in known
            }, f"{path.name} requires {module}, which the extra {name} does not install"


def files(part):
    if part.endswith(".py"):
        return sorted(ROOT.glob(part))
    if part == "wwwlib/*/":
        own = {one.rstrip("/") for one in PARTS}
        folders = [f for f in ROOT.glob("wwwlib/*/") if f"wwwlib/{f.name}" not in own]
        return sorted(path for folder in folders for path in folder.rglob("*.py"))
    return sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", PARTS)
def test_whatever_is_imported_is_declared(part):
    """Breaks if code imports a package that was installed only because another one needs it."""
    declared = {canonicalize_name(r.name) for r in CORE + extra(*PARTS[part])}
    if part == "tests/":  # what a target of make installs for itself
        declared |= {*re.findall(r"pip install --quiet '([\w-]+)", (ROOT / "Makefile").read_text())}
    own = {
        p.stem
        for f in ("papermill_runs", "tests", "data", "docs")
        for p in (ROOT / f).rglob("*.py")
    }
    own |= {p.name for p in ROOT.iterdir() if p.is_dir()}
    for path in files(part):
        for name in imported(path):
            if name not in sys.stdlib_module_names | own:
                found = {canonicalize_name(owner) for owner in owners().get(name, [name])}
                assert found & declared, f"{path.name} imports {name}, which is not declared for it"


def test_set_up_files_name_the_locked_torch():
    """Breaks if a page or a set-up file tells people to install another release than the lock's."""
    files = ("README.md", "docs/start.md", ".binder/requirements.txt")
    for name in files:
        text = (ROOT / name).read_text()
        for package in ("torch", "torchvision"):
            assert set(re.findall(rf"\b{package}==(\S+)", text)) == {str(LOCK[package])}, name


def test_every_command_of_make_is_in_its_help():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    made = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    shown = made.stdout
    for name in set(phony) - {"help"}:
        assert re.search(rf"\bmake {name}\b", shown), name
        assert re.search(rf"^{name}:", text, re.MULTILINE), name


def test_the_same_versions_of_python_are_tested_everywhere():
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    matrix = workflow["jobs"]["tests"]["strategy"]["matrix"]["python"]
    found = re.search(r"^PYTHONS = (.*)$", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    nox = ast.literal_eval(found[1])
    assert matrix == nox and f">={nox[0]}" == PROJECT["requires-python"]
    assert "bash .ci/run" in [step.get("run") for step in workflow["jobs"]["tests"]["steps"]]
    [releases] = [
        step["with"]["python-version"].split()
        for step in workflow["jobs"]["releases"]["steps"]
        if "setup-python" in step.get("uses", "")
    ]
    assert sorted(releases) == nox
    named = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if ":: 3." in one]
    assert named == nox


def test_files_for_forges_are_well_formed():
    """Broken files would be ignored without an error there."""
    github = ROOT / ".github"
    forms = sorted((github / "ISSUE_TEMPLATE").glob("*.yml"))
    for path in forms:
        form = yaml.safe_load(path.read_text())
        if path.stem != "config":
            assert {"name", "description", "body"} <= form.keys(), path.name
            ids = [field["id"] for field in form["body"]]
            assert len(ids) == len(set(ids))
    assert len(forms) == 4
    assert yaml.safe_load((github / "dependabot.yml").read_text())["version"] == 2
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    for command in (container["postCreateCommand"].split()[-1], ".binder/postBuild"):
        assert (ROOT / command).stat().st_mode & 0o100, f"{command} cannot be executed"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "hooks are fetched from nowhere"


def test_zenodo_says_what_the_citation_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    for name in ("title", "version", "license", "keywords"):
        assert deposit[name] == citation[name], name
    assert citation["keywords"] == PROJECT["keywords"]
    described = json.loads((ROOT / "data/croissant.json").read_text())
    assert described["version"] == citation["version"]


def test_croissant_describes_the_files_and_classes_as_they_are():
    from wwwlib import world

    described = json.loads((ROOT / "data/croissant.json").read_text())
    files = {one["contentUrl"]: one for one in described["distribution"]}
    there = {str(p.relative_to(ROOT / "data")): p for p in world.DATA.rglob("*") if p.is_file()}
    assert files.keys() == there.keys()
    for name, path in there.items():
        assert files[name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), name
        assert files[name]["contentSize"] == f"{path.stat().st_size} B"
    classes = next(one for one in described["recordSet"] if one["name"] == "classes")
    homes = {row["classes/name"]: row["classes/home"] for row in classes["data"]}
    assert homes == dict(world.HOME)


def test_citation_names_the_paper_and_the_version():
    import wwwlib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == wwwlib.__version__
    authors = [author["family-names"] for author in citation["preferred-citation"]["authors"]]
    assert authors == ["Ahn", "Kim", "Kim"]
    assert "2402.18956" in str(citation["preferred-citation"]["identifiers"])
