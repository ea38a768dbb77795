"""Collect exemplars: all layers in one pass, and none that the store already holds."""

from dataclasses import fields
from functools import partial

import torch

from wwwlib.activations import capture
from wwwlib.exemplars.record import Exemplars
from wwwlib.exemplars.running import Running
from wwwlib.exemplars.streaming import stream
from wwwlib.images import ImageSet
from wwwlib.store import Store
from wwwlib.targets import Target

_KIND = "exemplars"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    precision: str = "float32",
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
    precision : {"float32", "bfloat16", "float16"}
        What the network computes in (PyTorch's autocast); sums are taken in float64 all the same.
        Less than float32 is faster on most accelerators, and moves a few exemplars.
    store : Store, optional
        Keeps the results.

    Returns
    -------
    dict of str to Exemplars

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are images, or a layer or precision does not exist.
    """
    layers = _checked(target, images, layers, k, precision)
    options = (batch_size, workers, progress, checkpoint_seconds)
    if store is None:
        return _pass(target, images, layers, k, precision, None, options)
    keys = {layer: _key(target, images, layer, k, precision) for layer in layers}
    found = {layer: store.load(_KIND, keys[layer]) for layer in layers}
    missing = [layer for layer in layers if found[layer] is None]

    def make(slot):
        made = _pass(target, images, missing, k, precision, slot, options)
        for layer in missing[1:]:
            store.save(_KIND, keys[layer], *_pack(made[layer]))
        return _pack(made[missing[0]])

    for layer in missing:
        found[layer] = store.fetch(_KIND, keys[layer], make)
    return {
        layer: Exemplars(**found[layer].tensors, images=found[layer].record["images"])
        for layer in layers
    }


def _key(target, images, layer, k, precision):
    key = {"target": target.key(), "images": images.fingerprint, "layer": layer, "k": k}
    return key if precision == "float32" else key | {"precision": precision}


def _pack(made):
    tensors = {f.name: getattr(made, f.name) for f in fields(made) if f.name != "images"}
    return tensors, {"images": made.images}


def _checked(target, images, layers, k, precision):
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}: give a list of names, [{layers!r}].")
    if k < 1:
        raise ValueError(f"k is {k}, but every neuron needs at least one exemplar: give k >= 1.")
    if len(images) < k:
        raise ValueError(
            f"k = {k} exemplars were asked for, but the probe set {images.name!r} has "
            f"{len(images)} images: give a smaller k or more images."
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; use one of {', '.join(PRECISIONS)}.")
    return tuple(dict.fromkeys(layers))


@torch.inference_mode()
def _pass(target, images, layers, k, precision, slot, options):
    batch_size, workers, progress, checkpoint_seconds = options
    # Labels that number other classes than the network's say nothing about its logits.
    ours = len(images.classes) == len(target.classes)
    labels = [label if ours and label is not None else -1 for label in images.labels]
    labels = torch.tensor(labels, device=target.device)
    dtype = PRECISIONS[precision]
    autocast = partial(torch.autocast, target.device.type, dtype, dtype is not torch.float32)

    def step(state, indices, x):
        with autocast(), capture(target, (*layers, "logits")) as taken:
            target.model(x)
        logits = taken["logits"].z
        given, state = labels[indices], dict(state)  # an interrupt here must not leave half a step
        members = torch.where(given >= 0, given, logits.argmax(1))
        for layer in layers:
            z = taken[layer].z.float()
            running = Running.of(state, layer)
            if running is None:
                running = Running.empty(z.shape[1], k, logits.shape[1], z.device)
            state |= running.update(indices, z, members).as_state(layer)
        return state

    identity = {"layers": list(layers)}
    state = stream(
        target, images, step, slot, identity, batch_size, workers, progress, checkpoint_seconds
    )
    return {layer: Running.of(state, layer).finish(len(images)) for layer in layers}
