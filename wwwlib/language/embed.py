"""Image features of exemplars: each image is encoded once, however many neurons share it."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.exemplars import Exemplars
from wwwlib.exemplars.shards import cut, shard_size, share
from wwwlib.images import Fitting, ImageSet, batches, subset
from wwwlib.language.concept_sets import unit_rows
from wwwlib.language.encoders import Encoder
from wwwlib.store import Store, tensor_digest

_KIND = "image-features"


def image_features(
    encoder: Encoder,
    images: ImageSet,
    indices: Sequence[int],
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
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
    features = torch.zeros(len(chosen), encoder.dim)

    def write(_, rows, pixels):
        features[rows] = unit_rows(encoder.encode_images(pixels), len(rows), encoder)

    fold = Fitting(write)
    with tqdm(total=len(chosen), desc="images", unit="image", disable=not progress) as bar:
        for rows, pixels in batches(chosen, encoder.preprocess, batch_size, workers):
            fold(None, rows, pixels)
            bar.update(len(rows))
    return features


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
    if size := shard_size():
        encode = _sharing(encode, key, distinct, store, size, batch_size)
    return store.fetch(_KIND, key, lambda _: ({"v": encode(distinct.tolist())}, {})).tensors["v"]


def _sharing(
    encode: Callable, key: dict, distinct: Tensor, store: Store, size: int, batch_size: int
) -> Callable:
    """Encode along with other processes; return what then gives the features of all (U, D)."""
    if store.load(_KIND, key):
        return encode
    shards = cut(len(distinct), size, batch_size)
    keys = [{**key, "rows": [shard.start, shard.stop]} for shard in shards]

    def make(i, _):
        rows = distinct[shards[i].start : shards[i].stop]
        return {"v": encode(rows.tolist())}, {}

    finished = partial(store.load, _KIND, key)
    found = dict(share(store, _KIND, keys, make, finished))
    if len(found) < len(keys):
        return encode
    whole = torch.cat([found[i].tensors["v"] for i in range(len(keys))])
    return lambda _: whole
