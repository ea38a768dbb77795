"""One pass over a probe set keeps, for every neuron, the K images that excite it most.

The pass streams: a batch of activations updates the running top K and is forgotten, so memory
depends on neurons and K, never on the number of images. The order is by value and then by image
index, whatever the batch size, the worker count or the number of interruptions. `stream` is the
engine, `collect` the question that the rest of the house asks.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.activations import capture
from wwwlib.images import ImageSet, batches
from wwwlib.store import Store
from wwwlib.targets import Target

OK, CONSTANT, NOT_FINITE = 0, 1, 2
_KIND = "exemplars"


@dataclass(frozen=True)
class Exemplars:
    """The most exciting probe images of every neuron of a layer (D_rep in the paper).

    Attributes
    ----------
    index : Tensor of int64, shape (N, K)
        Image indices, best first; equal values stand in the order of their indices. -1 where a
        neuron had no finite activation left.
    value : Tensor of float32, shape (N, K)
        Their neuron activations z; -inf beside an index of -1.
    status : Tensor of int8, shape (N,)
        `OK`, `CONSTANT` (the same value on every image: nothing excites it) or `NOT_FINITE`
        (fewer than K finite values).
    class_sum, class_abs : Tensor of float64, shape (C, N)
        Sums of z and of |z| over the images of each class.
    class_count : Tensor of int64, shape (C,)
        Number of images of each class: by label where an image has one, else by prediction.
    images : int
        Number of images in the probe set.
    """

    index: Tensor
    value: Tensor
    status: Tensor
    class_sum: Tensor
    class_abs: Tensor
    class_count: Tensor
    images: int


@dataclass(frozen=True)
class _Running:
    """What the pass remembers about one layer; the fields are the checkpoint's tensors."""

    index: Tensor
    value: Tensor
    low: Tensor
    high: Tensor
    finite: Tensor
    class_sum: Tensor
    class_abs: Tensor
    class_count: Tensor

    @staticmethod
    def empty(neurons, k, classes, device):
        full = torch.full
        return _Running(
            index=full((neurons, k), -1, device=device),
            value=full((neurons, k), -torch.inf, device=device),
            low=full((neurons,), torch.inf, device=device),
            high=full((neurons,), -torch.inf, device=device),
            finite=full((neurons,), 0, device=device),
            class_sum=full((classes, neurons), 0.0, dtype=torch.float64, device=device),
            class_abs=full((classes, neurons), 0.0, dtype=torch.float64, device=device),
            class_count=full((classes,), 0, device=device),
        )

    def update(self, indices, z, members):
        """Take in a batch: `indices` (B,), `z` (B,N), `members` (B,) class of each image."""
        finite = z.isfinite()
        value = torch.where(finite, z, -torch.inf).T
        index = torch.where(finite, indices[:, None], -1).T
        # A stable sort keeps earlier images before later ones of the same value; topk does not.
        value, order = torch.cat([self.value, value], 1).sort(dim=1, descending=True, stable=True)
        k = self.index.shape[1]
        known = torch.where(finite, z, 0.0).double()
        return _Running(
            index=torch.cat([self.index, index], 1).gather(1, order[:, :k]),
            value=value[:, :k].contiguous(),
            low=torch.minimum(self.low, torch.where(finite, z, torch.inf).amin(0)),
            high=torch.maximum(self.high, torch.where(finite, z, -torch.inf).amax(0)),
            finite=self.finite + finite.sum(0),
            class_sum=self.class_sum.index_add(0, members, known),
            class_abs=self.class_abs.index_add(0, members, known.abs()),
            class_count=self.class_count + torch.bincount(members, minlength=len(self.class_count)),
        )

    def finish(self, images):
        """Return the finished record, on the CPU."""
        status = torch.full_like(self.finite, OK, dtype=torch.int8)
        status[self.low == self.high] = CONSTANT
        status[self.finite < self.index.shape[1]] = NOT_FINITE
        kept = (self.index, self.value, status, self.class_sum, self.class_abs, self.class_count)
        return Exemplars(*(tensor.cpu() for tensor in kept), images=images)


def stream(
    target: Target,
    images: ImageSet,
    step: Callable[[dict, Tensor, Tensor], dict],
    slot=None,
    identity: dict | None = None,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    checkpoint_seconds: float = 20.0,
    label: str = "images",
) -> dict[str, Tensor]:
    """Fold a step over a probe set, in image order, surviving interruptions.

    Parameters
    ----------
    target : Target
        The images arrive on its device, preprocessed for it.
    images : ImageSet
    step : callable
        `step(state, indices, x) -> state`, with `state` a flat dict of tensors (empty at first),
        `indices` (B,) and `x` (B,3,H,W).
    slot : checkpoint, optional
        Where the state is kept from time to time, as `Store.fetch` hands it out. An interrupt
        from the keyboard saves the state before it goes on its way.
    identity : dict, optional
        A checkpoint of another identity is not continued.
    batch_size, workers : int
        Do not change the result beyond the network's own rounding.
    progress : bool
        Show a bar with the time left.
    checkpoint_seconds : float
        Least time between two checkpoints; 0 saves after every batch.
    label : str
        What the bar says.

    Returns
    -------
    dict of Tensor
        The state after the last image.
    """
    identity = identity or {}
    state, done = _resume(slot, identity, target.device)
    saved = time.monotonic()

    def save():
        if slot is not None and state:
            slot.save(state, {**identity, "done": done})

    bar = tqdm(total=len(images), initial=done, desc=label, unit="image", disable=not progress)
    try:
        for indices, x in batches(images, target.preprocess, batch_size, workers, start=done):
            indices, x = indices.to(target.device), x.to(target.device, non_blocking=True)
            state, done = step(state, indices, x), done + len(indices)
            bar.update(len(indices))
            if done < len(images) and time.monotonic() - saved >= checkpoint_seconds:
                save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        save()
        raise
    finally:
        bar.close()
    return state


def _resume(slot, identity, device):
    kept = slot.load() if slot is not None else None
    if kept is None or {k: v for k, v in kept.record.items() if k != "done"} != identity:
        return {}, 0
    return {name: tensor.to(device) for name, tensor in kept.tensors.items()}, kept.record["done"]


def collect(
    target: Target,
    images: ImageSet,
    layers,
    k: int = 40,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
    checkpoint_seconds: float = 20.0,
) -> dict[str, Exemplars]:
    """Find the exemplars of every neuron of the given layers (WWW, section 3.2).

    All layers are read in one pass; with a store, layers that it holds are not read at all, and a
    pass that was killed goes on where it was.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set, D_probe.
    layers : sequence of str
        Layer names; the final layer is "logits".
    k : int
        Exemplars per neuron, at most the number of probe images; the paper's code uses 40.
    batch_size, workers, progress, checkpoint_seconds
        See `stream`.
    store : Store, optional
        Keeps the results.

    Returns
    -------
    dict of str to Exemplars

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are images, or a layer does not exist.
    """
    layers = _checked(target, images, layers, k)
    options = (batch_size, workers, progress, checkpoint_seconds)
    if store is None:
        return _pass(target, images, layers, k, None, options)
    found = {layer: store.load(_KIND, _key(target, images, layer, k)) for layer in layers}
    missing = [layer for layer in layers if found[layer] is None]

    def make(slot):
        made = _pass(target, images, missing, k, slot, options)
        for layer in missing[1:]:
            store.save(_KIND, _key(target, images, layer, k), *_pack(made[layer]))
        return _pack(made[missing[0]])

    for layer in missing:
        found[layer] = store.fetch(_KIND, _key(target, images, layer, k), make)
    return {
        layer: Exemplars(**found[layer].tensors, images=found[layer].record["images"])
        for layer in layers
    }


def _key(target, images, layer, k):
    return {"target": target.key(), "images": images.fingerprint, "layer": layer, "k": k}


def _pack(made):
    tensors = {f.name: getattr(made, f.name) for f in fields(made) if f.name != "images"}
    return tensors, {"images": made.images}


def _checked(target, images, layers, k):
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}: give a list of names, [{layers!r}].")
    if k < 1:
        raise ValueError(f"k is {k}, but every neuron needs at least one exemplar: give k >= 1.")
    if len(images) < k:
        raise ValueError(
            f"k = {k} exemplars were asked for, but the probe set {images.name!r} has "
            f"{len(images)} images: give a smaller k or more images."
        )
    return tuple(dict.fromkeys(layers))


@torch.inference_mode()
def _pass(target, images, layers, k, slot, options):
    batch_size, workers, progress, checkpoint_seconds = options
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    labels = labels.to(target.device)

    def step(state, indices, x):
        with capture(target, (*layers, "logits")) as taken:
            target.model(x)
        logits = taken["logits"].z
        given = labels[indices]
        members = torch.where(given >= 0, given, logits.argmax(1))
        for layer in layers:
            z = taken[layer].z.float()
            if f"{layer}/index" in state:
                running = _Running(**{f.name: state[f"{layer}/{f.name}"] for f in fields(_Running)})
            else:
                running = _Running.empty(z.shape[1], k, logits.shape[1], z.device)
            running = running.update(indices, z, members)
            state |= {f"{layer}/{f.name}": getattr(running, f.name) for f in fields(running)}
        return state

    identity = {"layers": list(layers)}
    state = stream(
        target, images, step, slot, identity, batch_size, workers, progress, checkpoint_seconds
    )
    return {
        layer: _Running(**{f.name: state[f"{layer}/{f.name}"] for f in fields(_Running)}).finish(
            len(images)
        )
        for layer in layers
    }
