"""Compare the scalars of a run with those that were published, in `reference/expected.json`."""

from __future__ import annotations

import json
import math
from pathlib import Path

from profiles import Job, Project

FILE = "expected.json"
LEAST, MOST = 0.0005, 0.005
REASONS = {
    "0": "a count",
    f"{LEAST} to {MOST}, a tenth of the value between": "features differ by about 1e-7 between "
    "processors, so that near-ties may fall differently; every random draw is seeded",
}


def tolerance(value: float) -> float:
    """Return by how much a value may differ from the published one."""
    return 0 if isinstance(value, int) else round(min(MOST, max(LEAST, abs(value) / 10)), 6)


def scalars(folder: Path, jobs: list[Job]) -> dict[str, dict[str, float]]:
    """Return the scalars of each finished notebook, from its ``results.json``."""
    paths = {job.name: folder / job.name / "results.json" for job in jobs}
    return {
        name: json.loads(path.read_text(encoding="utf-8")).get("scalars", {})
        for name, path in paths.items()
        if path.is_file()
    }


def sealed(profile: str, found: dict[str, dict[str, float]]) -> str:
    """Return the text of ``expected.json``: values with tolerances, and the reasons for these."""
    values = {
        name: {key: [x, tolerance(x)] for key, x in own.items()} for name, own in found.items()
    }
    content = {"profile": profile, "tolerances": REASONS, "values": values}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def compare(project: Project, profile: str, jobs: list[Job], folder: Path) -> list[str]:
    """Compare a run with the published values of its profile.

    Returns
    -------
    list of str
        A sentence, and a line for each value that moved, is new or is missing, or for all of a
        notebook without results; empty if another profile is published, or none.
    """
    path = project.reference / FILE
    published = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if published.get("profile") != profile:
        return []
    count, kept, lines, nothing = 0, 0, [], (math.nan, 0)
    found = scalars(folder, jobs)
    for name in (job.name for job in jobs):
        known, own = published["values"].get(name, {}), found.get(name, {})
        count += len(known)
        if known and name not in found:
            lines.append(f"  missing   {name}: all of its {len(known)} values")
            continue
        for key in dict.fromkeys([*known, *own]):
            (before, allowed), now = known.get(key, nothing), own.get(key, math.nan)
            if abs(now - before) <= allowed:
                kept += 1
            else:
                lines.append(f"  moved     {name}: {key}: {before:.6g} published, {now:.6g} now")
    return [f"Reproduced: {kept} of {count} published values within tolerance.", *lines]
