"""FALCON: describes groups of features that are active together (Kalibhat et al., ICML 2023).

`falcon` finds groups of features that many images share (`groups`), crops those images to the
region behind the group's features, looks up the nearest captions of crops and of counter-examples
(`corpus`), and returns the words that distinguish them.

Kalibhat, Bhardwaj, Bruss, Firooz, Sanjabi and Feizi, "Identifying Interpretable Subspaces in Image
Representations", ICML 2023.
"""

from dataclasses import astuple, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from wwwlib.baselines.common import concept_table
from wwwlib.baselines.falcon import corpus, groups
from wwwlib.baselines.falcon.corpus import Captions, Shards
from wwwlib.baselines.falcon.groups import LEAST, SIGMAS, Box, Group, crop_to_boxes
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.evaluation import activations
from wwwlib.images import ImageSet, subset
from wwwlib.language import Encoder, image_features
from wwwlib.registry import whole_number
from wwwlib.store import digest
from wwwlib.targets import Target

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
        return concept_table([own.words if own else {} for own in best])


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
    cohesive: float = COHESIVE,
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
    cohesive : float
        A group is interpretable if the mean pairwise cosine of its crops exceeds this.
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
    if not found:
        return Falcon(layer, z.shape[1], (), cam_layer)
    boxes = _boxes(target, images, layer, found, cam_layer, **options)
    features = partial(image_features, encoder, **{**options, "progress": False})
    where = [i for group in found for i in group.images], [box for own in boxes for box in own]
    crops = crop_to_boxes(target, images, *where)
    v = features(crops, range(len(crops))).split([len(own) for own in boxes])
    explained = []
    for group, own, crop in zip(found, boxes, v, strict=True):
        value, counter, words = groups.cohesion(crop), (), {}
        if interpretable := value > cohesive:
            counter = tuple(groups.counter_examples(z, group))
            compared = [crop, features(images, counter)] if counter else [crop]
            scored = (corpus.word_scores(*captions.nearest(one)) for one in compared)
            words = corpus.contrast(*scored)
        explained.append(GroupExplanation(group, own, value, interpretable, counter, words))
    return Falcon(layer, z.shape[1], tuple(explained), cam_layer)


def _boxes(target, images, layer, found, cam_layer, **options) -> list[tuple[Box, ...]]:
    """Return the crop of each image of each group; the whole image without a layer for Grad-CAM."""
    owner = torch.tensor([number for number, group in enumerate(found) for _ in group.images])

    def step(_: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        boxes = []
        for number in owner[indices].unique().tolist():  # in the order of the images
            own, features = x[owner[indices] == number], found[number].features
            cams = own.new_zeros(len(own), 1, 1)
            if cam_layer:
                cams = groups.group_cam(target, own, layer, features, cam_layer)
            boxes += [groups.largest_region(cam, tuple(x.shape[2:])) for cam in cams]
        return {layer: {"boxes": torch.tensor(boxes)}}

    key = {"cam_layer": cam_layer, "groups": digest([astuple(group) for group in found])}
    shown = subset(images, [i for group in found for i in group.images])
    p = Pass(target, shown, [layer], step, concatenate, "falcon-boxes", key, label="groups")
    boxes = run(p, **options)[layer]["boxes"].split([len(group.images) for group in found])
    return [tuple(map(tuple, own.tolist())) for own in boxes]
