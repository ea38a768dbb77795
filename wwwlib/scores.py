"""Agreement of neuron names with ground truth: scores, upper bounds and paired comparisons.

Names and truth are sets of words: case, white space and repetition do not count. A neuron without
a name (it abstains) scores 0. The scores are those of WWW, section 4.1 and Tables 2 to 4.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.language import fold

Words = Sequence[Sequence[str]]
Encode = Callable[[list[str]], Tensor]
BLOCK = 2**21  # resampled values held at once


@dataclass(frozen=True)
class Score:
    """One score of N neurons, or of N images.

    Attributes
    ----------
    name : str
        The measure, such as "F1".
    values : Tensor
        (N,) float64, one value for each neuron.
    sizes : Tensor, optional
        (N,) int64, the number of distinct names of each neuron; None for scores of other things
        than names.
    """

    name: str
    values: Tensor
    sizes: Tensor | None = None

    @property
    def mean(self) -> float:
        """Mean over neurons."""
        return self.values.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean, std/sqrt(n) with the sample's std; NaN for one neuron."""
        return self.values.std().item() / len(self) ** 0.5 if len(self) > 1 else torch.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Mean less and plus one standard error; Wilson's interval if all values are 0 or 1.

        Wilson's, of the same level, has a width even where all values are equal, as at 24 of 24.
        """
        n, p = len(self), self.mean
        if not self._binary:
            return p - self.stderr, p + self.stderr
        middle, half = p + 0.5 / n, (p * (1 - p) / n + 0.25 / n**2) ** 0.5
        return (middle - half) * n / (n + 1), (middle + half) * n / (n + 1)

    @property
    def size(self) -> float:
        """Mean number of distinct names over all neurons, abstaining neurons included."""
        return torch.nan if self.sizes is None else self.sizes.double().mean().item()

    @property
    def abstained(self) -> int:
        """Number of neurons without a name."""
        return 0 if self.sizes is None else int((self.sizes == 0).sum())

    def __len__(self) -> int:
        """Return the number N of neurons."""
        return len(self.values)

    def __str__(self) -> str:
        return f"{self.name} {self.cell()} (n = {len(self)}, {self.abstained} abstained)"

    def cell(self, digits: int = 4) -> str:
        """Return "mean ± standard error", or "mean [low, high]" where all values are 0 or 1."""
        spread = f" ± {self.stderr:.{digits}f}"
        if self._binary:
            spread = " [{:.{digits}f}, {:.{digits}f}]".format(*self.interval, digits=digits)
        return f"{self.mean:.{digits}f}{spread}"

    @property
    def _binary(self) -> bool:
        return bool(((self.values == 0) | (self.values == 1)).all())


def hit_rate(pred: Words, truth: Words) -> Score:
    """Score 1 for a neuron if any of its names is any synonym of its truth, else 0.

    Parameters
    ----------
    pred : list of list of str
        The names of each of N neurons; empty where a neuron abstains.
    truth : list of list of str
        The synonyms of each neuron's true concept.

    Returns
    -------
    Score
        Values in {0, 1}.

    Raises
    ------
    ValueError
        If the lists differ in length, are empty, or a neuron has no truth.
    """
    pairs = word_sets(pred, truth)
    return score_names("hit rate", pairs, [bool(names & right) for names, right in pairs])


def f1(pred: Words, truth: Words) -> Score:
    """F1 of the set of names against the set of synonyms, ``2 |A and B| / (|A| + |B|)``.

    Parameters and errors are those of `hit_rate`.

    Returns
    -------
    Score
        Values in [0, 1].
    """
    pairs = word_sets(pred, truth)
    values = [2 * len(names & right) / (len(names) + len(right)) for names, right in pairs]
    return score_names("F1", pairs, values)


def text_cosine(pred: Words, truth: Words, encode: Encode) -> Score:
    """Mean cosine over all (name, synonym) pairs, words without template.

    The paper's "CLIP cos" uses the text encoder of CLIP ViT-B/16, its "mpnet cos" a sentence
    encoder. Each distinct word is encoded once; by linearity the mean over pairs equals the
    product of the two mean features.

    Parameters
    ----------
    pred, truth : list of list of str
        As for `hit_rate`.
    encode : callable
        M strings -> (M, D) features; they are normalised here.

    Returns
    -------
    Score
        Values in [-1, 1]; 0 where a neuron abstains.
    """
    pairs = word_sets(pred, truth)
    features = word_features([words for pair in pairs for words in pair], encode)
    values = [(features(a).mean(0) @ features(b).mean(0)).item() if a else 0.0 for a, b in pairs]
    return score_names("text cosine", pairs, values)


def word_sets(pred: Words, truth: Words) -> list[tuple[set[str], set[str]]]:
    """Return each neuron's names and synonyms as sets of folded words; errors as `hit_rate`."""
    if len(pred) != len(truth) or not truth:
        raise ValueError(
            f"There are names for {len(pred)} neurons and truth for {len(truth)}; give one list "
            "of each for every neuron, and at least one neuron."
        )
    for kind, lists in (("names", pred), ("truth", truth)):
        for i, words in enumerate(lists):
            if isinstance(words, str):
                raise ValueError(f"The {kind} of neuron {i} is {words!r}; give a list of words.")
    right = [set(distinct(words)) for words in truth]
    if not all(right):
        raise ValueError(f"Neuron {right.index(set())} has no truth; leave it out of both lists.")
    return [(set(distinct(names)), own) for names, own in zip(pred, right, strict=True)]


def score_names(
    name: str, pairs: Sequence[tuple[set[str], set[str]]], values: Sequence[float]
) -> Score:
    """Make a score of one value for each pair of names and synonyms from `word_sets`."""
    sizes = torch.tensor([len(names) for names, _ in pairs])
    return Score(name, torch.tensor(values, dtype=torch.float64), sizes)


def distinct(words: Sequence[str]) -> list[str]:
    """Return the distinct folded words of a list in order, without blank ones."""
    return list(dict.fromkeys(filter(None, map(fold, words))))


def cached(encode: Encode, batch_size: int = 256) -> Encode:
    """Return a text encoder that calls `encode` only once for each distinct word.

    Words of one length share a batch, so that little of it is padding.
    """
    known: dict[str, Tensor] = {}

    def look_up(words: list[str]) -> Tensor:
        new = sorted(set(words) - known.keys(), key=lambda word: (len(word), word))
        for start in range(0, len(new), batch_size):
            batch = new[start : start + batch_size]
            known.update(zip(batch, encode(batch).detach().cpu(), strict=True))
        return torch.stack([known[word] for word in words])

    return look_up


def word_features(
    groups: Iterable[Iterable[str]], encode: Encode
) -> Callable[[Iterable[str]], Tensor]:
    """Encode each distinct word once; return a function from words to unit-norm features."""
    encode = cached(encode)
    encode([word for group in groups for word in group])
    return lambda group: F.normalize(encode(list(group)).float(), dim=1)


# Comparison -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The mean difference a - b over neurons, its confidence interval and a two-sided p-value."""

    difference: float
    interval: tuple[float, float]
    p: float


def compare(
    score_a: Score, score_b: Score, seed: int = 0, samples: int = 10_000, level: float = 0.95
) -> Comparison:
    """Compare two scores of the same neurons by paired bootstrap and permutation tests.

    The interval is the percentile interval of a bootstrap over neurons. The permutation test
    exchanges the two methods at random within each neuron, and counts the observed arrangement
    among the permutations, so that p is never 0.

    Parameters
    ----------
    score_a, score_b : Score
        The same score of the same N neurons under two methods.
    seed : int
        Seed of both resamplings.
    samples : int
        Number of bootstrap samples, and of permutations.
    level : float
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Comparison
        For a single neuron the interval is NaN and p is 1.

    Raises
    ------
    ValueError
        If the scores differ in kind or number of neurons.
    """
    if score_a.name != score_b.name or len(score_a) != len(score_b):
        raise ValueError(
            f"{score_a.name!r} of {len(score_a)} neurons cannot be compared with "
            f"{score_b.name!r} of {len(score_b)}; take the same score of the same neurons."
        )
    gap = (score_a.values - score_b.values).numpy()
    if len(gap) < 2:
        return Comparison(float(gap[0]), (np.nan, np.nan), 1.0)
    rng = np.random.default_rng(seed)
    ends = bootstrap_interval(lambda drawn: gap[drawn].mean(-1), len(gap), samples, rng, level)
    return Comparison(float(gap.mean()), tuple(ends.tolist()), _sign_flip_p(gap, samples, rng))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    n: int,
    samples: int,
    seed: int | np.random.Generator,
    level: float = 0.95,
) -> np.ndarray:
    """Return the percentile interval of statistics under resampling of n neurons or images.

    Parameters
    ----------
    statistic : callable
        Maps S resamples (S, n), as indices, to (..., S) values; NaN is left out of the interval.
    n, samples : int
        Numbers of neurons or images, and of resamples.
    seed : int or Generator
        Of the resampling.
    level : float
        Coverage of the interval, in (0, 1).

    Returns
    -------
    ndarray, shape (2, ...)
        Lower and upper ends.
    """
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NaN
        found = bootstrap(
            (np.arange(n),), lambda drawn, axis: statistic(drawn), n_resamples=samples,
            batch=max(1, BLOCK // n), vectorized=True, method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution  # fmt: skip
        return np.nanquantile(found, [(1 - level) / 2, (1 + level) / 2], axis=-1)


def _sign_flip_p(gap: np.ndarray, samples: int, rng: np.random.Generator) -> float:
    """Permutation test of a paired difference; scipy's permutation_test takes 20 times as long."""
    batch = max(1, BLOCK // len(gap))
    flipped = [
        (rng.integers(0, 2, (min(batch, samples - start), len(gap))) * 2 - 1) @ gap
        for start in range(0, samples, batch)
    ]
    slack = 1e-12 * np.abs(gap).sum()  # the same values in another order differ in the last bit
    extreme = np.abs(np.concatenate(flipped)) >= abs(gap.sum()) - slack
    return (1 + int(extreme.sum())) / (1 + samples)
