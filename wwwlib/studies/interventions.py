"""Tests of maps and contributions by intervention: what they mark as important is removed.

Maps (D, I, H, W) are D draws for each of I images: one of a method, several of a random map. Every
measure keeps D and I, is higher where an explanation is better, and is NaN for images to which it
does not apply. `removals` paints scenes with every subset of their regions removed, so that one
pass through a network gives the figures of all maps. `hiding` hides pixels instead, for any
network, `randomised` randomises its weights, and `without_neurons` removes neurons.

Hesse, Schaub-Meyer and Roth, "FunnyBirds: A synthetic vision dataset for a part-based analysis of
explainable AI methods", ICCV 2023. Petsiuk, Das and Saenko, "RISE: Randomized input sampling for
explanation of black-box models", BMVC 2018. Rong, Leemann, Borisov, Kasneci and Kasneci, "A
consistent and efficient evaluation strategy for attribution methods" (ROAD), ICML 2022. Hedström,
Weber, Lapuschkin and Höhne, "A fresh look at sanity checks for saliency maps", xAI 2024.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from wwwlib import evaluation, images, maps, world
from wwwlib.activations import capture
from wwwlib.baselines import shapley
from wwwlib.baselines.craft import Craft
from wwwlib.contributions import contribute, forward, masked_forward
from wwwlib.images import ImageSet, batches
from wwwlib.registry import require, whole_number
from wwwlib.scores import Score
from wwwlib.studies import localization
from wwwlib.studies.conclusions import winner
from wwwlib.studies.tables import Row, Table
from wwwlib.targets import LOGITS, Target

Tensors = dict[str, Tensor]
Measured = Mapping[str, Tensors]  # (D, I) by method and measure
Fill = Tensor | float  # what removed neurons are set to, (N,) or one number
RANDOM = "random map"
FILLS = ("blurred", "mean", "imputed")  # of hidden pixels
THRESHOLDS = tuple(i / 40 for i in range(1, 33))  # shares of a map, from which a region is marked
_DARK = ("night", "sunset")  # scenes whose light changes the subject, too


# Maps -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decisions:
    """Images, and the classes that are explained; both on the device of the network.

    Attributes
    ----------
    target : Target
    x : Tensor
        (I, 3, H, W) preprocessed images.
    classes : Tensor
        (I,) int64.
    batch_size : int
        Images at once.
    """

    target: Target
    x: Tensor
    classes: Tensor
    batch_size: int = 64

    def probability(self, x: Tensor) -> Tensor:
        """Return the probabilities (D, I) of the classes for other images (D, I, 3, H, W)."""
        with torch.no_grad():
            parts = x.flatten(0, 1).split(self.batch_size)
            logits = torch.cat([forward(self.target, part, [])[0].double() for part in parts])
        c = self.classes.repeat(len(x))[:, None]
        return self.target.probabilities(logits).gather(1, c).view(x.shape[:2]).cpu()


def decide(target: Target, images: ImageSet, batch_size: int = 64) -> Decisions:
    """Preprocess all images of a set at once, and predict their classes."""
    found = [x.to(target.device) for _, x in batches(images, target.preprocess, batch_size)]
    with torch.no_grad():
        logits = torch.cat([forward(target, x, [])[0] for x in found])
    return Decisions(target, torch.cat(found), logits.argmax(1), batch_size)


def explain(
    own: Decisions,
    layer: str,
    top: int = 5,
    draws: int = 50,
    steps: int = 8,
    seed: int = 0,
    decomposed: Mapping[int, Craft] | None = None,
) -> Tensors:
    """Compute heatmaps by several methods, and random ones.

    Parameters
    ----------
    own : Decisions
    layer : str
        Of all maps but those of integrated gradients.
    top : int
        Number of neurons of WWW's heatmaps.
    draws : int
        Number of random maps: uniform noise on a grid of 8 x 8, resized.
    steps : int
        Of the path of integrated gradients, which begins at x = 0 (Sundararajan et al., ICML 2017).
    seed : int
        Of the random maps.
    decomposed : mapping of int to Craft, optional
        CRAFT's concepts of every class, for its heatmaps.

    Returns
    -------
    dict of str to Tensor
        (1, I, H, W) by method and (draws, I, H, W) of the random map, non-negative, on the CPU.
    """
    size = tuple(own.x.shape[2:])
    pairs = [*zip(*(v.split(own.batch_size) for v in (own.x, own.classes)), strict=True)]
    found = localization.heatmaps(own.target, pairs, layer, [top], size)
    method = require("captum.attr", "baselines").IntegratedGradients
    gradients = method(lambda x: forward(own.target, x, [])[0])
    parts = [gradients.attribute(x, target=c, n_steps=steps).sum(1) for x, c in pairs]
    found["integrated gradients"] = torch.cat(parts).detach().clamp(min=0).float().cpu()
    if decomposed:
        both = zip(own.x, own.classes.tolist(), strict=True)
        heat = [decomposed[c].heatmap(own.target, x[None]) for x, c in both]
        found["CRAFT"] = torch.cat(heat).float()
    noise = torch.rand(draws, len(own.x), 8, 8, generator=torch.Generator().manual_seed(seed))
    return {name: m[None] for name, m in found.items()} | {RANDOM: maps.resize(noise, size)}


# Parts of painted scenes --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Removals:
    """Scenes of the concept world, painted with every subset of their regions removed.

    The last region is the background, which becomes that of another scene, the one before it the
    distractor; all others are visible parts of the subject. What belongs to no part stays, but a
    pattern on it may start elsewhere before another background.

    Attributes
    ----------
    images : ImageSet
        All P paintings.
    rows : Tensor
        (I, 2**R) int64, the painting of each scene without a subset; bit r of its number stands
        for region r.
    masks : Tensor
        (I, R, H, W) float, 1 on the pixels of a region, 0 everywhere for a region that the scene
        lacks.
    scenes : tuple of Scene
    parts : tuple of tuple of str
        The names of the first regions of each scene.
    """

    images: ImageSet
    rows: Tensor
    masks: Tensor
    scenes: tuple[world.Scene, ...]
    parts: tuple[tuple[str, ...], ...]

    @property
    def exists(self) -> Tensor:
        """(I, R) bool, whether the scene has the region."""
        return self.masks.flatten(2).any(2)

    def share(self, m: Tensor) -> Tensor:
        """Return the share (D, I, R) of each map's mass that lies on each region, in [0, 1]."""
        m = m.clamp(min=0)
        mass = m.sum((2, 3)).clamp(min=torch.finfo(m.dtype).tiny)[..., None]
        return torch.einsum("dihw,irhw->dir", m, self.masks) / mass


def removals(count: int = 96, seed: int = 770) -> Removals:
    """Paint the first `count` scenes of a world with every subset of their regions removed.

    Parameters
    ----------
    count : int
        Number I of scenes, at least 1; a scene has about 50 paintings.
    seed : int
        Of the scenes, and of the other backgrounds.

    Raises
    ------
    ValueError
        If `count` is less than 1.
    """
    whole_number("count", count)
    scenes = tuple(world.sample(i, seed) for i in range(count))
    width, rng = max(len(scene.parts) for scene in scenes), np.random.default_rng(seed)
    painted, found = [], []
    for scene in scenes:
        own = world.render(scene).masks
        names = tuple(part for part in scene.parts if part in own)
        blank = np.zeros_like(own[scene.subject])
        thing = own.get(scene.thing.name, blank) if scene.thing else blank
        regions = [own[name] for name in names] + [blank] * (width - len(names))
        regions += [thing, ~(own[scene.subject] | thing)]
        exists = sum(bool(mask.any()) << r for r, mask in enumerate(regions))
        other = str(rng.choice([one for one in world.SCENES if one not in (scene.scene, *_DARK)]))
        codes = [code for code in range(2 ** len(regions)) if not code & ~exists]
        place = {code: len(painted) + i for i, code in enumerate(codes)}
        without = (_without(scene, names, width, other, code) for code in codes)
        painted += [(world.render_image(one), None) for one in without]
        found.append(([place[code & exists] for code in range(2 ** len(regions))], regions, names))
    rows, masks, parts = zip(*found, strict=True)
    every = images.dataset(painted, f"world-{seed}, repainted", progress=False)
    return Removals(every, torch.tensor(rows), torch.tensor(np.array(masks)).float(), scenes, parts)


def _without(scene: world.Scene, names, width: int, other: str, code: int) -> world.Scene:
    """Return the scene without the regions whose bits are set."""
    gone = tuple(name for r, name in enumerate(names) if code >> r & 1)
    thing = None if code >> width & 1 else scene.thing
    background = other if code >> (width + 1) else scene.scene
    return replace(scene, missing=scene.missing + gone, thing=thing, scene=background)


def part_tests(scenes: Removals, logits: Tensor, m: Sequence[Tensors], shared: Tensor) -> Measured:
    """Test maps by removing parts, in all measures below.

    Parameters
    ----------
    scenes : Removals
    logits : Tensor
        (I, 2**R, C) of the paintings, in the order of `Removals.rows`.
    m : sequence of three mappings of method to Tensor
        (D, I, H, W) maps of the predicted classes, and of both of `rival_classes`.
    shared : Tensor
        (2, I, R) bool, see `rival_classes`.

    Returns
    -------
    dict of method to dict of measure to Tensor
        (D, I) float64. "single deletion per pixel" divides shares by the sizes of the parts, so
        that large parts do not rank first in any map.
    """
    found, fall, sizes = {}, falls(logits), scenes.masks.sum((2, 3)).clamp(min=1)
    parts = scenes.exists & (torch.arange(fall.shape[1]) < fall.shape[1] - 2)
    for method in m[0]:
        share, *others = (scenes.share(one[method]) for one in m)
        own = {"single deletion": single_deletion(share, fall, parts)}
        own["single deletion per pixel"] = single_deletion(share / sizes, fall, parts)
        own |= part_checks(share, logits, scenes.exists)
        found[method] = own | {"target sensitivity": target_sensitivity(*others, shared)}
    return found


def falls(logits: Tensor) -> Tensor:
    """Return by how much the predicted class's logit falls without each region alone, (I, R)."""
    first = logits[:, :1].argmax(2, keepdim=True)
    own = logits.gather(2, first.expand(-1, logits.shape[1], 1))[..., 0]
    return own[:, :1] - own[:, 2 ** torch.arange(logits.shape[1].bit_length() - 1)]


def single_deletion(share: Tensor, fall: Tensor, parts: Tensor) -> Tensor:
    """Half plus half the rank correlation of the parts' shares of the map and falls of the logit.

    Parameters
    ----------
    share : Tensor
        (D, I, R), see `Removals.share`.
    fall : Tensor
        (I, R), see `falls`.
    parts : Tensor
        (I, R) bool, the regions that are compared.

    Returns
    -------
    Tensor
        (D, I) float64 in [0, 1]: Spearman's correlation, ties at their mean rank; one half where
        all shares or all falls are equal, NaN for fewer than two parts.

    References
    ----------
    FunnyBirds, "single deletion".
    """
    a, b = (_centred_ranks(v.double(), parts) for v in (share, fall))
    # The cosine of constants is 0.
    return torch.where(parts.sum(1) > 1, 0.5 + torch.cosine_similarity(a, b, dim=-1) / 2, torch.nan)


def _centred_ranks(v: Tensor, valid: Tensor) -> Tensor:
    """Twice the ranks among valid values, less their mean; 0 for values that are not valid."""
    return ((v[..., :, None] - v[..., None, :]).sign() * valid[..., None, :]).sum(-1) * valid


def part_checks(
    share: Tensor, logits: Tensor, exists: Tensor,
    thresholds: Sequence[float] = THRESHOLDS, tolerance: float = 0.05,
) -> Tensors:  # fmt: skip
    """Preservation and deletion checks, and distractibility, at the best threshold of the map.

    A region is *marked* if its share of the map exceeds a threshold.

    Parameters
    ----------
    share : Tensor
        (D, I, R), see `Removals.share`.
    logits : Tensor
        (I, 2**R, C) of the paintings, in the order of `Removals.rows`.
    exists : Tensor
        (I, R) bool, the regions of each scene.
    thresholds : sequence of float
        Those tried; the one with the highest mean of checks and distractibility is taken, for all
        images and draws alike.
    tolerance : float
        A region is irrelevant if the logit changes by at most this share of its size without it.

    Returns
    -------
    dict of str to Tensor
        (D, I) float64 each. "preservation": 1 if the class stays when all but the marked regions
        are removed. "deletion of parts": 1 if it changes when the marked ones are removed.
        "distractibility": the share of the irrelevant regions that is not marked, NaN without any.

    References
    ----------
    FunnyBirds, "preservation check", "deletion check", "distractibility".
    """
    marked = (share > torch.tensor(thresholds)[:, None, None, None]) & exists
    bits, decision = 2 ** torch.arange(exists.shape[1]), logits.argmax(2)
    image, first = torch.arange(len(logits)), decision[:, 0]
    kept = decision[image, ((~marked & exists) * bits).sum(-1)] == first
    changed = decision[image, (marked * bits).sum(-1)] != first
    size = logits[:, 0].gather(1, first[:, None]).abs()
    idle = exists & (falls(logits).abs() <= tolerance * size)
    left_out = (~marked & idle).sum(-1) / idle.sum(-1)  # NaN for 0 / 0
    t = int(((kept.double() + changed).mean((1, 2)) / 2 + left_out.nanmean((1, 2))).argmax())
    found = {"preservation": kept, "deletion of parts": changed, "distractibility": left_out}
    return {name: one[t].double() for name, one in found.items()}


def rival_classes(scenes: Removals, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Choose two classes for each scene that share different visible parts with it.

    Parameters
    ----------
    scenes : Removals
    seed : int
        Of the choice among the pairs of classes.

    Returns
    -------
    classes : Tensor
        (2, I) int64.
    parts : Tensor
        (2, I, R) bool: the parts that only the first, and only the second, shares with the scene;
        one of them has none where no two classes apply.
    """
    kinds, has = list(world.CLASSES), torch.zeros(len(world.CLASSES), *scenes.exists.shape).bool()
    for i, (scene, names) in enumerate(zip(scenes.scenes, scenes.parts, strict=True)):
        for c, kind in enumerate(kinds):
            own = () if kind == scene.subject else replace(scene, subject=kind, missing=()).parts
            has[c, i, : len(names)] = torch.tensor([name in own for name in names])
    only = has[:, None] & ~has  # (C, C, I, R): of the first class and not of the second
    both = (only.any(3) & only.any(3).transpose(0, 1)).flatten(0, 1).T
    chance = (both | ~both.any(1, keepdim=True)).double()  # any pair where none applies
    chosen = chance.multinomial(1, generator=torch.Generator().manual_seed(seed))[:, 0]
    (a, b), i = (chosen // len(kinds), chosen % len(kinds)), torch.arange(len(chosen))
    return torch.stack([a, b]), torch.stack([only[a, b, i], only[b, a, i]])


def target_sensitivity(first: Tensor, second: Tensor, parts: Tensor) -> Tensor:
    """Whether the maps of two classes fall on the parts that each of them shares with the image.

    Parameters
    ----------
    first, second : Tensor
        (D, I, R) shares of the maps of both classes, see `Removals.share`.
    parts : Tensor
        (2, I, R) bool, see `rival_classes`.

    Returns
    -------
    Tensor
        (D, I) float64: mean over the classes of 1 if the own map has the larger share on the parts
        that only this class shares with the image, 0.5 if both are equal; NaN without classes.

    References
    ----------
    FunnyBirds, "target sensitivity", for classes that share at least one part.
    """
    own, other = (((first.double() - second.double()) * one).sum(-1).sign() for one in parts)
    return torch.where(parts.any(2).all(0), 0.5 + (own - other) / 4, torch.nan)


# Pixels and weights of any network ----------------------------------------------------------------


def hiding(
    own: Decisions, m: Tensor, steps: int = 8, seed: int = 0, fills: Sequence[str] = FILLS
) -> Tensors:
    """Compute insertion and deletion curves: the class's probability as pixels are shown or hidden.

    Parameters
    ----------
    own : Decisions
    m : Tensor
        (D, I, H, W) maps; pixels come in order of their values, equal ones at random.
    steps : int
        S, at least 1: the numbers of pixels are multiples of H * W / S.
    seed : int
        Of the order of equal pixels, and of noise.
    fills : sequence of str
        What hidden pixels become: "blurred", the "mean" colour of the image, or "imputed" from
        those that are shown, which hides the outline of the map, too (about 10 ms for 64 x 64).

    Returns
    -------
    dict of str to Tensor
        (D, I, S + 1) float64 probabilities by kind and fill, such as "insertion, blurred":
        "insertion" starts from a hidden image, "deletion" from the whole one.

    References
    ----------
    RISE, section 4.2; ROAD ("imputed").
    """
    whole_number("steps", steps)
    flat, found = m.flatten(2), {}
    order = torch.randperm(flat.shape[2], generator=torch.Generator().manual_seed(seed))
    places = order[flat[..., order].argsort(dim=-1, descending=True, stable=True)]
    rank = places.argsort(-1).view(m.shape)[:, :, None].to(own.x.device)
    side = min(own.x.shape[2:]) // 6 * 2 + 1
    fixed = {"blurred": gaussian_blur(own.x, [side] * 2), "mean": own.x.mean((2, 3), keepdim=True)}
    for how, kind in product(fills, ("insertion", "deletion")):
        curve = []
        for end in (s * flat.shape[2] / steps for s in range(steps + 1)):
            shown = (rank < end) == (kind == "insertion")
            fill = fixed[how] if how in fixed else imputed(own.x, shown, seed)
            curve.append(own.probability(torch.where(shown, own.x, fill)))
        found[f"{kind}, {how}"] = torch.stack(curve, -1)
    return found


def imputed(x: Tensor, shown: Tensor, seed: int = 0) -> Tensor:
    """Replace hidden pixels by means of their eight neighbours, hidden ones too, and noise.

    Parameters
    ----------
    x : Tensor
        (I, 3, H, W) images.
    shown : Tensor
        (D, I, 1, H, W) bool.
    seed : int
        Of the noise, whose standard deviation is .01.

    Returns
    -------
    Tensor
        (D, I, 3, H, W). Neighbours at the sides count twice as much as those at the corners; where
        no pixel is shown, all have the mean colour of the image.

    References
    ----------
    ROAD, section 4, "noisy linear imputation".
    """
    from scipy.sparse import csgraph, diags, identity, kron
    from scipy.sparse.linalg import spsolve

    line = (diags([1.0, 2.0, 1.0], [-1, 0, 1], (n, n)) for n in x.shape[2:])
    graph = (csgraph.laplacian(kron(*line)) + 1e-6 * identity(x[0, 0].numel())).tocsr()
    flat = x.double().cpu().flatten(2).transpose(1, 2).repeat(len(shown), 1, 1)
    for pixels, own in zip(flat.numpy(), shown.cpu().flatten(0, 1).flatten(1).numpy(), strict=True):
        if not own.all():
            rest = 1e-6 * pixels.mean(0) - graph[~own][:, own] @ pixels[own]
            pixels[~own] = spsolve(graph[~own][:, ~own].tocsc(), rest)
    noise = torch.randn(flat.shape, generator=torch.Generator().manual_seed(seed))
    return (flat + 0.01 * noise).mT.reshape(*shown.shape[:2], *x.shape[1:]).to(x)


def randomised(target: Target, stages: int = 4, seed: int = 0) -> Iterator[Target]:
    """Yield copies of a network whose weights are shuffled, from its end to its beginning.

    Parameters
    ----------
    target : Target
        It is not changed.
    stages : int
        Number of copies; the i-th has the last i / stages of its parameters shuffled, each within
        itself, so that its scale stays.
    seed : int
        Of the shuffling.
    """
    whole_number("stages", stages)
    generator = torch.Generator().manual_seed(seed)
    for chosen in torch.arange(len([*target.model.parameters()])).tensor_split(stages):
        target = copy.deepcopy(target)
        weights = [*target.model.parameters()][::-1]
        for p in (weights[i] for i in chosen):
            order = torch.randperm(p.numel(), generator=generator).to(p.device)
            p.data = p.data.flatten()[order].view_as(p)
        yield target


def randomisation(
    own: Decisions, layer: str, stages: int = 4, seed: int = 0, **how: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compare maps with those of the same network with randomised weights.

    Parameters
    ----------
    own, layer, **how
        As for `explain`.
    stages, seed
        As for `randomised`.

    Returns
    -------
    dict of str to (Tensor, Tensor)
        By method: (stages, D, I) correlation over pixels with the map of the network itself, 0 for
        constant maps; low ones pass. And (D, I) the relative rise of the map's complexity when all
        weights are random, NaN for constant maps; high ones pass, and random maps do not.

    References
    ----------
    Adebayo et al., NeurIPS 2018 (correlation); Hedström et al. 2024 (efficient MPRT).
    """
    nets = enumerate([own.target, *randomised(own.target, stages, seed)])
    first, *rest = [explain(replace(own, target=f), layer, seed=seed + i, **how) for i, f in nets]
    alike = {n: torch.stack([_correlation(m, one[n]) for one in rest]) for n, m in first.items()}
    rise = {n: complexity(rest[-1][n]) / complexity(m) - 1 for n, m in first.items()}
    return {name: (alike[name], rise[name]) for name in first}


def complexity(m: Tensor, bins: int = 100) -> Tensor:
    """Entropy (D, I) in nats of the histogram of each map (D, I, H, W), from 0 to its maximum."""
    flat = m.flatten(2).double()
    place = (flat / flat.amax(-1, keepdim=True) * bins).nan_to_num(0).long().clamp(0, bins - 1)
    counts = flat.new_zeros(*flat.shape[:2], bins).scatter_add(2, place, torch.ones_like(flat))
    return torch.special.entr(counts / flat.shape[2]).sum(-1)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = (v - v.mean(-1, keepdim=True) for v in (a.flatten(2).double(), b.flatten(2).double()))
    return torch.cosine_similarity(a, b, dim=-1)


# Neurons ----------------------------------------------------------------------------------------


def without_neurons(own: Decisions, layer: str, order: Tensor, ks: Sequence[int]) -> Tensors:
    """Remove the top k neurons of an order from a layer, or all others.

    Parameters
    ----------
    own : Decisions
        All images pass at once.
    layer : str
        A layer of N neurons.
    order : Tensor
        (D, I, N) numbers; neurons come in descending order.
    ks : sequence of int
        K numbers of neurons.

    Returns
    -------
    dict of str to Tensor
        (D, I, K) float64, higher for better orders: "logit lost" without the top k neurons, "logit
        kept" by them alone, minus the logit of the whole layer; and 1 where the "class" is "lost"
        without them, or "kept" by them alone.
    """
    places = order.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    top, c = torch.stack([places < k for k in (0, *ks)]), own.classes.cpu()
    masks = torch.stack([~top, top])
    logits = masked_logits(own.target, own.x, layer, masks.flatten(0, 2)).view(*masks.shape[:4], -1)
    logit = logits.gather(4, c.expand(logits.shape[:4])[..., None])[..., 0]
    gap, same = logit - logit[:1, :1], (logits.argmax(4) == c).double()
    found = {"logit lost": -gap[0], "logit kept": gap[1]}
    found |= {"class lost": 1 - same[0], "class kept": same[1]}
    return {name: one[1:].permute(1, 2, 0) for name, one in found.items()}


def masked_logits(target: Target, x: Tensor, layer: str, masks: Tensor, fill: Fill = 0.0) -> Tensor:
    """Return the logits (S, B, C) of images without some neurons of a layer, in float64.

    Parameters
    ----------
    target : Target
    x : Tensor
        (B, 3, H, W) preprocessed images; all pass at once.
    layer : str
        A layer of N neurons.
    masks : Tensor
        (S, B, N), 0 where a neuron is set to `fill` at all its positions.
    fill : Tensor or float
        (N,) or one number.
    """
    value, found = masked_forward(target, x, layer, 0, fill), []
    for mask in masks:
        with capture(target, [LOGITS]) as seen:
            value(mask)
        found.append(seen[LOGITS].raw.double().cpu())
    return torch.stack(found)


def orders(
    own: Decisions, layer: str, class_w: Tensor, draws: int = 10, samples: int = 0, seed: int = 0
) -> Tensors:
    """Return the numbers by which neurons are ordered, see `without_neurons`.

    Parameters
    ----------
    own, layer
        As for `without_neurons`.
    class_w : Tensor
        (C, N) class contributions, from other images (`atlas.class_contributions`).
    draws : int
        D of the random order.
    samples : int
        Permutations for the Shapley values, a pass per image and neuron each; 0 leaves them out.
    seed : int
        Of random orders and permutations.

    Returns
    -------
    dict of str to Tensor
        (D, I, N). Signed contributions and Shapley values place neurons against the class last.
    """
    parts = own.target, own.x, layer, own.classes
    found = contribute(*parts, signed=True, linear=False)
    w, z = found.w, found.activations.z
    ways = {"class contribution": class_w[own.classes.cpu()].nan_to_num(0), "activation": z}
    ways |= {"sample contribution": w.abs(), "sample contribution, signed": w}
    if samples:
        how = {"signed": True, "samples": samples, "seed": seed, "batch_size": 8 * len(w)}
        ways["Shapley value"] = shapley.values(*parts, **how)
    noise = torch.rand(draws, *w.shape, generator=torch.Generator().manual_seed(seed))
    return {name: one.cpu()[None] for name, one in ways.items()} | {"random order": noise}


# Results ----------------------------------------------------------------------------------------


def scored(title: str, measured: Measured) -> Table:
    """Make a table of means over draws, on the images for which all methods have a value."""
    names = tuple(next(iter(measured.values())))
    found = {name: torch.stack([own[name].mean(0) for own in measured.values()]) for name in names}
    found = {name: v[:, v.isfinite().all(0)] for name, v in found.items()}
    scores = [{name: Score(name, v[i]) for name, v in found.items()} for i in range(len(measured))]
    rows = [Row(method, own, {}) for method, own in zip(measured, scores, strict=True)]
    return Table(title, names, tuple(rows))


def separation(measured: Measured, reference: str = RANDOM) -> dict[str, dict[str, float]]:
    """Area under the ROC curve of telling each method's maps from random ones, by measure.

    Returns
    -------
    dict of method to dict of measure to float
        Probability that an image's value exceeds that of a random map, of any image; 0.5 where
        the measure does not tell them apart.
    """

    def area(*pair: Tensor) -> float:
        a, b = (v[v.isfinite()] for v in pair)
        present = torch.arange(len(a) + len(b)) < len(a)
        return evaluation.auroc(torch.cat([a, b])[:, None], present[:, None]).item()

    noise, rest = measured[reference], {n: own for n, own in measured.items() if n != reference}
    return {n: {k: area(own[k], v) for k, v in noise.items()} for n, own in rest.items()}


def cells(tables: Mapping[str, Table]) -> DataFrame:
    """Return several tables as one of text, a row for each table and method."""
    found = {(n, how): row for n, own in tables.items() for how, row in own.cells(3).items()}
    return DataFrame(found).T.drop(columns=["set size", "abstaining"], errors="ignore")


def winners(tables: Mapping[str, Table]) -> list[str]:
    """Return a sentence for each table and measure: which row is best, and above which others."""
    names = [(name, own, metric) for name, own in tables.items() for metric in own.metrics]
    return [f"Best in {name}, {metric}: {winner(own, metric)}." for name, own, metric in names]
