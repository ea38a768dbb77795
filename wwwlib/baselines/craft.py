"""CRAFT: a class taken apart into concepts that are directions, not neurons.

Activations of image crops of one class are factorised into non-negative amounts of a few concepts.
How much each matters is its total Sobol index: the share of the logit's variance that goes, with
all its interactions, when the amount of the concept is varied. A map of a concept is how much of
it every position of a layer holds. It answers *where* and *why*; for *what* it shows crops.

Fel et al., "CRAFT: Concept Recursive Activation FacTorization for Explainability", CVPR 2023.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from SALib.analyze import sobol as sobol_analysis
from SALib.sample import sobol as sobol_sample
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from torch import Tensor

from wwwlib import maps as where
from wwwlib.contributions import forward, replaced_output
from wwwlib.images import ImageSet, batches
from wwwlib.targets import Target

Patch = tuple[int, int, int, int, int]


class Unfit(ValueError):
    """What CRAFT is asked about cannot be taken apart: there are no maps, or too few images."""


@dataclass(frozen=True, eq=False)
class Craft:
    """A class in terms of R concepts, the most important first.

    Attributes
    ----------
    layer : str
        The layer of N neurons whose activations were factorised.
    class_index : int
    bank : Tensor of float64, shape (R, N)
        The concepts, non-negative; an activation is a sum of them.
    importance : Tensor of float64, shape (R,)
        Total Sobol indices, averaged over images; estimates, so a little below 0 is 0.
    error : float
        Share of the crops' activations, by Frobenius norm, that the concepts leave out.
    patches : tuple of tuple of (image, left, top, right, bottom)
        For each concept the crops that hold most of it, best first: the image's index, and pixels
        of the network's input.
    images : tuple of int
        Those that were cropped.
    """

    layer: str
    class_index: int
    bank: Tensor
    importance: Tensor
    error: float
    patches: tuple[tuple[Patch, ...], ...]
    images: tuple[int, ...]

    def amounts(self, target: Target, x: Tensor) -> Tensor:
        """Return how much of each concept (B, R, h, w) every position of images x holds."""
        with torch.no_grad():
            a = forward(target, x.to(target.device), [self.layer])[1][self.layer].maps
        return factorise(a, self.bank)

    def maps(self, target: Target, x: Tensor) -> Tensor:
        """Return `amounts` at the size of the images: (B, R, H, W)."""
        return where.resize(self.amounts(target, x), tuple(x.shape[2:]))

    def heatmap(self, target: Target, x: Tensor) -> Tensor:
        """Return maps weighted by importance and summed: (B, H, W)."""
        weight = self.importance.clamp(min=0)
        return (self.maps(target, x) * weight[:, None, None]).sum(1)


def craft(
    target: Target,
    layer: str,
    images: ImageSet,
    class_index: int,
    *,
    concepts: int = 10,
    patch: float = 0.33,
    most: int = 60,
    tested: int = 8,
    samples: int = 32,
    shown: int = 8,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 0,
) -> Craft:
    """Take a class apart.

    Parameters
    ----------
    target : Target
    layer : str
        A layer with non-negative maps, such as one behind a ReLU.
    images : ImageSet
        Of these, the ones that are predicted as the class are used.
    class_index : int
    concepts : int
        R, at least 2.
    patch : float in (0, 1]
        Side of a crop as a share of the image's; crops overlap by a fifth.
    most : int
        At most so many images are cropped.
    tested : int
        At most so many images behind the Sobol indices.
    samples : int
        A power of two; each image costs ``samples * (concepts + 2)`` forward passes.
    shown : int
        Crops kept for each concept.
    seed : int
        Draws masks and starts the factorisation.
    batch_size, workers : int
        Images at once, and processes that decode them.

    Raises
    ------
    Unfit
        A ValueError: if the layer has negative values or no maps, or too few images are predicted
        as the class.
    ValueError
        If an argument is out of range.
    """
    _check(target, class_index, concepts, patch, samples)
    x, index = _predicted(target, images, class_index, most, batch_size, workers)
    cut, patches = crops(x, patch)
    a = pooled(target, layer, cut, batch_size)
    if len(a) < concepts:
        raise Unfit(
            f"{len(x)} images are predicted as {target.classes[class_index]!r}, which make "
            f"{len(a)} crops for {concepts} concepts; give more images or a smaller patch."
        )
    model = NMF(concepts, init="nndsvda", max_iter=2000, random_state=seed)
    u, bank = model.fit_transform(a.numpy()), torch.from_numpy(model.components_)
    left_out = np.linalg.norm(a.numpy() - u @ model.components_) / np.linalg.norm(a.numpy())
    chosen = x[:tested]
    importance = torch.stack(
        [sobol(target, layer, one[None], class_index, bank, samples, seed) for one in chosen]
    ).mean(0)
    order = importance.argsort(descending=True, stable=True).tolist()
    best = np.argsort(-u, axis=0, kind="stable")[:shown]
    return Craft(
        layer=layer,
        class_index=class_index,
        bank=bank[order],
        importance=importance[order],
        error=float(left_out),
        patches=tuple(
            tuple((index[patches[i][0]], *patches[i][1:]) for i in best[:, r].tolist())
            for r in order
        ),
        images=tuple(index),
    )


def crops(x: Tensor, patch: float) -> tuple[Tensor, list[Patch]]:
    """Cut images (B, 3, H, W) into squares on a grid, each scaled up to the whole image's size.

    Returns
    -------
    cut : Tensor
        (P, 3, H, W).
    patches : list of (image, left, top, right, bottom)
        Where each came from, in pixels.
    """
    height, width = x.shape[2:]
    h, w = max(1, round(patch * height)), max(1, round(patch * width))
    rows, columns = _starts(height, h), _starts(width, w)
    places = [(top, left) for top in rows for left in columns]
    cut = torch.stack([x[:, :, top : top + h, left : left + w] for top, left in places], 1)
    whole = F.interpolate(cut.flatten(0, 1), (height, width), mode="bilinear", align_corners=False)
    return whole, [(i, left, top, left + w, top + h) for i in range(len(x)) for top, left in places]


def _starts(length: int, side: int) -> list[int]:
    """Return where squares start that overlap by about a fifth and reach both ends."""
    count = 1 + int(np.ceil((length - side) / max(1, 0.8 * side)))
    return np.linspace(0, length - side, count).round().astype(int).tolist()


@torch.no_grad()
def pooled(target: Target, layer: str, x: Tensor, batch_size: int = 64) -> Tensor:
    """Return mean activations (P, N) float64 of a layer, refused where one is negative."""
    parts = []
    for part in x.split(batch_size):
        a = forward(target, part.to(target.device), [layer])[1][layer].maps
        if a.shape[2:] == (1, 1) or a.amin() < 0:
            what = "no maps" if a.shape[2:] == (1, 1) else f"values down to {a.amin():.3g}"
            raise Unfit(
                f"The layer {layer!r} of {target.name} has {what}; CRAFT factorises non-negative "
                "maps, so choose a layer behind a ReLU."
            )
        parts.append(a.mean((2, 3)).double().cpu())
    return torch.cat(parts)


def factorise(a: Tensor, bank: Tensor) -> Tensor:
    """Return the non-negative amounts of the bank's concepts that best make up each position.

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
    positions = a.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()
    w = bank.double().numpy().T
    u = torch.from_numpy(np.stack([nnls(w, position)[0] for position in positions]))
    return u.view(a.shape[0], *a.shape[2:], -1).permute(0, 3, 1, 2)


def sobol(
    target: Target,
    layer: str,
    x: Tensor,
    class_index: int,
    bank: Tensor,
    samples: int = 32,
    seed: int = 0,
) -> Tensor:
    """Return the total Sobol index (R,) of every concept for one image x (1, 3, H, W).

    Amounts are scaled by masks in [0, 1], one number a concept; the network goes on with the
    activations that they make. A concept with which the logit does not vary has index 0.
    """
    with torch.no_grad():
        a = forward(target, x.to(target.device), [layer])[1][layer].maps
    u = factorise(a, bank)[0].to(a)
    names, count = [f"concept {r}" for r in range(len(bank))], len(bank)
    problem = {"num_vars": count, "names": names, "bounds": [[0.0, 1.0]] * count}
    masks = sobol_sample.sample(problem, samples, calc_second_order=False, seed=seed)
    y = _logits(target, layer, x, class_index, u, bank.to(a), torch.from_numpy(masks).to(a))
    if np.ptp(y) == 0:
        return torch.zeros(len(bank), dtype=torch.float64)
    found = sobol_analysis.analyze(problem, y, calc_second_order=False, seed=seed)
    return torch.from_numpy(np.asarray(found["ST"], dtype=np.float64))


@torch.no_grad()
def _logits(target, layer, x, class_index, u, bank, masks, batch_size: int = 64) -> np.ndarray:
    """Return the class's logit for every mask (S, R) on the amounts u (R, h, w) of an image."""
    found = []
    for part in masks.split(batch_size):
        made = torch.einsum("sr,rhw,rn->snhw", part, u, bank)
        batch = x.to(target.device).expand(len(part), -1, -1, -1)
        with replaced_output(target, layer, lambda output, made=made: _laid(made, output)):
            logits, _ = forward(target, batch, [])
        found.append(logits[:, class_index].double().cpu())
    return torch.cat(found).numpy()


def _laid(a: Tensor, output: Tensor) -> Tensor:
    """Return maps (B, N, h, w) in the order of axes that the layer's own output has."""
    return a if output.shape == a.shape else a.permute(0, 2, 3, 1)


def _predicted(
    target: Target, images: ImageSet, c: int, most: int, batch_size: int, workers: int
) -> tuple[Tensor, list[int]]:
    """Return the first images that the network takes for the class, preprocessed, and where."""
    kept: list[Tensor] = []
    places: list[int] = []
    for indices, x in batches(images, target.preprocess, batch_size, workers):
        with torch.no_grad():
            hit = target.model(x.to(target.device)).argmax(1).cpu() == c
        kept.append(x[hit])
        places += indices[hit].tolist()
        if len(places) >= most:
            break
    if not places:
        raise Unfit(
            f"None of the {len(images)} images of {images.name!r} is predicted as "
            f"{target.classes[c]!r}; give images of that class."
        )
    return torch.cat(kept)[:most], places[:most]


def _check(target: Target, c: int, concepts: int, patch: float, samples: int) -> None:
    if not 0 <= c < len(target.classes):
        raise ValueError(f"Class {c} does not exist; {target.name} has {len(target.classes)}.")
    if concepts < 2:
        raise ValueError(f"concepts is {concepts}; a class is taken apart into at least 2.")
    if not 0 < patch <= 1:
        raise ValueError(f"patch is {patch}; give a share of the image's side in (0, 1].")
    if samples < 1 or samples & (samples - 1):
        raise ValueError(f"samples is {samples}; Sobol's sequence wants a power of two.")
