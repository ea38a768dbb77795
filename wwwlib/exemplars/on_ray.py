"""The exemplar pass on a Ray cluster: tasks decode, actors with the network answer shards.

Each answer comes home to the store as soon as it is there, so that a run that was stopped goes on
with the shards that are left; Ray itself repeats what an actor or a node took with it. Needs the
extra ``ray``: ``pip install 'wwwlib[ray]'``.
"""

import os
from collections.abc import Sequence

import numpy as np
import ray
import safetensors.torch
import torch

from wwwlib.exemplars.collecting import asking, collect, kept
from wwwlib.exemplars.record import Exemplars
from wwwlib.exemplars.shards import Shard, compact, cut, has, put, spread
from wwwlib.images import Fitting, ImageSet, batches, subset
from wwwlib.store import Store
from wwwlib.targets import Target

SHARD = 256  # images: a shard travels decoded, 150 MB of them at 224 x 224 pixels


def collect_on_ray(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    k: int = 40,
    *,
    store: Store,
    actors: int = 1,
    gpus: float = 0,
    batch_size: int = 64,
    shard: int = SHARD,
    precision: str = "float32",
) -> dict[str, Exemplars]:
    """Find exemplars as `collect` does, to the last bit, on the machines of a Ray cluster.

    Parameters
    ----------
    target, images, layers, k, batch_size, precision
        As for `collect`. Files of `images` must be readable under the same path, or URL, on every
        machine.
    store : Store
        Of this process alone; the cluster need not see it.
    actors : int
        Copies of the network.
    gpus : float
        GPUs of each; 0 computes on the CPU.
    shard : int
        Images per shard, rounded up to whole batches.

    Returns
    -------
    dict of str to Exemplars

    Raises
    ------
    ValueError
        As for `collect`, and if `actors` is below 1.
    """
    if actors < 1:
        raise ValueError(f"actors is {actors}; at least 1 copy of the network must do the work.")
    asked = asking(target, images, layers, k, precision)
    done = kept(store, target, images, layers, k, precision)
    shards = [] if done else cut(len(images), shard, batch_size)
    left = [one for one in shards if not has(asked, one, store)]
    key = {"k": k, "precision": precision, "batch_size": batch_size}
    if left:
        _connect()
        shared = ray.put((target.to("cpu"), images, tuple(layers), key))
        for row in _answers(left, shared, actors, gpus).iter_rows():
            state = spread(safetensors.torch.load(row["state"]))
            put(asked, Shard(row["start"], row["stop"]), store, state)
    return collect(target, images, layers, store=store, shard=shard, progress=False, **key)


def _connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)


def _answers(left: Sequence[Shard], shared: ray.ObjectRef, actors: int, gpus: float):
    """Return the data set of answers, a row each, in whatever order they come."""
    rows = [{"start": one.start, "stop": one.stop} for one in left]
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(_decode, fn_args=(shared,), num_cpus=1)
        .map(
            _Network,
            fn_constructor_args=(shared,),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=0.5,  # unlike the tasks', or Ray would decode in the actors
            num_gpus=gpus,
        )
    )


def _decode(row: dict, shared: ray.ObjectRef) -> dict:
    """Read and preprocess the images of a shard."""
    target, images, _, key = ray.get(shared)
    chosen = subset(images, range(row["start"], row["stop"]))
    x = torch.cat([x for _, x in batches(chosen, target.preprocess, key["batch_size"])])
    return {**row, "x": x.numpy().tobytes(), "dtype": str(x.numpy().dtype), "shape": list(x.shape)}


class _Network:
    """An actor: one copy of the network, which answers shard after shard."""

    def __init__(self, shared: ray.ObjectRef):
        target, images, layers, key = ray.get(shared)
        target = target.to("cuda" if ray.get_gpu_ids() else "cpu")
        self.asked = asking(target, images, layers, key["k"], key["precision"])
        self.batch_size = key["batch_size"]

    def __call__(self, row: dict) -> dict:
        pixels = np.frombuffer(row["x"], row["dtype"]).reshape(row["shape"])
        x, indices = torch.from_numpy(pixels.copy()), torch.arange(row["start"], row["stop"])
        fold, state = Fitting(self.asked.step, self.asked.target.device), {}
        for some in torch.arange(len(x)).split(self.batch_size):
            state = fold(state, indices[some], x[some])
        answer = safetensors.torch.save(compact(state))
        return {"start": row["start"], "stop": row["stop"], "state": answer}
