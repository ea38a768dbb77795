"""Tests of names, layer by layer: naming methods, their settings, the measures, and guarantees."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

import torch
from pandas import DataFrame
from torch import Tensor

from wwwlib import concepts, evaluation
from wwwlib.baselines import clip_dissect
from wwwlib.baselines.common import first
from wwwlib.concepts import NameTests
from wwwlib.evaluation import Truth
from wwwlib.exemplars import Exemplars
from wwwlib.language import ConceptSet, Encoder
from wwwlib.scores import Score, Words
from wwwlib.studies.comparison import exemplar_features
from wwwlib.studies.tables import Row, Table, differences, holm

METRICS = ("AUROC", "Pearson")
MEASURES = {
    "Pearson": evaluation.pearson,
    "cosine": evaluation.cosine,
    "AUPRC": lambda z, c: evaluation.binary(z, c)["AUPRC"],
    "F1": lambda z, c: evaluation.binary(z, c)["F1"],
    "IoU": lambda z, c: evaluation.binary(z, c)["IoU"],
    "average precision": evaluation.average_precision,
    "AUROC": evaluation.auroc,
    "MAD": evaluation.mad,
}
Layer = tuple[str, str]  # network and layer


def www(v: Tensor, exemplars: Exemplars, t: tuple[Tensor, Tensor], words: Words, k: int) -> Words:
    """Name neurons by WWW with k of the exemplars: the first names (N,)."""
    table = concepts.discover(exemplar_features(v, first(exemplars, k)), *t, words, alpha=1.0)
    return [own[:1] for own in table.names]


def sweep(
    v: Tensor,
    exemplars: Exemplars,
    words: ConceptSet,
    encoder: Encoder,
    ks: Sequence[int],
    lambdas: Sequence[float],
) -> dict[tuple[str, int, float], Words]:
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
    dict of (method, k, lambda) to list of list of str
        The first name of each neuron; lambda is nan for WWW, which has none.
    """
    t = words.embed(encoder)
    bare, _ = ConceptSet(words.words, "{}", words.source).embed(encoder)
    found = {("WWW", k, math.nan): www(v, exemplars, t, words.words, k) for k in ks}
    for k, lam in product(ks, lambdas):
        ranked = clip_dissect.soft_wpmi(v, bare, first(exemplars, k), words.words, lam=lam)
        found["CLIP-Dissect", k, lam] = ranked.names
    return found


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
    own = {name: value.mean().item() for name, value in values(tests).items()}
    supported = [bool(tests.supported(i)) for i in range(len(tests.rank))]
    return {
        "neurons": len(tests.rank),
        **own,
        "best concept": tests.best_auroc.nanmean().item(),
        "shuffled": tests.shuffled,
        "untested": (tests.rank == 0).double().mean().item(),
        "supported": sum(supported) / len(supported),
    }


def compare(
    tested: Mapping[Layer, Mapping[str, NameTests]], reference: str = "WWW", seed: int = 0
) -> DataFrame:
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
    tables = {}
    for layer, methods in tested.items():
        rows = [
            Row(method, {name: Score(name, value) for name, value in values(one).items()}, {})
            for method, one in methods.items()
        ]
        tables[layer] = Table(", ".join(layer), METRICS, tuple(rows))
    gaps = [
        (at, gap) for at, table in tables.items() for gap in differences(table, reference, seed)
    ]
    adjusted = holm([gap.comparison.p for _, gap in gaps])
    cells = {
        (at, row.method): {name: score.mean for name, score in row.scores.items()}
        for at, table in tables.items()
        for row in table.rows
    }
    for (at, gap), p in zip(gaps, adjusted, strict=True):
        name = gap.metric
        cells[at, gap.method] |= {f"{name} gap": gap.comparison.difference, f"{name} p": p}
    rows = [
        {"network": at[0], "layer": at[1], "method": m, **one} for (at, m), one in cells.items()
    ]
    return DataFrame(rows)


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
    count = c.sum(0)
    changed = {
        "missing labels": c & (noise > 0.5),
        "extra labels": c | (noise < count / (len(c) - count)),
    }
    rows = {}
    for name, measure in MEASURES.items():
        whole = measure(z, c).gather(1, own)
        rows[name] = {
            check: (measure(z, labels).gather(1, own) < whole).double().mean().item()
            for check, labels in changed.items()
        }
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
        reach = own[order[:half]].sort().values[place]
        sets = gap[order[half:]] <= reach
        covered.append(sets.gather(1, best[order[half:]]).double().mean().item())
        sizes.append(sets.sum(1).double().mean().item())
    return sum(covered) / rounds, sum(sizes) / rounds
