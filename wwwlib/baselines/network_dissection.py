"""Network Dissection: the concept whose pixel masks a neuron's activation maps overlap best.

A first pass finds for each neuron the activation that only .5 % of all positions exceed. A second
one enlarges the maps to the size of the masks, and counts where they exceed it and where they and
a concept's mask meet. The intersection over union is summed over the images that have any label
of the concept's category, since others cannot say whether the concept is there.

On the world's masks this is also the truth about hidden layers: the concept with the best IoU.

Bau, Zhou, Khosla, Oliva and Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.atlas.seen import Part, cut_to, seen_part
from wwwlib.baselines.masks import Masks
from wwwlib.baselines.thresholds import thresholds
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.store import Store
from wwwlib.targets import Target


@dataclass(frozen=True)
class Dissection:
    """How well each neuron of a layer detects each concept.

    Attributes
    ----------
    concepts : tuple of str
        C concepts.
    categories : tuple of str
        The category of each concept.
    iou : Tensor of float64, shape (N, C)
        Intersection over union, in [0, 1]; 0 for a concept that no image shows.
    threshold : Tensor of float32, shape (N,)
        The activation that a position must exceed.
    """

    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    iou: Tensor
    threshold: Tensor

    def table(self, minimum: float = 0.04, k: int = 1, category: str | None = None) -> ConceptTable:
        """Name each neuron by its best concepts.

        Parameters
        ----------
        minimum : float
            A concept must exceed this IoU, else the neuron abstains; the paper calls neurons
            above .04 detectors. With 0 every neuron that meets any mask is named.
        k : int
            The most names for a neuron.
        category : str, optional
            Choose among the concepts of this category alone.

        Returns
        -------
        ConceptTable
            Scores are IoUs; of equals the first concept comes first.

        Raises
        ------
        ValueError
            If the category is unknown or k is less than 1.
        """
        if category is not None and category not in self.categories:
            known = ", ".join(dict.fromkeys(self.categories))
            raise ValueError(f"The category {category!r} is unknown; there are {known}.")
        if k < 1:
            raise ValueError(f"k is {k}; a neuron needs room for at least 1 name.")
        allowed = [j for j, own in enumerate(self.categories) if category in (None, own)]
        value, order = self.iou[:, allowed].sort(dim=1, descending=True, stable=True)
        kept = value[:, :k] > minimum
        names = [
            [self.concepts[allowed[j]] for j, keep in zip(row, keeps, strict=False) if keep]
            for row, keeps in zip(order.tolist(), kept.tolist(), strict=True)
        ]
        scores = [row[keeps].tolist() for row, keeps in zip(value[:, :k], kept, strict=True)]
        lowest = torch.where(kept, value[:, :k], torch.inf).amin(1)
        abstained = ~kept.any(1)
        return ConceptTable(names, scores, lowest.masked_fill(abstained, 0.0), abstained)

    def best_category(self, minimum: float = 0.04) -> list[str | None]:
        """Return the category of each neuron's best concept, None where it abstains."""
        of = dict(zip(self.concepts, self.categories, strict=True))
        return [of[names[0]] if names else None for names in self.table(minimum).names]


def dissect(
    target: Target,
    images: ImageSet,
    masks: Masks,
    layers: Sequence[str],
    share: float = 0.005,
    whole: Collection[str] = (),
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> dict[str, Dissection]:
    """Dissect layers of a network, in two passes over the images.

    The masks cover whole images; of each, the part is compared that the network saw of it.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set.
    masks : Masks
        Of the same images: see `masks.broden` and `world.image_set_with_masks`.
    layers : sequence of str
        Layer names; the final layer, "logits", has maps of one cell, which cover all or nothing.
    share : float
        In (0, 1): the share of positions that may exceed a neuron's threshold.
    whole : collection of str
        Categories whose concepts hold for the whole image where they are seen at all, such as
        "scene" and "texture" in Broden, whose masks are so already.
    batch_size, workers, progress
        See `exemplars.stream`.
    store : Store, optional
        Keeps both passes' results, and their checkpoints.

    Returns
    -------
    dict of str to Dissection

    Raises
    ------
    ValueError
        If a layer does not exist, an argument is out of range, masks do not fit together, or the
        network's preprocessing does more than to resize and crop.
    """
    layers = _checked(layers, masks, share, whole)
    key = {"target": target.key(), "images": images.fingerprint, "layers": layers, "share": share}
    options = (batch_size, workers, progress)
    threshold = thresholds(target, images, layers, share, batch_size, workers, store, progress)
    key |= {"masks": masks.fingerprint, "whole": sorted(whole), "masks cut": "to what was seen"}
    make = partial(_counts, target, images, masks, layers, threshold, whole, options)
    counts = _fetched(store, "dissection", key, make)
    concepts, categories = tuple(masks.categories), tuple(masks.categories.values())
    columns = [_names(masks).index(name) for name in categories]
    return {
        layer: Dissection(
            concepts,
            categories,
            _iou(counts[f"{layer}/both"], counts[f"{layer}/active"][:, columns], counts["truth"]),
            threshold[layer],
        )
        for layer in layers
    }


def _iou(both: Tensor, active: Tensor, truth: Tensor) -> Tensor:
    """Divide intersections (N, C) by unions; nothing over nothing is 0."""
    return both / (active + truth - both).clamp_min(1)


def _fetched(store: Store | None, kind: str, key: dict, make: Callable) -> Mapping[str, Tensor]:
    """Return a pass's state on the CPU, from the store if there is one."""
    if store is None:
        return {name: tensor.cpu() for name, tensor in make(None).items()}
    return store.fetch(kind, key, lambda slot: (make(slot), {})).tensors


@torch.inference_mode()
def _counts(target, images, masks, layers, threshold, whole, options, slot) -> dict[str, Tensor]:
    """Count pixels: {layer/both: (N, C), layer/active: (N, categories), truth: (C,)}, float64."""
    column = {word: j for j, word in enumerate(masks.categories)}
    names = _names(masks)
    threshold = {layer: threshold[layer].to(target.device) for layer in layers}
    part_of = cache(partial(seen_part, target))

    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        x, sizes = x[:, :3], x[:, 3:, 0, 0].long().tolist()
        with capture(target, layers) as taken:
            target.model(x)
        batch = _zeros(taken, layers, len(column), len(names), x.device)
        for row, i in enumerate(indices.tolist()):
            words, seen = _seen(masks, i, whole, part_of(tuple(sizes[row])))
            if not words:
                continue
            columns = torch.tensor([column[word] for word in words], device=x.device)
            present = sorted({names.index(masks.categories[word]) for word in words})
            pixels = torch.from_numpy(seen).to(x.device).flatten(1).float()
            planes = torch.cat([pixels, torch.ones_like(pixels[:1])])  # the last: everywhere
            batch["truth"][columns] += pixels.sum(1)
            for layer in layers:
                a = taken[layer].maps[row : row + 1].float()
                met = _met(a, threshold[layer], planes, seen.shape[1:])
                batch[f"{layer}/both"][:, columns] += met[:, :-1]
                batch[f"{layer}/active"][:, present] += met[:, -1:]
        return {name: count + state.get(name, 0) for name, count in batch.items()}

    return stream(_Measured(target), images, step, slot, None, *options, label="overlaps")


@dataclass(frozen=True, eq=False)
class _Measured:
    """What a pass must know of a target; two planes more tell each image's own width and height."""

    target: Target

    @property
    def device(self) -> torch.device:
        return self.target.device

    def preprocess(self, image: Image.Image) -> Tensor:
        x = self.target.preprocess(image)
        return torch.cat([x, x.new_tensor(image.size)[:, None, None].expand(2, *x.shape[1:])])


def _met(a: Tensor, threshold: Tensor, planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Count the pixels of each plane (P, H·W) where maps (1, N, h, w) exceed the threshold: (N, P).

    A map of one cell covers all or nothing, and is not enlarged: interpolation rounds, and may
    lift an image over its own value. Counts of single precision are exact up to 16 megapixels.
    """
    if a.shape[2:] == (1, 1):
        return torch.outer((a[0, :, 0, 0] > threshold).double(), planes.sum(1).double())
    large = F.interpolate(a, size, mode="bilinear", align_corners=False)[0].flatten(1)
    return ((large > threshold.unsqueeze(1)).float() @ planes.T).double()


def _zeros(taken, layers, concepts: int, categories: int, device) -> dict[str, Tensor]:
    """Return the counts before the first image."""
    zeros = partial(torch.zeros, dtype=torch.float64, device=device)
    state = {"truth": zeros(concepts)}
    for layer in layers:
        neurons = taken[layer].neurons
        state |= {f"{layer}/both": zeros(neurons, concepts)}
        state |= {f"{layer}/active": zeros(neurons, categories)}
    return state


def _seen(masks: Masks, i: int, whole: Collection[str], part: Part) -> tuple[list[str], np.ndarray]:
    """Return the concepts in the part of image i that was seen, and their masks (c, H, W)."""
    found = {word: mask for word, mask in masks(i).items() if mask.any()}
    shapes = {mask.shape for mask in found.values()}
    if len(shapes) > 1 or not found.keys() <= masks.categories.keys():
        odd = sorted(found.keys() - masks.categories.keys())
        raise ValueError(
            f"The masks of image {i} have the sizes {sorted(shapes)} and concepts without a "
            f"category {odd}; give masks of one size, of concepts in `masks.categories`."
        )
    planes = {
        word: cut_to(np.ones_like(mask) if masks.categories[word] in whole else mask, part)
        for word, mask in found.items()
    }
    kept = {word: plane for word, plane in planes.items() if plane.any()}
    return list(kept), np.stack(list(kept.values())) if kept else np.zeros((0, 0, 0), bool)


def _names(masks: Masks) -> list[str]:
    """Return the distinct categories."""
    return list(dict.fromkeys(masks.categories.values()))


def _checked(layers, masks: Masks, share: float, whole: Collection[str]) -> list[str]:
    """Return distinct layers, or say what is wrong with the arguments."""
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}: give a list of names, [{layers!r}].")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1, as .005 does.")
    unknown = sorted(set(whole) - set(masks.categories.values()))
    if unknown:
        raise ValueError(
            f"The category {unknown[0]!r} in `whole` is unknown; there are "
            f"{', '.join(_names(masks))}."
        )
    return list(dict.fromkeys(layers))
