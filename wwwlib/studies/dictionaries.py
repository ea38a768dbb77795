"""Dictionaries of activation directions: TopK sparse autoencoders, and simpler ones beside them.

A TopK autoencoder keeps the k largest of its M codes at each position and reconstructs the
activation from them (Gao et al., "Scaling and evaluating sparse autoencoders", 2024). It is trained
on positions from shards, which a store keeps on disk, so that a set of any size fits;
`targets.with_directions` makes a layer of the codes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.activations import capture
from wwwlib.images import ImageSet, batches, subset
from wwwlib.registry import existing_file, require, whole_number
from wwwlib.store import Slot, Store
from wwwlib.targets import Dictionary, Target
from wwwlib.targets.library import read_weights

_SHARD = 1_024  # images whose positions are one artifact
_PARTS = ("weight", "offset", "directions", "bias")
_PRISMA = ("W_enc", "b_enc", "W_dec", "b_dec")
_OVERCOMPLETE = (
    "encoder.final_block.0.weight", "encoder.final_block.0.bias",
    "dictionary._weights", "dictionary.multiplier",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Linear:
    """A dictionary with a linear encoder, of whose codes the k largest may be kept.

    Attributes
    ----------
    weight : Tensor, shape (M, D)
        Of the encoder, which subtracts `bias` first.
    offset : Tensor, shape (M,)
        Added by the encoder.
    directions, bias : Tensor, shapes (M, D) and (D,)
    k : int or None
        Number of codes that are kept at a position, if positive; None keeps all, with their signs.
    standardised : bool
        Whether the encoder is for activations of mean 0 and deviation 1 over neurons; codes are
        then multiplied by the deviation of the activation, so that directions, the bias times the
        deviation, and the mean (`constant`) add up to it.
    names : tuple of str
        Of the M directions; empty without names.
    """

    weight: Tensor
    offset: Tensor
    directions: Tensor
    bias: Tensor
    k: int | None = None
    standardised: bool = False
    names: tuple[str, ...] = ()

    def constant(self, a: Tensor) -> Tensor:
        """Return the part of activations (P, D) that codes of zero reconstruct: (P, D) or (D,)."""
        deviation, mean = self._scale(a)
        return self.bias.to(a) * deviation + mean

    def _scale(self, a: Tensor) -> tuple:
        return torch.std_mean(a, 1, keepdim=True) if self.standardised else (1.0, 0.0)

    def encode(self, a: Tensor) -> Tensor:
        """Return the codes (P, M) of activations (P, D)."""
        weight, offset, bias = (one.to(a) for one in (self.weight, self.offset, self.bias))
        deviation, mean = self._scale(a)
        a = (a - mean) / (deviation + 1e-5) if self.standardised else a
        codes = F.linear(a - bias, weight, offset) * deviation
        if self.k is None:
            return codes
        value, index = codes.topk(min(self.k, codes.shape[1]), dim=1)
        return torch.zeros_like(codes).scatter_(1, index, value.clamp(min=0))


@dataclass(frozen=True, eq=False)
class Factors:
    """A decomposition of scikit-learn, such as `MiniBatchNMF`, as a dictionary.

    Attributes
    ----------
    model : object
        A fitted one with `transform`.
    directions, bias : Tensor, shapes (M, D) and (D,)
    lowest : float
        Activations less the bias count from here: 0 where the model takes nothing negative.
    """

    model: object
    directions: Tensor
    bias: Tensor
    lowest: float = 0.0

    def encode(self, a: Tensor) -> Tensor:
        """Return the codes (P, M) of activations (P, D)."""
        x = (a - self.bias.to(a)).clamp(min=self.lowest).double().cpu().numpy()
        codes = self.model.transform(x) if len(x) else np.zeros((0, len(self.directions)))
        return torch.from_numpy(codes).to(a)


# Positions ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Positions:
    """Activations of the positions of a layer, in shards of images; item i is a shard (P, D).

    Attributes
    ----------
    target, images, layer
        The layer's pixels or patches are the positions.
    per_image : int or None
        So many positions of each image, at least 1, drawn at random; None takes all.
    seed : int
    store : Store or None
        Keeps the shards, so that each is computed once.
    batch_size, workers : int
        As in `images.batches`.
    """

    target: Target
    images: ImageSet
    layer: str
    per_image: int | None = None
    seed: int = 0
    store: Store | None = None
    batch_size: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if self.per_image is not None:
            whole_number("per_image", self.per_image)

    def __len__(self) -> int:
        return -(-len(self.images) // _SHARD)

    @property
    def key(self) -> dict:
        """What the positions depend on, as JSON values."""
        key = {"target": self.target.key(), "images": self.images.fingerprint}
        return key | {"layer": self.layer, "per_image": self.per_image, "seed": self.seed}

    def __getitem__(self, i: int) -> Tensor:
        """Return the positions of shard i in random order, float32 on the CPU."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.fetch("positions", self.key | {"shard": i}, partial(self._make, i))["a"]

    def fetch(self, kind: str, key: dict, make: Callable) -> dict[str, Tensor]:
        """Return the tensors of an artifact, kept in the store if there is one."""
        return (self.store or Store(None)).fetch(kind, key, make).tensors

    def _make(self, i: int, _: Slot) -> tuple[dict[str, Tensor], dict]:
        some = subset(self.images, range(i * _SHARD, min((i + 1) * _SHARD, len(self.images))))
        generator, found = torch.Generator().manual_seed(self.seed + i), []
        for _, x in batches(some, self.target.preprocess, self.batch_size, self.workers):
            with torch.no_grad(), capture(self.target, [self.layer]) as captured:
                self.target.model(x.to(self.target.device))
            a = captured[self.layer].maps.float().cpu().flatten(2).transpose(1, 2)
            order = torch.rand(a.shape[:2], generator=generator).argsort(1)[:, : self.per_image]
            found.append(a.gather(1, order[..., None].expand(-1, -1, a.shape[2])).flatten(0, 1))
        a = torch.cat(found)
        return {"a": a[torch.randperm(len(a), generator=generator)].contiguous()}, {}


# Training -------------------------------------------------------------------------------------


def train_topk(
    shards: Positions, latents: int = 512, k: int = 8,
    epochs: int = 4, rate: float = 3e-3, batch: int = 1_024, nested: Sequence[int] = (),
    seed: int = 0, device: str = "cpu", progress: bool = True,
) -> Linear:  # fmt: skip
    """Train a TopK sparse autoencoder; a checkpoint after each shard outlives an interruption.

    Latents that were never among the top k in an epoch start again, as the directions of the
    largest errors.

    Parameters
    ----------
    shards : Positions
    latents, k : int
        M, and the number of codes that are kept at a position.
    epochs, rate, batch : int, float, int
        Passes over all shards, Adam's learning rate, and positions per step.
    nested : sequence of int
        So many first latents shall reconstruct alone, too: the errors of all these parts and of the
        whole are added up (a Matryoshka autoencoder). First latents become general ones.
    seed, device, progress

    Returns
    -------
    Linear

    Raises
    ------
    ValueError
        If a number is less than 1, or a nested part does not have between 1 and M - 1 latents.

    References
    ----------
    Bussmann et al., "Learning multi-level features with Matryoshka sparse autoencoders", ICML 2025.
    """
    nested = [whole_number("a part of nested", m) for m in nested]
    if not all(m < latents for m in nested):
        raise ValueError(f"nested is {nested}; give numbers of latents from 1 to {latents - 1}.")
    how = {"latents": latents, "k": k, "epochs": epochs, "batch": batch}
    how = {name: whole_number(name, one) for name, one in how.items()}
    key = {"positions": shards.key, "seed": seed, "rate": rate, "nested": nested, **how}

    def make(checkpoint: Slot) -> tuple[dict[str, Tensor], dict]:
        parts, sides, done = _start(checkpoint, shards, latents, seed, device)
        total = epochs * len(shards)
        for step in tqdm(range(done, total), "training", total, initial=done, disable=not progress):
            a = shards[step % len(shards)].to(device)
            order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed + step))
            for some in order.split(batch):
                _descend(parts, sides, a[some.to(device)], k, rate, (*nested, latents))
            if (step + 1) % len(shards) == 0 and step + 1 < total:
                _revive(parts, sides, a, k)
            checkpoint.save({n: t.cpu() for n, t in (parts | sides).items()}, {"step": step + 1})
        return {name: parts[name].cpu() for name in _PARTS}, {}

    return Linear(**shards.fetch("dictionary", key, make), k=k)


def _start(checkpoint: Slot, shards: Positions, latents: int, seed: int, device: str):
    """Return the parameters, Adam's moments and counts of use, and the number of shards done."""
    found = checkpoint.load()
    if found is not None:
        tensors = {name: one.to(device) for name, one in found.tensors.items()}
        parts = {name: tensors.pop(name) for name in _PARTS}
        return parts, tensors, found.record["step"]
    a, generator = shards[0], torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(latents, a.shape[1], generator=generator), dim=1)
    made = (directions.clone(), torch.zeros(latents), directions, a.mean(0))
    parts = {name: one.to(device) for name, one in zip(_PARTS, made, strict=True)}
    sides = {f"{m} {n}": torch.zeros_like(one) for n, one in parts.items() for m in ("m", "v")}
    sides |= {"uses": torch.zeros(latents, device=device), "t": torch.zeros((), device=device)}
    return parts, sides, 0


def _descend(parts: dict, sides: dict, a: Tensor, k: int, rate: float, sizes: Sequence) -> None:
    """Take one step of Adam on the shares of the variance that first latents do not reconstruct."""
    leaves = {name: one.detach().requires_grad_() for name, one in parts.items()}
    codes = Linear(**leaves, k=k).encode(a)
    found = [codes[:, :m] @ leaves["directions"][:m] + leaves["bias"] for m in sizes]
    variance = (a - a.mean(0)).square().sum().clamp(min=1e-12)
    loss = torch.stack([(a - one).square().sum() / variance for one in found]).sum()
    gradients = torch.autograd.grad(loss, [*leaves.values()])
    sides["t"] += 1
    sides["uses"] += (codes > 0).sum(0)
    for (name, one), g in zip(parts.items(), gradients, strict=True):
        m, v = sides[f"m {name}"].lerp_(g, 0.1), sides[f"v {name}"].lerp_(g.square(), 0.001)
        m, v = m / (1 - 0.9 ** sides["t"]), v / (1 - 0.999 ** sides["t"])
        parts[name] = one - rate * m / (v.sqrt() + 1e-8)
    parts["directions"] = F.normalize(parts["directions"], dim=1)


def _revive(parts: dict, sides: dict, a: Tensor, k: int) -> None:
    """Let latents without use start again as the directions of the largest errors."""
    dead = (sides["uses"] == 0).nonzero()[:, 0]
    own, some = Linear(**parts, k=k), a.split(16_384)  # positions that are encoded at once
    rest = torch.cat([x - own.encode(x) @ own.directions - own.bias for x in some])
    worst = F.normalize(rest[rest.norm(dim=1).argsort(descending=True)[: len(dead)]], dim=1)
    dead = dead[: len(worst)]
    parts["weight"][dead] = parts["directions"][dead] = worst
    parts["offset"][dead] = 0
    for name in ("weight", "directions", "offset"):
        sides[f"m {name}"][dead] = sides[f"v {name}"][dead] = 0
    sides["uses"].zero_()


# Others ---------------------------------------------------------------------------------------


def load(path: str | Path, k: int | None = None, standardised: bool | None = None) -> Linear:
    """Load a published sparse autoencoder with a linear encoder from its state dict.

    Parameters
    ----------
    path : path
        A file that `targets.read_weights` reads, in the layout of ViT-Prisma's standard
        architecture (``W_enc``, ``b_enc``, ``W_dec``, ``b_dec``) or of overcomplete's linear
        encoder (``encoder.final_block.0`` and ``dictionary``).
    k : int, optional
        Number of codes that are kept at a position; by default all that are positive.
    standardised : bool, optional
        Whether activations are standardised before they are encoded. ViT-Prisma's files state
        this and `k` in a ``config.json`` beside them, which is read where it is not given.

    Raises
    ------
    ValueError
        If the file has another layout, or the settings beside it are others than these.
    FileNotFoundError
        If there is no such file, or no ``config.json`` where one is needed.
    """
    path, state = Path(path), {n: own.float() for n, own in read_weights(path).items()}
    if set(state) == {*_PRISMA}:
        parts = [state["W_enc"].T, *(state[n] for n in ("b_enc", "W_dec", "b_dec"))]
        if standardised is None:
            where = existing_file(path.with_name("config.json"), "settings; or give standardised=")
            found = json.loads(where.read_text())
            kind, activation = map(found.get, ("normalize_activations", "activation_fn_str"))
            k = k or (found.get("activation_fn_kwargs") or {}).get("k")
            if kind not in ("none", "layer_norm") or activation not in ("relu", "topk" * bool(k)):
                raise ValueError(f"{where} has {kind!r}, {activation!r}, k {k}; they are not read.")
            standardised = kind == "layer_norm"
    elif set(state) == {*_OVERCOMPLETE}:
        weight, offset, directions, multiplier = (state[name] for name in _OVERCOMPLETE)
        parts = [weight, offset, directions * multiplier.exp(), torch.zeros(weight.shape[1])]
    else:
        raise ValueError(
            f"{path} holds {', '.join(state)[:200]}; the layouts that are read have "
            f"{', '.join(_PRISMA)} or {', '.join(_OVERCOMPLETE)}."
        )
    return Linear(*parts, k=k or len(parts[1]), standardised=bool(standardised))


def probes(a: Tensor, present: Tensor, names: Sequence[str] = ()) -> Linear:
    """Return the normals of linear classifiers of concepts, also called concept activation vectors.

    Parameters
    ----------
    a : Tensor
        (I, D) activations of images.
    present : Tensor
        (I, M) bool, the concepts of each image; each has images with and without it.
    names : sequence of str
        The M concepts, so that an atlas takes these names over.

    Returns
    -------
    Linear
        Unit directions (M, D), in the order of the concepts; a code is the signed distance from the
        mean activation along its direction.

    References
    ----------
    Kim et al., "Interpretability beyond feature attribution: quantitative testing with concept
    activation vectors (TCAV)", ICML 2018.
    """
    model = require("sklearn.linear_model", "baselines").LogisticRegression
    bias, scale = a.mean(0), a.std(0).clamp(min=1e-6)
    z = ((a - bias) / scale).double().cpu().numpy()
    fits = (model(class_weight="balanced", max_iter=1_000).fit(z, own) for own in present.T.cpu())
    normals = torch.from_numpy(np.concatenate([fit.coef_ for fit in fits])).to(a) / scale
    return _along(F.normalize(normals, dim=1), bias, names=tuple(names))


def principal(a: Tensor, count: int) -> Linear:
    """Return the first principal components of activations (P, D), the signed codes along them."""
    centred = (a - a.mean(0)).double()
    return _along(torch.linalg.svd(centred, full_matrices=False).Vh[:count].to(a), a.mean(0))


def random_directions(a: Tensor, count: int, k: int | None = None, seed: int = 0) -> Linear:
    """Return random unit directions around the mean of activations (P, D)."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(count, a.shape[1], generator=generator), dim=1).to(a)
    return _along(directions, a.mean(0), k=k)


def _along(directions: Tensor, bias: Tensor, **more: Any) -> Linear:
    """Return the dictionary whose codes are the products of activations and its directions."""
    return Linear(directions, torch.zeros(len(directions)).to(bias), directions, bias, **more)


def factorise(a: Tensor, count: int, seed: int = 0, k: int | None = None) -> Factors:
    """Decompose activations by scikit-learn: non-negative factors, or atoms of a sparse dictionary.

    Parameters
    ----------
    a : Tensor
        (P, D) activations.
    count : int
        M.
    seed : int
    k : int, optional
        Number of codes at a position, found by orthogonal matching pursuit, that have a sign, of
        atoms around the mean activation (`MiniBatchDictionaryLearning`, ten epochs); more than M
        are M. By default factors and codes are not negative (`MiniBatchNMF`); what is negative in
        `a` is left out.

    Returns
    -------
    Factors

    References
    ----------
    Mairal, Bach, Ponce and Sapiro, "Online dictionary learning for sparse coding", ICML 2009.
    """
    decomposition = require("sklearn.decomposition", "baselines")
    if k is None:
        init = "nndsvda" if count <= min(a.shape) else "random"  # more factors than neurons
        how = {"init": init, "batch_size": 4_096, "transform_max_iter": 30}
        kind, bias, lowest = decomposition.MiniBatchNMF, torch.zeros_like(a[0]), 0.0
    else:
        k = min(whole_number("k", k), count)
        how = {"fit_algorithm": "cd", "max_iter": 10, "transform_n_nonzero_coefs": k}
        kind, bias, lowest = decomposition.MiniBatchDictionaryLearning, a.mean(0), -torch.inf
    model = kind(count, random_state=seed, **how)
    model.fit((a - bias).clamp(min=lowest).double().cpu().numpy())
    return Factors(model, torch.from_numpy(model.components_).to(a), bias, lowest)


def quality(dictionary: Dictionary, a: Tensor) -> dict[str, float]:
    """Measure a dictionary on activations (P, D).

    Parameters
    ----------
    dictionary : Dictionary
        To codes times directions `Linear.constant` is added, or else the bias.
    a : Tensor

    Returns
    -------
    dict of str to float
        "R2", the share of the variance that is reconstructed; without variance 1 if activations
        are reconstructed exactly, otherwise 0. "L0", the mean number of codes that are not zero at
        a position; "dead", the share of directions without use, 0 without directions.
    """
    codes, constant = dictionary.encode(a), getattr(dictionary, "constant", dictionary.bias.to)
    rest = (a - codes @ dictionary.directions.to(a) - constant(a)).square().sum()
    variance = (a - a.double().mean(0)).square().sum()
    r2 = 1 - rest / variance if variance else (rest == 0).double()
    l0, dead = (codes != 0).double().sum(1).mean(), (codes == 0).all(0).double().mean().nan_to_num()
    return {"R2": r2.item(), "L0": l0.item(), "dead": dead.item()}


def stability(one: Dictionary, other: Dictionary) -> float:
    """Return the mean cosine of each direction of a dictionary and its nearest in another one."""
    first, second = (F.normalize(d.directions.double(), dim=1) for d in (one, other))
    return (first @ second.T).max(1).values.mean().item()
