"""The built wheel works in an environment that holds nothing but the core's dependencies.

So does the code of the README and of the page on networks, which is run as it stands.
"""

import re
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def closure(requirement, found):
    """Add the distributions that a requirement brings to `found`, by name."""
    known = distribution(requirement.name)
    wanted = {(known.metadata["Name"], extra) for extra in ("", *requirement.extras)}
    if not wanted <= found.keys():
        found.update(dict.fromkeys(wanted, known))
        for needed in map(Requirement, known.requires or []):
            extras = requirement.extras or {""}
            if not needed.marker or any(needed.marker.evaluate({"extra": e}) for e in extras):
                closure(needed, found)
    return found


def link(known, site):
    """Make an installed distribution importable from another site-packages folder."""
    for file in known.files or ():
        top = file.parts[0]
        source, place = Path(known.locate_file(top)), site / top
        if top not in ("..", "__pycache__") and not place.exists() and source.exists():
            place.symlink_to(source, target_is_directory=source.is_dir())


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the interpreter of a new environment with the wheel and the core's dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "env")
    interpreter = next((folder / "env").glob("bin/python"))
    site = next((folder / "env").glob("lib/python*/site-packages"))
    lines = re.search(r"dependencies = \[(.*?)\n\]", (ROOT / "pyproject.toml").read_text(), re.S)[1]
    found = {}
    for line in re.findall(r'"([^"]+)"', lines):
        closure(Requirement(line), found)
    for known in found.values():
        link(known, site)
    install = ["install", "--quiet", "--no-deps", "--no-index", *folder.glob("*.whl")]
    pip(interpreter, *install).check_returncode()
    return interpreter


def pip(interpreter, *words):
    """Let the pip of these tests work on another environment."""
    command = [sys.executable, "-m", "pip", "--python", interpreter, *words]
    return subprocess.run(command, capture_output=True, text=True)


def run(python, tmp_path, source):
    """Run code far from the checkout; returns its output."""
    script = tmp_path / "example.py"
    script.write_text(source)
    command = [python, "-I", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_environment_holds_all_that_the_wheel_requires_and_no_extra(python, tmp_path):
    done = pip(python, "check")
    assert "wwwlib" not in done.stdout, done.stdout
    source = "import importlib.util as u; print([n for n in NAMES if u.find_spec(n)])"
    names = ["papermill", "voila", "captum", "sklearn", "ray", "ipywidgets", "nbconvert"]
    assert run(python, tmp_path, source.replace("NAMES", str(names))) == "[]\n"


EVERY_MODULE = """
import os, pkgutil, wwwlib
from importlib import import_module
os.environ["WWW_STORE"] = "store"
for found in pkgutil.iter_modules(wwwlib.__path__):
    if found.name not in ("baselines", "studies", "explorer", "__main__"):
        import_module(f"wwwlib.{found.name}")
from wwwlib import images, language, targets, world
assert "site-packages" in str(world.DATA), world.DATA
print(targets.load("world/vit"), len(world.image_set(3)), language.encoder("world").dim)
"""
EXTRA = """
from wwwlib.registry import require
try:
    require("captum.attr", "baselines")
except ImportError as error:
    print(error)
"""


def test_the_core_the_world_and_the_code_of_the_readme_work(python, tmp_path):
    """Breaks if they need a file of the checkout, or more than the core's dependencies.

    Or if a name, a signature or a default that the README shows has changed: its code runs as it
    stands, and prints the output that it shows. One interpreter imports the libraries once.
    """
    readme = (ROOT / "README.md").read_text()
    networks = (ROOT / "docs" / "howto" / "network.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme + networks, re.M | re.S)
    printed = run(python, tmp_path, "\n".join([EVERY_MODULE, *blocks, "print(mine)", EXTRA]))
    first, *_, layers, mine, extra = printed.splitlines()
    assert first == "Target('world/vit': 24 classes, on cpu) 3 64"
    shown = re.search(r"^prints\n\n```\n(.*?)^```", readme, re.M | re.S)[1]
    assert " ".join(shown.split()) in " ".join(printed.split())
    assert {"names.csv", "explanation.png", "atlas"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "explanation.png").stat().st_size and (tmp_path / "names.csv").stat().st_size
    assert layers.endswith("'logits')") and mine.endswith("2 classes, on cpu)")
    assert "pip install 'wwwlib[baselines]'" in extra
