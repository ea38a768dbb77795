"""Tests of names, layer by layer: naming methods, their settings, the measures, and guarantees."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product

import torch
from pandas import DataFrame
from torch import Tensor

from wwwlib import concepts, evaluation
from wwwlib.baselines import clip_dissect, falcon, milan, network_dissection
from wwwlib.concepts import ConceptTable, NameTests
from wwwlib.evaluation import Truth, name_tests
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.language import ConceptSet, Encoder
from wwwlib.scores import Score, Words
from wwwlib.studies import comparison
from wwwlib.studies.comparison import dissection_names, exemplar_features, milan_names
from wwwlib.studies.tables import compare_pairs
from wwwlib.targets import LOGITS, Target


def binary(z: Tensor, present: Tensor, share: float = 0.05) -> dict[str, Tensor]:
    """Compare presence with the images that activate a neuron most.

    Parameters
    ----------
    z, present
        As for `evaluation.auroc`.
    share : float in (0, 1)
        Share of the images that count as active, rounded up; ties at the end are active, too.

    Returns
    -------
    dict of str to Tensor
        (N, M) float64 in [0, 1]: "F1", "IoU", and "AUPRC", the average precision of retrieving the
        active images by presence. NaN as there.

    References
    ----------
    Oikarinen et al., "Evaluating neuron explanations", ICML 2025.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give a number between 0 and 1, such as .05.")

    def block(z: Tensor, c: Tensor, count: Tensor) -> Tensor:
        active = (z >= z.topk(math.ceil(share * len(z)), 0).values[-1]).double()
        both, size = active.T @ c, active.sum(0)[:, None]
        f1, iou = 2 * both / (size + count), both / (size + count - both)
        auprc = both**2 / (size * count) + (1 - both / size) * size / len(z)
        return torch.stack([f1, iou, auprc], 2)

    found = evaluation.measured(block, z, present).unbind(2)
    return dict(zip(("F1", "IoU", "AUPRC"), found, strict=True))


MEASURES = {"Pearson": evaluation.pearson, "cosine": evaluation.cosine}
MEASURES |= {n: lambda z, c, name=n: binary(z, c)[name] for n in ("AUPRC", "F1", "IoU")}
MEASURES |= {"average precision": evaluation.average_precision, "AUROC": evaluation.auroc}
MEASURES |= {"MAD": evaluation.mad}
PERFECT, EVEN = "WWW, perfect encoder", "WWW, standardised perfect encoder"
# What is tuned of each method, in the order of the keys of `sweep` and `rivals`.
SETTINGS = {"WWW": ("K",), "CLIP-Dissect": ("K", "λ"), "FALCON": ("σ", "cohesion")}
Layer = tuple[str, str]  # network and layer
Tested = Mapping[Layer, Mapping[str, NameTests]]  # of every method
Tried = dict[tuple, Words]  # first names by method and settings
_embedded = lru_cache(maxsize=4)(ConceptSet.embed)


def www(
    v: Tensor, exemplars: Exemplars, words: ConceptSet, encoder: Encoder, k: int, alpha: float = 1.0
) -> ConceptTable:
    """Name neurons by WWW with k of the exemplars, from features v (I, D) of all probe images."""
    features = exemplar_features(v, exemplars.first(k))
    return concepts.discover(features, *_embedded(words, encoder), words.words, alpha)


def perfect(
    images: ImageSet, exemplars: Mapping[str, Exemplars], k: int, **options: object
) -> dict[str, Tried]:
    """Name neurons by WWW with a perfect encoder of the concepts whose masks are known.

    The features of an image are its concepts, as a vector of unit length, and those of a concept
    are the unit vector of its axis. What is wrong in these names is due to the score, which ignores
    how frequent a concept is. With standardised features, in which each concept has mean zero and
    standard deviation one over the images before they get unit length, no concept is favoured.

    Parameters
    ----------
    images : ImageSet
        The probe set, with masks.
    exemplars : mapping of layer to Exemplars
        At least k.
    k : int
        Exemplars used.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of layer to dict of (method,) to list of list of str
        The methods are `PERFECT` and `EVEN`, the standardised one.
    """
    truth, found = evaluation.from_masks(images, **options), {layer: {} for layer in exemplars}
    c, t = truth.present.float(), torch.eye(len(truth.words))
    for method, v in ((PERFECT, c), (EVEN, (c - c.mean(0)) / c.std(0).clamp_min(1e-6))):
        v = torch.nn.functional.normalize(v, dim=1)
        for layer, own in exemplars.items():
            u = exemplar_features(v, own.first(k))
            found[layer][method,] = concepts.discover(u, t, None, truth.words, 1.0).names
    return found


def sweep(
    v: Tensor,
    exemplars: Exemplars,
    words: ConceptSet,
    encoder: Encoder,
    ks: Sequence[int],
    lambdas: Sequence[float],
) -> Tried:
    """Name neurons by WWW and CLIP-Dissect in many settings.

    Parameters
    ----------
    v : Tensor
        (I, D) unit-norm features of all probe images.
    exemplars : Exemplars
        Of N neurons, at least the largest of `ks`.
    words : ConceptSet
    encoder : Encoder
        The encoder of `v`.
    ks, lambdas : sequence
        Numbers of exemplars, and weights of CLIP-Dissect's prior.

    Returns
    -------
    dict of (method, k[, lambda]) to list of list of str
        The names of each neuron; WWW has no lambda.
    """
    bare, _ = _embedded(ConceptSet(words.words, "{}", words.source), encoder)
    found: Tried = {("WWW", k): www(v, exemplars, words, encoder, k).names for k in ks}
    for k, lam in product(ks, lambdas):
        ranked = clip_dissect.soft_wpmi(v, bare, exemplars.first(k), words.words, lam=lam)
        found["CLIP-Dissect", k, lam] = ranked.names
    return found


def tuned(tried: Tried, z: Tensor, truth: Truth) -> tuple[dict[str, Words], dict[str, object]]:
    """Choose the setting of each method with the highest mean AUROC on the images of a truth.

    Returns
    -------
    names : dict of method to list of list of str
        Names of the first setting of each method ("WWW", ...), and of the best one ("WWW, tuned",
        ...) of those that have settings.
    settings : dict of str to float
        The best settings, see `SETTINGS`, and their mean AUROC.
    """
    names, settings = {}, {}
    for method in dict.fromkeys(method for method, *_ in tried):
        own = {at: given for at, given in tried.items() if at[0] == method}
        names[method] = next(iter(own.values()))
        if method in SETTINGS:
            fit = {at: summary(name_tests(given, z, truth))["AUROC"] for at, given in own.items()}
            best = max(fit, key=fit.get)
            names[f"{method}, tuned"] = own[best]
            cells = zip((*SETTINGS[method], "AUROC"), (*best[1:], fit[best]), strict=True)
            settings |= {f"{method}: {title}": value for title, value in cells}
    return names, settings


def rivals(
    target: Target, exemplars: Mapping[str, Exemplars], probe: ImageSet,
    words: ConceptSet, encoder: Encoder, masked: ImageSet | None = None,
    captions: str | None = None, sigmas: Sequence[float] = (falcon.SIGMAS,),
    cohesive: Sequence[float] = (falcon.COHESIVE,), grouping: Mapping[str, float] | None = None,
    describer: str | None = None, k: int = 40, **options: object,
) -> dict[str, Tried]:  # fmt: skip
    """Name the neurons of layers by Network Dissection, FALCON and MILAN, as far as they can run.

    Parameters
    ----------
    target : Target
    exemplars : mapping of layer to Exemplars
    probe : ImageSet
        Where the exemplars are from.
    words, encoder
        As for `sweep`.
    masked : ImageSet, optional
        Images with masks, for Network Dissection.
    captions, describer : str, optional
        See `comparison.captions` and `milan.load`.
    sigmas, cohesive : sequence of float
        Thresholds of FALCON, all combinations of which are tried.
    grouping : mapping, optional
        Its other settings.
    k : int
        Exemplars of WWW with a perfect encoder, where the probe set has masks.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of layer to dict of (method[, sigmas, cohesive]) to list of list of str
    """
    found: dict[str, Tried] = {layer: {} for layer in exemplars}
    options = {**options, "progress": False}
    if masked:
        scans = network_dissection.dissect(target, masked, list(exemplars), **options)
        for layer, one in scans.items():
            found[layer]["Network Dissection",] = dissection_names(one, words.words).names
    for layer, names in perfect(probe, exemplars, k, **options).items() if probe.masks else ():
        found[layer] |= names
    texts = captions and comparison.captions(captions, encoder)
    speaker = milan.load(describer) if describer else None
    hidden = [layer for layer in exemplars if layer != LOGITS]
    for layer, own in exemplars.items():
        maps = hidden[-1] if layer == LOGITS and hidden else layer
        how = {"cam_layer": maps, **(grouping or {}), **options}
        for pair in product(sigmas, cohesive) if texts else ():
            how |= zip(("sigmas", "cohesive"), pair, strict=True)
            grouped = falcon.falcon(target, layer, probe, encoder, texts, **how)
            found[layer]["FALCON", *pair] = grouped.table().names
        if speaker:
            words_of = milan.candidates(target, layer, probe, own.first(15), speaker, **options)
            found[layer]["MILAN",] = milan_names(words_of.ranked(), words.words).names
    return found


def test(names: Mapping[str, Words], z: Tensor, truth: Truth) -> dict[str, NameTests]:
    """Test the names of every method, and the most frequent name of the first one."""
    names = {**names, "most frequent name": most_frequent(next(iter(names.values())))}
    return {method: name_tests(own, z, truth) for method, own in names.items()}


def most_frequent(names: Words) -> Words:
    """Name every neuron by the most frequent first name."""
    used = [own[0] for own in names if own]
    return [[max(used, key=used.count)]] * len(names)


def values(tests: NameTests) -> dict[str, Tensor]:
    """Return AUROC and Pearson correlation (N,), at chance where a name was not tested.

    A neuron that abstains, or is named by a word that no image shows, has no better than that.
    """
    return {"AUROC": tests.auroc.nan_to_num(0.5), "Pearson": tests.pearson.nan_to_num(0.0)}


def summary(tests: NameTests) -> dict[str, float]:
    """Return the means of a layer's tests, beside the best concept's and the shuffled names'."""
    supported = [bool(tests.supported(i)) for i in range(len(tests.rank))]
    found = {"neurons": len(tests.rank)} | {n: v.mean().item() for n, v in values(tests).items()}
    found |= {"best concept": tests.best_auroc.nanmean().item(), "shuffled": tests.shuffled}
    found["untested"] = (tests.rank == 0).double().mean().item()
    return found | {"supported": sum(supported) / len(supported)}


def compare(tested: Tested, reference: str = "WWW", seed: int = 0) -> DataFrame:
    """Compare methods with a reference in every layer, neuron by neuron.

    Parameters
    ----------
    tested : mapping of (network, layer) to mapping of method to NameTests
    reference : str
        The method that the others are compared with.
    seed : int
        See `scores.compare`.

    Returns
    -------
    DataFrame
        A row for each layer and method: mean AUROC and Pearson correlation, the differences to the
        reference, and p-values corrected over all cells of the table by Holm's method.
    """
    rows, pairs = [], {}
    for (network, layer), methods in tested.items():
        base = values(methods[reference])
        for method, tests in methods.items():
            rows.append({"network": network, "layer": layer, "method": method})
            for name, own in values(tests).items():
                one, other = Score(name, own), Score(name, base[name])
                rows[-1][name] = one.mean
                if method != reference:
                    pairs[len(rows) - 1, name] = one, other
    for (row, name), gap in compare_pairs(pairs, seed).iterrows():
        rows[row] |= {f"{name} gap": gap.difference, f"{name} p": gap.p}
    return DataFrame(rows)


def due_to_encoder(tested: Tested, seed: int = 0) -> list[str]:
    """Return in two sentences how far names are bad because of the encoder.

    Parameters
    ----------
    tested : mapping of (network, layer) to mapping of method to NameTests
        "given encoder", `PERFECT` and `EVEN`, in the same words.
    seed : int
        See `scores.compare`.
    """
    table = compare(tested, "given encoder", seed)
    rows = table.pivot(index=["network", "layer"], columns="method", values="AUROC")
    rows["best"] = [summary(tested[at][EVEN])["best concept"] for at in rows.index]
    reach = {n: f"{own.min():.2f} to {own.max():.2f}" for n, own in rows.items()}
    even = table[table.method == EVEN]
    firm = even[even["AUROC p"] < 0.05]["AUROC gap"]
    return [
        f"By layer, names by the given encoder have a mean AUROC of {reach['given encoder']}, by "
        f"the perfect one {reach[PERFECT]}, and by the standardised one {reach[EVEN]}; the best "
        f"concept has {reach['best']}.",
        f"The standardised encoder is significantly above the given one in {(firm > 0).sum()} of "
        f"{len(even)} layers, and below it in {(firm < 0).sum()}.",
    ]


def label_checks(z: Tensor, truth: Truth, seed: int = 0) -> DataFrame:
    """Check measures: a neuron's score for its concept must fall with missing and extra labels.

    Parameters
    ----------
    z : Tensor
        (I, N) activations; a neuron's concept is that of highest Pearson correlation.
    truth : Truth
    seed : int
        Seed of the labels that are removed, a half, and of those that are added, as many as there
        are.

    Returns
    -------
    DataFrame
        For each measure the share of neurons whose score falls, in either check.

    References
    ----------
    Oikarinen et al., "Evaluating neuron explanations", ICML 2025, section 4.
    """
    c, generator = truth.present, torch.Generator().manual_seed(seed)
    own = evaluation.pearson(z, c).nan_to_num(-1).argmax(1, keepdim=True)
    noise = torch.rand(c.shape, generator=generator)
    changed = {"missing labels": c & (noise > 0.5)}
    changed["extra labels"] = c | (noise < c.sum(0) / (~c).sum(0))
    rows = {}
    for name, measure in MEASURES.items():
        whole = measure(z, c).gather(1, own)
        fell = {check: measure(z, one).gather(1, own) < whole for check, one in changed.items()}
        rows[name] = {check: one.double().mean().item() for check, one in fell.items()}
    return DataFrame(rows).T


def guaranteed_sets(
    fit: Tensor, fresh: Tensor, level: float = 0.95, rounds: int = 100, seed: int = 0
) -> tuple[float, float]:
    """Coverage and size of sets of names that hold a neuron's best concept on fresh images.

    Split conformal prediction over the neurons of a layer: on one half of them, how far the
    concept that is best on fresh images lies below the best on the images at hand; on the other
    half, all concepts within the quantile of these gaps.

    Parameters
    ----------
    fit, fresh : Tensor
        (N, M) Pearson correlations on the images at hand, and on fresh ones.
    level : float in (0, 1)
        The coverage that is guaranteed.
    rounds, seed : int
        Number of random splits, and their seed.

    Returns
    -------
    coverage, size : float
        Means over splits: share of neurons whose best concept is in their set, names per set.

    References
    ----------
    Vovk et al., "Algorithmic learning in a random world", 2005.
    """
    fit, best = fit.nan_to_num(-1), fresh.nan_to_num(-1).argmax(1, keepdim=True)
    gap = fit.amax(1, keepdim=True) - fit
    own, half = gap.gather(1, best)[:, 0], len(fit) // 2
    place = min(math.ceil((half + 1) * level), half) - 1
    generator, covered, sizes = torch.Generator().manual_seed(seed), [], []
    for _ in range(rounds):
        order = torch.randperm(len(fit), generator=generator)
        sets = gap[order[half:]] <= own[order[:half]].sort().values[place]
        covered.append(sets.gather(1, best[order[half:]]).double().mean().item())
        sizes.append(sets.sum(1).double().mean().item())
    return sum(covered) / rounds, sum(sizes) / rounds


def findings(tested: Tested, verified: Mapping[Layer, ConceptTable], table: DataFrame) -> list[str]:
    """Return what the tests of names found, in three sentences.

    Parameters
    ----------
    tested : mapping of (network, layer) to mapping of method to NameTests
        WWW among the methods.
    verified : mapping of (network, layer) to ConceptTable
        See `evaluation.verify`.
    table : DataFrame
        What `compare` returns, with "WWW, tuned" as the reference.
    """
    rows = DataFrame({at: summary(own["WWW"]) for at, own in tested.items()}).T
    low, high = rows.min(), rows.max()
    one = next(iter(tested.values()))["WWW"]
    supported = (rows.supported * rows.neurons).sum() / rows.neurons.sum()
    table = table[~table.method.isin((PERFECT, EVEN))]  # no methods: they use the masks
    best = table.groupby(["network", "layer"]).AUROC.transform("max") == table.AUROC
    alone = table[best].drop_duplicates(["network", "layer"], keep=False)
    rival = table[table.method == "CLIP-Dissect, tuned"]
    firm = rival[rival["AUROC p"] < 0.05]["AUROC gap"]
    chosen = DataFrame({at: summary(own.tests) for at, own in verified.items()}).T
    unnamed = sum(int(own.abstained.sum()) for own in verified.values()) / rows.neurons.sum()
    return [
        f"On {one.images:,} other images WWW's first names have a mean AUROC of {low.AUROC:.2f} to "
        f"{high.AUROC:.2f}, by layer; the best of {one.concepts} concepts has "
        f"{low['best concept']:.2f} to {high['best concept']:.2f}, shuffled names have "
        f"{low.shuffled:.2f} to {high.shuffled:.2f}, and {supported:.0%} of the names do better "
        "than chance.",
        "Perfect encoders left out, the highest mean AUROC has "
        + ", ".join(f"{method} in {n}" for method, n in alone.method.value_counts().items())
        + f" of {len(rows)} layers, several equally in {len(rows) - len(alone)}; with tuned "
        f"settings CLIP-Dissect is significantly above WWW in {(firm > 0).sum()} of them and below "
        f"in {(firm < 0).sum()}.",
        "Choosing by test images among looser candidates changes the mean Pearson correlation "
        f"from {rows.Pearson.mean():.2f} to {chosen.Pearson.mean():.2f}, and leaves {unnamed:.0%} "
        "of the neurons without a name.",
    ]
