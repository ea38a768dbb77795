"""A pass over a probe set by several processes, on one machine or many: the shard is their work.

A *pass* asks one question of every image. A *shard* of it is a stretch of images whose borders lie
between batches, so that every image meets the network in the same batch whoever reads it; the
answer for a shard is a pure function of it, and one immutable artifact. Answers merge exactly, in
any order. Processes need to know nothing of each other but the store: each takes a shard that
nobody has in hand, and one that dies leaves its shard, with the last checkpoint, to the others.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from filelock import Timeout
from torch import Tensor

from wwwlib.exemplars.streaming import stream
from wwwlib.images import ImageSet, subset
from wwwlib.store import Artifact, Slot, Store
from wwwlib.targets import Target

SHARD = 4096  # images, unless WWW_SHARD says otherwise
_KIND, _ROWS, _PAUSE = "shards", "@rows", 0.2
State = dict[str, Tensor]


@dataclass(frozen=True)
class Shard:
    """Images start, ..., stop - 1 of a probe set."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Pass:
    """A question to every image of a probe set.

    Attributes
    ----------
    target : Target
    images : ImageSet
    step : callable
        As for `stream`; `indices` number the images of the whole set.
    merge : callable
        ``merge(state, state) -> state``, commutative and associative to the last bit.
    identity : dict
        JSON values; beside target and images, all that decides the answer. A decoder other than
        "pillow" stands here as "decoder".
    label : str
        What the progress bar says.
    """

    target: Target
    images: ImageSet
    step: Callable[[State, Tensor, Tensor], State]
    merge: Callable[[State, State], State]
    identity: Mapping[str, Any]
    label: str = "images"

    def key(self, shard: Shard) -> dict:
        """Return the key of a shard's artifact."""
        return {**self._whose, "shard": [shard.start, shard.stop]}

    @cached_property
    def _whose(self) -> dict:
        key = {"target": self.target.key(), "images": self.images.fingerprint}
        return {**key, "pass": dict(self.identity)}


def cut(count: int, size: int, batch_size: int) -> tuple[Shard, ...]:
    """Cut `count` images into shards of `size`, rounded up to whole batches.

    Raises
    ------
    ValueError
        If `size` or `batch_size` is below 1.
    """
    for name, value in (("The size of a shard", size), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1 image.")
    size = -(-size // batch_size) * batch_size
    return tuple(Shard(start, min(start + size, count)) for start in range(0, count, size))


def shard_size() -> int | None:
    """Return the images per shard in this process, or None where nobody shares its passes.

    That is ``WWW_SHARD``, if it is set, or else 4096 in a process that ``torchrun`` started beside
    others.

    Raises
    ------
    ValueError
        If ``WWW_SHARD`` is no whole number above 0.
    """
    given = os.environ.get("WWW_SHARD", "")
    if given:
        if not given.isdecimal() or not int(given):
            raise ValueError(f"WWW_SHARD is {given!r}; give a number of images, such as {SHARD}.")
        return int(given)
    return SHARD if os.environ.get("WORLD_SIZE", "1") != "1" else None


def answer(asked: Pass, shard: Shard, slot: object = None, **options: object) -> State:
    """Answer a pass for the images of one shard, a pure function of both.

    Parameters
    ----------
    asked : Pass
    shard : Shard
    slot, **options
        As for `stream`.

    Returns
    -------
    dict of Tensor
        The state after its last image.
    """
    images, step = asked.images, asked.step
    if shard != Shard(0, len(images)):
        images = subset(images, range(shard.start, shard.stop))
        step = _From(shard.start, step)
    options.setdefault("label", asked.label)
    identity = dict(asked.identity)
    options["decoder"] = identity.get("decoder", "pillow")
    return stream(asked.target, images, step, slot, identity, **options)


@dataclass(frozen=True)
class _From:
    """A step over a shard, told the numbers that its images have in the whole set."""

    start: int
    step: Callable[[State, Tensor, Tensor], State]

    def __call__(self, state: State, indices: Tensor, x: Tensor) -> State:
        return self.step(state, indices + self.start, x)


def together(
    asked: Pass,
    store: Store,
    size: int,
    finished: Callable[[], bool] = lambda: False,
    batch_size: int = 64,
    **options: object,
) -> State | None:
    """Answer a pass along with every other process that does the same on this store.

    Parameters
    ----------
    asked : Pass
    store : Store
        A folder that all of them see, on a file system with locks.
    size : int
        Images per shard.
    finished : callable
        Whether another process has finished the whole already; asked before each shard is begun.
    batch_size, **options
        As for `stream`; `batch_size` must be the same everywhere.

    Returns
    -------
    dict of Tensor or None
        The state after all images, on the CPU; None if `finished`.
    """
    shards = cut(len(asked.images), size, batch_size)
    options["batch_size"] = batch_size

    def make(i, slot):
        label = f"{asked.label}, shard {i + 1} of {len(shards)}"
        return compact(answer(asked, shards[i], slot, label=label, **options)), {}

    keys, state = [asked.key(shard) for shard in shards], None
    for _, found in share(store, _KIND, keys, make, finished):
        part = spread(found.tensors)
        state = part if state is None else asked.merge(state, part)
    return None if finished() else state


def share(
    store: Store,
    kind: str,
    keys: Sequence[dict],
    make: Callable[[int, Slot], tuple],
    finished: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[int, Artifact]]:
    """Make the artifacts of all keys along with every other process that does the same.

    Parameters
    ----------
    store, kind, keys
        As for `Store.fetch`.
    make : callable
        ``make(i, slot)`` makes that of key i, a pure function; else as for `Store.fetch`.
    finished : callable
        Whether nothing is left to do after all; asked before each one is begun, and ends the rest.

    Yields
    ------
    i, artifact
        Each once, in the order in which they become ready.
    """

    def begin(i, slot):
        if finished():
            raise _Finished
        return make(i, slot)

    left = list(range(len(keys)))
    while left:
        taken = []
        for i in left:
            try:
                found = store.fetch(kind, keys[i], partial(begin, i), timeout=0)
            except Timeout:  # another process has it in hand, or has died: look again later
                taken.append(i)
            except _Finished:
                return
            else:
                yield i, found
        if len(taken) == len(left):
            time.sleep(_PAUSE)
        left = taken


class _Finished(Exception):
    """The whole is in the store already, so that no part of it need be."""


def put(asked: Pass, shard: Shard, store: Store, state: Mapping[str, Tensor]) -> None:
    """Keep the answer for a shard, which was found elsewhere, where `together` looks for it."""
    store.save(_KIND, asked.key(shard), compact(state), {})


def has(asked: Pass, shard: Shard, store: Store) -> bool:
    """Whether the answer for a shard is in the store."""
    return store.load(_KIND, asked.key(shard)) is not None


def discard(asked: Pass, store: Store, size: int, batch_size: int = 64) -> None:
    """Remove the answers for all shards, once the whole is kept elsewhere."""
    for shard in cut(len(asked.images), size, batch_size):
        store.discard(_KIND, asked.key(shard))


def compact(state: Mapping[str, Tensor]) -> State:
    """Leave out rows of zeros from sums (C, 2, N): a shard holds images of a few classes."""
    kept = {}
    for name, tensor in state.items():
        tensor = tensor.cpu()
        if tensor.ndim == 3:
            kept[name + _ROWS] = rows = tensor.flatten(1).any(1).nonzero()[:, 0]
            kept[f"{name}{_ROWS}/of"] = torch.tensor(len(tensor))
            tensor = tensor[rows]
        kept[name] = tensor
    return kept


def spread(kept: Mapping[str, Tensor]) -> State:
    """Undo `compact`."""
    state = {name: tensor for name, tensor in kept.items() if _ROWS not in name}
    for name in [name for name in state if name + _ROWS in kept]:
        full = state[name].new_zeros(int(kept[f"{name}{_ROWS}/of"]), *state[name].shape[1:])
        state[name] = full.index_copy(0, kept[name + _ROWS], state[name])
    return state
