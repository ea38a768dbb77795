"""Tables of naming methods: WWW, Tables 2 to 4, with upper bounds and paired differences.

`assemble` scores the names that several methods give to the same neurons. Methods that were not
run, and scores that were not measured, are kept as "not run". `differences` compares the rows
neuron by neuron.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from pandas import DataFrame
from torch import Tensor

from wwwlib import scores
from wwwlib.scores import Comparison, Score, Words
from wwwlib.studies import metrics

NOT_RUN = "not run"
Measure = tuple[Callable[[Words, Words], Score], Callable[[Words, Sequence[str]], Score] | None]


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
    informed : bool
        Whether the method uses the annotations that define the truth. It then is a reference, and
        does not compete with the others.
    """

    names: Words | None = None
    words: Sequence[str] | None = ()
    size: int | None = None
    informed: bool = False


@dataclass(frozen=True)
class Row:
    """One method's scores by metric, and the upper bounds of their means.

    Metrics that were not measured, or have no upper bound, are missing in the mappings.
    """

    method: str
    scores: Mapping[str, Score]
    upper_bounds: Mapping[str, float]
    size: int | None = None
    informed: bool = False

    def cells(self, metrics: Sequence[str], digits: int = 4) -> dict[str, str]:
        """Return the row as text: `Score.cell` and bound by metric, set size and abstentions."""
        texts = {metric: self._cell(metric, digits) for metric in metrics}
        first = next(iter(self.scores.values()), None)
        texts["set size"] = NOT_RUN if first is None else f"{first.size:.2f}"
        texts["abstaining"] = NOT_RUN if first is None else f"{first.abstained} of {len(first)}"
        return texts

    def _cell(self, metric: str, digits: int) -> str:
        if metric not in self.scores:
            return NOT_RUN
        score, bound = self.scores[metric], self.upper_bounds.get(metric)
        text = score.cell(digits)
        return text if bound is None else f"{text} ({bound:.{digits}f})"


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
        found = [row for row in self.rows if row.method == method]
        if not found:
            known = ", ".join(row.method for row in self.rows)
            raise KeyError(f"{self.title!r} has no row {method!r}; its rows are {known}.")
        return found[0]

    def cells(self, digits: int = 4) -> dict[str, dict[str, str]]:
        """Return every cell as text: {method: {column: text}}."""
        return {row.method: row.cells(self.metrics, digits) for row in self.rows}


@dataclass(frozen=True)
class Difference:
    """A method's score minus the reference's, neuron by neuron.

    Attributes
    ----------
    method, metric, reference : str
    comparison : Comparison
        Mean difference, paired bootstrap interval, permutation p.
    p : float
        The p-value after Holm's correction for all differences of the table.
    """

    method: str
    metric: str
    reference: str
    comparison: Comparison
    p: float

    def __str__(self) -> str:
        low, high = self.comparison.interval
        return (
            f"{self.comparison.difference:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"p = {self.comparison.p:.2g} → {self.p:.2g}"
        )


def assemble(
    title: str,
    methods: Mapping[str, MethodNames],
    truth: Words,
    encoders: Mapping[str, Callable[[list[str]], Tensor] | None],
    others: Mapping[str, Measure | None] | None = None,
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
    others : mapping of column to (measure, upper bound), optional
        Further scores: a function (names, truth) -> Score, and a function (truth, words) -> Score
        or None; None for a column not run.

    Returns
    -------
    Table
        Columns: the encoders', F1, hit rate, the others. Upper bounds are those of the method's
        concept set; that of F1 is of the method's number of names where it is fixed.

    Raises
    ------
    ValueError
        If a method names another number of neurons than there are in the truth.
    """
    measures: dict[str, Measure | None] = {}
    for column, encode in encoders.items():
        options = {"encode": scores.cached(encode)} if encode else None
        measures[column] = options and (
            partial(scores.text_cosine, **options),
            partial(metrics.text_cosine_upper_bound, **options),
        )
    measures |= {
        "F1": (scores.f1, metrics.f1_upper_bound),
        "hit rate": (scores.hit_rate, metrics.hit_rate_upper_bound),
        **(others or {}),
    }
    run = {column: measure for column, measure in measures.items() if measure}

    @cache
    def bound(column: str, words: tuple[str, ...], size: int | None) -> float:
        fixed = {"size": size, "fixed": True} if size and column == "F1" else {}
        return run[column][1](truth, words, **fixed).mean

    rows = []
    for method, own in methods.items():
        values, bounds = {}, {}
        if own.names is not None:
            values = {column: score(own.names, truth) for column, (score, _) in run.items()}
        if values and own.words is not None:
            words = tuple(own.words)
            bounds = {c: bound(c, words, own.size) for c, (_, limit) in run.items() if limit}
        rows.append(Row(method, values, bounds, own.size, own.informed))
    return Table(title, tuple(measures), tuple(rows))


def differences(
    table: Table, reference: str = "WWW", seed: int = 0, samples: int = 10_000
) -> list[Difference]:
    """Compare every row with the reference in every metric that both have.

    Parameters
    ----------
    table : Table
    reference : str
        A row; if it was not run the result is empty.
    seed, samples : int
        See `scores.compare`.

    Returns
    -------
    list of Difference
        Method minus reference: above 0 the method is better. Holm's correction is over the list.
    """
    base = table[reference].scores
    pairs = [
        (row.method, metric, scores.compare(score, base[metric], seed, samples))
        for row in table.rows
        for metric, score in row.scores.items()
        if row.method != reference and metric in base
    ]
    adjusted = holm([found.p for _, _, found in pairs])
    return [
        Difference(method, metric, reference, found, p)
        for (method, metric, found), p in zip(pairs, adjusted, strict=True)
    ]


def difference_cells(gaps: Sequence[Difference]) -> dict[str, dict[str, str]]:
    """Return differences as text, "+0.120 [+0.050, +0.190], p = .002 → .03": {method: {metric: …}}.

    The second p is the corrected one.
    """
    cells: dict[str, dict[str, str]] = {}
    for gap in gaps:
        cells.setdefault(gap.method, {})[gap.metric] = str(gap)
    return cells


def only(methods: Mapping[str, MethodNames], neurons: Sequence[int]) -> dict[str, MethodNames]:
    """Restrict the names to some neurons, in that order."""
    return {
        method: own if own.names is None else replace(own, names=[own.names[i] for i in neurons])
        for method, own in methods.items()
    }


def truncate(names: Words, sizes: Sequence[int]) -> list[list[str]]:
    """Keep each neuron's first names, as many as another method gave it, and at least one.

    This compares two methods at equal k. Where the other method abstains the first name is kept,
    since abstaining is the other method's choice alone.

    Raises
    ------
    ValueError
        If there is not one size for each neuron, or a neuron has fewer names than its size.
    """
    kept = [list(own[: max(1, size)]) for own, size in zip(names, sizes, strict=True)]
    for i, (own, size) in enumerate(zip(kept, sizes, strict=True)):
        if own and len(own) < size:
            raise ValueError(
                f"Neuron {i} has {len(own)} names, but {size} are to be kept; request at least "
                f"{max(sizes)} names of the method."
            )
    return kept


def vocabulary_use(own: MethodNames) -> dict[str, object]:
    """Summarise a method's names: share of neurons named, distinct names, most frequent name."""
    count = Counter(name for names in own.names for name in names)
    name, times = count.most_common(1)[0] if count else ("none", 0)
    return {
        "neurons": len(own.names),
        "named": sum(map(bool, own.names)) / len(own.names),
        "names in use": len(count),
        "most frequent": name,
        "its share": times / len(own.names),
    }


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
    parts = {spec: spec.partition(":") for spec in specs}
    kinds = {spec: kind for spec, (kind, _, _) in parts.items()}
    files = {spec: f"{kind}{colon}{Path(path).name}" for spec, (kind, colon, path) in parts.items()}
    found: dict[str, str] = {}
    for short in (kinds, files, {spec: spec for spec in parts}):
        for spec, title in short.items():
            if list(short.values()).count(title) == 1 and title != "file":
                found.setdefault(spec, title)
    return {spec: found[spec] for spec in parts}


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
    adjusted, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


# Classes that share a word --------------------------------------------------------------------


def classes_of_words(truth: Words) -> dict[str, list[int]]:
    """Return for each word of the truth the indices of the classes that have it as a synonym."""
    classes: dict[str, list[int]] = {}
    for i, words in enumerate(truth):
        for word in scores.distinct(words):
            classes.setdefault(word, []).append(i)
    return classes


def by_synset(
    pred: Words, truth: Words, classes: Sequence[int] | None = None
) -> tuple[list[list[str]], list[list[str]]]:
    """Restate names and truth as classes, so that they are matched by meaning, not by string.

    Each class is one meaning (a synset). A name is replaced by every class that has it as a
    synonym: a shared word such as "crane" stands for both its classes, of which one is wrong, and
    two synonyms of one class count once. A name of no class is kept as a wrong name.

    Parameters
    ----------
    pred : list of list of str
        The names of N neurons.
    truth : list of list of str
        The synonyms of all C classes, including those of no neuron here.
    classes : sequence of int, optional
        The true class of each of the N neurons; by default class i for neuron i.

    Returns
    -------
    pred, truth : list of list of str
        Of the N neurons, for `scores.hit_rate` or `scores.f1`.
    """
    classes = range(len(truth)) if classes is None else classes
    scores.word_sets(pred, [truth[i] for i in classes])
    known = classes_of_words(truth)
    restated = [
        [
            label
            for word in scores.distinct(names)
            for label in ([f"class {i}" for i in known.get(word, ())] or [f"word {word}"])
        ]
        for names in pred
    ]
    return restated, [[f"class {i}"] for i in classes]
