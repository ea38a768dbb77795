"""The same neurons in everybody's words: what each method calls them, and by which neurons.

After WWW, Figure 3: some neurons of the final layer and, below each, the hidden neurons that carry
its class most, by class contribution. Every name is marked right, near or wrong (`grades`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from wwwlib.atlas.classes import by_gradient, in_classes_of
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.scores import Hypernyms
from wwwlib.scores.agreement import Words
from wwwlib.store import Store
from wwwlib.studies.answers import Answer
from wwwlib.studies.grades import marked
from wwwlib.targets import Target

Marked = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, eq=False)
class Called:
    """One neuron and what every method calls it.

    Attributes
    ----------
    title : str
        Which neuron, and why it is here.
    truth : tuple of str
        What it stands for, synonyms included; empty where nobody knows.
    pictures : tuple of PIL image
        Its exemplars, best first.
    answers : mapping of method to names with marks, or None
        "right", "near" or "wrong" beside each name, None beside it where the truth is not known;
        no names where the method abstains, and None for a method that was not run.
    carries : bool
        Whether it is a hidden neuron that carries the final neuron above it.
    """

    title: str
    truth: tuple[str, ...]
    pictures: tuple[Image.Image, ...]
    answers: Mapping[str, Marked | None]
    carries: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """What is known of a layer's N neurons.

    Attributes
    ----------
    name : str
    exemplars : Exemplars
        Of all N neurons.
    answers : mapping of method to Answer
        About all N neurons, or not run.
    truth : mapping of neuron to list of str
        The synonyms of what it stands for; a neuron without truth is missing.
    """

    name: str
    exemplars: Exemplars
    answers: Mapping[str, Answer]
    truth: Mapping[int, Sequence[str]]

    def called(
        self, neuron: int, title: str, images: ImageSet, hypernyms: Hypernyms | None, shown: int
    ) -> Called:
        """Gather what every method calls a neuron, and its exemplars."""
        truth = tuple(self.truth.get(neuron, ()))
        index = [i for i in self.exemplars.index[neuron].tolist() if i >= 0][:shown]
        answers = {
            method: None if own.names is None else _marked(own.names, neuron, truth, hypernyms)
            for method, own in self.answers.items()
        }
        pictures = tuple(images.image(i).convert("RGB") for i in index)
        return Called(f"{title}neuron {neuron} of {self.name}", truth, pictures, answers)


def gather(
    target: Target,
    images: ImageSet,
    final: Layer,
    hidden: Layer,
    classes: Sequence[int],
    hypernyms: Hypernyms | None = None,
    *,
    most: int = 2,
    shown: int = 8,
    store: Store | None = None,
    **options: object,
) -> list[Called]:
    """Choose neurons as WWW, Figure 3 does, and gather everybody's names for them.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set, with at least one labelled image of each class.
    final, hidden : Layer
        The logits, and the layer whose neurons carry them.
    classes : sequence of int
        The final neurons.
    hypernyms : Hypernyms, optional
        Without WordNet no name is near.
    most : int
        How many hidden neurons to show for each class, those of the largest class contribution.
    shown : int
        The most exemplars of a neuron.
    store : Store, optional
        Keeps the class contributions.
    **options
        See `exemplars.stream`.

    Returns
    -------
    list of Called
        Each final neuron, followed by its hidden ones.

    Raises
    ------
    ValueError
        If a class has no image.
    """
    share = contributions(target, images, hidden.name, classes, store, **options)
    found = []
    for c, row in zip(classes, share, strict=True):
        found.append(final.called(c, "", images, hypernyms, shown))
        for rank, neuron in enumerate(row.argsort(descending=True)[:most].tolist(), start=1):
            title = f"{rank}. carries {row[neuron] / row.sum():.0%} of {target.classes[c]}: "
            one = hidden.called(neuron, title, images, hypernyms, shown)
            found.append(Called(one.title, one.truth, one.pictures, one.answers, carries=True))
    return found


def contributions(
    target: Target,
    images: ImageSet,
    layer: str,
    classes: Sequence[int],
    store: Store | None = None,
    **options: object,
) -> Tensor:
    """Return the class contributions (len(classes), N) of a layer, from images of those classes.

    Parameters, options and errors are those of `gather`.
    """
    if lacking := missing(target, images, classes):
        shown = {label for label in images.labels if label is not None}
        raise ValueError(
            f"No image of {images.name!r} is of class {lacking[0]} of {target.name}; choose "
            f"classes among the {len(shown)} that it shows."
        )
    images = in_classes_of(images, target)
    own = subset(images, [i for i, label in enumerate(images.labels) if label in set(classes)])
    w, _ = by_gradient(target, own, [layer], store=store, **options)
    return w[layer][list(classes)]


def missing(target: Target, images: ImageSet, classes: Sequence[int]) -> list[int]:
    """Return the classes of a network of which there is no image; all, of another data set."""
    shown = set(in_classes_of(images, target, warn=False).labels)
    return [c for c in classes if c not in shown]


def _marked(names: Words, neuron: int, truth: Sequence[str], hypernyms: Hypernyms | None) -> Marked:
    if truth:
        return marked(names[neuron], truth, hypernyms)
    return tuple((name, None) for name in dict.fromkeys(names[neuron]))
