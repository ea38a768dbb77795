"""Labels that others published for the neurons of well-known networks, as concept tables.

So their rows in a table are scored without running them. Each reader has two readings: "raw",
the label as it stands, which is how the paper's tables score Network Dissection, and "stripped",
without Broden's suffixes for scenes and colours (``beach-s``, ``red-c``) and with spaces for
underscores.
"""

import csv
from dataclasses import replace
from pathlib import Path

import torch

from wwwlib.concepts import ConceptTable

READINGS = ("raw", "stripped")
_SUFFIXES = ("-s", "-c")


def network_dissection(path: str | Path, reading: str = "raw") -> ConceptTable:
    """Read the report of one layer: columns ``unit``, ``label`` and ``score``, an IoU.

    Parameters
    ----------
    path : path
        A CSV file with one row a unit, in any order; units are counted from 0 or 1.
    reading : {"raw", "stripped"}
        See above.

    Returns
    -------
    ConceptTable
        One name a neuron; neurons with an empty label abstain.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column or a unit is missing, a unit appears twice, or the reading is unknown.
    """
    return _table(_rows(path, "label", "score"), reading, path)


def clip_dissect(path: str | Path, layer: str, reading: str = "raw") -> ConceptTable:
    """Read one layer of CLIP-Dissect's descriptions.

    Columns are ``layer``, ``unit``, ``description`` and ``similarity``; parameters, result and
    errors are those of :func:`network_dissection`.
    """
    return _table(_layer(_rows(path, "description", "similarity"), layer, path), reading, path)


def milan(path: str | Path, layer: str, reading: str = "raw") -> ConceptTable:
    """Read one layer of MILAN's descriptions, which have no scores: NaN stands for each.

    Columns are ``layer``, ``unit`` and ``description``; parameters, result and errors are those
    of :func:`network_dissection`.
    """
    return _table(_layer(_rows(path, "description", None), layer, path), reading, path)


def layers(path: str | Path) -> dict[str, int]:
    """Return the layers that a file describes, in its order, and how many units each has."""
    found: dict[str, int] = {}
    for layer, *_ in _rows(path, "description", None):
        found[layer] = found.get(layer, 0) + 1
    return found


def stripped(table: ConceptTable) -> ConceptTable:
    """Return a table with Broden's suffixes removed and underscores turned into spaces."""
    return replace(table, names=[[strip(name) for name in names] for names in table.names])


def strip(name: str) -> str:
    """Return a label of Broden's without its suffix, with spaces for underscores."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("_", " ")


def _rows(path: str | Path, label: str, score: str | None) -> list[tuple[str, str, str, str]]:
    """Return (layer, unit, label, score) of each row; the layer is empty where a file has none."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; give a published CSV file.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        for column in filter(None, ("unit", label, score)):
            if column not in columns:
                raise ValueError(
                    f"{str(path)!r} has no column {column!r}, only {', '.join(columns)}; is it "
                    "the file of another method?"
                )
        return [
            (row.get("layer", ""), row["unit"], row[label] or "", row[score] if score else "nan")
            for row in reader
        ]


def _layer(rows: list[tuple], layer: str, path: str | Path) -> list[tuple]:
    """Return the rows of one layer."""
    found = [row for row in rows if row[0] == layer]
    if not found:
        known = ", ".join(dict.fromkeys(row[0] for row in rows))
        raise ValueError(f"{str(path)!r} describes no layer {layer!r}, only {known}.")
    return found


def _table(rows: list[tuple], reading: str, path: str | Path) -> ConceptTable:
    """Order rows by unit, check that none is missing, and make a table of them."""
    if reading not in READINGS:
        raise ValueError(f"The reading {reading!r} is unknown; choose raw or stripped.")
    units = [_number(row[1], int, "unit", "a whole number", path) for row in rows]
    order = sorted(range(len(rows)), key=units.__getitem__)
    rows, units = [rows[i] for i in order], [units[i] for i in order]
    first = 1 if units[:1] == [1] else 0
    if not units or units != list(range(first, first + len(units))):
        raise ValueError(
            f"The {len(units)} units in {str(path)!r} are not numbered without gaps or "
            "repetitions from 0 or 1; a missing one would shift all names behind it."
        )
    labels = [row[2].strip() for row in rows]
    scores = [
        [_number(row[3], float, "score", "a number", path)] if label else []
        for row, label in zip(rows, labels, strict=True)
    ]
    table = ConceptTable(
        names=[[label] if label else [] for label in labels],
        scores=scores,
        threshold=torch.tensor([score[0] if score else 0.0 for score in scores]),
        abstained=torch.tensor([not label for label in labels]),
    )
    return stripped(table) if reading == "stripped" else table


def _number(text: str, kind: type, column: str, expected: str, path: str | Path) -> float:
    """Return a cell as a number, or say which one is none."""
    try:
        return kind(text)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} has {text!r} in the column {column!r}, where {expected} belongs; "
            "correct the cell, or give the file as it was published."
        ) from error
