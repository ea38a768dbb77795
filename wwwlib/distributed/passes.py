"""One computation over all images of a set, in any number of processes."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial, reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.distributed.states import State
from wwwlib.distributed.workers import Ranks, map_on_actors, ranks
from wwwlib.images import Fitting, ImageSet, batches, subset
from wwwlib.registry import whole_number
from wwwlib.store import Slot, Store, digest, from_bytes, to_bytes

_STRETCHES = "stretches"  # the kind of artifacts of a pass on Ray that is not finished
_RAY_IMAGES = 256  # in a stretch, which travels decoded: 150 MB at 224 x 224 pixels


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a pass over images runs; none of these changes its result beyond rounding.

    Functions that make passes take these fields as ``**options``.

    Attributes
    ----------
    batch_size : int
        Images per forward pass; halved where memory runs out.
    workers : int
        Processes that decode images; 0 decodes in this one.
    progress : bool
        Whether to show a progress bar.
    store : Store, optional
        Keeps results and checkpoints; None, the default, keeps nothing.
    decoder : {"pillow", "torchvision"}
        What decodes JPEG files; see `images.batches`. Pixels differ a little, so results of both
        are stored under different keys.
    checkpoint_seconds : float
        Least time between two checkpoints; 0 saves after every batch.
    actors : int
        Copies of the network on a Ray cluster, each on its own GPU if the cluster has any; 0, the
        default, does not use Ray.

    Raises
    ------
    TypeError
        If there is no such option.
    ValueError
        If a value is out of range.
    """

    batch_size: int = 64
    workers: int = 0
    progress: bool = True
    store: Store = field(default=Store(None))
    decoder: str = "pillow"
    checkpoint_seconds: float = 20.0
    actors: int = 0

    def __new__(cls, **given: object) -> "Options":
        """Refuse unknown names before the generated `__init__` does so less readably."""
        known = [each.name for each in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise TypeError(f"There is no option {unknown[0]!r}; use one of {', '.join(known)}.")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("workers", 0), ("actors", 0)):
            whole_number(name, getattr(self, name), least)
        if self.store is None:
            object.__setattr__(self, "store", Store(None))
        if self.actors and (self.store.root is None or self.decoder != "pillow"):
            raise ValueError(f"actors is {self.actors}, which needs a store and decoder='pillow'.")


@dataclass(frozen=True, eq=False)
class Pass:
    """A computation over all images of a set.

    Attributes
    ----------
    target : Target
        Images are preprocessed for it and moved to its device. Anything with `preprocess`,
        `device`, `key()` and `to(device)` will do.
    images : ImageSet
    layers : sequence of str
        Names of the results, each an artifact of its own. A pass that reads no layers has one
        result with a name of its choice.
    step : callable
        ``step(layers, indices, x) -> {layer: state}``, the state of one batch, for the layers that
        the store does not hold. `indices` (B,) are on the CPU, `x` (B, 3, H, W) on the target's
        device, and a state is a dict of tensors. It must not change anything else: a batch for
        which memory runs out is repeated in halves.
    merge : callable
        ``merge(state, state) -> state`` of one layer, for two adjacent stretches of images in their
        order; associative to the last bit, and leaving its arguments unchanged.
    kind : str
        Of the artifacts in the store.
    key : dict
        JSON values: all that decides the result beside target, images, layer and decoder.
    finish : callable
        ``finish(state) -> dict of tensors``, what is kept of a layer's state after the last image;
        the state itself by default.
    label : str
        Beside the progress bar.

    Examples
    --------
    The mean activation of all images, (I, N), for two layers in one forward pass:

    >>> from wwwlib.activations import capture
    >>> from wwwlib.distributed import concatenate
    >>> from wwwlib.images import load
    >>> from wwwlib.targets import load as network
    >>> target, images = network("world/conv"), load("world", count=6)
    >>> def step(layers, indices, x):
    ...     with torch.inference_mode(), capture(target, layers) as captured:
    ...         target.model(x)
    ...     return {layer: {"z": captured[layer].z.cpu()} for layer in layers}
    >>> activations = Pass(target, images, ["layer3", "layer4"], step, concatenate, "activations")
    >>> run(activations, batch_size=4, progress=False)["layer4"]["z"].shape
    torch.Size([6, 128])
    """

    target: Any  # a `Target`, or what has the members above
    images: ImageSet
    layers: Sequence[str]
    step: Callable[[list[str], Tensor, Tensor], dict[str, State]]
    merge: Callable[[State, State], State]
    kind: str
    key: Mapping[str, Any] = field(default_factory=dict)
    finish: Callable[[State], State] = dict
    label: str = "images"

    def __post_init__(self) -> None:
        if isinstance(self.layers, str):
            raise ValueError(f"layers is the string {self.layers!r}; give a list of names.")
        object.__setattr__(self, "layers", tuple(dict.fromkeys(self.layers)))


def run(p: Pass, **options: Any) -> dict[str, State]:
    """Return the result of a pass, from the store as far as it holds it.

    All layers that the store does not hold share one forward pass. A pass that was killed resumes
    at its last checkpoint, and so does one that was interrupted from the keyboard, at the last
    batch. Of several independent processes that ask for one result, one computes it.

    Parameters
    ----------
    p : Pass
    **options
        Fields of `Options`; under ``torchrun`` `batch_size` must be equal on all ranks.

    Returns
    -------
    dict of str to dict of str to Tensor
        What `Pass.finish` returned for each layer, on the CPU.

    Raises
    ------
    RuntimeError
        If not even one image fits into memory, or a rank makes another pass than rank 0.
    """
    how, here = Options(**options), ranks()
    key = {"target": p.target.key(), "images": p.images.fingerprint, **p.key}
    key |= {} if how.decoder == "pillow" else {"decoder": how.decoder}
    one = _Run(p, {layer: {**key, "layer": layer} for layer in sorted(p.layers)}, how, here)
    found = one.follow() if here.rank else one.lead()
    return {layer: found[layer] for layer in p.layers}


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of `run` on one rank; `keys` are those of the layers' artifacts."""

    p: Pass
    keys: dict[str, dict]
    options: Options
    ranks: Ranks
    leftovers: list[dict] = field(default_factory=list)  # keys of stretches computed on Ray

    def lead(self) -> dict[str, State]:
        """On rank 0, compute what the store lacks, along with the other ranks, and keep it."""
        kind, store, found = self.p.kind, self.options.store, {}

        def make(slot: Slot) -> tuple[State, dict]:
            first, *rest = (layer for layer in self.keys if layer not in found)
            rest = [layer for layer in rest if store.load(kind, self.keys[layer]) is None]
            made = self.compute([first, *rest], slot)
            for layer in rest:
                found[layer] = store.save(kind, self.keys[layer], made[layer]).tensors
            return made[first], {}

        for layer, key in self.keys.items():
            if layer not in found:
                found[layer] = store.fetch(kind, key, make).tensors
        for key in self.leftovers:
            store.slot(_STRETCHES, key).clear()
        if self.ranks.size > 1:
            self.announce([])
            self.ranks.broadcast(to_bytes(_flat(found)))
        return found

    def follow(self) -> dict[str, State]:
        """On other ranks, compute what rank 0 announces, and receive the result."""
        while layers := self.announced():
            self.compute(layers, self.checkpoint(layers[0]))
        for layer in self.keys:
            self.checkpoint(layer).clear()
        return _nested(from_bytes(self.ranks.broadcast()))

    def announce(self, layers: list[str]) -> None:
        self.ranks.broadcast(json.dumps([self.identity, layers]).encode())

    def announced(self) -> list[str]:
        identity, layers = json.loads(self.ranks.broadcast())
        if identity != self.identity:
            raise RuntimeError(
                f"Rank {self.ranks.rank} computes {self.p.label!r}, but rank 0 another pass, or "
                "this one with other arguments; make the same calls in the same order on all ranks."
            )
        return layers

    @cached_property
    def identity(self) -> str:
        # Without the fingerprint of outputs, which may round differently on another device.
        keys = [{**k, "target": {**k["target"], "outputs": None}} for k in self.keys.values()]
        return digest([self.p.kind, keys, self.options.batch_size])

    def checkpoint(self, layer: str) -> Slot:
        """Return the place of this rank's checkpoint; that of rank 0 comes from `Store.fetch`."""
        key = {**self.keys[layer], "rank": [self.ranks.rank, self.ranks.size]}
        return self.options.store.checkpoint(self.p.kind, key)

    def compute(self, layers: list[str], slot: Slot) -> dict[str, State]:
        """Return the finished states of layers on rank 0, and nothing on others."""
        work = _Work(self.p, layers, self.options.batch_size)
        if self.ranks.size > 1 and self.ranks.rank == 0:
            self.announce(layers)
        if self.options.actors:
            state = {} if self.ranks.rank else self.on_ray(work)
        else:
            parts = _stretches(len(self.p.images), self.options.batch_size, self.ranks.size)
            state = self.fold(work, parts[self.ranks.rank], slot)
        if self.ranks.rank:
            self.ranks.send(to_bytes(_flat(state)))
            return {}
        for other in range(1, self.ranks.size):
            received = from_bytes(self.ranks.receive(other))
            state = work.merge(state, _nested(received, self.p.target.device))
        return {layer: self.p.finish(state[layer]) for layer in layers}

    def fold(self, work: "_Work", stretch: range, slot: Slot) -> dict[str, State]:
        """Return the state after a stretch of images, starting from the checkpoint if it fits."""
        target, options, images = self.p.target, self.options, self.p.images
        images = images if len(stretch) == len(images) else subset(images, stretch)
        identity = {"layers": work.layers, "stretch": [stretch.start, stretch.stop]}
        parts, done = _resumed(slot, identity, target.device)
        step, saved = Fitting(work.add, target.device), time.monotonic()

        def save() -> None:
            if done:
                slot.save(_flat(work.total(parts)), {**identity, "done": done})

        read = partial(batches, images, target.preprocess, options.batch_size, options.workers)
        loaded = read(start=done, decoder=options.decoder, device=target.device)
        hidden = self.ranks.rank > 0 or not options.progress
        bar = tqdm(total=len(images), initial=done, desc=self.p.label, unit="image", disable=hidden)
        try:
            for indices, x in loaded:
                parts, done = step(parts, indices + stretch.start, x), done + len(indices)
                bar.update(len(indices))
                if done < len(images) and time.monotonic() - saved >= options.checkpoint_seconds:
                    save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            save()
            raise
        finally:
            bar.close()
        if self.ranks.size > 1:
            save()  # for a restart after another rank failed
        return work.total(parts)

    def on_ray(self, work: "_Work") -> dict[str, State]:
        """Return the state after all images, computed in stretches by actors of a cluster."""
        store, count = self.options.store, len(self.p.images)
        stretches = _stretches(count, work.batch_size, -(-count // _RAY_IMAGES))
        key = {**self.keys[work.layers[0]], "layers": work.layers}
        keys = {one: {**key, "stretch": [one.start, one.stop]} for one in stretches}
        self.leftovers.extend(keys.values())
        left = [one for one in stretches if store.load(_STRETCHES, keys[one]) is None]
        if left:
            target, device = self.p.target, self.p.target.device
            target.to("cpu")  # a copy is sent to actors, which may have no GPU
            for one, result in map_on_actors(work, left, self.options.actors):
                store.save(_STRETCHES, keys[one], from_bytes(result))
            target.to(device)
        state: dict[str, State] = {}
        for one in stretches:
            kept = store.load(_STRETCHES, keys[one])
            assert kept, "it was saved above"
            state = work.merge(state, _nested(kept.tensors))
        return state


@dataclass(frozen=True, eq=False)
class _Work:
    """A pass over some of its layers, as it is sent to actors."""

    p: Pass
    layers: list[str]
    batch_size: int

    def add(self, parts: list[dict[str, State]], indices: Tensor, x: Tensor) -> list:
        """Return the states of adjacent stretches with that of the next batch.

        It is merged with the last ones unless these are far larger: sums of many classes, which
        are much larger than what a batch adds, are rarely copied.
        """
        state = self.p.step(self.layers, indices, x)
        while parts and _size(parts[-1]) < 2 * _size(state):
            *parts, last = parts
            state = self.merge(last, state)
        return [*parts, state]

    def total(self, parts: list[dict[str, State]]) -> dict[str, State]:
        """Merge the states of adjacent stretches, the small ones first."""
        return reduce(lambda later, one: self.merge(one, later), reversed(parts), {})

    def merge(self, one: dict[str, State], other: dict[str, State]) -> dict[str, State]:
        """Merge the states of two adjacent stretches, either of which may be empty."""
        if not (one and other):
            return one or other
        return {layer: self.p.merge(state, other[layer]) for layer, state in one.items()}

    def decode(self, stretch: range) -> Tensor:
        images, preprocess = subset(self.p.images, stretch), self.p.target.preprocess
        return torch.cat([x for _, x in batches(images, preprocess, self.batch_size)])

    def compute(self, stretch: range, x: Tensor) -> bytes:
        step, size = Fitting(self.add, self.p.target.device), self.batch_size
        parts: list[dict[str, State]] = []
        indices = torch.arange(stretch.start, stretch.stop)
        for some, part in zip(indices.split(size), x.split(size), strict=True):
            parts = step(parts, some, part)
        return to_bytes(_flat(self.total(parts)))


def _stretches(count: int, batch_size: int, parts: int) -> list[range]:
    """Cut images into adjacent stretches of whole batches, about equal and possibly empty.

    So every image is in the same batch whatever the number of parts.
    """
    whole = -(-count // batch_size)
    cuts = [min(whole * i // parts * batch_size, count) for i in range(parts + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def _resumed(slot: Slot, identity: dict, device: torch.device) -> tuple[list, int]:
    """Return the parts of a checkpoint and the images in it; one of another identity is ignored."""
    kept = slot.load()
    if kept is None or {k: v for k, v in kept.record.items() if k != "done"} != identity:
        return [], 0
    return [_nested(kept.tensors, device)], kept.record["done"]


def _size(state: dict[str, State]) -> int:
    return sum(tensor.numel() for own in state.values() for tensor in own.values())


def _flat(state: dict[str, State]) -> State:
    return {f"{layer}/{name}": x for layer, own in state.items() for name, x in own.items()}


def _nested(flat: State, device: torch.device | str = "cpu") -> dict[str, State]:
    state: dict[str, State] = {}
    for name, tensor in flat.items():
        layer, _, own = name.rpartition("/")
        state.setdefault(layer, {})[own] = tensor.to(device)
    return state
