"""The engine of every pass over a probe set: fold a step over the images, and survive a kill."""

import time
from collections.abc import Callable

from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.images import Fitting, ImageSet, batches
from wwwlib.targets import Target


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
    decoder: str = "pillow",
) -> dict[str, Tensor]:
    """Fold a step over a probe set, in image order, surviving interruptions.

    Parameters
    ----------
    target : Target
        The images arrive on its device, preprocessed for it; nothing else of it matters here.
    images : ImageSet
    step : callable
        `step(state, indices, x) -> state`, with `state` a flat dict of tensors (empty at first),
        `indices` (B,) and `x` (B,3,H,W). It leaves the state that it was given as it is, since
        a batch for which memory ran out comes again in halves.
    slot : checkpoint, optional
        Where the state is kept from time to time, as `Store.fetch` hands it out. An interrupt
        from the keyboard saves the state before it goes on its way.
    identity : dict, optional
        A checkpoint of another identity is not continued.
    batch_size, workers : int
        Do not change the result beyond the network's own rounding; a batch too large for the
        memory is halved.
    progress : bool
        Show a bar with the time left.
    checkpoint_seconds : float
        Least time between two checkpoints; 0 saves after every batch.
    label : str
        What the bar says.
    decoder : {"pillow", "torchvision"}
        As for `images.batches`, on the target's device. It belongs into `identity` if it is not
        "pillow": pixels differ a little.

    Returns
    -------
    dict of Tensor
        The state after the last image.
    """
    identity = identity or {}
    state, done = _resume(slot, identity, target.device)
    fold, pin_memory = Fitting(step, target.device), target.device.type == "cuda"
    reading = {"start": done, "pin_memory": pin_memory, "decoder": decoder}
    saved = time.monotonic()

    def save():
        if slot is not None and state:
            slot.save(state, {**identity, "done": done})

    bar = tqdm(total=len(images), initial=done, desc=label, unit="image", disable=not progress)
    try:
        for indices, x in batches(
            images, target.preprocess, batch_size, workers, device=target.device, **reading
        ):
            state, done = fold(state, indices, x), done + len(indices)
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
