"""Published results: the paper's scores, and labels of ResNet-50's neurons by other methods.

``paper_tables.csv`` holds Tables 2 to 5 of the paper, one score a row, with its source. Labels are
the CSV files that the authors of Network Dissection, CLIP-Dissect and MILAN published; they become
rows of a table without running these methods.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from wwwlib.registry import existing_file
from wwwlib.studies.tables import MethodNames, Table

PATH = Path(__file__).with_name("paper_tables.csv")
Setting = tuple[str, str, str] | None  # network, probe set and concept set in the paper's words
Known = Mapping[tuple[str, str], tuple[float, float | None]]  # mean, error by method and metric

_TARGETS = {
    ("torchvision/resnet50", False): "ResNet-50",
    ("timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", False): "ViT-B/16",
    ("../papermill_runs/paper_networks.py:vit_b16", False): "ViT-B/16",
    ("torchvision/resnet18", True): "ResNet-18 (Places365)",
}
_CONCEPTS = {"broden": "Broden", "imagenet": "ImageNet", "places365": "Places365"}
_CONCEPTS |= {"wordnet": "WordNet nouns"}
# The paper's Table 4 has Places365's test images; here the validation images stand in for them.
_PROBES = {("imagenet", 50_000): "ImageNet val", ("places365", 36_500): "Places365 test"}
# Methods with probe images and words of their own: their scores belong to any table of a network.
OWN = ("Network Dissection", "MILAN(b)", "FALCON")
# Rows of Table 5: the bare words, and the words in the template.
BARE, TEMPLATE = "WWW without template and ACS", "WWW with template, without ACS"
_TARGET, _FINAL = "torchvision/resnet50", "fc"  # the network of the labels, and its last layer


# The paper's scores ---------------------------------------------------------------------------


def setting(target: str, probe: str, count: int, concepts: str, truth: str = "imagenet") -> Setting:
    """Return the paper's words for a setting, or None if the paper does not have it.

    Parameters
    ----------
    target, probe, concepts, truth : str
        For `targets.load`, `datasets.load`, `language.concept_set` and `metrics.truth`. The paper
        does not state which of torchvision's weights its ResNet-50 has.
    count : int
        Images in the probe set; the paper used all.
    """
    places = truth.partition(":")[0] == "places365"
    kind = _CONCEPTS.get(concepts.partition(":")[0])
    found = (_TARGETS.get((target, places)), _PROBES.get((probe, count)), kind)
    return found if all(found) else None


def paper_scores(setting: Setting, path: str | Path = PATH) -> Known:
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
    return {
        (row.method, row.metric): (row.value, None if pd.isna(row.stderr) else row.stderr)
        for row in pd.read_csv(path).itertuples()
        if setting and row.target == setting[0]
        if row.method in OWN or (row.probe, row.concepts) == setting[1:]
    }


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
    names = {one: one for one in ("WWW", "FALCON", BARE, TEMPLATE)}
    for method, theirs in (("Network Dissection", OWN[0]), ("MILAN", OWN[1])):
        labels = f"{method} as published"
        names[labels if labels in rows else method] = theirs
    # The number of names follows from the ratio of F1 to hit rate in the paper's tables.
    top = 5 if concepts.partition(":")[0] == "broden" else 1
    return names | {f"CLIP-Dissect top {top}": "CLIP-Dissect"}


def with_paper(
    cells: Mapping[str, Mapping[str, str]], known: Known, names: Mapping[str, str]
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
    return " ± ".join(f"{x:.4f}" for x in score if x is not None) if score else "not known"


def records(table: Table, setting: Setting) -> list[dict[str, object]]:
    """Return a table cell by cell as JSON values, with its setting in the paper's words."""
    found = []
    for row in table.rows:
        for metric, score in row.scores.items():
            cell = {"table": table.title, "setting": list(setting) if setting else None}
            cell |= {"method": row.method, "metric": metric, "mean": score.mean}
            cell |= {"stderr": score.stderr if len(score) > 1 else None, "neurons": len(score)}
            found.append(cell)
    return found


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
        known = table["layer"].unique()
        table = table[table["layer"] == layer]
        if table.empty:
            raise ValueError(f"{str(path)!r} has no layer {layer!r}, only {', '.join(known)}.")
    if bad := [unit for unit in table["unit"] if not unit.isdecimal()]:
        raise ValueError(f"{str(path)!r} has the unit {bad[0]!r}; expected whole numbers.")
    labels = table.set_index(table["unit"].astype(int))["label"].sort_index().str.strip()
    start = 0 if 0 in labels.index else 1
    if not len(labels) or [*labels.index] != [*range(start, start + len(labels))]:
        raise ValueError(
            f"The {len(labels)} units in {str(path)!r} are not numbered without gaps or "
            "repetitions from 0 or 1; a missing one would shift the names of all later units."
        )
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


def label_rows(
    target: str,
    layer: str,
    count: int,
    network_dissection: str | Path | None = None,
    clip_dissect: str | Path | None = None,
    milan: str | Path | None = None,
) -> dict[str, MethodNames]:
    """Return the published labels of a layer of a network; empty unless it is ResNet-50.

    Network Dissection's are there unchanged and stripped. The words that it and CLIP-Dissect chose
    from are not in the files; the labels that occur stand for them. MILAN writes free text.

    Parameters
    ----------
    target, layer : str
        The labels are those of ``torchvision/resnet50``.
    count : int
        Number of neurons of the layer; files with another number of units are left out.
    network_dissection : path, optional
        A CSV file of the final layer, or a path with ``{layer}`` for the layer in the authors'
        words: ``fc``, ``layer4`` and so on.
    clip_dissect, milan : path, optional
        CSV files of several layers.
    """
    if target != _TARGET:
        return {}
    layer, found = _FINAL if layer == "logits" else layer, {}
    if network_dissection:
        file = Path(str(network_dissection).replace("{layer}", layer))
        if layer == _FINAL or ("{layer}" in str(network_dissection) and file.is_file()):
            found["Network Dissection as published"] = read_labels(file)
            found["Network Dissection stripped"] = read_labels(file, stripped=True)
    for method, path in (("CLIP-Dissect", clip_dissect), ("MILAN", milan)):
        if path and layer in set(_read(path)["layer"]):
            found[f"{method} as published"] = read_labels(path, layer)
    return {
        row: MethodNames(names, None if row.startswith("MILAN") else _used(names), 1)
        for row, names in found.items()
        if len(names) == count
    }


def _used(names: list[list[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for own in names for name in own))
