"""Keep one executed copy of every notebook for readers: `papermill_runs/reference/`.

    python papermill_runs/run.py world --publish      run what is not done yet, then copy

Only results of the current sources are published. Run times and progress bars are removed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import seal
from profiles import Job, Project

LIMIT = 12_000_000  # bytes in all: every clone of the repository downloads them
# The explorer's page with controls, and where it comes from; the names of the copies.
PAGES = {
    "explorer.html": ".html",
    "explorer-provenance.json": "-explorer-provenance.json",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
# What tqdm writes, and the store while another notebook makes what this one needs.
_PASSING = re.compile(r"\d+%\|.*\||Waiting for another process")
_SHOWN = re.compile(r"\(papermill_runs/reference/figures/([\w.-]+)\)")


def publish(project: Project, profile: str, jobs: list[Job], folder: Path) -> str:
    """Replace the reference copies by the notebooks of a finished run, and return a summary.

    Raises ValueError if a notebook failed or was made from other sources, a figure that the README
    shows is missing, or all together are larger than `LIMIT`. The copies there stay as they are.
    """
    check(project, jobs, folder)
    project.reference.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.reference.parent, prefix=".reference-") as place:
        draft, previous = Path(place) / "new", Path(place) / "old"
        (draft / "figures").mkdir(parents=True)
        for job in jobs:
            book = tidy(nbformat.read(folder / f"{job.name}.ipynb", as_version=4))
            (draft / f"{job.name}.ipynb").write_text(nbformat.writes(book) + "\n", encoding="utf-8")
            for made, kept in PAGES.items():
                if (folder / job.name / made).is_file():
                    shutil.copyfile(folder / job.name / made, draft / f"{job.name}{kept}")
        readme = (project.root / "README.md").read_text(encoding="utf-8")
        for name in _SHOWN.findall(readme):
            made = [path for job in jobs if (path := folder / job.name / name).is_file()]
            if not made:
                text = f"README.md shows {name}, which no notebook of this run has made"
                raise ValueError(f"{text}; correct it.")
            shutil.copyfile(made[0], draft / "figures" / name)
        (draft / seal.FILE).write_text(seal.sealed(profile, seal.scalars(folder, jobs)), "utf-8")
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
        if size > LIMIT:
            largest = max(draft.glob("*.ipynb"), key=lambda path: path.stat().st_size)
            raise ValueError(
                f"The executed copies take {size / 1e6:.1f} MB, and {LIMIT / 1e6:.0f} MB is the "
                f"most; the largest is {largest.name}: show fewer or smaller figures in it."
            )
        if project.reference.exists():
            os.replace(project.reference, previous)
        os.replace(draft, project.reference)
    return f"Published {len(jobs)} notebooks, {size / 1e6:.1f} MB, in {project.reference}."


def check(project: Project, jobs: list[Job], folder: Path) -> None:
    """Raise if a notebook of the run is not finished, or not from the sources as they are now."""
    from manifest import Manifest, current  # imports torch

    manifest = Manifest.open(folder)
    manifest.content |= current(project)
    for job in jobs:
        state = manifest.content["notebooks"].get(job.name, {}).get("state", "not run")
        if state == "done" and not manifest.done(project, job):
            state = "from other sources or settings than there are now"
        if state != "done":
            hint = "so nothing was published; run the same command again."
            raise ValueError(f"{job.name} is {state}, {hint}")


def tidy(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an executed notebook without run times, progress bars and messages of waiting."""
    for one in (book, *book.cells):
        one.metadata.pop("papermill", None)
        one.metadata.pop("execution", None)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
    if not any(WIDGET in o.get("data", {}) for c in book.cells for o in c.get("outputs", [])):
        book.metadata.pop("widgets", None)
    return book


def _is_passing(output: nbformat.NotebookNode) -> bool:
    data = output.get("data", {})
    text = data.get("text/plain", "") if WIDGET in data else ""
    return bool(_PASSING.search(output.text if output.get("name") == "stderr" else text))
