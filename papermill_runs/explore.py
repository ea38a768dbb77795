"""Serve the explorer of a profile alone, without code, to this machine: notebook 07 behind Voilà.

    python papermill_runs/explore.py [profile] [--set name=value] [--port 8866] [--theme light]

See `wwwlib.explorer.serve` for what the page can do, and to whom it answers. On a CPU under Linux
the pages share one process's networks and atlases, see `forked`; elsewhere each has its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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


def share(notebook: Path, store: Path) -> None:
    """Compute what pages read in one process, and let the notebook's kernels be forked from it.

    The cells in front of the one that ends in the page move there. Raises ValueError if they fail.
    """
    folder, book = notebook.parent, nbformat.read(notebook, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    end = next(i for i, cell in enumerate(code) if cell.source.endswith("\npage"))
    (folder / "shared.py").write_text("\n".join(cell.source for cell in code[:end]), "utf-8")
    book.cells = [cell for cell in book.cells if cell not in code[:end]]
    script, address, ready = (Path(__file__).with_name("forked.py"), folder / "s", folder / "ready")
    argv = [sys.executable, str(script), "kernel", str(address), "{connection_file}"]
    spec = {"argv": argv, "display_name": "shared", "language": "python"}
    (folder / "kernels" / "shared").mkdir(parents=True)
    (folder / "kernels" / "shared" / "kernel.json").write_text(json.dumps(spec))
    book.metadata["kernelspec"] = {"name": "shared", "display_name": "shared", "language": "python"}
    nbformat.write(book, notebook)
    others = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(folder), *([others] if others else [])])
    print("Networks are analysed once, which takes a minute or two, or some seconds if stored.")
    command = [sys.executable, script, "hold", folder / "shared.py", address, ready]
    held = subprocess.Popen(command, env=os.environ | {"WWW_STORE": str(store)})
    while not ready.exists():
        if held.poll() is not None:
            raise ValueError("The networks could not be analysed; see above.")
        time.sleep(0.2)


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
    if sys.platform == "linux" and job.effective["device"] == "cpu":
        try:
            share(notebook, project.store)
        except ValueError as error:
            parser.exit(1, f"{error}\n")
    serve(notebook, asked.port, asked.theme, WWW_STORE=str(project.store))


if __name__ == "__main__":
    main()
