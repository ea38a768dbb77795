"""FALCON from images to words, group by group."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.falcon.corpora import Captions, Shards
from wwwlib.baselines.falcon.groups import LEAST, SIGMAS, Group, counter_examples, groups
from wwwlib.baselines.falcon.regions import (
    Box,
    cohesion,
    cut,
    drawable,
    group_cam,
    largest_region,
)
from wwwlib.baselines.falcon.terms import contrast, word_scores
from wwwlib.baselines.responses import activations
from wwwlib.concepts import ConceptTable
from wwwlib.images import ImageSet, batches, subset
from wwwlib.language import Encoder, image_features
from wwwlib.store import Store, digest
from wwwlib.targets import Target

COHESIVE = 0.8  # mean cosine of a group's cut images that makes it interpretable


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
    """FALCON's answer about a layer of N neurons: its groups, the largest first.

    `drawn` is the layer whose maps the boxes come from; None where the features depend on no map,
    so that images were looked at whole.
    """

    layer: str
    neurons: int
    groups: tuple[Explained, ...]
    drawn: str | None = None

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
    cohesive: float = COHESIVE,
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
        In a transformer the features may not depend on that layer's patch tokens; then a block
        before it is drawn on, see `regions.drawable`.
    sigmas, least
        See `groups`.
    most : int
        At most so many images of a group are cut and captioned, those in which it is strongest;
        at least 2, since one image cannot agree with another.
    threshold : float
        See `largest_region`.
    cohesive : float
        A group is interpretable if the mean pairwise cosine of its cut images exceeds this.
    near : int
        Captions looked up for each image.
    top : int
        Words and phrases kept for each group.
    store, batch_size, workers, progress
        As elsewhere; the store keeps activations, boxes and image features, so that other
        captions or thresholds of cohesion cost no pass.

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
    if most < 2:
        raise ValueError(
            f"most is {most}; a group's images are compared with each other, so give 2 or more."
        )
    options = {"batch_size": batch_size, "workers": workers}
    z = activations(target, images, [layer], progress=progress, store=store, **options)[layer]
    first = target.preprocess(images.image(0))[None].to(target.device)
    on = drawable(target, first, layer, on)
    found = [Group(group.features, group.images[:most]) for group in groups(z, sigmas, least)]
    boxes = _boxes(target, images, layer, found, on, threshold, store, progress, options)
    features = partial(image_features, encoder, progress=False, store=store, **options)
    told = []
    for group, own in zip(found, boxes, strict=True):
        v = features(cut(target, images, group.images, own), torch.arange(len(own)))
        alike = cohesion(v)
        counter, words = [], {}
        if alike > cohesive:
            counter = counter_examples(z, group)
            against = features(images, torch.tensor(counter, dtype=torch.int64))
            words = contrast(_scores(captions, v, near), _scores(captions, against, near), top=top)
        told.append(Explained(group, own, alike, alike > cohesive, tuple(counter), words))
    return Falcon(layer, z.shape[1], tuple(told), on)


def _boxes(
    target: Target,
    images: ImageSet,
    layer: str,
    found: Sequence[Group],
    on: str | None,
    threshold: float,
    store: Store | None,
    progress: bool,
    options: dict,
) -> list[tuple[Box, ...]]:
    """Return where in each of its images each group looked, from the store if it has that."""

    def make(_) -> tuple[dict[str, Tensor], dict]:
        bar = tqdm(found, "groups", disable=not progress)
        rows = [
            box
            for group in bar
            for box in _looked(target, images, layer, group, on, threshold, options)
        ]
        return {"boxes": torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)}, {}

    if store is None:
        kept = make(None)[0]
    else:
        key = {"target": target.key(), "images": images.fingerprint, "layer": layer, "on": on,
               "threshold": threshold, "groups": digest([astuple(g) for g in found])}  # fmt: skip
        kept = store.fetch("falcon-boxes", key, make).tensors
    parts = kept["boxes"].split([len(group.images) for group in found])
    return [tuple(map(tuple, part.tolist())) for part in parts] if found else []


def _looked(
    target: Target,
    images: ImageSet,
    layer: str,
    group: Group,
    on: str | None,
    threshold: float,
    options: dict,
) -> list[Box]:
    """Return the box of each image of a group; all of it where there is nothing to draw on."""
    boxes: list[Box] = []
    for _, x in batches(subset(images, group.images), target.preprocess, **options):
        x = x.to(target.device)
        if on is None:
            boxes += [(0, 0, x.shape[3], x.shape[2])] * len(x)
            continue
        cams = group_cam(target, x, layer, group.features, on)
        if cams.shape[1:] == (1, 1):
            raise ValueError(
                f"The layer {on!r} of {target.name} has no maps to draw on; name one that has with "
                "on=."
            )
        boxes += [largest_region(cam, tuple(x.shape[2:]), threshold) for cam in cams]
    return boxes


def _scores(captions: Captions | Shards, v: Tensor, near: int) -> dict[str, float]:
    """Return the scores of the words of the captions nearest to images (n, D), none for none."""
    return word_scores(*captions.nearest(v, near)) if len(v) else {}
