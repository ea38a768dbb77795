"""Serve the explorer of a profile alone, without code, to this machine: notebook 07 behind Voilà.

    python papermill_runs/explore.py [profile] [--set name=value] [--port 8866] [--theme light]

See `wwwlib.explorer.serve` for what the page can do, and to whom it answers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from profiles import Job, Project, load, missing, plan, settings

from wwwlib.explorer.serve import serve

NOTEBOOK = "07_explorer"


def chosen(project: Project, profile: str, pairs: list[str]) -> Job:
    """Return the explorer of a profile, with its parameters; ValueError if it cannot run."""
    [job] = plan(project, load(project, profile), [NOTEBOOK], settings(pairs))
    if absent := missing(project, [job]):
        raise ValueError(f"There is no {'; no '.join(absent)}.")
    return job


def write(job: Job, folder: Path) -> Path:
    """Write the notebook with its parameters into a folder; it runs in that of its source."""
    made = parameterize_notebook(
        load_notebook_node(str(job.source)), {**job.given, "out": str(folder)}
    )
    made.cells = [c for c in made.cells if "report" not in c.metadata.get("tags", ())]  # has no use
    move = nbformat.v4.new_code_cell(f"import os\nos.chdir({str(job.source.parent)!r})")
    made.cells.insert(0, move)
    path = folder / job.source.name
    nbformat.write(made, path)
    return path


def main() -> None:
    """Serve until it is interrupted or terminated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", nargs="?", default="world")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--port", type=int, default=8866, help="where to listen")
    parser.add_argument("--theme", default="light", choices=["light", "dark"])
    asked, project = parser.parse_args(), Project(Path(__file__).resolve().parents[1])
    try:
        job = chosen(project, asked.profile, asked.set)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    notebook = write(job, Path(tempfile.mkdtemp(prefix="wwwlib-")))
    serve(notebook, asked.port, asked.theme, WWW_STORE=str(project.store))


if __name__ == "__main__":
    main()
