"""The record of a run: what was run, with which parameters and code, and what came out.

The runner writes it notebook by notebook to ``manifest.json``. A saved notebook is no evidence:
after its kernel was killed, its metadata still call every cell completed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from parameters import check, paths
from profiles import Job, Profile, Project, write_json

from wwwlib.images.files import list_files
from wwwlib.store import digest, file_digest, versions

REPORTED = {"scalars": "dict", "data": "dict", "artifacts": "dict", "device": "str"}
RESULTS = "results.json"
RESERVE = 1 << 18  # bytes, of which a record takes some thousand a notebook


@dataclass
class Manifest:
    """The manifest of one run folder; every change is on disk before the next step."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def reserve(self) -> Path:
        """A file that keeps room for the record, should the disk be full."""
        return self.path.with_name(".reserve")

    @classmethod
    def open(cls, folder: Path) -> Manifest:
        """Read the manifest of an earlier run; none, or a damaged one, counts as empty."""
        path = folder / "manifest.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if all(isinstance(record, dict) for record in content["notebooks"].values()):
                return cls(path, content)
            raise ValueError("a record is not an object")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            warnings.warn(f"{path} is damaged ({error}); everything runs again.", stacklevel=2)
        return cls(path, {"notebooks": {}})

    def begin(self, project: Project, profile: Profile) -> Manifest:
        """Record what runs, where, and from which code; keep the records of the same notebooks."""
        kept = {n: r for n, r in self.content["notebooks"].items() if n in profile.notebooks}
        for record in kept.values():
            if record.get("state") == "running":  # the runner itself was killed
                record |= {"state": "interrupted", "error": "the runner ended before it"}
        self.content = {
            "profile": profile.name,
            "description": profile.description,
            "started": now(),
            **commit(project.root),
            **current(project),
            "notebooks": {n: {"state": "pending"} for n in profile.notebooks} | kept,
            **({"dry_run": profile.description} if project.stand_ins else {}),
        }
        self.reserve.write_bytes(os.urandom(RESERVE))
        self.save()
        return self

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a notebook."""
        return self.content["notebooks"][name]

    def update(self, name: str, **entries: Any) -> None:
        """Change entries of a notebook's record, and save."""
        with self.lock:
            self.content["notebooks"][name] |= entries
            self.save()

    def start(self, project: Project, job: Job) -> None:
        """Replace a notebook's record by one in state "running"."""
        seeds = {k: v for k, v in job.effective.items() if k.split("_")[-1] == "seed"}
        key = self.key(project, job)
        with self.lock:
            self.content["notebooks"][job.name] = {"state": "running", "started": now()}
            self.update(
                job.name, parameters=job.effective, seeds=seeds, key=key, **commit(project.root)
            )

    def save(self) -> None:
        """Replace the file as a whole, on a full disk in the room that `begin` has reserved."""
        with self.lock:  # of notebooks that end at the same time
            try:
                write_json(self.path, self.content)
            except OSError:
                if not self.reserve.exists():
                    raise
                self.reserve.unlink()
                write_json(self.path, self.content)

    def key(self, project: Project, job: Job) -> str:
        """Digest of everything that decides a notebook's results."""
        parts = [self.content[name] for name in ("source", "versions", "device")]
        inputs = input_fingerprints(project, job.effective)
        return digest([file_digest(job.source), job.effective, inputs, parts])

    def done(self, project: Project, job: Job) -> bool:
        """Whether an earlier run made exactly this, and its files are unchanged since."""
        record = self.content["notebooks"].get(job.name, {})
        return (
            record.get("state") == "done"
            and record.get("key") == self.key(project, job)
            and record.get("files") == files(self.path.parent, job.name)
        )


def results(folder: Path) -> dict[str, Any]:
    """Return what a notebook's ``results.json`` reports; ValueError if it is absent or wrong."""
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"it ended without writing a file {RESULTS} into its folder `out`")
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {RESULTS} is not valid JSON ({error})") from error
    check(found, "dict", f"its {RESULTS}")
    for name in REPORTED.keys() & found.keys():
        check(found[name], REPORTED[name], f"{name!r} in its {RESULTS}")
    return {name: found[name] for name in REPORTED if name in found}


def files(run: Path, name: str) -> dict[str, str]:
    """SHA-256 of a notebook's executed copy, its results and its figures, by path in the run."""
    made = [run / f"{name}.ipynb", *sorted((run / name).rglob("*"))]
    return {p.relative_to(run).as_posix(): file_digest(p) for p in made if p.is_file()}


def input_fingerprints(project: Project, values: Any) -> dict[str, list]:
    """Return name, times and size of every file that parameters name, by path from the root."""
    root, found = project.root.resolve(), {}
    for path in {path.resolve() for path in paths(values, project.notebooks)}:
        # What the runs themselves write is no input, nor is a folder that holds it.
        if not (root.is_relative_to(path) or path.is_relative_to(root / "papermill_runs")):
            every = [path / name for name in list_files(path)] if path.is_dir() else [path]
            found[os.path.relpath(path, root)] = rows = []
            for one in every:
                stat = one.stat() if one.exists() else None  # a link may lead nowhere
                # The inode's time shows a file with the size and time of another one.
                times = [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size] if stat else []
                rows.append([str(one.relative_to(path)), *times])
    return found


def current(project: Project) -> dict[str, Any]:
    """Return platform, device, library versions and source digest as they are now."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    runner = {name: version(name) for name in ("papermill", "ipykernel")}
    found = [path for folder in ("wwwlib", "data") for path in (project.root / folder).rglob("*")]
    sources = sorted(p for p in found if p.is_file() and "__pycache__" not in p.parts)
    return {
        "platform": platform.platform(),
        "device": "mps" if torch.backends.mps.is_available() else device,
        "versions": {"python": sys.version.split()[0], **versions(), **runner},
        "source": digest([[str(p.relative_to(project.root)), file_digest(p)] for p in sources]),
    }


def commit(root: Path) -> dict[str, Any]:
    """Return the commit and whether the tree differs from it; None without git."""
    try:
        command = ["git", "-C", root, "status", "--porcelain=v2", "--branch"]
        said = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    head = next(line.split()[-1] for line in said if line.startswith("# branch.oid "))
    return {"commit": head, "dirty": any(not line.startswith("#") for line in said)}


def now() -> str:
    """Return the time, in seconds, with its zone."""
    return datetime.now(UTC).isoformat(timespec="seconds")
