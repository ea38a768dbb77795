"""Network Dissection: the concept whose pixel masks overlap a neuron's activation maps best.

A first pass finds the threshold of each neuron that only 0.5 % of all positions exceed. A second
pass resizes the maps to the size of the masks, thresholds them, and counts the pixels of their
intersection with the mask of each concept. Intersection over union is summed over the images that
have any label of the concept's category, since other images are not labelled for the concept.

On the concept world's masks the concept with the best IoU is the ground truth for hidden layers.

`Masks` is the protocol of pixel masks: `broden` opens those of Broden in its published folder
layout; `world.image_set_with_masks` gives the exact ones of the concept world.

Bau, Zhou, Khosla, Oliva and Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wwwlib.baselines.broden import images as broden_images
from wwwlib.baselines.broden import rows as broden_rows
from wwwlib.baselines.broden import table as broden_table
from wwwlib.baselines.common import (
    Box,
    best_of_blocks,
    crop_mask,
    layer_maps,
    ranked_table,
    thresholds,
    visible_box,
)
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Pass, State, run
from wwwlib.images import ImageSet, decode
from wwwlib.images.files import existing
from wwwlib.store import digest, file_digest
from wwwlib.targets import Target


class Masks(Protocol):
    """Pixel masks of the images of a set, by index.

    Attributes
    ----------
    categories : mapping of str to str
        The category of each concept, such as "object"; the order is that of the IoU's columns.
    fingerprint : str
        SHA-256, equal for equal masks.
    """

    categories: Mapping[str, str]
    fingerprint: str

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (H, W) bool mask of each concept that image i shows, all of one size."""
        ...


@dataclass(frozen=True)
class Dissection:
    """How well the neurons of a layer detect concepts.

    Attributes
    ----------
    concepts : tuple of str
        C concepts.
    categories : tuple of str
        The category of each concept.
    iou : Tensor of float64, shape (N, C)
        Intersection over union, in [0, 1]; 0 for a concept that no image shows.
    threshold : Tensor, shape (N,)
        The activation that a position must exceed.
    """

    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    iou: Tensor
    threshold: Tensor

    def table(self, minimum: float = 0.04) -> ConceptTable:
        """Name each neuron by its best concept, scored by its IoU; of equals by the first.

        Parameters
        ----------
        minimum : float
            The IoU that a name must exceed; neurons without such a concept abstain. The paper calls
            neurons above .04 detectors. With 0 every neuron that overlaps any mask is named.
        """
        value, index = best_of_blocks([self.iou], 1)
        return ranked_table(value, index, [self.concepts] * len(value), minimum)

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
    **options,
) -> dict[str, Dissection]:
    """Compare the activation maps of layers with pixel masks, in two passes over the images.

    Masks cover whole images; they are cropped to the part that the network's preprocessing keeps.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set.
    masks : Masks
        Of the same images.
    layers : sequence of str
        Layer names; the final layer, "logits", has maps of one cell, which cover the whole image.
    share : float
        In (0, 1): the share of positions that may exceed a neuron's threshold.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to Dissection

    Raises
    ------
    ValueError
        If a layer does not exist, an argument is out of range, masks do not fit together, or the
        network's preprocessing does more than to resize and crop.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1, as .005 does.")
    threshold = thresholds(target, images, layers, share, **options)
    step = _Overlaps(target, masks, threshold)
    key = {"share": share, "masks": masks.fingerprint}
    overlaps = Pass(_Sized(target), images, layers, step, _add, "overlaps", key, label="overlaps")
    counts = run(overlaps, **options)
    concepts, categories = tuple(masks.categories), tuple(masks.categories.values())
    return {
        layer: Dissection(concepts, categories, _iou(counts[layer], masks), threshold[layer])
        for layer in layers
    }


def _iou(counts: State, masks: Masks) -> Tensor:
    """Divide intersections (N, C) by unions; where both are empty the result is 0."""
    names, count = _category_names(masks), len(masks.categories)
    both = counts["above"][:, :count]
    active = counts["above"][:, [count + names.index(own) for own in masks.categories.values()]]
    return both / (active + counts["all"][:count] - both).clamp_min(1)


def _add(first: State, second: State) -> State:
    return {name: first[name] + second[name] for name in first}


@dataclass(frozen=True)
class _WithSize:
    """Preprocessing whose output has two more channels, with the width and height of the image."""

    preprocess: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Tensor:
        x = self.preprocess(image)
        return torch.cat([x, x.new_tensor(image.size)[:, None, None].expand(2, *x.shape[1:])])


class _Sized:
    """A target, as far as a pass needs one, with the preprocessing `_WithSize`."""

    def __init__(self, target: Target) -> None:
        self.target, self.preprocess = target, _WithSize(target.preprocess)
        self.key, self.to = target.key, target.to

    @property
    def device(self) -> torch.device:
        return self.target.device


class _Overlaps:
    """Counts pixels of a batch, in float64, for each layer.

    The C + G columns are the concepts, whose pixels are those of their masks, and then the
    categories, whose pixels are those of all images with any of their labels. "all" (C + G,) counts
    these pixels, and "above" (N, C + G) those of them above the threshold of each neuron.
    """

    def __init__(self, target: Target, masks: Masks, threshold: Mapping[str, Tensor]) -> None:
        self.target, self.masks, self.threshold = target, masks, threshold
        self.concepts, self.names = list(masks.categories), _category_names(masks)
        self.parts: dict[tuple[int, int], Box] = {}

    @torch.inference_mode()
    def __call__(self, layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        sizes = x[:, 3:, 0, 0].long().tolist()
        maps = layer_maps(self.target, layers, x[:, :3])
        count, width = len(self.concepts), len(self.concepts) + len(self.names)
        zeros = partial(torch.zeros, dtype=torch.float64, device=x.device)
        states = {
            layer: {"above": zeros(a.shape[1], width), "all": zeros(width)}
            for layer, a in maps.items()
        }
        for row, i in enumerate(indices.tolist()):
            words, shown = self._shown(i, tuple(sizes[row]))
            if not words:
                continue
            present = {count + self.names.index(self.masks.categories[word]) for word in words}
            columns = [*(self.concepts.index(word) for word in words), *sorted(present)]
            planes = np.concatenate([shown, np.ones((len(present), *shown.shape[1:]), bool)])
            planes = torch.from_numpy(planes).to(x.device).flatten(1).float()
            for layer, state in states.items():
                threshold = self.threshold[layer].to(x.device)
                a = maps[layer][[row]]
                state["above"][:, columns] += _count_above(a, threshold, planes, shown.shape[1:])
                state["all"][columns] += planes.sum(1)
        return states

    def _shown(self, i: int, size: tuple[int, int]) -> tuple[list[str], np.ndarray]:
        """Return the concepts in the part of image i that the preprocessing keeps, with masks."""
        if size not in self.parts:
            self.parts[size] = visible_box(self.target, size)
        found = {word: mask for word, mask in self.masks(i).items() if mask.any()}
        sizes = {mask.shape for mask in found.values()}
        if len(sizes) > 1 or not found.keys() <= self.masks.categories.keys():
            unknown = sorted(found.keys() - self.masks.categories.keys())
            raise ValueError(
                f"The masks of image {i} have the sizes {sorted(sizes)} and concepts without a "
                f"category {unknown}; give masks of one size, of concepts in `masks.categories`."
            )
        cropped = {word: crop_mask(mask, self.parts[size]) for word, mask in found.items()}
        kept = {word: mask for word, mask in cropped.items() if mask.any()}
        return list(kept), np.stack(list(kept.values())) if kept else np.zeros((0, 0, 0), bool)


def _count_above(a: Tensor, threshold: Tensor, planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Count the pixels of each plane (P, H*W) where maps (1, N, h, w) exceed a threshold: (N, P).

    A map of one cell is not resized, since interpolation rounds and may lift it above its own
    value. Counts of single precision are exact up to 16 megapixels.
    """
    if a.shape[2:] == (1, 1):
        return torch.outer((a[0, :, 0, 0] > threshold).double(), planes.sum(1).double())
    large = F.interpolate(a, size, mode="bilinear", align_corners=False)[0].flatten(1)
    return ((large > threshold.unsqueeze(1)).float() @ planes.T).double()


def _category_names(masks: Masks) -> list[str]:
    return list(dict.fromkeys(masks.categories.values()))


@dataclass(frozen=True)
class BrodenMasks:
    """Broden's masks, see `broden`.

    Attributes
    ----------
    root : Path
        The folder that holds ``index.csv``.
    rows : tuple of (height, width, cells)
        For each image the size of its masks, and its labels: numbers of labels of the whole image,
        and names of files whose pixels hold ``number = red + 256 green``.
    labels : mapping of int to str
        The concept of each label number.
    """

    root: Path
    rows: tuple[tuple[int, int, tuple[str, ...]], ...] = field(repr=False)
    labels: Mapping[int, str] = field(repr=False)
    categories: Mapping[str, str] = field(repr=False)
    fingerprint: str

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the masks of image i; a label in several cells has their union."""
        height, width, cells = self.rows[i]
        masks: dict[str, np.ndarray] = {}
        for cell in cells:
            numbers = (
                np.full((height, width), int(cell))
                if cell.isdecimal()
                else _decoded(self.root / "images" / cell)
            )
            for number in set(np.unique(numbers).tolist()) - {0}:
                if number not in self.labels:
                    raise ValueError(
                        f"{cell!r} holds the label {number}, which label.csv in "
                        f"{str(self.root)!r} does not list; unpack Broden again."
                    )
                word = self.labels[number]
                masks[word] = masks.get(word, False) | (numbers == number)
        return masks


def broden(root: str | Path, split: str | None = None, **options) -> tuple[ImageSet, BrodenMasks]:
    """Open Broden in the layout that Network Dissection published.

    The folder holds ``index.csv`` (image, split, ih, iw, sh, sw, then a column for each category
    with mask files or label numbers, separated by semicolons), ``label.csv`` (number, name,
    category with frequencies such as ``material(36);object(3)``, ...) and ``images/``. A label
    belongs to the category in which it is most frequent.

    Parameters
    ----------
    root : path
        Such as ``broden1_224``.
    split : {None, "train", "val"}
        Which images; all by default.
    **options
        `tolerate`, `convert`, `max_pixels` and `progress`, as `images.folder` takes them.

    Returns
    -------
    images : ImageSet
        Without labels; `names` are paths below ``images/``.
    masks : BrodenMasks
        In the same order, without those of unreadable images.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a part of the layout is missing.
    ValueError
        If a table lacks a column, no image has the split, or too many images cannot be read.
    """
    images = broden_images(root, split, **options)
    root = existing(root)
    readable = set(images.names)
    rows = tuple(_row(row) for row in broden_rows(root, split) if row["image"] in readable)
    entries = broden_table(root / "label.csv", ["number", "name", "category"])
    labels = {int(row["number"]): row["name"] for row in entries}
    categories = {row["name"]: _main_category(row["category"]) for row in entries}
    tables = [file_digest(root / name) for name in ("index.csv", "label.csv")]
    fingerprint = digest({"broden": tables, "images": images.fingerprint})
    return images, BrodenMasks(root, rows, labels, categories, fingerprint)


def _row(row: Mapping[str, str]) -> tuple[int, int, tuple[str, ...]]:
    """Return the size of an image's masks, and the cells of all its category columns."""
    columns = list(row)
    labelled = columns[columns.index("sw") + 1 :]
    cells = [cell for column in labelled for cell in (row[column] or "").split(";") if cell]
    return int(row["sh"]), int(row["sw"]), tuple(cells)


def _main_category(entry: str) -> str:
    """Return the most frequent category of an entry such as ``material(36);object(3)``."""
    found = re.findall(r"([^;()]+)\((\d+)\)", entry)
    if not found:
        raise ValueError(f"The category {entry!r} in label.csv is not like 'material(36)'.")
    return max(found, key=lambda pair: int(pair[1]))[0]


def _decoded(path: Path) -> np.ndarray:
    """Read the label numbers (H, W) of a mask file."""
    pixels = np.asarray(decode(path), np.int64)
    return pixels[..., 0] + 256 * pixels[..., 1]
