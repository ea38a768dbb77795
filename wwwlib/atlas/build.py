"""Build an atlas: what every neuron sees, whole and in crops, and which classes it carries.

Each part is asked from the room that knows it and goes through the store, so that a build that was
killed goes on where it was, and one with another alpha or vocabulary reads no image again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from tqdm.auto import tqdm

from wwwlib.atlas.atlas import Atlas
from wwwlib.atlas.classes import by_gradient, from_sums, in_classes_of, labelling
from wwwlib.atlas.record import LayerRecord, Thumbnails
from wwwlib.concepts import discover, reach, select, stability
from wwwlib.contributions import head
from wwwlib.exemplars import OK, Exemplars, collect
from wwwlib.images import FIVE_CROPS, ImageSet, crops
from wwwlib.language import ConceptSet, Encoder, image_features
from wwwlib.store import Store, versions
from wwwlib.targets import Target


class _Seen(NamedTuple):
    """By layer, the exemplars, the mean (N, D) of their image features, and shares (N,) or None."""

    exemplars: dict[str, Exemplars]
    v: dict[str, Tensor]
    stability: dict[str, Tensor | None]


def build(
    target: Target,
    probe: ImageSet,
    encoder: Encoder,
    words: ConceptSet,
    layers: Sequence[str],
    *,
    k: int = 40,
    k_minor: int | None = None,
    alpha: float = 0.95,
    alpha_minor: float = 0.90,
    boxes: Sequence[tuple[float, float, float, float]] = FIVE_CROPS,
    labelled: ImageSet | None = None,
    signed: bool = False,
    shown: int = 8,
    thumbnail: int = 64,
    rounds: int = 20,
    seed: int = 0,
    store: Store | None = None,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
) -> Atlas:
    """Find out everything about a network that does not depend on the image to explain.

    Parameters
    ----------
    target : Target
        The network.
    probe : ImageSet
        The probe set, D_probe, from which neurons are named.
    encoder : Encoder
        The image-text encoder that names them.
    words : ConceptSet
        The M concepts.
    layers : sequence of str
        Layer names; the final layer is "logits".
    k, k_minor : int
        Exemplars per neuron, whole images and crops; `k_minor` is `k` by default.
    alpha, alpha_minor : float in (0, 1]
        Which concepts are kept, see `concepts.select`.
    boxes : sequence of (left, top, right, bottom)
        The crops behind minor concepts, see `images.crops`.
    labelled : ImageSet, optional
        The images behind class contributions; by default the probe set. Images to be explained
        do not belong in it, or their class side knows them already. An image without a label of
        the network's classes counts for its prediction; `Atlas.labelled` tells.
    signed : bool
        Whether contributions keep their sign.
    shown, thumbnail : int
        Thumbnails per neuron, and their side in pixels.
    rounds, seed : int
        Bootstrap probe sets on which major concepts are tested, and what draws them; see
        `concepts.stability`. 0 leaves the test out, and no name is called unsure.
    store : Store, optional
        Keeps the parts, so that nothing is done twice.
    batch_size, workers, progress
        See `exemplars.stream`.

    Returns
    -------
    Atlas

    Raises
    ------
    ValueError
        If a layer does not exist, or `k` or `alpha` is out of range.
    """
    layers = _checked(target, layers, alpha, alpha_minor)
    options = {"batch_size": batch_size, "workers": workers, "progress": progress, "store": store}
    k_minor = k if k_minor is None else k_minor
    probe = in_classes_of(probe, target)
    cut = crops(probe, boxes)
    labelled = probe if labelled is None else in_classes_of(labelled, target)
    t, t0 = words.embed(encoder, store, progress=progress)

    again = partial(stability, images=len(probe), t=t, t0=t0, k=k, rounds=rounds, seed=seed)
    whole = _seen(target, probe, encoder, layers, k, options, again if rounds else None)
    parts = _seen(target, cut, encoder, layers, k_minor, options)
    heads = {layer: _weight(target, layer) for layer in layers}
    known = whole.exemplars if labelled is probe else None
    class_w, count = _class_side(target, labelled, heads, known, signed, options)
    found = {
        layer: LayerRecord(
            name=layer,
            major=discover(whole.v[layer], t, t0, words.words, alpha),
            minor=discover(parts.v[layer], t, t0, words.words, alpha_minor),
            v=whole.v[layer],
            minor_v=parts.v[layer],
            exemplars=_without_sums(whole.exemplars[layer]),
            minor_exemplars=_without_sums(parts.exemplars[layer]),
            class_w=class_w[layer],
            head=heads[layer],
            stability=whole.stability[layer],
        )
        for layer in layers
    }
    settings = {
        **_told(probe, labelled, words, encoder),
        **{"k": [k, k_minor], "alpha": [alpha, alpha_minor], "signed": signed},
        **{"boxes": [list(box) for box in boxes], "rounds": rounds, "seed": seed},
    }
    small = partial(_thumbnails, shown=shown, side=thumbnail, progress=progress)
    pictures = small(probe, whole.exemplars), small(cut, parts.exemplars)
    return Atlas(target, found, count, words.words, t, t0, *pictures, settings)


def _told(probe: ImageSet, labelled: ImageSet, words: ConceptSet, encoder: Encoder) -> dict:
    """Return what an atlas tells about its origin, as JSON values."""
    return {
        "probe": {"name": probe.name, "fingerprint": probe.fingerprint},
        "class side": {"name": labelled.name, "fingerprint": labelled.fingerprint},
        "labelled": labelling(labelled),
        "words": {"digest": words.digest, "template": words.template},
        "encoder": encoder.name,
        "versions": versions(),
    }


def _checked(target: Target, layers: Sequence[str], *alphas: float) -> tuple[str, ...]:
    """Return the distinct layers; what is wrong is said now, not after an hour of passes."""
    layers = tuple(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    if not layers:
        raise ValueError(f"There is no layer to look at; name some of {target.name}'s layers().")
    for layer in layers:
        target.module(layer)
    for alpha in alphas:
        select(torch.zeros(1, 1), alpha)
    return layers


def _seen(
    target: Target,
    images: ImageSet,
    encoder: Encoder,
    layers: Sequence[str],
    k: int,
    options: Mapping,
    again: Callable | None = None,
) -> _Seen:
    """Find every layer's exemplars, what they look like, and how firm their names are.

    All layers share the features of the union of their exemplars. Zeros stand for a missing
    exemplar and for all those of a neuron that is dead or not finite, as in
    `language.embed_exemplars`, so that such a neuron abstains.
    """
    deep = k if again is None else reach(k, len(images))
    found = collect(target, images, layers, deep, **options)
    index = {
        layer: torch.where(one.status.unsqueeze(1) == OK, one.index, -1)
        for layer, one in found.items()
    }
    union = torch.cat([one.flatten() for one in index.values()]).unique()
    distinct = union[union >= 0]
    seen = image_features(encoder, images, distinct, **options)
    features = torch.cat([torch.zeros(1, encoder.dim), seen])
    # Row 0 is the zero of a missing image; -1 stands before every index.
    rows = {layer: torch.searchsorted(distinct, one, right=True) for layer, one in index.items()}
    return _Seen(
        {layer: _first(one, k) for layer, one in found.items()},
        {layer: F.embedding_bag(row[:, :k], features, mode="mean") for layer, row in rows.items()},
        {layer: again and again(features, index[layer], rows=rows[layer]).share for layer in rows},
    )


def _first(exemplars: Exemplars, k: int) -> Exemplars:
    return replace(exemplars, index=exemplars.index[:, :k], value=exemplars.value[:, :k])


def _class_side(
    target: Target,
    images: ImageSet,
    heads: Mapping[str, Tensor | None],
    known: Mapping[str, Exemplars] | None,
    signed: bool,
    options: Mapping,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return class contributions (C, N) of each layer, and the images (C,) of each class.

    `known` are exemplars of the same images, if there are some: they hold the sums already.
    """
    exact = [layer for layer, weight in heads.items() if weight is not None]
    others = [layer for layer, weight in heads.items() if weight is None]
    found, count = {}, None
    if others:
        found, count = by_gradient(target, images, others, signed, **options)
    if exact:
        sums = known or collect(target, images, exact, 1, **options)
        found |= {layer: from_sums(sums[layer], heads[layer], signed) for layer in exact}
        count = sums[exact[0]].class_count
    return found, count


def _weight(target: Target, layer: str) -> Tensor | None:
    found = head(target, layer)
    return None if found is None else found[0].detach().cpu().clone()


def _without_sums(exemplars: Exemplars) -> Exemplars:
    none = exemplars.class_sum[:0]
    return replace(exemplars, class_sum=none, class_abs=none, class_count=none.long()[:, 0])


def _thumbnails(
    images: ImageSet, found: Mapping[str, Exemplars], shown: int, side: int, progress: bool
) -> Thumbnails:
    """Keep the middle squares of every neuron's best images, small."""
    best = torch.cat([one.index[:, :shown].flatten() for one in found.values()]).unique()
    best = best[best >= 0]
    pixels = torch.zeros(len(best), side, side, 3, dtype=torch.uint8)
    for row, i in enumerate(tqdm(best.tolist(), desc="thumbnails", disable=not progress)):
        square = ImageOps.fit(images.image(i), (side, side), Image.Resampling.BICUBIC)
        pixels[row] = pil_to_tensor(square).permute(1, 2, 0)
    return Thumbnails(best, pixels)
