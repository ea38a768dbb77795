"""Build an atlas: name neurons from whole images and crops, and compute class contributions.

Class contributions are the mean of w over the images of each class (WWW, section 3.4). In front of
a linear head they follow from the class sums of the exemplars; elsewhere one pass computes them for
all layers, with the gradient of each image's class and exact sums.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.atlas.atlas import Atlas, LayerRecord, Thumbnails
from wwwlib.atlas.similarity import similarity_when_right
from wwwlib.concepts import bootstrap_depth, discover, select, stability
from wwwlib.contributions import contribute_all, head
from wwwlib.distributed import (
    Options,
    Pass,
    State,
    class_sums,
    class_totals,
    merge_class_sums,
    run,
)
from wwwlib.exemplars import OK, Exemplars, collect
from wwwlib.images import FIVE_CROPS, ImageSet, crops, subset
from wwwlib.language import ConceptSet, Encoder, image_features
from wwwlib.store import digest, versions
from wwwlib.targets import Target

_SEPARATORS = re.compile(r"[\s_/-]+")


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
    **options: object,
) -> Atlas:
    """Build the atlas of a network: names and class contributions of the neurons of its layers.

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
        Exemplars per neuron among whole images and among crops; `k_minor` is `k` by default.
    alpha, alpha_minor : float in (0, 1]
        Selection thresholds of major and minor concepts, see `concepts.select`.
    boxes : sequence of (left, top, right, bottom)
        The crops for minor concepts, see `images.crops`.
    labelled : ImageSet, optional
        The images behind the class contributions, by default the probe set. Leave out the images
        to be explained: an image that is part of its class mean is similar to it for that reason.
        An image without a label of the network's classes counts for its predicted class.
    signed : bool
        Whether contributions keep their sign.
    shown, thumbnail : int
        Thumbnails per neuron, and their side in pixels.
    rounds, seed : int
        Bootstrap probe sets for `concepts.stability` of the major concepts, and their seed; with 0
        rounds stability is not measured.
    **options
        Fields of `distributed.Options`. With a store, finished parts are kept: an interrupted build
        resumes, and one with another alpha or other words runs no image again.

    Returns
    -------
    Atlas

    Raises
    ------
    ValueError
        If a layer does not exist, or `k` or `alpha` is out of range.

    References
    ----------
    WWW, sections 3.2 to 3.4.
    """
    layers = _checked(target, layers, alpha, alpha_minor)
    how = Options(**options)
    k_minor = k if k_minor is None else k_minor
    probe = match_labels(probe, target)
    cropped = crops(probe, boxes)
    labelled = probe if labelled is None else match_labels(labelled, target)
    t, t0 = words.embed(encoder, how.store, progress=how.progress)

    resample = partial(stability, images=len(probe), t=t, t0=t0, k=k, rounds=rounds, seed=seed)
    whole = _features(target, probe, encoder, layers, k, options, resample if rounds else None)
    parts = _features(target, cropped, encoder, layers, k_minor, options)
    heads = {layer: _weight(target, layer) for layer in layers}
    known = whole.exemplars if labelled is probe else None
    class_w, count = _class_contributions(target, labelled, heads, known, signed, options)
    right_r = similarity_when_right(target, labelled, class_w, count, heads, signed, **options)
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
            right_r=right_r.get(layer),
        )
        for layer in layers
    }
    settings = {
        "probe": {"name": probe.name, "fingerprint": probe.fingerprint},
        "class side": {"name": labelled.name, "fingerprint": labelled.fingerprint},
        "labelled": label_source(labelled),
        "words": {"digest": words.digest, "template": words.template},
        "encoder": encoder.name,
        "versions": versions(),
        "k": [k, k_minor],
        "alpha": [alpha, alpha_minor],
        "signed": signed,
        "boxes": [list(box) for box in boxes],
        "rounds": rounds,
        "seed": seed,
    }
    small = partial(_thumbnails, shown=shown, side=thumbnail, progress=how.progress)
    pictures = small(probe, whole.exemplars), small(cropped, parts.exemplars)
    return Atlas(target, found, count, words.words, t, t0, *pictures, settings)


def _checked(target: Target, layers: Sequence[str], *alphas: float) -> tuple[str, ...]:
    """Return the distinct layers; check arguments before the first pass."""
    layers = tuple(dict.fromkeys([layers] if isinstance(layers, str) else layers))
    if not layers:
        raise ValueError(f"layers is empty; give some of the layers() of {target.name}.")
    for layer in layers:
        target.module(layer)
    for alpha in alphas:
        select(torch.zeros(1, 1), alpha)
    return layers


class _Features(NamedTuple):
    """By layer: exemplars, mean image features (N, D), and stability (N,) or None."""

    exemplars: dict[str, Exemplars]
    v: dict[str, Tensor]
    stability: dict[str, Tensor | None]


def _features(
    target: Target,
    images: ImageSet,
    encoder: Encoder,
    layers: Sequence[str],
    k: int,
    options: Mapping,
    resample: Callable | None = None,
) -> _Features:
    """Collect the exemplars of all layers and encode the union of their images once.

    The feature of a missing exemplar, and of all exemplars of a neuron that is constant or not
    finite, is zero, as in `language.embed_exemplars`, so that such a neuron abstains.
    """
    deep = k if resample is None else bootstrap_depth(k, len(images))
    found = collect(target, images, layers, deep, **options)
    index = {
        layer: torch.where(one.status.unsqueeze(1) == OK, one.index, -1)
        for layer, one in found.items()
    }
    union = torch.cat([one.flatten() for one in index.values()]).unique()
    distinct = union[union >= 0]
    encoded = image_features(encoder, images, distinct, **options)
    features = torch.cat([torch.zeros(1, encoder.dim), encoded])
    # Row 0 is the zero of a missing image, since -1 sorts before every index.
    rows = {layer: torch.searchsorted(distinct, one, right=True) for layer, one in index.items()}
    return _Features(
        {layer: _first(one, k) for layer, one in found.items()},
        {layer: F.embedding_bag(row[:, :k], features, mode="mean") for layer, row in rows.items()},
        {
            layer: resample and resample(features, index[layer], rows=row).share
            for layer, row in rows.items()
        },
    )


def _first(exemplars: Exemplars, k: int) -> Exemplars:
    return replace(exemplars, index=exemplars.index[:, :k], value=exemplars.value[:, :k])


def _class_contributions(
    target: Target,
    images: ImageSet,
    heads: Mapping[str, Tensor | None],
    known: Mapping[str, Exemplars] | None,
    signed: bool,
    options: Mapping,
) -> tuple[dict[str, Tensor], Tensor]:
    """Return class contributions (C, N) of each layer, and the number of images (C,) per class.

    `known` are exemplars of the same images, if available, which have the sums already.
    """
    exact = [layer for layer, weight in heads.items() if weight is not None]
    others = [layer for layer, weight in heads.items() if weight is None]
    found, count = {}, None
    if others:
        found, count = class_contributions(target, images, others, signed, **options)
    if exact:
        sums = known or collect(target, images, exact, 1, **options)
        for layer in exact:
            found[layer] = head_class_contributions(sums[layer], heads[layer], signed)
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
    """Return the central squares of every neuron's best images."""
    best = torch.cat([one.index[:, :shown].flatten() for one in found.values()]).unique()
    best = best[best >= 0]
    pixels = torch.zeros(len(best), side, side, 3, dtype=torch.uint8)
    for row, i in enumerate(tqdm(best.tolist(), desc="thumbnails", disable=not progress)):
        square = ImageOps.fit(images.image(i), (side, side), Image.Resampling.BICUBIC)
        pixels[row] = torch.from_numpy(np.array(square))
    return Thumbnails(best, pixels)


# Class contributions --------------------------------------------------------------------------


def class_contributions(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    signed: bool = False,
    **options: object,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the class contributions of any layers, with one pass over labelled images.

    Parameters
    ----------
    target : Target
    images : ImageSet
        Labels are indices of the network's classes, see `match_labels`; an image without a label
        counts for its predicted class.
    layers : sequence of str
        All are captured in the same forward and backward pass.
    signed : bool
        Whether contributions keep their sign.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    class_w : dict of str to Tensor
        (C, N) float64 on the CPU; nan for classes without images.
    count : Tensor of int64, shape (C,)
        Number of images of each class.

    References
    ----------
    WWW, section 3.4.
    """
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    no_heads = dict.fromkeys(layers, False)

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        given, states = labels[indices].to(x.device), []
        for part, classes in ((given >= 0, given), (given < 0, None)):
            if part.any():
                some = None if classes is None else classes[part]
                found = contribute_all(target, x[part], layers, some, signed, no_heads)
                states.append(
                    {
                        layer: class_sums(one.w.where(one.w.isfinite(), 0), one.classes)
                        for layer, one in found.items()
                    }
                )
        first, *second = states
        return {
            layer: reduce(merge_class_sums, [state, *(other[layer] for other in second)])
            for layer, state in first.items()
        }

    def finish(state: State) -> State:
        return dict(zip(("sum", "count"), class_totals(state, len(target.classes)), strict=True))

    kind, key, label = "class-contributions", {"signed": signed}, "class contributions"
    p = Pass(target, images, layers, step, merge_class_sums, kind, key, finish, label)
    found = run(p, **options)
    count = found[layers[0]]["count"]
    return {layer: found[layer]["sum"] / count.double().unsqueeze(1) for layer in layers}, count


def head_class_contributions(exemplars: Exemplars, weight: Tensor, signed: bool = False) -> Tensor:
    """Return class contributions (C, N) in front of a linear head with weight (C, N).

    They are W times the class mean of z; the mean of ``|W z|`` is ``|W|`` times that of ``|z|``.
    Both means follow from the class sums of the exemplars, without another pass.
    """
    count = exemplars.class_count.double().unsqueeze(1)
    if signed:
        return weight.double() * exemplars.class_sum / count
    return weight.double().abs() * exemplars.class_abs / count


# Labels ---------------------------------------------------------------------------------------


def match_labels(images: ImageSet, target: Target, warn: bool = True) -> ImageSet:
    """Return the images with labels that are indices of the network's classes.

    If both lists have the same classes in the same order, up to the spelling of some names, labels
    are kept. Otherwise classes are matched by name, whatever separates its words. If a class cannot
    be matched, all labels are dropped, with a warning unless `warn` is false; functions that need
    a class then use the predicted one.
    """
    theirs, ours = _normalised(images.classes, target.classes)
    if _same_order(theirs, ours):
        return images
    unmatched = _unmatched(images.classes, target.classes)
    number = [None if unmatched else ours.index(name) for name in theirs]
    labels = tuple(None if label is None else number[label] for label in images.labels)
    if labels == images.labels:
        return images
    if unmatched and warn:
        count = "several classes" if unmatched[0] in target.classes else "no class"
        warnings.warn(
            f"The labels of {images.name!r} are dropped, since {target.name} has {count} "
            f"{unmatched[0]!r}; predicted classes are used instead.",
            stacklevel=3,
        )
    content = {"labels of": images.fingerprint, "are now": labels, "of": target.classes}
    return replace(images, classes=target.classes, labels=labels, fingerprint=digest(content))


def labelled_subset(images: ImageSet, target: Target) -> ImageSet:
    """Return the images that have a label, as indices of the network's classes.

    Raises
    ------
    ValueError
        If no image has one.
    """
    matched = match_labels(images, target, warn=False)
    labelled = [i for i, label in enumerate(matched.labels) if label is not None]
    if not labelled:
        missing = [f"it has no class {n!r}" for n in _unmatched(images.classes, target.classes)]
        raise ValueError(
            f"None of the {len(images)} images of {images.name!r} has a label among the classes of "
            f"{target.name} ({missing[0] if missing else 'they have none'}): put them into one "
            f"folder per class, with the network's class names, such as {target.classes[0]!r}."
        )
    return matched if len(labelled) == len(matched) else subset(matched, labelled)


def shown_classes(images: ImageSet, target: Target) -> list[int]:
    """Return the indices of the classes that occur among the labels; without labels, of all."""
    labels = {*match_labels(images, target, warn=False).labels} - {None}
    return sorted(labels) or [*range(len(target.classes))]


def class_name(images: ImageSet, i: int, known: Sequence[str]) -> str | None:
    """Return the name of the class of image `i`, spelled as among the network's classes `known`.

    A class that `known` does not contain, or contains twice, keeps its name; None without a label.
    """
    label = images.label(i)
    if label is None:
        return None
    theirs, ours = _normalised(images.classes, known)
    if _same_order(theirs, ours):
        return known[label]
    unique = ours.count(theirs[label]) == 1
    return known[ours.index(theirs[label])] if unique else images.classes[label]


def label_source(images: ImageSet) -> str:
    """Return "labels", "predictions" or "mixed": the source of the images' classes."""
    missing = [label is None for label in images.labels]
    return "predictions" if all(missing) else "mixed" if any(missing) else "labels"


def _unmatched(classes: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names that do not occur exactly once in `known`."""
    theirs, ours = _normalised(classes, known)
    return sorted({n for n, name in zip(classes, theirs, strict=True) if ours.count(name) != 1})


def _normalised(*lists: Sequence[str]) -> list[list[str]]:
    """Return names with one blank between their words, unless that makes two names equal.

    Places365 has ``arena/hockey`` and ``army_base``, a network "arena hockey" and "army base". Case
    matters: ImageNet has a Cardigan, a dog, and a cardigan, a garment.
    """
    plain = [[" ".join(_SEPARATORS.split(name)) for name in names] for names in lists]
    merged = any(len({*new}) < len({*old}) for new, old in zip(plain, lists, strict=True))
    return [[*names] for names in lists] if merged else plain


def _same_order(classes: Sequence[str], known: Sequence[str]) -> bool:
    """Whether two lists have the same classes in the same order, some with other spellings.

    At least half of the names agree in position, and no name that is unique in both lists has
    different positions: an alphabetical list with one other name is another order.
    """
    if tuple(classes) == tuple(known) or len(classes) != len(known):
        return len(classes) == len(known)
    same = sum(a == b for a, b in zip(classes, known, strict=True))
    here, there = _unique(classes), _unique(known)
    return 2 * same >= len(known) and all(there.get(name, i) == i for name, i in here.items())


def _unique(names: Sequence[str]) -> dict[str, int]:
    """Return the positions of the names that occur once."""
    count = Counter(names)
    return {name: i for i, name in enumerate(names) if count[name] == 1}
