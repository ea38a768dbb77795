"""The paper's tables: methods in rows, scores in columns, and beside each how far it could go.

`assemble` scores the answers of several methods against one truth. A method that was not run keeps
its row, and a score that was not measured its column: nothing is left blank. `differences` compares
the rows neuron by neuron, which alone tells who wins.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

from torch import Tensor

from wwwlib.scores import ceilings
from wwwlib.scores.agreement import Score, Words, f1, hit_rate, text_cosine
from wwwlib.scores.paired import Comparison, compare, holm
from wwwlib.studies.answers import Answer, best_f1, remembered

NOT_RUN = "not run"


@dataclass(frozen=True)
class Row:
    """One method's scores, and the best mean that an answer of its kind could reach, by metric.

    A metric that was not measured, or has no ceiling, is missing in the mapping.
    """

    method: str
    scores: Mapping[str, Score]
    ceilings: Mapping[str, float]
    size: int | None = None
    informed: bool = False

    def cells(self, metrics: Sequence[str], digits: int = 4) -> dict[str, str]:
        """Return the row as text: "mean ± stderr (ceiling)" by metric, sizes and abstentions."""
        texts = {metric: self._cell(metric, digits) for metric in metrics}
        first = next(iter(self.scores.values()), None)
        texts["set size"] = NOT_RUN if first is None else f"{first.size:.2f}"
        texts["abstaining"] = NOT_RUN if first is None else f"{first.abstained} of {len(first)}"
        return texts

    def _cell(self, metric: str, digits: int) -> str:
        if metric not in self.scores:
            return NOT_RUN
        score = self.scores[metric]
        best = f" ({self.ceilings[metric]:.{digits}f})" if metric in self.ceilings else ""
        return f"{score.mean:.{digits}f} ± {score.stderr:.{digits}f}{best}"


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
    """A method's score less the reference's, neuron by neuron.

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


def assemble(
    title: str,
    answers: Mapping[str, Answer],
    truth: Words,
    encoders: Mapping[str, Callable[[list[str]], Tensor] | None],
    others: Mapping[str, Callable[[Words, Words], Score] | None] | None = None,
    limits: Mapping[str, Callable[[Words, Sequence[str]], Score] | None] | None = None,
) -> Table:
    """Score several methods' answers about the same neurons.

    Parameters
    ----------
    title : str
    answers : mapping of method to Answer
    truth : list of list of str
        For each of the N neurons the words that are right.
    encoders : mapping of column to text encoder
        Such as {"CLIP cos": clip.encode_texts, "mpnet cos": None}; None says "not run".
    others : mapping of column to function (names, truth) -> Score, optional
        Scores that the paper does not have, after its own; None says "not run".
    limits : mapping of column to function (truth, words) -> Score, optional
        The ceilings of `others`, where they have one.

    Returns
    -------
    Table
        Columns: the encoders', F1, hit rate, the others. Ceilings are those of the answer's
        concept set, F1's of answers of that many names where the method has no choice.

    Raises
    ------
    ValueError
        If a method names another number of neurons than there are.
    """
    encoders = {name: encode and remembered(encode) for name, encode in encoders.items()}
    cosines = {
        name: cache(partial(_best_cosine, truth, encode=encode))
        for name, encode in encoders.items()
        if encode
    }
    others = others or {}
    own = {
        name: cache(partial(_mean_limit, limit, truth))
        for name, limit in (limits or {}).items()
        if limit and others.get(name)
    }
    reach = {**cosines, "hit rate": partial(_best_hits, truth), **own}
    measures = {
        **{n: partial(text_cosine, encode=encode) for n, encode in encoders.items() if encode},
        "F1": f1,
        "hit rate": hit_rate,
        **{name: of for name, of in others.items() if of},
    }
    rows = []
    for method, answer in answers.items():
        scores, best = {}, {}
        if answer.names is not None:
            scores = {name: of(answer.names, truth) for name, of in measures.items()}
        if scores and answer.words is not None:
            best = {name: limit(tuple(answer.words)) for name, limit in reach.items()}
            best["F1"] = best_f1(truth, answer)
        rows.append(Row(method, scores, best, answer.size, answer.informed))
    return Table(title, (*encoders, "F1", "hit rate", *others), tuple(rows))


def differences(
    table: Table, reference: str = "WWW", seed: int = 0, samples: int = 10_000
) -> list[Difference]:
    """Compare every row with the reference in every metric that both have.

    Parameters
    ----------
    table : Table
    reference : str
        A row; if it was not run there is nothing to compare with.
    seed, samples : int
        See `compare`.

    Returns
    -------
    list of Difference
        Method less reference: above 0 the method is better. Holm's correction is over the list.
    """
    base = table[reference].scores
    pairs = [
        (row.method, metric, compare(score, base[metric], seed, samples))
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
        low, high = gap.comparison.interval
        cells.setdefault(gap.method, {})[gap.metric] = (
            f"{gap.comparison.difference:+.3f} [{low:+.3f}, {high:+.3f}], "
            f"p = {gap.comparison.p:.2g} → {gap.p:.2g}"
        )
    return cells


def _best_cosine(truth: Words, words: Sequence[str], encode: Callable) -> float:
    return ceilings.text_cosine(truth, words, encode).mean


def _best_hits(truth: Words, words: Sequence[str]) -> float:
    return ceilings.hit_rate(truth, words).mean


def _mean_limit(limit: Callable, truth: Words, words: Sequence[str]) -> float:
    return limit(truth, words).mean
