"""Compare a finished run with the paper's tables, cell by cell, in standard errors.

The standard error of the difference is used where both are known. Figures that the file of the
paper's tables lacks are listed; a run in a setting that the paper did not have is reported as such.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from execute import one_line
from manifest import RESULTS, Manifest

from wwwlib.studies import literature

KNOWN = ["run", "table", "method", "metric", "ours", "stderr", "paper", "paper stderr", "apart"]


def cells(folder: Path, tables: Path = literature.PATH) -> pd.DataFrame:
    """Return the cells of a run: columns `KNOWN`, and the setting in the paper's words or None.

    Raises ValueError if there is no such run, or it has no finished tables.
    """
    notebooks, found = Manifest.open(folder).content["notebooks"], []
    if not notebooks:
        raise ValueError(f"There is no run in {folder}; run the profile first.")
    for run, notebook in notebooks.items():
        path = folder / run / RESULTS
        if notebook.get("state") == "done" and path.exists():
            records = json.loads(path.read_text(encoding="utf-8")).get("cells", [])
            for one in records:
                rows = [other["method"] for other in records if other["table"] == one["table"]]
                found.append(_cell(run, one, rows, tables))
    if not found:
        hint = "run 04_quantitative_tables in it."
        raise ValueError(f"The run in {folder} has no finished tables; {hint}")
    numbers = dict.fromkeys(KNOWN[4:], float)
    return pd.DataFrame(found, columns=[*KNOWN, "setting"]).astype(numbers)


def _cell(run: str, record: dict[str, Any], rows: Sequence[str], tables: Path) -> list:
    setting, theirs, their_stderr = None, None, None
    if record["setting"]:
        setting = tuple(record["setting"])
        concepts = "broden" if setting[2] == "Broden" else setting[2]
        method = literature.row_names(concepts, rows).get(record["method"])
        figure = literature.paper_scores(setting, tables).get((method, record["metric"]))
        theirs, their_stderr = figure or (None, None)
    ours, stderr = record["mean"], record["stderr"]
    spread = ((stderr or 0.0) ** 2 + (their_stderr or 0.0) ** 2) ** 0.5
    apart = (ours - theirs) / spread if theirs is not None and spread else None
    plain = [run, *(one_line(record[name]) for name in ("table", "method", "metric"))]
    return [*plain, ours, stderr, theirs, their_stderr, apart, setting and ", ".join(setting)]


def text(found: pd.DataFrame, dry_run: str | None = None) -> str:
    """Return the comparison in Markdown, which reads as plain text, too."""
    same = found[found["setting"].notna()]
    known = same[same["paper"].notna()]
    parts = [f"**{dry_run}**"] if dry_run else []
    parts.append(
        f"{len(found)} cells; {len(same)} in a setting of the paper's; of {len(known)} of them the "
        "paper's figure is known."
    )
    if same.empty:
        parts.append("No cell is in the paper's setting: nothing here compares with it.")
    if len(known):
        form = {"float_format": "{:.4f}".format, "na_rep": "not known"}
        parts.append(f"```\n{known[KNOWN].to_string(index=False, **form)}\n```")
    lacking = same[same["paper"].isna()].groupby("setting").size().items()
    lines = [f"- wwwlib/studies/paper_tables.csv lacks {n} figures of {one}" for one, n in lacking]
    return "\n\n".join([*parts, *lines]) + "\n"


def write(folder: Path, tables: Path = literature.PATH) -> str:
    """Write ``report.md`` and ``report.csv`` into a run's folder, and return the former."""
    found = cells(folder, tables)
    dry_run = Manifest.open(folder).content.get("dry_run")
    markdown = text(found, dry_run)
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    found["setting"] = found["setting"].fillna("none of the paper's")
    found.assign(dry_run=dry_run or "").to_csv(folder / "report.csv", index=False)
    return markdown
