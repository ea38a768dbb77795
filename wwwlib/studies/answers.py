"""An `Answer` is what one method says about N neurons, and from how many words it chose.

Answers about the same neurons can be cut to equal numbers of names, restricted to some neurons, or
restated by class; `tables` scores them.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wwwlib.scores import ceilings
from wwwlib.scores.agreement import Words, by_synset, f1, hit_rate, text_cosine


@dataclass(frozen=True)
class Answer:
    """What one method says about N neurons.

    Attributes
    ----------
    names : list of list of str, or None
        Each neuron's names, empty where it abstains; None for a method that was not run.
    words : sequence of str, or None
        The concept set that they were chosen from; None for a method that writes its own words,
        which has no ceiling that anybody knows.
    size : int, optional
        How many names the method gives every neuron, if it has no choice.
    informed : bool
        Whether the method was told what the truth was made from, so that it does not compete.
    """

    names: Words | None = None
    words: Sequence[str] | None = ()
    size: int | None = None
    informed: bool = False


def best_f1(truth: Words, answer: Answer) -> float:
    """Return the mean F1 of perfect answers, of exactly `answer.size` names if that is fixed."""
    best = ceilings.best_names(truth, answer.words, answer.size)
    if answer.size is not None:
        wrong = [f"\0{i}" for i in range(answer.size)]  # no truth holds such a word
        best = [[*names, *wrong[len(names) :]] for names in best]
    return f1(best, truth).mean


def only(answers: Mapping[str, Answer], neurons: Sequence[int]) -> dict[str, Answer]:
    """Keep the answers about some neurons, in that order."""
    return {
        method: answer
        if answer.names is None
        else replace(answer, names=[answer.names[i] for i in neurons])
        for method, answer in answers.items()
    }


def cut(names: Words, sizes: Sequence[int]) -> list[list[str]]:
    """Keep each neuron's first names, as many as another method gave it, and at least one.

    So two methods are compared at equal k. A neuron about which the other is silent keeps its
    first name: silence is the other's choice alone.

    Raises
    ------
    ValueError
        If there is not one size for each neuron, or a neuron has fewer names than are to be kept.
    """
    kept = [list(own[: max(1, size)]) for own, size in zip(names, sizes, strict=True)]
    for i, (own, size) in enumerate(zip(kept, sizes, strict=True)):
        if own and len(own) < size:
            raise ValueError(
                f"Neuron {i} has {len(own)} names, of which {size} were to be kept; ask the "
                f"method for at least {max(sizes)} names."
            )
    return kept


def by_class(
    answers: Mapping[str, Answer], truth: Words, classes: Sequence[int] | None = None
) -> dict[str, dict[str, float]]:
    """Score F1 and hit rate by meaning: names and truth are restated as classes first.

    Parameters
    ----------
    answers : mapping of method to Answer
        About N neurons; those that were not run are left out.
    truth, classes
        The synonyms of all classes, and which of these the neurons stand for; see `by_synset`.

    Returns
    -------
    dict of method to {"F1 by class": mean, "hit rate by class": mean}
    """
    found = {}
    for method, answer in answers.items():
        if answer.names is not None:
            restated = by_synset(answer.names, truth, classes)
            means = f1(*restated).mean, hit_rate(*restated).mean
            found[method] = dict(zip(("F1 by class", "hit rate by class"), means, strict=True))
    return found


def sizes(answer: Answer) -> dict[str, float]:
    """Tell how many names a method gives a neuron."""
    count = [len(set(own)) for own in answer.names]
    mean = sum(count) / len(count)
    return {"neurons": len(count), "mean": mean, "least": min(count), "most": max(count)}


def in_use(answer: Answer) -> dict[str, object]:
    """Tell what an answer is made of: its names, the most frequent one, and its silences."""
    count = Counter(name for own in answer.names for name in own)
    name, times = count.most_common(1)[0] if count else ("none", 0)
    return {
        "neurons": len(answer.names),
        "named": heard(answer),
        "names in use": len(count),
        "most frequent": name,
        "its share": times / len(answer.names),
    }


def heard(answer: Answer) -> float | None:
    """Return the share of neurons about which a method says anything; None if it was not run."""
    if answer.names is None:
        return None
    return sum(map(bool, answer.names)) / len(answer.names)


def agreement(
    layers: Mapping[str, Mapping[str, Answer]], encode: Callable[[list[str]], Tensor]
) -> dict[str, float]:
    """Return how near two methods' names for the same neurons are: the mean cosine, by layer.

    Neurons about which either is silent are left out, and layers that only one method names.
    """
    found = {}
    for layer, methods in layers.items():
        if len(methods) == 2:
            pairs = zip(*(own.names for own in methods.values()), strict=True)
            spoken = [pair for pair in pairs if all(pair)]
            if spoken:
                one, other = zip(*spoken, strict=True)
                found[layer] = text_cosine(one, other, encode).mean
    return found


def remembered(encode: Callable[[list[str]], Tensor]) -> Callable[[list[str]], Tensor]:
    """Return an encoder of words that asks `encode` for each of them only once."""
    known: dict[str, Tensor] = {}

    def look_up(words: list[str]) -> Tensor:
        new = [word for word in dict.fromkeys(words) if word not in known]
        if new:
            known.update(zip(new, encode(new).detach().cpu(), strict=True))
        return torch.stack([known[word] for word in words])

    return look_up
