"""The record of a run: what was run, with what, by which code, and what came out.

It is the runner's own word, kept notebook by notebook in ``manifest.json``. What a saved notebook
says of itself is no evidence: after its kernel was killed it still calls every cell completed.
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
from profiles import House, Job, Profile
from witness import witness

from wwwlib.store import digest, file_digest, versions

REPORTED = {"scalars": dict, "data": dict, "artifacts": dict, "device": str}
RESULTS = "results.json"


@dataclass
class Manifest:
    """The manifest of one run folder; every change is on disk before the next step."""

    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)  # notebooks at once

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Read the manifest of an earlier run; none, or a damaged one, counts as empty."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if all(isinstance(record, dict) for record in content["notebooks"].values()):
                return cls(path, content)
            raise ValueError("a record is not an object")
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{path} is damaged ({error}); everything runs again.", stacklevel=2)
        return cls(path, {"notebooks": {}})

    def begin(self, house: House, profile: Profile) -> None:
        """Write down what runs, where, and from which code, keeping records of what may stay."""
        kept = {n: r for n, r in self.content["notebooks"].items() if n in profile.notebooks}
        for record in kept.values():
            if record["state"] == "running":  # the runner itself was killed
                record |= {
                    "state": "interrupted",
                    "error": "the runner did not live to see its end",
                }
        pending = {n: {"state": "pending"} for n in profile.notebooks}
        self.content = {
            "profile": profile.name,
            "description": profile.description,
            "started": now(),
            **commit(house.root),
            **environment(),
            "source": tree_digest(house.root / "wwwlib", house.root / "data"),
            "notebooks": pending | kept,
        }
        self.save()

    def record(self, name: str) -> dict[str, Any]:
        """Return what is known of a notebook."""
        return self.content["notebooks"][name]

    def update(self, name: str, **entries: Any) -> None:
        """Change entries of a notebook's record, and save."""
        with self.lock:
            self.content["notebooks"][name] |= entries
            self.save()

    def start(self, house: House, job: Job) -> None:
        """Record that a notebook runs from now on; what an earlier run said of it goes."""
        record = {
            "state": "running",
            "started": now(),
            "parameters": job.effective,
            "seeds": {k: v for k, v in job.effective.items() if k.split("_")[-1] == "seed"},
            "key": self.key(house, job),
            **commit(house.root),
        }
        with self.lock:
            self.content["notebooks"][job.name] = record
            self.save()

    def save(self) -> None:
        """Replace the file as a whole: a reader finds the old or the new one."""
        draft = self.path.with_suffix(".tmp")
        with open(draft, "w", encoding="utf-8") as file:
            json.dump(self.content, file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path)

    def key(self, house: House, job: Job) -> str:
        """Digest of all that decides what a notebook makes."""
        parts = [self.content[name] for name in ("source", "versions", "device")]
        inputs = witness(house, job.effective)
        return digest([file_digest(job.source), job.effective, inputs, parts])

    def done(self, house: House, job: Job) -> bool:
        """Whether an earlier run made exactly this, and it still lies there as it was made."""
        record = self.record(job.name)
        return (
            record["state"] == "done"
            and record.get("key") == self.key(house, job)
            and record.get("files") == files(self.path.parent, job.name)
        )


def results(folder: Path) -> dict[str, Any]:
    """Return what the ``results.json`` in a notebook's folder reports for the manifest.

    Raises
    ------
    ValueError
        If it is absent, holds NaN, or one of its entries has another form than `REPORTED`.
    """
    try:
        found = json.loads((folder / RESULTS).read_text("utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise ValueError(f"it ended without writing {RESULTS} into its folder `out`") from None
    except ValueError as error:
        raise ValueError(f"its {RESULTS} is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"its {RESULTS} holds a {type(found).__name__}, not an object")
    for name, kind in REPORTED.items():
        if not isinstance(found.get(name, kind()), kind):
            raise ValueError(
                f"its {RESULTS} has {found[name]!r:.80} as {name!r}, not a {kind.__name__}"
            )
    return {name: found[name] for name in REPORTED if name in found}


def files(run: Path, name: str) -> dict[str, str]:
    """SHA-256 of a notebook's executed copy, its results and its figures, by path in the run."""
    made = [run / f"{name}.ipynb", *sorted((run / name).rglob("*"))]
    return {p.relative_to(run).as_posix(): file_digest(p) for p in made if p.is_file()}


def tree_digest(*folders: Path) -> str:
    """Digest of the names and bytes of all files in some folders, compiled ones apart."""
    found = [(p, folder.parent) for folder in folders for p in sorted(folder.rglob("*"))]
    sources = [(p, above) for p, above in found if p.is_file() and "__pycache__" not in p.parts]
    return digest([[str(p.relative_to(above)), file_digest(p)] for p, above in sources])


def commit(root: Path) -> dict[str, Any]:
    """Return the commit at hand and whether the tree differs from it; None without git."""

    def git(*words: str) -> str | None:
        try:
            command = ["git", "-C", str(root), *words]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
            return said.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def environment() -> dict[str, Any]:
    """Return the machine's platform and device, and the versions of Python and the libraries."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    if torch.backends.mps.is_available():
        device = "mps"
    runner = {name: version(name) for name in ("papermill", "ipykernel")}
    return {
        "platform": platform.platform(),
        "device": device,
        "versions": {"python": sys.version.split()[0], **versions(), **runner},
    }


def now() -> str:
    """Return the time, in seconds, with its zone."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _refuse(constant: str) -> None:
    raise ValueError(f"it holds {constant}; write null for a number that does not exist")
