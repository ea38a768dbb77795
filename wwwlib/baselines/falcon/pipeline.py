"""FALCON from images to words, group by group."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.clip_dissect import activations
from wwwlib.baselines.falcon.corpora import Captions, Shards
from wwwlib.baselines.falcon.groups import LEAST, SIGMAS, Group, counter_examples, groups
from wwwlib.baselines.falcon.regions import Box, cohesion, cut, group_cam, largest_region
from wwwlib.baselines.falcon.terms import contrast, word_scores
from wwwlib.concepts import ConceptTable
from wwwlib.images import ImageSet, batches, subset
from wwwlib.language import Encoder, distinct_features, image_features
from wwwlib.store import Store
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class Explained:
    """What FALCON says of one group.

    Attributes
    ----------
    group : Group
        Its images are those that were looked at.
    boxes : tuple of (left, top, right, bottom)
        Where in each image, in pixels of the network's input.
    cohesion : float
        Mean pairwise cosine of the cut images in [-1, 1].
    interpretable : bool
        Whether that is high enough for words.
    counter : tuple of int
        Counter-examples, none for a group that is not interpretable.
    words : dict of str to float
        Words and phrases with their scores, best first.
    """

    group: Group
    boxes: tuple[Box, ...]
    cohesion: float
    interpretable: bool
    counter: tuple[int, ...]
    words: dict[str, float]


@dataclass(frozen=True, eq=False)
class Falcon:
    """FALCON's answer about a layer of N neurons: its groups, the largest first."""

    layer: str
    neurons: int
    groups: tuple[Explained, ...]

    def best(self, neuron: int) -> Explained | None:
        """Return the group that tells most about a neuron, if there is one.

        That is the interpretable group of the fewest features that holds it, since words of a
        group are about all of its features at once; of several, the one of the most images.
        """
        own = [e for e in self.groups if neuron in e.group.features and e.words]
        return min(own, key=lambda e: (len(e.group.features), -len(e.group.images)), default=None)

    def table(self) -> ConceptTable:
        """Return names for single neurons: the words of the best group of each, or none."""
        found = [self.best(neuron) for neuron in range(self.neurons)]
        scores = [[] if e is None else list(e.words.values()) for e in found]
        return ConceptTable(
            names=[[] if e is None else list(e.words) for e in found],
            scores=scores,
            threshold=torch.tensor([row[-1] if row else 0.0 for row in scores]),
            abstained=torch.tensor([not row for row in scores]),
        )


def falcon(
    target: Target,
    layer: str,
    images: ImageSet,
    encoder: Encoder,
    captions: Captions | Shards,
    *,
    on: str | None = None,
    sigmas: float = SIGMAS,
    least: int = LEAST,
    most: int = 40,
    threshold: float = 0.6,
    cohesive: float = 0.8,
    near: int = 5,
    top: int = 8,
    store: Store | None = None,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
) -> Falcon:
    """Tell in words what groups of features of a layer stand for.

    Parameters
    ----------
    target : Target
    layer : str
        The layer of N features; FALCON's is the one before the classifier.
    images : ImageSet
        The probe set.
    encoder : Encoder
        Compares cut images with captions.
    captions : Captions or Shards
        The corpus, encoded by the same encoder.
    on : str, optional
        The layer whose maps Grad-CAM draws on; `layer` itself by default. The logits have no maps.
    sigmas, least
        See `groups`.
    most : int
        At most so many images of a group are cut and captioned, those in which it is strongest.
    threshold : float
        See `largest_region`.
    cohesive : float
        A group is interpretable if the mean pairwise cosine of its cut images exceeds this.
    near : int
        Captions looked up for each image.
    top : int
        Words and phrases kept for each group.
    store, batch_size, workers, progress
        As elsewhere; the store keeps image features.

    Returns
    -------
    Falcon

    Raises
    ------
    ValueError
        If an argument is out of range, or the layer to draw on has no maps.

    References
    ----------
    Kalibhat et al., "Identifying Interpretable Subspaces in Image Representations", ICML 2023.
    """
    options = {"batch_size": batch_size, "workers": workers}
    z = activations(target, images, [layer], progress=progress, **options)[layer]
    told = []
    for group in tqdm(groups(z, sigmas, least), "groups", disable=not progress):
        group = Group(group.features, group.images[:most])
        boxes = _boxes(target, images, layer, group, on, threshold, options)
        regions = cut(target, images, group.images, boxes)
        every = torch.arange(len(regions))
        v = distinct_features(encoder, regions, every, progress=False, store=store, **options)
        alike = cohesion(v)
        counter, words = [], {}
        if alike > cohesive:
            counter = counter_examples(z, group)
            against = _scores(encoder, images, counter, captions, near, options)
            words = contrast(word_scores(*captions.nearest(v, near)), against, top=top)
        told.append(Explained(group, boxes, alike, alike > cohesive, tuple(counter), words))
    return Falcon(layer, z.shape[1], tuple(told))


def _boxes(
    target: Target,
    images: ImageSet,
    layer: str,
    group: Group,
    on: str | None,
    threshold: float,
    options: dict,
) -> tuple[Box, ...]:
    """Return where in each of its images a group looked."""
    boxes = []
    for _, x in batches(subset(images, group.images), target.preprocess, **options):
        x = x.to(target.device)
        cams = group_cam(target, x, layer, group.features, on)
        if cams.shape[1:] == (1, 1):
            raise ValueError(
                f"The layer {on or layer!r} of {target.name} has no maps to draw on; name one that "
                "has with on=."
            )
        boxes += [largest_region(cam, tuple(x.shape[2:]), threshold) for cam in cams]
    return tuple(boxes)


def _scores(
    encoder: Encoder,
    images: ImageSet,
    indices: Sequence[int],
    captions: Captions | Shards,
    near: int,
    options: dict,
) -> dict[str, float]:
    if not indices:
        return {}
    v: Tensor = image_features(encoder, images, indices, progress=False, **options)
    return word_scores(*captions.nearest(v, near))
