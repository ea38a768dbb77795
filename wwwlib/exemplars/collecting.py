"""Collect exemplars: all layers in one pass, and none that the store already holds."""

from dataclasses import dataclass, fields
from functools import partial

import torch

from wwwlib.activations import capture
from wwwlib.exemplars.record import Exemplars
from wwwlib.exemplars.running import Running
from wwwlib.exemplars.shards import Pass, Shard, answer, discard, shard_size, together
from wwwlib.images import ImageSet, check_decoder
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
    shard: int | None = None,
    decoder: str = "pillow",
) -> dict[str, Exemplars]:
    """Find the exemplars of every neuron of the given layers (WWW, section 3.2).

    All layers are read in one pass; with a store, layers that it holds are not read at all, and a
    pass that was killed goes on where it was. Processes that ask the same question of one store at
    once share the pass by shards, if `shard_size` says how; the result is the same to the last bit.

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
    shard : int, optional
        Images per shard; by default what `shards.shard_size` says: one shard, unless ``torchrun``
        started this process or ``WWW_SHARD`` is set.
    decoder : {"pillow", "torchvision"}
        Who decodes JPEG files and where; see `images.batches`. Keys name the decoder, not the
        device: processes that share a pass with "torchvision" should all use one kind.

    Returns
    -------
    dict of str to Exemplars

    Raises
    ------
    ValueError
        If k is less than 1 or more than there are images, or a layer, precision or decoder does not
        exist.
    """
    layers = _checked(target, images, layers, k, precision, decoder)
    how = (k, precision, decoder)
    options = {"batch_size": batch_size, "workers": workers, "progress": progress}
    options |= {"checkpoint_seconds": checkpoint_seconds}
    if store is None:
        return _finish(_whole(asking(target, images, layers, *how), None, options), images)
    keys = {layer: _key(target, images, layer, *how) for layer in layers}
    found = {layer: store.load(_KIND, keys[layer]) for layer in layers}
    # In one order, whoever asks: a pass holds the lock of its first layer while it takes the rest.
    missing = sorted(layer for layer in layers if found[layer] is None)
    size = shard_size() if shard is None else shard
    asked = asking(target, images, layers if size else missing, *how)
    state = None
    if missing and size:
        finished = partial(kept, store, target, images, layers, *how)
        state = together(asked, store, size, finished, **options)

    def make(slot):
        made = _finish(state or _whole(asked, slot, options), images)
        for layer in missing[1:]:
            store.save(_KIND, keys[layer], *_pack(made[layer]))
        return _pack(made[missing[0]])

    for layer in missing:
        found[layer] = store.fetch(_KIND, keys[layer], make)
    if size:  # a kill after the last save may have left some behind
        discard(asked, store, size, batch_size)
    return {
        layer: Exemplars(**found[layer].tensors, images=found[layer].record["images"])
        for layer in layers
    }


def asking(
    target: Target,
    images: ImageSet,
    layers,
    k: int = 40,
    precision: str = "float32",
    decoder: str = "pillow",
) -> Pass:
    """Return the question that `collect` asks, for whoever wants to answer its shards elsewhere."""
    layers = _checked(target, images, layers, k, precision, decoder)
    identity = {"layers": list(layers), "k": k, "precision": precision, "sums": "exact"}
    identity |= {} if decoder == "pillow" else {"decoder": decoder}
    step = _Step(target, _labels(target, images), layers, k, PRECISIONS[precision])
    return Pass(target, images, step, _merge, identity, "exemplars")


def kept(
    store: Store,
    target: Target,
    images: ImageSet,
    layers,
    k: int,
    precision: str = "float32",
    decoder: str = "pillow",
) -> bool:
    """Whether the store holds the answer for every layer, so that `collect` need not look."""
    how = (k, precision, decoder)
    return all(store.load(_KIND, _key(target, images, layer, *how)) for layer in layers)


def _whole(asked, slot, options):
    return answer(asked, Shard(0, len(asked.images)), slot, **options)


def _finish(state, images):
    layers = dict.fromkeys(name.rpartition("/")[0] for name in state)
    return {layer: Running.of(state, layer).finish(len(images)) for layer in layers}


def _merge(one, other):
    merged = {}
    for layer in dict.fromkeys(name.rpartition("/")[0] for name in one):
        merged |= Running.of(one, layer).merge(Running.of(other, layer)).as_state(layer)
    return merged


def _key(target, images, layer, k, precision, decoder):
    key = {"target": target.key(), "images": images.fingerprint, "layer": layer, "k": k}
    usual = {"precision": "float32", "decoder": "pillow"}
    given = {"precision": precision, "decoder": decoder}
    return key | {name: value for name, value in given.items() if value != usual[name]}


def _pack(made):
    tensors = {f.name: getattr(made, f.name) for f in fields(made) if f.name != "images"}
    return tensors, {"images": made.images}


def _checked(target, images, layers, k, precision, decoder):
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
    check_decoder(decoder)
    return tuple(dict.fromkeys(layers))


def _labels(target, images):
    """Return labels (I,), -1 where an image has none in the network's own numbering."""
    ours = len(images.classes) == len(target.classes)
    labels = [label if ours and label is not None else -1 for label in images.labels]
    return torch.tensor(labels, device=target.device)


@dataclass(frozen=True, eq=False)
class _Step:
    """Take in a batch; it leaves the state that it was given as it is."""

    target: Target
    labels: torch.Tensor
    layers: tuple[str, ...]
    k: int
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, state, indices, x):
        lower = self.dtype is not torch.float32
        with (
            torch.autocast(self.target.device.type, self.dtype, lower),
            capture(self.target, (*self.layers, "logits")) as taken,
        ):
            self.target.model(x)
        logits = taken["logits"].z
        given, state = self.labels[indices], dict(state)
        members = torch.where(given >= 0, given, logits.argmax(1))
        for layer in self.layers:
            z = taken[layer].z.float()
            running = Running.of(state, layer)
            if running is None:
                running = Running.empty(z.shape[1], self.k, logits.shape[1], z.device)
            state |= running.update(indices, z, members).as_state(layer)
        return state
