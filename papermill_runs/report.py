"""A finished run beside the paper's tables: cell by cell ours, the paper's, and how far apart.

The distance is told in standard errors, of both figures where both are known. What the paper's file
lacks is listed, not guessed; a run in a setting that the paper did not have is told to be one.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from wwwlib.studies import literature

HEADER = ["run", "table", "method", "metric", "ours", "stderr", "paper", "paper stderr", "apart"]


@dataclass(frozen=True)
class Cell:
    """One figure of ours, and the paper's if it is known."""

    run: str
    table: str
    method: str
    metric: str
    ours: float
    stderr: float | None
    paper: float | None
    paper_stderr: float | None
    apart: float | None
    setting: tuple[str, str, str] | None


def cells(folder: Path, tables: Path = literature.PATH) -> list[Cell]:
    """Read the cells of a run.

    Parameters
    ----------
    folder : Path
        Of the run, with its manifest.
    tables : Path
        The paper's figures, see `literature.paper_scores`.

    Raises
    ------
    ValueError
        If there is no such run, or it has no finished tables.
    """
    records = list(_records(folder))
    rows: dict[tuple[str, str], list[str]] = {}
    for name, record in records:
        rows.setdefault((name, record["table"]), []).append(record["method"])
    return [_cell(name, one, rows[name, one["table"]], tables) for name, one in records]


def _records(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"There is no run in {folder}; run the profile first.") from error
    found = False
    for name, notebook in manifest["notebooks"].items():
        results = folder / name / "results.json"
        if notebook["state"] == "done" and results.exists():
            for record in json.loads(results.read_text(encoding="utf-8")).get("cells", []):
                found = True
                yield name, record
    if not found:
        raise ValueError(
            f"The run in {folder} has no finished tables; run 04_quantitative_tables in it."
        )


def _cell(run: str, record: dict[str, Any], rows: Sequence[str], tables: Path) -> Cell:
    setting = tuple(record["setting"]) if record["setting"] else None
    names = literature.row_names(_spec(setting), rows) if setting else {}
    method = names.get(record["method"])
    known = literature.paper_scores(setting, tables).get((method, record["metric"]), (None, None))
    told = (record["mean"], record["stderr"])
    plain = (run, record["table"], record["method"], record["metric"])
    return Cell(*plain, *told, *known, apart(*told, *known), setting)


def _spec(setting: tuple[str, str, str]) -> str:
    """Return the concept set as parameters name it, of the paper's word for it."""
    return "broden" if setting[2] == "Broden" else setting[2]


def apart(
    ours: float, stderr: float | None, theirs: float | None, their_stderr: float | None
) -> float | None:
    """Return the difference in standard errors, of all that are known; None without any.

    The figures are taken as independent: sqrt(a² + b²) is the standard error of the difference.
    """
    spread = ((stderr or 0.0) ** 2 + (their_stderr or 0.0) ** 2) ** 0.5
    return (ours - theirs) / spread if theirs is not None and spread else None


def told(found: Sequence[Cell], rehearsal: str | None = None) -> str:
    """Return the comparison in Markdown, which reads as plain text, too."""
    same = [cell for cell in found if cell.setting]
    known = [cell for cell in same if cell.paper is not None]
    lines = [f"**{rehearsal}**", ""] if rehearsal else []
    lines += [
        f"{len(found)} cells; {len(same)} in a setting of the paper's; of {len(known)} of them the "
        "paper's figure is known.",
        "",
    ]
    if not same:
        lines += ["No cell is in the paper's setting: nothing here compares with it.", ""]
    lines += [*_table(known), ""] if known else []
    lacking = Counter(cell.setting for cell in same if cell.paper is None)
    lines += [
        f"- wwwlib/studies/paper_tables.csv lacks {count} figures of {', '.join(setting)}"
        for setting, count in sorted(lacking.items())
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(known: Sequence[Cell]) -> list[str]:
    rows = [[_text(value) for value in astuple(cell)[:9]] for cell in known]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]

    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(t.ljust(w) for t, w in zip(texts, widths, strict=True))} |"

    return [line(HEADER), line(["-" * width for width in widths]), *map(line, rows)]


def _text(value: Any) -> str:
    if value is None:
        return "not known"
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def write(folder: Path, tables: Path = literature.PATH) -> str:
    """Write ``report.md`` and ``report.csv`` into a run's folder, and return the former.

    Raises
    ------
    ValueError
        As `cells`.
    """
    found = cells(folder, tables)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    text = told(found, manifest.get("rehearsal"))
    (folder / "report.md").write_text(text, encoding="utf-8")
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([*HEADER, "setting", "rehearsal"])
    for cell in found:
        values = [getattr(cell, field.name) for field in fields(cell)]
        values[-1] = ", ".join(cell.setting) if cell.setting else "none of the paper's"
        writer.writerow([*values, manifest.get("rehearsal", "")])
    (folder / "report.csv").write_text(buffer.getvalue(), encoding="utf-8")
    return text
