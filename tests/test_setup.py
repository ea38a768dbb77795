"""The set-up files say one thing: what is needed, why, and in which release."""

import ast
import re
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [Requirement(line) for line in PROJECT["dependencies"]]
RAY = [Requirement(line) for line in EXTRAS["ray"]]
ALL = CORE + [Requirement(line) for lines in EXTRAS.values() for line in lines]
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


def test_torch_and_torchvision_are_pinned_together():
    """Torchvision does not import beside another torch, and no installer notices."""
    pins = {r.name: str(r.specifier) for r in CORE}
    assert pins["torch"] == f"=={LOCK['torch']}"
    assert pins["torchvision"] == f"=={LOCK['torchvision']}"


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
    assert set(EXTRAS) == {"test", "ray"}  # and what only a cluster needs is left out
    names = {re.split("[=<>]", package)[0] for package in conda}
    assert names == {"python", "pip", "make"}
    python = next(p for p in conda if p.startswith("python")).partition("=")[2]
    assert PROJECT["requires-python"] == f">={python}"


def _imported(*folders):
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    yield from ((path, alias.name.split(".")[0]) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    yield path, node.module.split(".")[0]


@pytest.mark.parametrize(
    "folders, allowed",
    [(["wwwlib", "papermill_runs"], CORE + RAY), (["tests"], ALL)],
    ids=["core", "all"],
)
def test_whatever_is_imported_is_declared(folders, allowed):
    """Breaks if code leans on a package that only came along with another one."""
    declared = {canonicalize_name(r.name) for r in allowed}
    own = {p.stem for f in ("papermill_runs", "tests") for p in (ROOT / f).rglob("*.py")}
    own |= {p.name for p in ROOT.iterdir() if p.is_dir()}
    owners = packages_distributions()
    for path, name in _imported(*folders):
        if name not in sys.stdlib_module_names | own:
            found = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            assert found & declared, f"{path.name} imports {name}, which pyproject.toml lacks"


def test_citation_names_the_paper_and_the_version():
    import wwwlib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == wwwlib.__version__
    authors = [author["family-names"] for author in citation["preferred-citation"]["authors"]]
    assert authors == ["Ahn", "Kim", "Kim"]
    assert "2402.18956" in str(citation["preferred-citation"]["identifiers"])
