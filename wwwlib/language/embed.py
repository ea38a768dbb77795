"""Image features of exemplars: each image is encoded once, however many neurons share it.

Encoding is a pass over images as any other: a kill costs what came after the last checkpoint, and
processes that ask for the same features share it by shards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from wwwlib.exemplars import Exemplars, stream
from wwwlib.exemplars.shards import cut, shard_size, share
from wwwlib.images import ImageSet, subset
from wwwlib.language.concept_sets import unit_rows
from wwwlib.language.encoders import Encoder
from wwwlib.store import Slot, Store, tensor_digest

_KIND = "image-features"


def image_features(
    encoder: Encoder,
    images: ImageSet,
    indices: Sequence[int],
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    slot: Slot | None = None,
) -> Tensor:
    """Encode the images of the given indices.

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
        The images.
    indices : sequence of int
        Which of them, B in number, in any order.
    batch_size, workers : int
        Images per call (halved where memory runs out), and processes that decode them (0: this
        one).
    progress : bool
        Whether to show a progress bar.
    slot : checkpoint, optional
        Where features are kept from time to time, see `exemplars.stream`.

    Returns
    -------
    Tensor
        (B, D) float32 unit-norm features on the CPU, in the order of ``indices``.

    Raises
    ------
    ValueError
        If the encoder returns another shape, or features that are not of unit norm.
    """
    chosen = subset(images, indices)

    def write(state: dict, rows: Tensor, pixels: Tensor) -> dict:
        """Fill in rows; taken again, when memory ran out, a step writes the same."""
        v = state["v"] if state else torch.zeros(len(chosen), encoder.dim)
        v[rows] = unit_rows(encoder.encode_images(pixels), len(rows), encoder)
        return {"v": v}

    options = {"batch_size": batch_size, "workers": workers, "progress": progress}
    found = stream(_Eye(encoder.preprocess), chosen, write, slot, **options)
    return found.get("v", torch.zeros(0, encoder.dim))


@dataclass(frozen=True, eq=False)
class _Eye:
    """What a pass must know of an encoder, which moves images to its own device by itself."""

    preprocess: Callable[[Image.Image], Tensor]
    device: ClassVar[torch.device] = torch.device("cpu")


def embed_exemplars(
    encoder: Encoder,
    images: ImageSet,
    exemplars: Exemplars,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    store: Store | None = None,
) -> Tensor:
    """Return the image features ``v`` of every neuron's exemplars.

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
        The probe set that the exemplars index.
    exemplars : Exemplars
        The top K images of N neurons.
    batch_size, workers, progress
        As for :func:`image_features`.
    store : Store, optional
        Keeps the features of the distinct images, under encoder, probe set and indices.

    Returns
    -------
    Tensor
        (N, K, D) float32 on the CPU, of unit norm; zeros for a neuron whose status is not 0 and
        where no exemplar was left, so that such a neuron abstains.
    """
    shown = (exemplars.index >= 0) & (exemplars.status == 0).unsqueeze(1)
    distinct, place = exemplars.index[shown].unique(return_inverse=True)
    features = distinct_features(encoder, images, distinct, batch_size, workers, progress, store)
    v = torch.zeros(*exemplars.index.shape, encoder.dim)
    v[shown] = features[place]
    return v


def distinct_features(
    encoder: Encoder,
    images: ImageSet,
    distinct: Tensor,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    store: Store | None = None,
) -> Tensor:
    """Return :func:`image_features` of the images (U,), from the store if it has them: (U, D).

    Processes that ask it at once share the work as they do a pass; see `exemplars.shards`.
    """
    if not len(distinct):
        return torch.zeros(0, encoder.dim)
    options = {"batch_size": batch_size, "workers": workers, "progress": progress}
    encode = partial(image_features, encoder, images, **options)
    if store is None:
        return encode(distinct.tolist())
    key = {
        "encoder": encoder.name,
        "images": images.fingerprint,
        "indices": tensor_digest({"indices": distinct}),
    }
    shards = _shards(key, distinct, shard_size(), batch_size)
    whole = _together(encode, key, shards, store) if shards else None

    def make(slot: Slot) -> tuple[dict[str, Tensor], dict]:
        return {"v": encode(distinct.tolist(), slot=slot) if whole is None else whole}, {}

    found = store.fetch(_KIND, key, make)
    for part, _ in shards:
        store.discard(_KIND, part)
    return found.tensors["v"]


def _shards(
    key: dict, distinct: Tensor, size: int | None, batch_size: int
) -> list[tuple[dict, list[int]]]:
    """Return the key and the images of each shard; none where nobody shares passes."""
    return [
        ({**key, "rows": [part.start, part.stop]}, distinct[part.start : part.stop].tolist())
        for part in (cut(len(distinct), size, batch_size) if size else ())
    ]


def _together(
    encode: Callable, key: dict, shards: list[tuple[dict, list[int]]], store: Store
) -> Tensor | None:
    """Encode along with other processes: (U, D), or None once the store has the whole."""
    finished = partial(store.load, _KIND, key)
    if finished():
        return None

    def make(i: int, slot: Slot) -> tuple[dict[str, Tensor], dict]:
        return {"v": encode(shards[i][1], slot=slot)}, {}

    found = dict(share(store, _KIND, [part for part, _ in shards], make, finished))
    if len(found) < len(shards):
        return None
    return torch.cat([found[i].tensors["v"] for i in range(len(shards))])
