"""Builds, and tests of what was built, on several versions of Python and of the dependencies.

    nox                 wheel and sdist on each Python, and the lowest releases
    nox -s wheel-3.12   one of them

A Python that is not installed is skipped, and the reason printed; with
`--error-on-missing-interpreters` it is a failure. Each environment gets a PyTorch of its own,
several GB with CUDA; to save them, set PIP_INDEX_URL and UV_INDEX_URL to an index with CPU builds.
"""

from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
LOCK = str(Path(__file__).with_name("requirements.lock"))
USE = """
import wwwlib
from wwwlib import world
book = wwwlib.build("world/conv", world.image_set(24), ["layer4"], "world", encoder="world",
                    k=5, store=False, progress=False)
assert "site-packages" in wwwlib.__file__, wwwlib.__file__
assert len(book.names("layer4")) == 128
print(book.explain(world.image_set(4, seed=7).image(3)))
"""
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


def built(session: nox.Session, kind: str) -> str:
    """Build a distribution from the checkout and return its path."""
    out = Path(session.create_tmp()).resolve() / "dist"
    session.install("build", "hatchling")
    session.run("python", "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(out))
    return str(next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz")))


def use(session: nox.Session) -> None:
    """Explain an image with the installed package, away from the checkout."""
    session.chdir(session.create_tmp())
    session.run("python", "-I", "-c", USE)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Install the wheel with the locked releases, and use it."""
    session.install(built(session, "wheel"), "-c", LOCK)
    use(session)


@nox.session(python=PYTHONS)
def sdist(session: nox.Session) -> None:
    """Install the source distribution with the locked releases, and use it."""
    session.install(built(session, "sdist"), "-c", LOCK)
    use(session)


@nox.session(python=PYTHONS[:1])
def lowest(session: nox.Session) -> None:
    """Install the wheel with the lowest releases that its ranges allow, and use it."""
    path = built(session, "wheel")
    session.install("uv")
    project = str(Path(__file__).with_name("pyproject.toml"))
    session.run("uv", "pip", "install", "--resolution", "lowest-direct", "-r", project)
    session.install("--no-deps", path)
    use(session)
