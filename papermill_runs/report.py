"""Compare a finished run with the paper's Tables 2 to 5, cell by cell.

Each cell of the paper stands beside every figure of the run in the same setting: the difference,
and whether it is within two standard errors, of the difference where both are known. Where there
is no such figure, the reason stands there. Cells in settings that the paper does not have follow
in ``report.csv``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from execute import one_line
from manifest import RESULTS, Manifest

from wwwlib.studies import literature

WHERE = ["target", "probe", "concepts", "method", "metric"]
DEVIATIONS = {"Places365 test": "on the 36,500 validation images; the paper used the test images"}
CLAIM = "The paper reports p < .05 for WWW against every other method in every metric. This run:"


def cells(folder: Path) -> pd.DataFrame:
    """Return the cells of a run: columns `WHERE`, in the paper's words, and run, ours, stderr.

    Target, probe set and concept set are None in a setting that the paper does not have. Raises
    ValueError if there is no such run, or it has no finished tables.
    """
    found = []
    for run, content in _results(folder).items():
        records = content.get("cells", [])
        for one in records:
            rows = [other["method"] for other in records if other["table"] == one["table"]]
            setting, method = one["setting"] or [None] * 3, one["method"]
            if one["setting"]:
                concepts = "broden" if setting[2] == "Broden" else setting[2]
                method = literature.row_names(concepts, rows).get(method, f"{method}, another run")
            names = map(one_line, (method, one["metric"], run, one["table"]))
            found.append([*setting, *names, one["mean"], one["stderr"]])
    if not found:
        hint = "run 04_quantitative_tables in it."
        raise ValueError(f"The run in {folder} has no finished tables; {hint}")
    return pd.DataFrame(found, columns=[*WHERE, "run", "title", "ours", "stderr"])


def _results(folder: Path) -> dict[str, dict]:
    notebooks = Manifest.open(folder).content["notebooks"]
    if not notebooks:
        raise ValueError(f"There is no run in {folder}; run the profile first.")
    paths = {
        run: folder / run / RESULTS for run, one in notebooks.items() if one["state"] == "done"
    }
    return {run: json.loads(p.read_text("utf-8")) for run, p in paths.items() if p.exists()}


def compare(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Set each of the paper's cells beside those of a run, or beside the reason why there is none.

    Returns a data frame with the columns of the paper's table, and run, ours, our stderr,
    difference, "within two standard errors" ("yes", "no" or "not known"), and note.
    """
    found = []
    for row in paper.itertuples(index=False):
        same = ours[ours.target == row.target]
        if row.method not in literature.OWN:
            same = same[(same.probe == row.probe) & (same.concepts == row.concepts)]
        note = DEVIATIONS.get(row.probe, "")
        here = same[(same.method == row.method) & (same.metric == row.metric)]
        here = here.drop_duplicates(["run", "ours"])
        if here.empty:
            lacks = (
                f"no row of {row.method}" if row.metric in {*same.metric} else f"no {row.metric}"
            )
            lacks = lacks if len(same) else f"no table of {row.target} in this setting"
            found.append([*row, None, None, None, None, "not run here", lacks])
        for one in here.itertuples():
            errors = [e for e in (one.stderr, row.stderr) if pd.notna(e)]
            spread, gap = sum(e**2 for e in errors) ** 0.5, one.ours - row.value
            within = ("yes" if abs(gap) <= 2 * spread else "no") if errors else "not known"
            found.append([*row, one.run, one.ours, one.stderr, gap, within, note])
    extra = ["run", "ours", "our stderr", "difference", "within two standard errors", "note"]
    return pd.DataFrame(found, columns=[*paper.columns, *extra])


def text(found: pd.DataFrame, leads: dict[str, dict], dry_run: str | None = None) -> str:
    """Return the comparison in Markdown, which reads as plain text, too."""
    within, count = (
        found["within two standard errors"],
        len(found[found.columns[:6]].drop_duplicates()),
    )
    absent = (within == "not run here").sum()
    parts = [f"**{dry_run}**"] if dry_run else []
    parts.append(
        f"The paper's Tables 2 to 5 have {count} cells; {count - absent} have figures here, "
        f"{(within == 'yes').sum()} of {len(found) - absent} figures within two standard errors; "
        f"{absent} are not run here."
    )
    form = {"float_format": "{:.4f}".format, "na_rep": "", "index": False}
    for number, own in found.groupby("table"):
        shown = own.drop(columns=["table", "source"]).rename(columns={"value": "paper"})
        parts.append(f"Table {number}\n\n```\n{shown.to_string(**form)}\n```")
    lines = [
        f"- {title}: {metric}: {one}" for title, own in leads.items() for metric, one in own.items()
    ]
    return "\n\n".join([*parts, CLAIM, "\n".join(lines) or "- not run here"]) + "\n"


def write(folder: Path, tables: Path = literature.PATH) -> str:
    """Write ``report.md`` and ``report.csv`` into a run's folder, and return the former."""
    ours, dry_run = cells(folder), Manifest.open(folder).content.get("dry_run")
    found = compare(ours, pd.read_csv(tables))
    leads = {}
    for run, content in _results(folder).items():
        leads |= {f"{run}, {title}": own for title, own in content.get("wins", {}).items()}
    markdown = text(found, leads, dry_run)
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    others = ours[ours.target.isna()].rename(columns={"stderr": "our stderr", "title": "note"})
    whole = pd.concat([found, others]).assign(dry_run=dry_run or "")
    whole.to_csv(folder / "report.csv", index=False)
    return markdown
