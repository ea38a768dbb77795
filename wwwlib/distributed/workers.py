"""The processes that share a pass: ranks started by torchrun, and actors of a Ray cluster."""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from wwwlib.registry import require

_PATIENCE = timedelta(days=1)  # between ranks; one that dies is noticed at once


@dataclass(frozen=True)
class Ranks:
    """The place of a process among those that torchrun started, or alone.

    Attributes
    ----------
    rank, size : int
    group : ProcessGroup or None
        None is the default group.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    def broadcast(self, message: bytes = b"") -> bytes:
        """Return the message of rank 0 on every rank."""
        return self._move(lambda x: distributed.broadcast(x, 0, self.group), message)

    def send(self, message: bytes) -> None:
        """Send a message to rank 0."""
        self._move(lambda x: distributed.send(x, 0, self.group), message)

    def receive(self, other: int) -> bytes:
        """Return the message that another rank sends to this one, rank 0."""
        return self._move(lambda x: distributed.recv(x, other, self.group))

    @staticmethod
    def _move(move: Callable[[Tensor], object], message: bytes = b"") -> bytes:
        """Move a length, then so many bytes; a message is never empty where it is sent."""
        move(length := torch.tensor([len(message)]))
        move(data := torch.frombuffer(bytearray(message or int(length)), dtype=torch.uint8))
        return data.numpy().tobytes()


@cache
def ranks() -> Ranks:
    """Return the place of this process; the first call joins the group of those of torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return Ranks()
    if not distributed.is_initialized():
        store, rank, size = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        prefix = f"wwwlib/{os.environ.get('WWW_GROUP', '')}/{attempt}"
        place = {"store": distributed.PrefixStore(prefix, store), "rank": rank, "world_size": size}
        distributed.init_process_group("gloo", timeout=_PATIENCE, **place)
        # Threads that outlive the interpreter abort a process whose work is done.
        atexit.register(_leave)
    own = distributed.get_backend() != "gloo"
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE) if own else None
    return Ranks(distributed.get_rank(), distributed.get_world_size(), group)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def map_on_actors(
    work: Any, stretches: Sequence[range], actors: int
) -> Iterator[tuple[range, bytes]]:
    """Apply work to stretches of images on a Ray cluster: tasks decode, actors compute.

    Joins the cluster that RAY_ADDRESS names, or starts one on this machine. Ray repeats what was
    lost with an actor or a node.

    Parameters
    ----------
    work : object
        Of any picklable class with ``decode(stretch) -> Tensor``, ``to(device)``, and
        ``compute(stretch, x) -> bytes``.
    stretches : sequence of range
    actors : int
        Each with its own copy of `work`, on a GPU of its own if the cluster has any.

    Yields
    ------
    stretch, result
        As they become ready, in any order.
    """
    ray, data = require("ray", "ray"), require("ray.data", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    shared = ray.put(work)
    rows = [{"start": one.start, "stop": one.stop} for one in stretches]
    results = (
        data.from_items(rows, override_num_blocks=len(rows))
        .map(_decode, fn_args=(shared,), num_cpus=1)
        .map(
            _Actor,
            fn_constructor_args=(shared,),
            compute=data.ActorPoolStrategy(size=actors),
            num_cpus=0.5,  # unlike the tasks', or Ray would decode in the actors
            num_gpus=int(ray.cluster_resources().get("GPU", 0) > 0),
        )
    )
    for row in results.iter_rows():
        yield range(row["start"], row["stop"]), row["result"]


def _decode(row: dict, shared: Any) -> dict:
    x = require("ray", "ray").get(shared).decode(range(row["start"], row["stop"])).numpy()
    return {**row, "x": x.tobytes(), "dtype": str(x.dtype), "shape": list(x.shape)}


class _Actor:
    def __init__(self, shared: Any) -> None:
        ray = require("ray", "ray")
        self.work = ray.get(shared)
        self.work.p.target.to("cuda" if ray.get_gpu_ids() else "cpu")

    def __call__(self, row: dict) -> dict:
        x = torch.from_numpy(np.frombuffer(row["x"], row["dtype"]).reshape(row["shape"]).copy())
        result = self.work.compute(range(row["start"], row["stop"]), x)
        return {"start": row["start"], "stop": row["stop"], "result": result}
