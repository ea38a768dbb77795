"""FALCON: describes groups of features that are active together (Kalibhat et al., ICML 2023).

`falcon` finds groups of features that many images share (`groups`), crops those images to the
region behind the group's features, looks up the nearest captions of crops and of counter-examples
(`corpus`), and returns the words that distinguish them.

Kalibhat, Bhardwaj, Bruss, Firooz, Sanjabi and Feizi, "Identifying Interpretable Subspaces in Image
Representations", ICML 2023.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.common import concept_table
from wwwlib.baselines.falcon import corpus, groups
from wwwlib.baselines.falcon.corpus import Captions, Shards, captions, shards, text_file
from wwwlib.baselines.falcon.groups import LEAST, SIGMAS, Box, Group, crop_to_boxes
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Options
from wwwlib.evaluation import activations
from wwwlib.images import ImageSet, batches, subset
from wwwlib.language import Encoder, image_features
from wwwlib.registry import whole_number
from wwwlib.store import digest
from wwwlib.targets import Target

__all__ = [
    "COHESIVE", "LEAST", "SIGMAS", "Captions", "Falcon", "Group", "GroupExplanation", "Shards",
    "captions", "crop_to_boxes", "falcon", "shards", "text_file",
]  # fmt: skip

COHESIVE = 0.8  # mean cosine of a group's crops above which FALCON calls it interpretable


@dataclass(frozen=True, eq=False)
class GroupExplanation:
    """The explanation of one group.

    Attributes
    ----------
    group : Group
        With the images that were cropped.
    boxes : tuple of (left, top, right, bottom)
        The crop of each image, in pixels of the network's input.
    cohesion : float
        Mean pairwise cosine of the crops, in [-1, 1].
    interpretable : bool
        Whether the cohesion is high enough for words.
    counter : tuple of int
        Counter-examples; empty for a group that is not interpretable.
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
    """The groups of a layer and their explanations.

    Attributes
    ----------
    layer : str
    neurons : int
        Number N of neurons of the layer.
    groups : tuple of GroupExplanation
        By descending number of images.
    cam_layer : str or None
        The layer whose maps gave the boxes; None if the features depend on no map, so that images
        were not cropped.
    """

    layer: str
    neurons: int
    groups: tuple[GroupExplanation, ...]
    cam_layer: str | None = None

    def best(self, neuron: int) -> GroupExplanation | None:
        """Return the most specific interpretable group with a neuron, if there is one.

        That is the one with the fewest features, since words describe all features of a group;
        among several, the one with the most images.
        """
        own = [e for e in self.groups if neuron in e.group.features and e.words]
        return min(own, key=lambda e: (len(e.group.features), -len(e.group.images)), default=None)

    def table(self) -> ConceptTable:
        """Return the words of the best group of each neuron; neurons without one abstain."""
        best = [self.best(neuron) for neuron in range(self.neurons)]
        return concept_table(
            [list(own.words) if own else [] for own in best],
            [list(own.words.values()) if own else [] for own in best],
        )


def falcon(
    target: Target,
    layer: str,
    images: ImageSet,
    encoder: Encoder,
    captions: Captions | Shards,
    *,
    cam_layer: str | None = None,
    sigmas: float = SIGMAS,
    least: int = LEAST,
    most: int = 40,
    threshold: float = 0.6,
    cohesive: float = COHESIVE,
    near: int = 5,
    top: int = 8,
    **options,
) -> Falcon:
    """Explain groups of features of a layer by words.

    Parameters
    ----------
    target : Target
    layer : str
        The layer of N features; FALCON uses the one before the classifier.
    images : ImageSet
        The probe set.
    encoder : Encoder
        Compares crops with captions.
    captions : Captions or Shards
        The corpus, encoded by the same encoder.
    cam_layer : str, optional
        The layer whose maps Grad-CAM uses; `layer` itself by default. The logits have no maps. If
        the features do not depend on its maps, as in transformers, an earlier block is used, see
        `find_cam_layer`.
    sigmas, least
        See `find_groups`.
    most : int
        Largest number of images of a group that are cropped and captioned, those with the highest
        activations; at least 2.
    threshold : float
        See `largest_region`.
    cohesive : float
        A group is interpretable if the mean pairwise cosine of its crops exceeds this.
    near : int
        Captions per image.
    top : int
        Largest number of words and phrases of a group.
    **options
        Fields of `distributed.Options`. The store keeps activations, boxes and image features, so
        that other captions or cohesion thresholds need no forward pass.

    Returns
    -------
    Falcon

    Raises
    ------
    ValueError
        If an argument is out of range, or `cam_layer` has no maps.
    ImportError
        If textblob or lemminflect is not installed.
    """
    whole_number("most", most, 2)  # the images of a group are compared
    z = activations(target, images, [layer], **options)[layer]
    x = target.preprocess(images.image(0))[None].to(target.device)
    cam_layer = groups.find_cam_layer(target, x, layer, cam_layer)
    found = [replace(g, images=g.images[:most]) for g in groups.find_groups(z, sigmas, least)]
    boxes = _boxes(target, images, layer, found, cam_layer, threshold, **options)
    features = partial(image_features, encoder, **{**options, "progress": False})
    explained = []
    for group, own in zip(found, boxes, strict=True):
        crops = crop_to_boxes(target, images, group.images, own)
        v = features(crops, range(len(own)))
        similarity = groups.cohesion(v)
        counter, words = [], {}
        if similarity > cohesive:
            counter = groups.counter_examples(z, group)
            against = features(images, counter)
            scores = (_scores(captions, one, near) for one in (v, against))
            words = corpus.contrast(*scores, top=top)
        explained.append(
            GroupExplanation(group, own, similarity, similarity > cohesive, tuple(counter), words)
        )
    return Falcon(layer, z.shape[1], tuple(explained), cam_layer)


def _boxes(
    target: Target,
    images: ImageSet,
    layer: str,
    found: Sequence[Group],
    cam_layer: str | None,
    threshold: float,
    **options,
) -> list[tuple[Box, ...]]:
    """Return the crop of each image of each group; the whole image without a layer for Grad-CAM."""
    options = Options(**options)

    def make(_) -> tuple[dict[str, Tensor], dict]:
        rows: list[Box] = []
        for group in tqdm(found, "groups", disable=not options.progress):
            own = subset(images, group.images)
            for _, x in batches(own, target.preprocess, options.batch_size, options.workers):
                rows += boxes_of(x.to(target.device), group)
        return {"boxes": torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)}, {}

    def boxes_of(x: Tensor, group: Group) -> list[Box]:
        size = tuple(x.shape[2:])
        if cam_layer is None:
            return [(0, 0, size[1], size[0])] * len(x)
        cams = groups.group_cam(target, x, layer, group.features, cam_layer)
        if cams.shape[1:] == (1, 1):
            raise ValueError(
                f"The layer {cam_layer!r} of {target.name} has no maps; name one that has as "
                "cam_layer."
            )
        return [groups.largest_region(cam, size, threshold) for cam in cams]

    key = {"target": target.key(), "images": images.fingerprint, "layer": layer,
           "cam_layer": cam_layer, "threshold": threshold,
           "groups": digest([astuple(group) for group in found])}  # fmt: skip
    boxes = options.store.fetch("falcon-boxes", key, make).tensors["boxes"].tolist()
    rows = iter([tuple(box) for box in boxes])
    return [tuple(next(rows) for _ in group.images) for group in found]


def _scores(captions: Captions | Shards, v: Tensor, near: int) -> dict[str, float]:
    """Return the scores of the words in the captions nearest to images (n, D)."""
    return corpus.word_scores(*captions.nearest(v, near)) if len(v) else {}
