"""Tables of naming methods: WWW, Tables 2 to 4, with upper bounds and paired differences.

`assemble` scores the names that several methods give to the same neurons. Methods that were not
run, and scores that were not measured, are kept as "not run". `differences` compares the rows
neuron by neuron.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from pandas import DataFrame, Index, Series

from wwwlib.scores import Encode, Score, Words, cached, compare, f1, hit_rate, text_cosine
from wwwlib.studies import metrics

NOT_RUN = "not run"
Encoders = Mapping[str, Encode | None]  # by column; None for one that is not run


@dataclass(frozen=True)
class MethodNames:
    """The names that one method gives to N neurons.

    Attributes
    ----------
    names : list of list of str, or None
        Names of each neuron, empty where the method abstains; None for a method that was not run.
    words : sequence of str, or None
        The concept set that they are chosen from; None for a method that generates free text,
        which has no upper bound.
    size : int, optional
        Number of names per neuron, for methods that do not choose it.
    """

    names: Words | None = None
    words: Sequence[str] | None = ()
    size: int | None = None


@dataclass(frozen=True)
class Row:
    """One method's scores by metric, and the upper bounds of their means.

    Metrics that were not measured, or have no upper bound, are missing in the mappings.
    """

    method: str
    scores: Mapping[str, Score]
    upper_bounds: Mapping[str, float]
    size: int | None = None

    def cells(self, metrics: Sequence[str], digits: int = 4) -> dict[str, str]:
        """Return the row as text: `Score.cell` and bound by metric, set size and abstentions."""
        texts = dict.fromkeys((*metrics, "set size", "abstaining"), NOT_RUN)
        for metric, score in self.scores.items():  # all of the same names
            texts |= {metric: score.cell(digits), "set size": f"{score.size:.2f}"}
            texts["abstaining"] = f"{score.abstained} of {len(score)}"
            if metric in self.upper_bounds:
                texts[metric] += f" ({self.upper_bounds[metric]:.{digits}f})"
        return texts


@dataclass(frozen=True)
class Table:
    """Several methods on the same neurons.

    Attributes
    ----------
    title : str
        Network, layer, probe set and concept set.
    metrics : tuple of str
        The columns, measured or not.
    rows : tuple of Row
        The methods, run or not.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]

    def __getitem__(self, method: str) -> Row:
        """Return a method's row."""
        rows = {row.method: row for row in self.rows}
        if method not in rows:
            raise KeyError(f"{self.title!r} has no row {method!r}; its rows are {', '.join(rows)}.")
        return rows[method]

    def cells(self, digits: int = 4) -> dict[str, dict[str, str]]:
        """Return every cell as text: {method: {column: text}}."""
        return {row.method: row.cells(self.metrics, digits) for row in self.rows}


def assemble(
    title: str, methods: Mapping[str, MethodNames], truth: Words, encoders: Encoders
) -> Table:
    """Score the names of several methods for the same neurons.

    Parameters
    ----------
    title : str
    methods : mapping of method to MethodNames
    truth : list of list of str
        The synonyms of each of the N neurons.
    encoders : mapping of column to text encoder
        Such as {"CLIP cos": clip.encode_texts, "mpnet cos": None}; None for a column not run.

    Returns
    -------
    Table
        Columns: the encoders', F1, hit rate. Upper bounds are those of the method's concept set;
        that of F1 is of the method's number of names where it is fixed.

    Raises
    ------
    ValueError
        If a method names another number of neurons than there are in the truth.
    """
    measures = {"F1": (f1, metrics.f1_upper_bound)}
    measures["hit rate"] = hit_rate, metrics.hit_rate_upper_bound
    for column, encode in encoders.items():
        if encode:
            both, once = (text_cosine, metrics.text_cosine_upper_bound), cached(encode)
            measures[column] = [partial(one, encode=once) for one in both]

    @cache
    def bound(column: str, words: tuple[str, ...], size: int | None) -> float:
        return measures[column][1](truth, words, **{"size": size} if column == "F1" else {}).mean

    rows = []
    for method, own in methods.items():
        run = {} if own.names is None else measures
        bounded = {} if own.words is None else run
        values = {column: score(own.names, truth) for column, (score, _) in run.items()}
        bounds = {column: bound(column, tuple(own.words), own.size) for column in bounded}
        rows.append(Row(method, values, bounds, own.size))
    return Table(title, (*encoders, "F1", "hit rate"), tuple(rows))


def differences(table: Table, reference: str = "WWW", seed: int = 0) -> DataFrame:
    """Compare every row with the reference in every metric that both have.

    Parameters
    ----------
    table : Table
    reference : str
        A row; if it was not run the result is empty.
    seed : int
        See `scores.compare`.

    Returns
    -------
    DataFrame
        What `compare_pairs` returns, by method and metric. Method minus reference: above 0 the
        method is better.
    """
    base, rows = table[reference].scores, [row for row in table.rows if row.method != reference]
    pairs = {(r.method, m): (r.scores[m], base[m]) for r in rows for m in base if m in r.scores}
    return compare_pairs(pairs, seed)


def compare_pairs(pairs: Mapping[Hashable, tuple[Score, Score]], seed: int = 0) -> DataFrame:
    """Compare pairs of scores, each neuron by neuron.

    Parameters
    ----------
    pairs : mapping of any key to (Score, Score)
    seed : int
        See `scores.compare`.

    Returns
    -------
    DataFrame
        A row for each key: mean "difference", first minus second, the ends "low" and "high" of its
        paired bootstrap interval, and "p" after Holm's correction over all pairs.
    """
    found = [compare(*pair, seed) for pair in pairs.values()]
    rows = [(one.difference, *one.interval) for one in found]
    table = DataFrame(rows, Index([*pairs]), ["difference", "low", "high"])
    return table.assign(p=holm([one.p for one in found]))


def difference_cells(gaps: DataFrame) -> dict[str, dict[str, str]]:
    """Return differences as text, "+0.120 [+0.050, +0.190], p = 0.03": {method: {metric: …}}."""
    cells: dict[str, dict[str, str]] = {}
    for (method, metric), gap in gaps.iterrows():
        text = f"{gap.difference:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], p = {gap.p:.2g}"
        cells.setdefault(method, {})[metric] = text
    return cells


def only(methods: Mapping[str, MethodNames], neurons: Sequence[int]) -> dict[str, MethodNames]:
    """Restrict the names to some neurons, in that order."""
    return {
        method: own if own.names is None else replace(own, names=[own.names[i] for i in neurons])
        for method, own in methods.items()
    }


def vocabulary_use(own: MethodNames) -> dict[str, object]:
    """Summarise a method's names: share of neurons named, distinct names, most frequent name."""
    count = Counter(name for names in own.names for name in names)
    name, times = count.most_common(1)[0] if count else ("none", 0)
    use = {"neurons": len(own.names), "named": sum(map(bool, own.names)) / len(own.names)}
    use |= {"names in use": len(count), "most frequent": name}
    return use | {"its share": times / len(own.names)}


def by_row(rows: Mapping[object, Mapping[str, object]], digits: int = 3) -> DataFrame:
    """Return records as the rows of a table: whole numbers stay whole, missing is "not run"."""
    table = DataFrame.from_dict(rows, orient="index").round(digits)
    return table.astype(object).where(table.notna(), NOT_RUN)


def titles(specs: Iterable[str]) -> dict[str, str]:
    """Return a short distinct title of each concept set, for tables and figures.

    That is the kind alone, such as "broden" for "broden:/a/path/labels.txt"; the kind and the
    file's name where two sets are of one kind or the kind is "file"; the whole specification where
    these are equal, too.

    Parameters
    ----------
    specs : iterable of str
        As for `language.concept_set`.

    Returns
    -------
    dict of spec to title
        In order, each spec once.
    """
    specs = Series([*dict.fromkeys(specs)])
    parts = specs.str.partition(":")
    kinds, files = parts[0], parts[0] + ":" + parts[2].map(lambda path: Path(path).name)
    alone = kinds.eq(specs) | (~kinds.duplicated(keep=False) & kinds.ne("file"))
    longer = files.where(~files.duplicated(keep=False), specs)
    return dict(zip(specs, kinds.where(alone, longer), strict=True))


def holm(p: Sequence[float]) -> list[float]:
    """Adjust the p-values of one table for multiple testing by Holm's step-down method.

    Parameters
    ----------
    p : sequence of float
        In [0, 1], in any order.

    Returns
    -------
    list of float
        Adjusted p-values in that order: below .05 means that the family-wise error is below .05.
    """
    ordered = Series(p, dtype=float).sort_values()
    adjusted = (ordered * ordered.rank(ascending=False, method="max")).cummax().clip(upper=1)
    return adjusted.sort_index().tolist()
