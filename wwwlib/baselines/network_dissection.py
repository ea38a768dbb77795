"""Network Dissection: the concept whose pixel masks overlap a neuron's activation maps best.

A first pass finds the threshold of each neuron that only 0.5 % of all positions exceed. A second
pass resizes the maps to the size of the masks, thresholds them, and counts the pixels of their
intersection with the mask of each concept. Intersection over union is summed over the images that
have any label of the concept's category, since other images are not labelled for the concept.

On the concept world's masks the concept with the best IoU is the ground truth for hidden layers.

Masks come with the images: `broden` opens Broden in its published folder layout, `images.masks`
other folders, and those of the concept world are exact.

Bau, Zhou, Khosla, Oliva and Torralba, "Network Dissection: Quantifying Interpretability of Deep
Visual Representations", CVPR 2017.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wwwlib.baselines import common
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Pass, State, run
from wwwlib.images import ImageSet, Masks, decode
from wwwlib.images.files import Place, existing, open_files
from wwwlib.store import digest, file_digest
from wwwlib.targets import Target


@dataclass(frozen=True)
class Dissection:
    """How well the neurons of a layer detect concepts.

    Attributes
    ----------
    concepts : tuple of str
        C concepts.
    iou : Tensor of float64, shape (N, C)
        Intersection over union, in [0, 1]; 0 for a concept that no image shows.
    threshold : Tensor, shape (N,)
        The activation that a position must exceed.
    """

    concepts: tuple[str, ...]
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
        value, index = common.best_of_blocks([self.iou], 1)
        return common.ranked_table(value, index, [self.concepts] * len(value), minimum)


def dissect(
    target: Target, images: ImageSet, layers: Sequence[str], share: float = 0.005, **options
) -> dict[str, Dissection]:
    """Compare the activation maps of layers with pixel masks, in two passes over the images.

    Masks cover whole images, in their proportions; they are cropped to the part that the network's
    preprocessing keeps.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set, with masks.
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
        If the images have no masks, a layer does not exist, an argument is out of range, masks do
        not fit together, or the network's preprocessing does more than to resize and crop.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; it must lie between 0 and 1, as .005 does.")
    masks = images.known_masks
    threshold = common.thresholds(target, images, layers, share, **options)
    step, finish = partial(_overlaps, target, masks, threshold, {}), partial(_iou, masks)
    key = {"share": share, "masks": masks.fingerprint}
    overlaps = Pass(target, images, layers, step, _add, "iou", key, finish, "overlaps")
    found, concepts = run(overlaps, **options), tuple(masks.categories)
    return {name: Dissection(concepts, found[name]["iou"], threshold[name]) for name in layers}


def _add(first: State, second: State) -> State:
    return {name: first[name] + second[name] for name in first}


def _iou(masks: Masks, counts: State) -> State:
    """Divide intersections (N, C) by unions; where both are empty the result is 0."""
    names, c = _category_names(masks), len(masks.categories)
    both, masked = counts["both"][:, :c], counts["masked"][:c]
    active = counts["both"][:, [c + names.index(own) for own in masks.categories.values()]]
    return {"iou": both / (active + masked - both).clamp_min(1)}


@torch.inference_mode()
def _overlaps(
    target: Target, masks: Masks, threshold: Mapping[str, Tensor], boxes: dict, layers, indices, x
) -> dict[str, State]:
    """Count pixels of a batch, in float64, for each layer of N neurons.

    "masked" (C + G,) counts the pixels of the masks of each concept, and of all images that have
    any label of each category; "both" (N, C + G) those of them above the threshold of each neuron.
    Counts of one image are in single precision, which is exact up to 16 megapixels. Maps that
    nowhere exceed their threshold, most of them at the paper's share, are not resized: apart from
    rounding, interpolation does not exceed the largest value, and what rounding alone would lift
    above the threshold in them is not counted.
    """
    maps = common.layer_maps(target, layers, x)
    concepts, names = list(masks.categories), _category_names(masks)
    zeros, count = partial(x.new_zeros, dtype=torch.float64), len(concepts) + len(names)
    sizes = {layer: a.shape[1] for layer, a in maps.items()}
    states = {at: {"both": zeros((n, count)), "masked": zeros(count)} for at, n in sizes.items()}
    for row, i in enumerate(indices.tolist()):
        if not (shown := _shown(target, masks, i, boxes)):
            continue
        columns = [concepts.index(word) for word in shown]
        present = {masks.categories[word] for word in shown}
        columns += [len(concepts) + names.index(own) for own in present]
        whole = [np.ones_like(next(iter(shown.values())))] * len(present)
        planes = torch.from_numpy(np.stack([*shown.values(), *whole])).to(x.device)
        size, planes = planes.shape[1:], planes.flatten(1).float()
        for layer, state in states.items():
            a, level = maps[layer][row], threshold[layer].to(x.device)
            state["masked"][columns] += planes.sum(1)
            exceeds = (a.flatten(1) > level[:, None]).any(1).nonzero()
            for some in exceeds.split(32) if len(exceeds) else ():  # a few MB at once
                above = common.above(a[some[:, 0]], level[some[:, 0]], size).flatten(1).float()
                state["both"][some, columns] += above @ planes.T
    return states


def _shown(target: Target, masks: Masks, i: int, boxes: dict) -> dict[str, np.ndarray]:
    """Return the masks of image i in the part of it that the preprocessing keeps."""
    found = {word: mask for word, mask in masks(i).items() if mask.any()}
    sizes = {mask.shape for mask in found.values()}
    if len(sizes) > 1 or not found.keys() <= masks.categories.keys():
        unknown = sorted(found.keys() - masks.categories.keys())
        raise ValueError(
            f"The masks of image {i} have the sizes {sorted(sizes)} and concepts without a "
            f"category {unknown}; give masks of one size, of concepts in `masks.categories`."
        )
    return common.visible_masks(target, found, boxes)


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
            if cell.isdecimal():
                numbers = np.full((height, width), int(cell))
            else:
                numbers = np.asarray(decode(self.root / "images" / cell), np.int64) @ (1, 256, 0)
            for number in set(np.unique(numbers).tolist()) - {0}:
                if number not in self.labels:
                    raise ValueError(
                        f"{cell!r} holds the label {number}, which label.csv in "
                        f"{str(self.root)!r} does not list; unpack Broden again."
                    )
                word = self.labels[number]
                masks[word] = masks.get(word, False) | (numbers == number)
        return masks


def broden(root: str | Path, split: str | None = None, **options) -> ImageSet:
    """Open Broden with its masks, in the layout that Network Dissection published.

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
    ImageSet
        Without labels; `names` are paths below ``images/``.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a part of the layout is missing.
    ValueError
        If a table lacks a column, no image has the split, or too many images cannot be read.
    """
    root = existing(root)
    index = _table(root / "index.csv", ["image", "split", "sh", "sw"])
    chosen = index[(index["split"] == split) | (split is None)]
    if chosen.empty:
        splits = ", ".join(sorted({*index["split"]}))
        raise ValueError(f"Broden has no image of the split {split!r}; its splits are {splits}.")
    paths, options = [*chosen["image"]], {"name": root.name, **options}
    images = open_files(existing(root / "images"), paths, [None] * len(paths), (), **options)
    chosen = chosen[chosen["image"].isin(images.names)]
    labelled = (";".join(cells).split(";") for _, *cells in chosen.loc[:, "sw":].to_numpy())
    cells = (tuple(filter(None, own)) for own in labelled)
    rows = tuple(zip(chosen["sh"].astype(int), chosen["sw"].astype(int), cells, strict=True))
    entries = _table(root / "label.csv", ["number", "name", "category"])
    labels = dict(zip(entries["number"].astype(int), entries["name"], strict=True))
    categories = dict(zip(entries["name"], map(_main_category, entries["category"]), strict=True))
    tables = [file_digest(root / name) for name in ("index.csv", "label.csv")]
    fingerprint = digest({"broden": tables, "images": images.fingerprint})
    return replace(images, masks=BrodenMasks(root, rows, labels, categories, fingerprint))


def _table(path: Place, columns: list[str]) -> pd.DataFrame:
    """Read one of Broden's CSV files as text, and check that it has the given columns."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {str(path)!r}; give the folder of Broden.")
    with path.open(newline="", encoding="utf-8") as file:
        found = pd.read_csv(file, dtype=str, index_col=False, keep_default_na=False).fillna("")
    if missing := [column for column in columns if column not in found]:
        raise ValueError(f"{str(path)!r} has no column {missing[0]!r}; unpack Broden again.")
    return found


def _main_category(entry: str) -> str:
    """Return the most frequent category of an entry such as ``material(36);object(3)``."""
    found = re.findall(r"([^;()]+)\((\d+)\)", entry)
    if not found:
        raise ValueError(f"The category {entry!r} in label.csv is not like 'material(36)'.")
    return max(found, key=lambda pair: int(pair[1]))[0]
