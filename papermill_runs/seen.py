"""What no published checksum vouches for: noted when it is first found right, compared ever after.

The first check cannot tell whether it is the real thing; each later one tells whether it still is
the same. The notes are ``seen.json`` in the data folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from check import Finding

NAME = "seen.json"


def compared(findings: Sequence[Finding], data: Path) -> list[Finding]:
    """Compare what was found right with what an earlier check found, and note what is new.

    Parameters
    ----------
    findings : sequence of Finding
        Of one check.
    data : Path
        The data folder.

    Returns
    -------
    list of Finding
        The same; what has changed since is at fault, and keeps its digest.

    Raises
    ------
    ValueError
        If the notes are damaged.
    """
    path = data / NAME
    known = _read(path)
    found = {f.need.name: f.digest for f in findings if f.fault is None and f.digest}
    today = datetime.now(UTC).date().isoformat()
    new = {n: {"digest": d, "on": today} for n, d in found.items() if n not in known}
    if new:
        _write(path, {**known, **new})
    return [_beside(f, known, path) if f.need.name in found else f for f in findings]


def _beside(found: Finding, known: Mapping[str, Any], path: Path) -> Finding:
    before = known.get(found.need.name)
    if before is None:
        return replace(found, known_by=f"{found.known_by}, noted to be compared from now on")
    if before["digest"] == found.digest:
        return replace(found, known_by=f"{found.known_by}, as on {before['on']}")
    fault = (
        f"it differs from what was here on {before['on']} ({found.known_by}); put that back, or "
        f"delete its entry in {path} if the change is meant"
    )
    return replace(found, fault=fault)


def _read(path: Path) -> dict[str, Any]:
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
        return {name: {"digest": note["digest"], "on": note["on"]} for name, note in notes.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); delete it, and the next check notes what it finds."
        ) from error


def _write(path: Path, notes: Mapping[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    try:
        draft.write_text(json.dumps(notes, indent=1), encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:  # a data folder that one may only read is as good as another
        print(f"{path} cannot be written ({error.strerror}): nothing is noted.", file=sys.stderr)
