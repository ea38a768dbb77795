"""CRAFT: decomposes the activations of one class into concepts, which are directions.

The activations of image crops of a class are factorised into non-negative amounts of a few concepts
(NMF). The importance of a concept is its total Sobol index: the share of the variance of the class
logit that is due to it, interactions included, when the amounts are perturbed. The map of a concept
holds its amount at every position of a layer. CRAFT answers *where* and *why*; in place of names
(*what*) it shows crops.

Fel et al., "CRAFT: Concept Recursive Activation FacTorization for Explainability", CVPR 2023.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib import maps
from wwwlib.baselines.common import layer_maps
from wwwlib.contributions import forward, replaced_output
from wwwlib.distributed import Options
from wwwlib.evaluation import activations
from wwwlib.images import ImageSet
from wwwlib.registry import require, whole_number
from wwwlib.targets import LOGITS, Target

Patch = tuple[int, int, int, int, int]


class CraftError(ValueError):
    """CRAFT does not apply: the layer has no non-negative maps, or there are too few images."""


@dataclass(frozen=True, eq=False)
class Craft:
    """A class decomposed into R concepts, the most important first.

    Attributes
    ----------
    layer : str
        The layer of N neurons whose activations were factorised.
    bank : Tensor of float64, shape (R, N)
        The concepts, non-negative; activations are approximated by non-negative sums of them.
    importance : Tensor of float64, shape (R,)
        Total Sobol indices, averaged over images; estimates may lie slightly below 0.
    error : float
        Relative error of the factorisation in the Frobenius norm, in [0, 1].
    patches : tuple of tuple of (image, left, top, right, bottom)
        For each concept the crops with the largest amounts, best first: the image's index, and
        pixels of the network's input.
    images : tuple of int
        Indices of the images that were cropped.
    """

    layer: str
    bank: Tensor
    importance: Tensor
    error: float
    patches: tuple[tuple[Patch, ...], ...]
    images: tuple[int, ...]

    def amounts(self, target: Target, x: Tensor) -> Tensor:
        """Return the amount of each concept at each position of the layer: (B, R, h, w)."""
        return factorise(layer_maps(target, [self.layer], x)[self.layer], self.bank)

    def heatmap(self, target: Target, x: Tensor) -> Tensor:
        """Return the sum of the concepts' maps, weighted by importance: (B, H, W)."""
        amounts = maps.resize(self.amounts(target, x), tuple(x.shape[2:]))
        return torch.einsum("r,brhw->bhw", self.importance.clamp(min=0), amounts)


def craft(
    target: Target,
    layer: str,
    images: ImageSet,
    class_index: int,
    *,
    concepts: int = 10,
    patch: float = 0.33,
    cropped: int = 60,
    perturbed: int = 8,
    samples: int = 32,
    shown: int = 8,
    **options,
) -> Craft:
    """Decompose a class into concepts.

    Parameters
    ----------
    target : Target
    layer : str
        A layer with non-negative maps, such as one after a ReLU.
    images : ImageSet
        Those of them that are predicted as the class are used.
    class_index : int
    concepts : int
        R, at least 2.
    patch : float in (0, 1]
        Side of a crop as a share of the image's; neighbouring crops overlap by a fifth.
    cropped : int
        Largest number of images that are cropped.
    perturbed : int
        Largest number of images from which the Sobol indices are estimated.
    samples : int
        A power of two; each image takes ``samples * (concepts + 2)`` forward passes.
    shown : int
        Crops kept for each concept.
    **options
        Fields of `distributed.Options`; by default without progress bars.

    Raises
    ------
    CraftError
        A ValueError: if the layer has negative values or no maps, or too few images are predicted
        as the class.
    ValueError
        If an argument is out of range.
    ImportError
        If scikit-learn or SALib is not installed.
    """
    if not 0 <= class_index < len(target.classes):
        count = len(target.classes)
        raise ValueError(f"Class {class_index} does not exist; {target.name} has {count}.")
    whole_number("concepts", concepts, 2)
    if not 0 < patch <= 1:
        raise ValueError(f"patch is {patch}; give a share of the image's side in (0, 1].")
    if samples < 1 or samples & (samples - 1):
        raise ValueError(f"samples is {samples}; a Sobol sequence needs a power of two.")
    options = {"progress": False, **options}
    predicted = activations(target, images, [LOGITS], **options)[LOGITS].argmax(1)
    index = (predicted == class_index).nonzero()[:cropped, 0].tolist()
    if not index:
        raise CraftError(
            f"None of the {len(images)} images of {images.name!r} is predicted as "
            f"{target.classes[class_index]!r}; give images of that class."
        )
    x = torch.stack([target.preprocess(images.image(i)) for i in index])
    cut, patches = crops(x, patch)
    a = pooled(target, layer, cut, Options(**options).batch_size)
    if len(a) < concepts:
        raise CraftError(
            f"{len(x)} images are predicted as {target.classes[class_index]!r}, which make "
            f"{len(a)} crops for {concepts} concepts; give more images or a smaller patch."
        )
    settings = {"init": "nndsvda", "max_iter": 2000, "random_state": 0}
    nmf = require("sklearn.decomposition", "baselines").NMF(concepts, **settings)
    u, bank = nmf.fit_transform(a.numpy()), torch.from_numpy(nmf.components_)
    indices = [sobol(target, layer, one[None], class_index, bank, samples) for one in x[:perturbed]]
    importance = torch.stack(indices).mean(0)
    order = importance.argsort(descending=True, stable=True).tolist()
    best = np.argsort(-u, axis=0, kind="stable")[:shown]
    patches = [(index[i], *box) for i, *box in patches]
    kept = tuple(tuple(patches[i] for i in best[:, r]) for r in order)
    error = float(nmf.reconstruction_err_ / np.linalg.norm(a.numpy()))
    return Craft(layer, bank[order], importance[order], error, kept, tuple(index))


def crops(x: Tensor, patch: float) -> tuple[Tensor, list[Patch]]:
    """Cut images (B, 3, H, W) into crops on a grid, each resized to the size of the image.

    Parameters
    ----------
    x : Tensor
        (B, 3, H, W).
    patch : float in (0, 1]
        Side of a crop as a share of the image's.

    Returns
    -------
    cut : Tensor
        (P, 3, H, W).
    patches : list of (image, left, top, right, bottom)
        The place of each crop, in pixels.
    """
    height, width = x.shape[2:]
    h, w = max(1, round(patch * height)), max(1, round(patch * width))
    rows, columns = _starts(height, h), _starts(width, w)
    places = [(top, left) for top in rows for left in columns]
    cut = torch.stack([x[:, :, top : top + h, left : left + w] for top, left in places], 1)
    whole = F.interpolate(cut.flatten(0, 1), (height, width), mode="bilinear", align_corners=False)
    return whole, [(i, left, top, left + w, top + h) for i in range(len(x)) for top, left in places]


def _starts(length: int, side: int) -> list[int]:
    """Return starts of intervals that overlap by about a fifth and cover the whole length."""
    count = 1 + int(np.ceil((length - side) / max(1, 0.8 * side)))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


def pooled(target: Target, layer: str, x: Tensor, batch_size: int = 64) -> Tensor:
    """Return spatial means (P, N) in float64 of a layer's maps, which must be non-negative."""
    parts = []
    for part in x.split(batch_size):
        a = layer_maps(target, [layer], part)[layer]
        if a.shape[2:] == (1, 1) or a.amin() < 0:
            what = "no maps" if a.shape[2:] == (1, 1) else f"values down to {a.amin():.3g}"
            raise CraftError(
                f"The layer {layer!r} of {target.name} has {what}; CRAFT factorises non-negative "
                "maps, so choose a layer after a ReLU."
            )
        parts.append(a.mean((2, 3)).double().cpu())
    return torch.cat(parts)


def factorise(a: Tensor, bank: Tensor) -> Tensor:
    """Compute the non-negative amounts of concepts that best approximate each position.

    Parameters
    ----------
    a : Tensor
        (B, N, h, w) activations.
    bank : Tensor
        (R, N) concepts.

    Returns
    -------
    Tensor
        (B, R, h, w) float64: ``argmin_u |a - u bank|`` with u >= 0, position by position.
    """
    from scipy.optimize import nnls

    positions = a.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()
    w = bank.double().numpy().T
    u = torch.from_numpy(np.stack([nnls(w, position)[0] for position in positions]))
    return u.view(a.shape[0], *a.shape[2:], -1).permute(0, 3, 1, 2)


def sobol(
    target: Target, layer: str, x: Tensor, class_index: int, bank: Tensor, samples: int = 32
) -> Tensor:
    """Estimate the total Sobol index of every concept for one image.

    The amounts of concepts are scaled by masks in [0, 1], one number per concept, and the layer's
    output is replaced by the activations that result.

    Parameters
    ----------
    target, layer, class_index, samples
        As for `craft`.
    x : Tensor
        (1, 3, H, W).
    bank : Tensor
        (R, N) concepts.

    Returns
    -------
    Tensor
        (R,) float64; 0 where the logit does not vary.
    """
    a = layer_maps(target, [layer], x)[layer]
    u = factorise(a, bank)[0].to(a)
    count = len(bank)
    names = [*map(str, range(count))]
    problem = {"num_vars": count, "names": names, "bounds": [[0.0, 1.0]] * count}
    settings = {"calc_second_order": False, "seed": 0}
    masks = require("SALib.sample.sobol", "baselines").sample(problem, samples, **settings)
    y = _logits(target, layer, x, class_index, u, bank.to(a), torch.from_numpy(masks).to(a))
    if np.ptp(y) == 0:
        return torch.zeros(count, dtype=torch.float64)
    found = require("SALib.analyze.sobol", "baselines").analyze(problem, y, **settings)
    return torch.from_numpy(np.asarray(found["ST"], dtype=np.float64))


@torch.no_grad()
def _logits(target, layer, x, class_index, u, bank, masks, batch_size: int = 64) -> np.ndarray:
    """Return the class logit (S,) for every mask (S, R) on the amounts u (R, h, w) of an image."""
    found = []
    for part in masks.split(batch_size):
        made = torch.einsum("sr,rhw,rn->snhw", part, u, bank)
        with replaced_output(target, layer, partial(_like, made)):
            logits, _ = forward(target, x.to(target.device).expand(len(part), -1, -1, -1), [])
        found.append(logits[:, class_index].double().cpu())
    return torch.cat(found).numpy()


def _like(a: Tensor, output: Tensor) -> Tensor:
    """Permute maps (B, N, h, w) to the order of axes of the layer's output."""
    return a if output.shape == a.shape else a.permute(0, 2, 3, 1)
