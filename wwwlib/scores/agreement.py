"""How well names agree with ground truth, neuron by neuron.

Names and truth are sets of words: case, white space and repetition never count. A neuron that
abstains has given no right name: it scores 0 and is counted.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.language import fold

Words = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Score:
    """One score of N neurons.

    Attributes
    ----------
    name : str
        What was measured.
    values : Tensor
        (N,) float64, one value for each neuron.
    sizes : Tensor
        (N,) int64, how many distinct names each neuron was given.
    """

    name: str
    values: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, name: str, values: Sequence[float], names: Sequence[set[str]]) -> "Score":
        """Put values and the neurons' sets of names into a record."""
        sizes = torch.tensor([len(words) for words in names])
        return cls(name, torch.tensor(values, dtype=torch.float64), sizes)

    @property
    def mean(self) -> float:
        """Mean over neurons."""
        return self.values.mean().item()

    @property
    def stderr(self) -> float:
        """Standard error of the mean, std/sqrt(n) with the sample's std; NaN for one neuron."""
        return self.values.std().item() / len(self.values) ** 0.5 if len(self) > 1 else torch.nan

    @property
    def size(self) -> float:
        """Mean number of distinct names over all neurons, those that abstain included."""
        return self.sizes.double().mean().item()

    @property
    def abstained(self) -> int:
        """How many neurons were given no name."""
        return int((self.sizes == 0).sum())

    def __len__(self) -> int:
        """Return the number N of neurons."""
        return len(self.values)

    def __str__(self) -> str:
        """Write the score as a table cell does."""
        return (
            f"{self.name} {self.mean:.4f} ± {self.stderr:.4f} "
            f"(n = {len(self)}, {self.abstained} abstained)"
        )


def hit_rate(pred: Words, truth: Words) -> Score:
    """Score 1 for a neuron if any of its names is any synonym, else 0.

    Parameters
    ----------
    pred : list of list of str
        For each of N neurons the names it was given; empty where it abstains.
    truth : list of list of str
        For each neuron the synonyms of what it stands for.

    Returns
    -------
    Score
        Values in {0, 1}.

    Raises
    ------
    ValueError
        If the lists differ in length, are empty, or a neuron has no truth.
    """
    names, right = word_sets(pred, truth)
    values = [float(bool(a & b)) for a, b in zip(names, right, strict=True)]
    return Score.of("hit rate", values, names)


def f1(pred: Words, truth: Words) -> Score:
    """F1 of the set of names against the set of synonyms, ``2 |A and B| / (|A| + |B|)``.

    Parameters, errors and lengths are those of :func:`hit_rate`.

    Returns
    -------
    Score
        Values in [0, 1].
    """
    names, right = word_sets(pred, truth)
    values = [2 * len(a & b) / (len(a) + len(b)) for a, b in zip(names, right, strict=True)]
    return Score.of("F1", values, names)


def text_cosine(pred: Words, truth: Words, encode: Callable[[list[str]], Tensor]) -> Score:
    """Mean cosine over all (name, synonym) pairs, words without template.

    The paper's "CLIP cos" takes a CLIP's ``encode_texts`` (ViT-B/16), its "mpnet cos" a sentence
    encoder. Each distinct word is encoded once; by linearity the mean over pairs is the product
    of the two means.

    Parameters
    ----------
    pred, truth : list of list of str
        As for :func:`hit_rate`.
    encode : callable
        M strings -> (M, D) features; they are normalised here.

    Returns
    -------
    Score
        Values in [-1, 1]; 0 where a neuron abstains.
    """
    names, right = word_sets(pred, truth)
    features = WordFeatures.of([*names, *right], encode)
    values = [
        (features(a).mean(0) @ features(b).mean(0)).item() if a else 0.0
        for a, b in zip(names, right, strict=True)
    ]
    return Score.of("text cosine", values, names)


@dataclass(frozen=True)
class WordFeatures:
    """Unit-norm features of distinct words, looked up by word."""

    row: dict[str, int]
    features: Tensor

    @classmethod
    def of(
        cls,
        groups: Sequence[Sequence[str]],
        encode: Callable[[list[str]], Tensor],
        batch_size: int = 256,
    ) -> "WordFeatures":
        """Encode each distinct word of the groups once.

        Words of one length share a batch, which spares the encoder much padding.
        """
        words = sorted({word for group in groups for word in group}, key=lambda w: (len(w), w))
        parts = [
            encode(words[start : start + batch_size]).detach().cpu().float()
            for start in range(0, len(words), batch_size)
        ]
        return cls({word: i for i, word in enumerate(words)}, F.normalize(torch.cat(parts), dim=1))

    def __call__(self, words: Iterable[str]) -> Tensor:
        """Return the (M, D) features of some of the words."""
        return self.features[[self.row[word] for word in words]]


def distinct(words: Sequence[str]) -> dict[str, None]:
    """Return the folded, distinct words of a list in order, blank ones left out."""
    return dict.fromkeys(filter(None, map(fold, words)))


def shared_words(truth: Words) -> dict[str, tuple[int, ...]]:
    """Return the words that several classes share, with the classes' indices.

    ImageNet has two classes called "crane", and a dozen more such words.
    """
    owners = _owners(truth)
    return {word: classes for word, classes in owners.items() if len(classes) > 1}


def by_synset(
    pred: Words, truth: Words, classes: Sequence[int] | None = None
) -> tuple[list[list[str]], list[list[str]]]:
    """Restate names and truth as classes, so that they are matched by meaning, not by string.

    Each class is one meaning (a synset). A name becomes every class that has it as a synonym: a
    shared word such as "crane" stands for both its classes, of which only one is right, and two
    synonyms of one class are one answer. A name of no class stays as it is, a wrong answer.

    Parameters
    ----------
    pred : list of list of str
        The names of N neurons.
    truth : list of list of str
        The synonyms of all C classes, those of no neuron here included: a shared word stands for
        its other class even where nobody is asked about that.
    classes : sequence of int, optional
        Which class each of the N neurons stands for; by default neuron i for class i.

    Returns
    -------
    pred, truth : list of list of str
        Of the N neurons, to be handed to :func:`hit_rate` or :func:`f1`.
    """
    classes = range(len(truth)) if classes is None else classes
    word_sets(pred, [truth[i] for i in classes])
    owners = _owners(truth)
    restated = [
        [label for word in distinct(names) for label in _labels(word, owners)] for names in pred
    ]
    return restated, [[f"class {i}"] for i in classes]


def _labels(word: str, owners: dict[str, tuple[int, ...]]) -> list[str]:
    """Return the classes of a word, or the word marked as one of no class."""
    return [f"class {i}" for i in owners[word]] if word in owners else [f"word {word}"]


def _owners(truth: Words) -> dict[str, tuple[int, ...]]:
    """Return for each word the indices of the classes that have it."""
    owners: dict[str, tuple[int, ...]] = {}
    for i, words in enumerate(truth):
        for word in distinct(words):
            owners[word] = (*owners.get(word, ()), i)
    return owners


def word_sets(pred: Words, truth: Words) -> tuple[list[set[str]], list[set[str]]]:
    """Return names and truth as sets of folded words, checked against each other."""
    if len(pred) != len(truth) or not truth:
        raise ValueError(
            f"There are names for {len(pred)} neurons and truth for {len(truth)}; give one list "
            "of each for every neuron, and at least one neuron."
        )
    for kind, lists in (("names", pred), ("truth", truth)):
        for i, words in enumerate(lists):
            if isinstance(words, str):
                raise ValueError(
                    f"The {kind} of neuron {i} is the one string {words!r}; give a list of words."
                )
    right = [set(distinct(words)) for words in truth]
    if not all(right):
        raise ValueError(
            f"Neuron {right.index(set())} has no truth; leave neurons without truth out of both "
            "lists."
        )
    return [set(distinct(names)) for names in pred], right
