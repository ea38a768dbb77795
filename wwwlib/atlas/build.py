"""Build an atlas: name neurons from whole images and crops, and compute class contributions.

Class contributions are the mean of w over the images of each class (WWW, section 3.4). In front of
a linear head they follow from the class sums of the exemplars; elsewhere one pass computes them for
all layers, with the gradient of each image's class and exact sums.

On most networks nearly every r is close to 1, errors included, so its value alone says little: an
`Explanation` states how many right predictions of the same network have a higher one. Likewise it
says that an image is unlike the probe set if few images are as far from the others.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib import maps
from wwwlib.atlas.atlas import Atlas, LayerRecord, Thumbnails
from wwwlib.atlas.explain import without_bias
from wwwlib.concepts import ConceptTable, bootstrap_depth, discover, select, stability
from wwwlib.contributions import Contributions, contribute_all, forward, head, resolve_classes
from wwwlib.distributed import Options, Pass, State, concatenate, run
from wwwlib.distributed.states import class_sums, class_totals, merge_class_sums
from wwwlib.evaluation import LOOSE, Truth, activations, evaluate, name_tests, verify
from wwwlib.exemplars import OK, Exemplars, check_k, collect
from wwwlib.images import FIVE_CROPS, ImageSet, check_apart, crops, match_labels, subset
from wwwlib.language import ConceptSet, Encoder, image_features
from wwwlib.language.encoders import embed_texts
from wwwlib.registry import whole_number
from wwwlib.store import tensor_digest, versions
from wwwlib.targets import Target

_IMAGES = 200  # at most so many show what is usual
_TOP = 8  # the r of right predictions is computed for 1 to 8 neurons per track


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
    test: Truth | None = None,
    signed: bool = False,
    shown: int = 8,
    thumbnail: int = 64,
    rounds: int = 20,
    seed: int = 0,
    **options: Any,
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
    test : evaluation.Truth, optional
        Images with known concepts, none of them in the probe set, that test the names; with crops
        they test minor concepts, too. Without it names are untested.
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
        If a layer does not exist, a number is out of range, probe set and test share an image, or
        a name that a direction has is no concept that `ConceptSet` takes.

    References
    ----------
    WWW, sections 3.2 to 3.4.
    """
    layers = _checked(target, layers, alpha, alpha_minor)
    for name, value in (("shown", shown), ("rounds", rounds), ("seed", seed)):
        whole_number(name, value, 0)
    how, thumbnail = Options(**options), whole_number("thumbnail", thumbnail)
    k_minor = k if k_minor is None else k_minor
    probe = match_labels(probe, target)
    cropped = crops(probe, boxes)
    k, k_minor = check_k(k, probe, warn=False), check_k(k_minor, cropped, warn=False)
    if test is not None:
        check_apart(probe, test.images)
    labelled = probe if labelled is None else match_labels(labelled, target)
    t, t0 = words.embed(encoder, how.store, progress=how.progress)
    named = {n: _given(own, words, encoder) for n in layers if (own := target.given.get(n))}

    resample = partial(stability, images=len(probe), t=t, t0=t0, k=k, rounds=rounds, seed=seed)
    again = resample if rounds else None
    exemplars, v, stable = _features(target, probe, encoder, layers, k, options, again)
    small, minor_v, _ = _features(target, cropped, encoder, layers, k_minor, options)
    heads = {layer: _weight(target, layer, probe, exemplars[layer]) for layer in layers}
    known = exemplars if labelled is probe else None
    class_w, count = _class_contributions(target, labelled, heads, known, signed, options)
    kinds = maps.default_kinds(target, layers)
    right_r, usual = _usual_values(target, labelled, class_w, count, heads, signed, kinds, options)
    naming = partial(discover, t=t, t0=t0, words=words.words)
    found = {
        layer: LayerRecord(
            name=layer,
            major=named.get(layer, partial(naming, alpha=alpha))(v[layer]),
            minor=naming(minor_v[layer], alpha=alpha_minor),
            v=v[layer],
            minor_v=minor_v[layer],
            exemplars=_without_sums(exemplars[layer]),
            minor_exemplars=_without_sums(small[layer]),
            class_w=class_w[layer],
            head=heads[layer],
            stability=None if layer in named else stable.get(layer),
            given=layer in named,
            right_r=right_r.get(layer),
            usual_z=usual.get(layer),
        )
        for layer in layers
    }
    if test is not None:
        candidates = {layer: naming(v[layer], alpha=LOOSE) for layer in layers}
        found = _tested(found, candidates, target, test, options)
    settings = {
        "probe": {"name": probe.name, "fingerprint": probe.fingerprint},
        "class side": {"name": labelled.name, "fingerprint": labelled.fingerprint},
        "labelled": label_source(labelled),
        "words": {"digest": words.digest, "template": words.template},
        "test": test and {"name": test.images.name, "fingerprint": test.images.fingerprint},
        "encoder": encoder.name,
        "versions": versions(),
        "k": [k, k_minor],
        "alpha": [alpha, alpha_minor],
        "signed": signed,
        "maps": kinds,
        "boxes": [list(box) for box in boxes],
        "rounds": rounds,
        "seed": seed,
    }
    shrink = partial(_thumbnails, shown=shown, side=thumbnail, progress=how.progress)
    pictures = shrink(probe, exemplars), shrink(cropped, small)
    return Atlas(target, found, count, tuple(words.words), t, t0, *pictures, settings)


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


def _given(names: Sequence[str], words: ConceptSet, encoder: Encoder) -> Callable:
    """Return what makes of features (N, D) the table of the names that N directions have."""
    own = [ConceptSet([one], words.template, "names of directions") for one in names]
    *t, t0 = embed_texts(encoder, [*(one.sentences[0] for one in own), words.bare_template])

    def table(v: Tensor) -> ConceptTable:
        s = (v * (torch.stack(t) - t0)).sum(1)
        found = [[*one.words] for one in own]
        return ConceptTable(found, s[:, None].tolist(), s * torch.nan, s.isnan())

    return table


def _tested(
    records: Mapping, candidates: Mapping, target: Target, test: Truth, options: Mapping
) -> dict[str, LayerRecord]:
    """Return the records with tests of their names, and with verified names."""
    minor = {layer: one.minor for layer, one in records.items()}
    z = activations(target, test.images, list(records), **options)
    if test.crops:
        minor = evaluate(minor, target, test.crops, **options)
    return {
        layer: replace(
            one,
            major=replace(one.major, tests=name_tests(one.major.names, z[layer], test)),
            minor=minor[layer],
            verified=verify(candidates[layer], z[layer], test),
        )
        for layer, one in records.items()
    }


def _features(
    target: Target,
    images: ImageSet,
    encoder: Encoder,
    layers: Sequence[str],
    k: int,
    options: Mapping,
    resample: Callable | None = None,
) -> tuple[dict[str, Exemplars], dict[str, Tensor], dict[str, Tensor]]:
    """Collect the exemplars of all layers and encode the union of their images once.

    Returns exemplars, mean image features (N, D), and stability (N,) if it is measured, by layer.

    The feature of a missing exemplar, and of all exemplars of a neuron that is constant or not
    finite, is zero, as in `language.embed_exemplars`, so that such a neuron abstains.
    """
    deep = None if resample is None else bootstrap_depth(k, len(images))
    found = collect(target, images, layers, k, depth=deep, **options)
    index = {n: one.index.where(one.status.unsqueeze(1) == OK, -1) for n, one in found.items()}
    union = torch.cat([one.flatten() for one in index.values()]).unique()
    distinct = union[union >= 0]
    encoded = image_features(encoder, images, distinct, **options)
    features = torch.cat([encoded.new_zeros(1, encoder.dim), encoded])
    # Row 0 is the zero of a missing image, since -1 sorts before every index.
    rows = {layer: torch.searchsorted(distinct, one, right=True) for layer, one in index.items()}
    v = {layer: F.embedding_bag(row[:, :k], features, mode="mean") for layer, row in rows.items()}
    stable = {}
    if resample is not None:
        stable = {n: resample(features, index[n], rows=row).share for n, row in rows.items()}
    return {layer: one.first(k) for layer, one in found.items()}, v, stable


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
    exact = {layer: weight for layer, weight in heads.items() if weight is not None}
    others = [layer for layer, weight in heads.items() if weight is None]
    found: dict[str, Tensor] = {}
    if others:
        found, count = class_contributions(target, images, others, signed, **options)
    if exact:
        sums = known or collect(target, images, [*exact], 1, **options)
        for layer, weight in exact.items():
            found[layer] = head_class_contributions(sums[layer], weight, signed)
            count = sums[layer].class_count
    return found, count


def _weight(target: Target, layer: str, probe: ImageSet, exemplars: Exemplars) -> Tensor | None:
    """Return the weight of a linear head, tried on the images that activate most neurons most."""
    best = exemplars.index[:, 0]
    often = best[best >= 0].bincount().argsort(descending=True, stable=True)[:8].tolist()
    x = [target.preprocess(probe.image(i)) for i in often]
    found = head(target, layer, torch.stack(x) if x else None)
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
    target: Target, images: ImageSet, layers: Sequence[str], signed: bool = False, **options: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the class contributions of any layers, with one pass over labelled images.

    Parameters
    ----------
    target : Target
    images : ImageSet
        An image without a label of the network's classes, see `match_labels`, counts for its
        predicted class.
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
    images = match_labels(images, target)
    labels = torch.tensor([-1 if label is None else label for label in images.labels])

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        classes = labels[indices].to(x.device)
        unknown = classes < 0
        if unknown.any() and not unknown.all():
            with torch.no_grad():
                logits, _ = forward(target, x[unknown], [])
            classes[unknown] = resolve_classes(None, logits)
        given = None if unknown.all() else classes
        found = contribute_all(target, x, layers, given, signed, dict.fromkeys(layers, False))
        return {n: class_sums(one.w.nan_to_num(0, 0, 0), one.classes) for n, one in found.items()}

    finish = partial(class_totals, number=len(target.classes))
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


def label_source(images: ImageSet) -> str:
    """Return "labels", "predictions" or "mixed": the source of the images' classes."""
    missing = [label is None for label in images.labels]
    return "predictions" if all(missing) else "mixed" if any(missing) else "labels"


# What is usual --------------------------------------------------------------------------------


def _usual_values(
    target: Target, images: ImageSet, class_w: Any, count: Any,
    heads: Any, signed: bool, kinds: Any, options: Mapping,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Compute r of right predictions and activations of images, to which explanations compare.

    An image that is part of its class mean is similar to it for that reason: each image is
    compared with the mean of the other images of its class.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The images behind `class_w`; about 200 of those with a label are used, evenly spaced in the
        order of their classes, or of all, if none has a label.
    class_w, count
        As `class_contributions` returns them.
    heads : mapping of str to Tensor or None
        Weight (C, N) of the linear head behind each layer.
    signed : bool
        Whether contributions keep their sign.
    kinds : mapping
        What `maps.default_kinds` returns.
    options : mapping
        Fields of `distributed.Options`.

    Returns
    -------
    right_r, usual_z : dict of str to Tensor
        Those of `LayerRecord`, of each layer whose positions reach the logits; `right_r` is empty
        without labels.
    """
    class_w = {layer: class_w[layer] for layer, kind in kinds.items() if kind}
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    known = labels.argsort(stable=True)[(labels < 0).sum() % len(labels) :]
    spread = torch.linspace(0, len(known) - 1, min(len(known), _IMAGES)).round().long()
    if not class_w:
        return {}, {}
    chosen, labelled = known[spread].sort().values, bool(labels.max() >= 0)
    contributing = {layer for layer, kind in kinds.items() if kind == maps.CONTRIBUTION}

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        own, size = labels[chosen[indices]], tuple(x.shape[-2:])
        linear = {n: n not in contributing and without_bias(heads[n], x.device) for n in layers}
        classes = own.to(x.device) if labelled else None
        found = contribute_all(target, x, layers, classes, signed, linear)
        return {
            layer: {
                "r": _to_others(one, own, class_w[layer], count, size, layer in contributing),
                "z": one.activations.maps.float().mean((2, 3)).cpu(),
            }
            for layer, one in found.items()
        }

    key = {"signed": signed, "class_w": tensor_digest(class_w), "kinds": kinds}
    some, about = subset(images, chosen.tolist()), ("usual-values", key)
    p = Pass(target, some, list(class_w), step, concatenate, *about, label="similarity to classes")
    right_r, usual_z = {}, {}
    for layer, state in run(p, **options).items():
        r = state["r"][~state["r"].isnan().all(1)].T.sort(1).values.contiguous()
        right_r[layer], usual_z[layer] = r, state["z"]
    return right_r if labelled else {}, usual_z


@torch.no_grad()
def _to_others(
    found: Contributions, labels: Tensor, class_w: Tensor, count: Tensor, size: Any, by_maps: bool
) -> Tensor:
    """Return r (B, 8) of images with the others of their class; nan where predictions are wrong."""
    a, w = (found.maps if by_maps else found.activations.maps).cpu(), found.w.double().cpu()
    a = a.to(torch.promote_types(a.dtype, torch.float32))
    n = count[labels].double().unsqueeze(1)
    others = (n * class_w[labels] - w) / (n - 1)
    right = (found.logits.argmax(1).cpu() == labels) & a.flatten(1).isfinite().all(1)
    right &= w.isfinite().all(1) & others.isfinite().all(1)
    r = torch.full((len(labels), _TOP), torch.nan, dtype=torch.float64)
    a, tracks = a[right], (w[right], others[right])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of heatmaps of zeros, whose r is nan
        for k in range(_TOP):
            both = (maps.heatmap(a, v, k + 1, size, not by_maps) for v in tracks)
            r[right, k] = maps.similarity(*both).double()
    return r
