"""Published results: the paper's scores, and labels of ResNet-50's neurons by other methods.

``paper_tables.csv`` holds one score of the paper a row, with its source. Few are known. Labels are
the CSV files that the authors of Network Dissection, CLIP-Dissect and MILAN published; they become
rows of a table without running these methods.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from wwwlib.registry import existing_file
from wwwlib.studies.tables import MethodNames, Table

PATH = Path(__file__).with_name("paper_tables.csv")
Setting = tuple[str, str, str]  # network, probe set and concept set in the paper's words

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
_TARGET, _FINAL = "torchvision/resnet50", "fc"  # the network of the labels, and its last layer


# The paper's scores ---------------------------------------------------------------------------


def setting(
    target: str, probe: str, count: int, concepts: str, truth: str = "imagenet"
) -> Setting | None:
    """Return the paper's words for a setting, or None if the paper does not have it.

    Parameters
    ----------
    target, probe, concepts, truth : str
        For `targets.load`, `datasets.load`, `language.concept_set` and `language.truth`. The paper
        does not state which of torchvision's weights its ResNet-50 has.
    count : int
        Images in the probe set; the paper used all.
    """
    places = truth.partition(":")[0] == "places365"
    kind = _CONCEPTS.get(concepts.partition(":")[0])
    found = (_TARGETS.get((target, places)), _PROBES.get((probe, count)), kind)
    return found if all(found) else None


def paper_scores(
    setting: Setting | None, path: str | Path = PATH
) -> dict[tuple[str, str], tuple[float, float | None]]:
    """Return the known scores of the paper in a setting.

    Parameters
    ----------
    setting : (network, probe set, concept set) in the paper's words, or None
    path : path
        A CSV file with columns target, probe, concepts, method, metric, value and stderr.

    Returns
    -------
    dict of (method, metric) to (mean, standard error or None)
    """
    rows = pd.read_csv(path).itertuples()
    return {
        (row.method, row.metric): (row.value, None if pd.isna(row.stderr) else row.stderr)
        for row in rows
        if (row.target, row.probe, row.concepts) == setting
    }


def scored_top(concepts: str) -> int:
    """Return the number of CLIP-Dissect's names that the paper scored: 5 on Broden, else 1.

    The paper does not state it; it follows from the ratio of F1 to hit rate in its tables.
    """
    return 5 if concepts.partition(":")[0] == "broden" else 1


def comparable(setting: Setting | None, concepts: str) -> list[str]:
    """Return a caveat on CLIP-Dissect's rows in a setting of the paper; else an empty list."""
    if setting is None:
        return []
    return [f"Of CLIP-Dissect's rows only top {scored_top(concepts)} compares with the paper."]


def row_names(concepts: str, rows: Collection[str] = ()) -> dict[str, str]:
    """Map the rows of a table to those of the paper's tables.

    Parameters
    ----------
    concepts : str
        The concept set, for `language.concept_set`.
    rows : collection of str
        The rows of the table. Published labels of Network Dissection and MILAN reproduce the
        paper's scores, and are preferred where the table has them.
    """
    names = {"WWW": "WWW", "FALCON": "FALCON"}
    for method in ("Network Dissection", "MILAN"):
        labels = f"{method} as published"
        names[labels if labels in rows else method] = method
    return names | {f"CLIP-Dissect top {scored_top(concepts)}": "CLIP-Dissect"}


def with_paper(
    cells: Mapping[str, Mapping[str, str]],
    known: Mapping[tuple[str, str], tuple[float, float | None]],
    names: Mapping[str, str],
) -> dict[str, Mapping[str, str]]:
    """Add the paper's scores below the rows of a table.

    Parameters
    ----------
    cells : mapping of row to mapping of column to text
        From `Table.cells`.
    known : mapping of (method, metric) to (mean, standard error or None)
        From `paper_scores`.
    names : mapping of row to the paper's method
        From `row_names`.

    Returns
    -------
    dict of row to mapping of column to text
        Without rows of which no score is known.
    """
    rows = {}
    for row, own in cells.items():
        rows[row] = own
        theirs = {column: known.get((names.get(row), column)) for column in own}
        if any(theirs.values()):
            rows[f"{row}: the paper"] = {column: _text(one) for column, one in theirs.items()}
    return rows


def _text(score: tuple[float, float | None] | None) -> str:
    if score is None:
        return "not known"
    mean, stderr = score
    return f"{mean:.4f}" if stderr is None else f"{mean:.4f} ± {stderr:.4f}"


def records(table: Table, setting: Setting | None) -> list[dict[str, object]]:
    """Return a table cell by cell as JSON values, with its setting in the paper's words."""
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


# Published labels -----------------------------------------------------------------------------


def read_labels(
    path: str | Path, layer: str | None = None, stripped: bool = False
) -> list[list[str]]:
    """Read the published labels of one layer.

    Parameters
    ----------
    path : path
        A CSV file with columns ``unit`` and either ``label`` (Network Dissection) or
        ``description`` (CLIP-Dissect, MILAN); one row per unit in any order, counted from 0 or 1.
    layer : str, optional
        Which layer, of a file with a column ``layer``.
    stripped : bool
        Whether to remove Broden's suffixes for scenes and colours (``beach-s``, ``red-c``) and to
        replace underscores by spaces. The paper's tables score the labels unchanged.

    Returns
    -------
    list of list of str
        One name per neuron; none where the label is empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a column, the layer or a unit is missing, or a unit occurs twice.
    """
    table = _read(path)
    if layer is not None:
        known = list(dict.fromkeys(table["layer"]))
        table = table[table["layer"] == layer]
        if table.empty:
            raise ValueError(f"{str(path)!r} has no layer {layer!r}, only {', '.join(known)}.")
    if bad := [unit for unit in table["unit"] if not unit.isdecimal()]:
        raise ValueError(f"{str(path)!r} has the unit {bad[0]!r}; expected whole numbers.")
    table = table.assign(unit=table["unit"].astype(int)).sort_values("unit", kind="stable")
    units = table["unit"].tolist()
    start = 1 if units[:1] == [1] else 0
    if not units or units != list(range(start, start + len(units))):
        raise ValueError(
            f"The {len(units)} units in {str(path)!r} are not numbered without gaps or "
            "repetitions from 0 or 1; a missing one would shift the names of all later units."
        )
    labels = [label.strip() for label in table["label"]]
    return [[strip_suffix(one) if stripped else one] if one else [] for one in labels]


def strip_suffix(label: str) -> str:
    """Return a label of Broden without its suffix, with spaces for underscores."""
    return label.removesuffix("-s").removesuffix("-c").replace("_", " ")


def _read(path: str | Path) -> pd.DataFrame:
    path = existing_file(path, "a published CSV file")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table.rename(columns={"description": "label"})
    if lacking := {"unit", "label"} - {*table.columns}:
        raise ValueError(
            f"{str(path)!r} has no column {min(lacking)!r}, only {', '.join(table.columns)}; give "
            "a published file of labels."
        )
    return table


def dissection_labels(path: str | Path, layer: str = _FINAL) -> dict[str, MethodNames]:
    """Return Network Dissection's labels, unchanged and stripped, as rows of a table.

    The words that it chose from are not in the file; the labels that occur in it stand for them.
    In hidden layers the masks behind the truth are its own, so that it does not compete.

    Parameters
    ----------
    path : path
        A CSV file of the final layer, or a path with ``{layer}`` for the layer.
    layer : str
        In the authors' words: ``fc``, ``layer4`` and so on.

    Returns
    -------
    dict of row to MethodNames
        Empty for a hidden layer without a file.
    """
    file = Path(str(path).replace("{layer}", layer))
    if layer != _FINAL and ("{layer}" not in str(path) or not file.is_file()):
        return {}
    rows = {"as published": read_labels(file), "stripped": read_labels(file, stripped=True)}
    return {
        f"Network Dissection {form}": MethodNames(names, _used(names), 1, informed=layer != _FINAL)
        for form, names in rows.items()
    }


def labels_by_layer(
    clip_dissect: str | Path | None = None, milan: str | Path | None = None
) -> dict[str, dict[str, MethodNames]]:
    """Return CLIP-Dissect's and MILAN's labels: {layer in the authors' words: {row: names}}.

    CLIP-Dissect chose from Broden's words, of which the file shows those that were used; MILAN
    generates free text.
    """
    found: dict[str, dict[str, MethodNames]] = {}
    for method, path in (("CLIP-Dissect", clip_dissect), ("MILAN", milan)):
        for layer in dict.fromkeys(_read(path)["layer"]) if path else ():
            names = read_labels(path, layer)
            own = MethodNames(names, None if method == "MILAN" else _used(names), 1)
            found.setdefault(layer, {})[f"{method} as published"] = own
    return found


def label_rows(
    target: str,
    layer: str,
    count: int,
    network_dissection: str | Path | None = None,
    clip_dissect: str | Path | None = None,
    milan: str | Path | None = None,
) -> dict[str, MethodNames]:
    """Return the published labels of a layer of a network; empty unless it is ResNet-50.

    Parameters
    ----------
    target, layer : str
        The labels are those of ``torchvision/resnet50``.
    count : int
        Number of neurons of the layer; files with another number of units are left out.
    network_dissection, clip_dissect, milan : path, optional
        The CSV files; for Network Dissection's see `dissection_labels`.
    """
    if target != _TARGET:
        return {}
    layer = _FINAL if layer == "logits" else layer
    found = dissection_labels(network_dissection, layer) if network_dissection else {}
    found |= labels_by_layer(clip_dissect, milan).get(layer, {})
    return {method: own for method, own in found.items() if len(own.names) == count}


def _used(names: list[list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for own in names for name in own))
