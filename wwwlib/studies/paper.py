"""The paper's own figures, to stand beside ours where the setting is the paper's.

`data/paper_tables.csv` holds one figure a row, with the place where it was read. Few are known; a
setting that is not in the file, or is not the paper's, has none.
"""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

from wwwlib.studies.tables import Table
from wwwlib.world import DATA

PATH = DATA.parent / "paper_tables.csv"
_TARGETS = {
    ("torchvision/resnet50", False): "ResNet-50",
    ("torchvision/vit_b_16", False): "ViT-B/16",
    ("torchvision/resnet18", True): "ResNet-18 (Places365)",
}
_CONCEPTS = {
    "broden": "Broden",
    "imagenet": "ImageNet",
    "places365": "Places365",
    "wordnet": "WordNet nouns",
}
_PROBES = {("imagenet", 50_000): "ImageNet val", ("places365", 36_500): "Places365"}


def setting(
    target: str, probe: str, count: int, concepts: str, truth: str = "imagenet"
) -> tuple[str, str, str] | None:
    """Return the paper's words for a setting: network, probe set and concept set.

    Parameters
    ----------
    target, probe, concepts, truth : str
        As `targets.load`, `images.load`, `language.concept_set` and `language.truth` take them.
        The paper does not say which of torchvision's weights its ResNet-50 has.
    count : int
        Images in the probe set; the paper took all.

    Returns
    -------
    (str, str, str), or None if the paper did not have this setting
    """
    places = truth.partition(":")[0] == "places365"
    kind = _CONCEPTS.get(concepts.partition(":")[0])
    found = (_TARGETS.get((target, places)), _PROBES.get((probe, count)), kind)
    return found if all(found) else None


def figures(
    setting: tuple[str, str, str] | None, path: str | Path = PATH
) -> dict[tuple[str, str], tuple[float, float | None]]:
    """Return what is known of the paper's table for a setting.

    Parameters
    ----------
    setting : (network, probe set, concept set) in the paper's words, or None
    path : path
        A CSV file with columns target, probe, concepts, method, metric, value and stderr.

    Returns
    -------
    dict of (method, metric) to (mean, standard error or None)
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["target"], row["probe"], row["concepts"]) == setting
        ]
    return {
        (row["method"], row["metric"]): (
            float(row["value"]),
            float(row["stderr"]) if row["stderr"] else None,
        )
        for row in rows
    }


def scored_top(concepts: str) -> int:
    """Return how many of CLIP-Dissect's names the paper scored: five on Broden, else one.

    The paper does not say so; the ratio of F1 to hit rate in its tables does.
    """
    return 5 if concepts.partition(":")[0] == "broden" else 1


def remark(setting: tuple[str, str, str] | None, concepts: str) -> list[str]:
    """Say which of CLIP-Dissect's rows compares with the paper, in a setting of the paper's."""
    if setting is None:
        return []
    return [f"Of CLIP-Dissect's rows only top {scored_top(concepts)} compares with the paper."]


def row_names(concepts: str, rows: Collection[str] = ()) -> dict[str, str]:
    """Return which row of the paper's tables a row of ours answers to.

    Parameters
    ----------
    concepts : str
        The concept set, as `language.concept_set` takes it.
    rows : collection of str
        The rows that our table has. Network Dissection's and MILAN's published labels reproduce
        the paper's figures, so these belong beside them where they stand in the table.
    """
    names = {"WWW": "WWW", "FALCON": "FALCON"}
    for method in ("Network Dissection", "MILAN"):
        told = f"{method} as published"
        names[told if told in rows else method] = method
    return names | {f"CLIP-Dissect top {scored_top(concepts)}": "CLIP-Dissect"}


def beside(
    cells: Mapping[str, Mapping[str, str]],
    known: Mapping[tuple[str, str], tuple[float, float | None]],
    names: Mapping[str, str],
) -> dict[str, Mapping[str, str]]:
    """Put the paper's figures below the rows of ours that they belong to.

    Parameters
    ----------
    cells : mapping of row to mapping of column to text
        From `Table.cells`.
    known : mapping of (method, metric) to (mean, standard error or None)
        From `figures`.
    names : mapping of our row to the paper's method
        From `row_names`.

    Returns
    -------
    dict of row to mapping of column to text
        Rows of which no figure is known are not added.
    """
    rows = {}
    for row, own in cells.items():
        rows[row] = own
        told = [column for column in own if (names.get(row), column) in known]
        if told:
            rows[f"{row}: the paper"] = {
                column: _written(*known[names[row], column]) if column in told else "not known"
                for column in own
            }
    return rows


def record(
    table: Table, setting: tuple[str, str, str] | None
) -> list[dict[str, str | float | int | list[str] | None]]:
    """Return a table cell by cell, as JSON values, for a comparison with the paper later.

    Parameters
    ----------
    table : Table
    setting : (network, probe set, concept set) in the paper's words, or None
    """
    return [
        {
            "table": table.title,
            "setting": list(setting) if setting else None,
            "method": row.method,
            "metric": metric,
            "mean": score.mean,
            "stderr": score.stderr if len(score) > 1 else None,
            "neurons": len(score),
        }
        for row in table.rows
        for metric, score in row.scores.items()
    ]


def _written(mean: float, stderr: float | None) -> str:
    return f"{mean:.4f}" if stderr is None else f"{mean:.4f} ± {stderr:.4f}"
