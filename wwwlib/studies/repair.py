"""From audit to repair: a network without the neurons that respond to scenery.

A network that relies on scenery is wrong where the scenery changes. Neurons that are named after
scenery can be switched off: each is set to its mean over images, which keeps the mean and removes
the information about the image. The same can be done for each class apart: its logit is then
computed without the neurons that contribute to this class.

Marks et al., "Sparse feature circuits" (SHIFT), 2024, remove features in this way.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import torch
from pandas import DataFrame, Index, concat
from torch import Tensor

from wwwlib import world
from wwwlib.concepts import ConceptTable
from wwwlib.contributions import forward, head
from wwwlib.evaluation import Truth, activations, auroc
from wwwlib.images import ImageSet
from wwwlib.studies.interventions import Decisions, Fill, masked_logits
from wwwlib.studies.reliability import classifier
from wwwlib.targets import Target

Sets = Mapping[str, tuple[Decisions, Tensor]]  # images and their labels (I,)
SCENERY = (*world.CATEGORIES["scene"], *world.vocabulary.GROUNDS)


def named_after(table: ConceptTable, words: Iterable[str]) -> Tensor:
    """Return which neurons (N,) have one of the words as first name, and a test that supports it.

    Raises
    ------
    ValueError
        If the names have not been tested.
    """
    if table.tests is None:
        raise ValueError("The names have no tests; build the atlas with test=.")
    words, names = set(words), enumerate(table.names)
    return torch.tensor([bool(table.supported(i)) and own[0] in words for i, own in names])


def detected(z: Tensor, truth: Truth) -> Tensor:
    """Return by how much better each neuron detects its best scene than its best class, in AUROC.

    Parameters
    ----------
    z : Tensor
        (I, N) activations.
    truth : Truth
        What the I images show, scenes and classes of the concept world among it.

    Returns
    -------
    Tensor
        (N,) float64 in [-1, 1].
    """
    area, at = truth.apply(auroc, z), truth.words.index
    best = [area[:, [*map(at, words)]].amax(1) for words in (world.SCENES, world.CLASSES)]
    return best[0] - best[1]


def logits_without(own: Decisions, layer: str, removed: Tensor, fill: Fill = 0.0) -> Tensor:
    """Return logits of a network without sets of neurons of a layer.

    Parameters
    ----------
    own : Decisions
        I images.
    layer : str
        A layer of N neurons.
    removed : Tensor
        (S, N) bool, S sets. Or (S, C, N), where logit c comes from the network without the neurons
        of row c; these need a layer before a linear head.
    fill : Tensor or float
        What removed neurons are set to, (N,) or one number, at all positions.

    Returns
    -------
    Tensor
        (S, I, C) float64.

    Raises
    ------
    ValueError
        If `removed` has a row for each class and no linear head follows.
    """
    exact = head(own.target, layer)
    if removed.ndim == 3 and not exact:
        raise ValueError(f"No linear head follows {layer!r}; remove the same neurons for all.")
    found = []
    for x in own.x.split(own.batch_size):
        if exact:
            weight, bias = (one.detach().double().cpu() for one in exact)
            z = forward(own.target, x, [layer])[1][layer].z.detach().cpu()[:, None]
            sets = (torch.where(one, torch.as_tensor(fill), z) for one in removed)
            found.append(torch.stack([(kept.double() * weight).sum(2) + bias for kept in sets]))
        else:
            masks = (~removed)[:, None].expand(-1, len(x), -1)
            found.append(masked_logits(own.target, x, layer, masks, fill))
    return torch.cat(found, 1)


def trade_off(
    sets: Sets, layer: str, order: Tensor, ks: Sequence[int], fill: Fill = 0.0
) -> DataFrame:
    """Measure accuracy on several sets of images without the first neurons of an order.

    Parameters
    ----------
    sets : mapping of str to (Decisions, Tensor)
        Images, and their labels (I,).
    layer : str
    order : Tensor
        (N,) numbers; neurons go in descending order, those at -inf stay. (C, N) for each class.
    ks : sequence of int
        Numbers of neurons that are removed.
    fill
        As in `logits_without`.

    Returns
    -------
    DataFrame
        Accuracy on each set, by k.
    """
    places = order.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    removed = torch.stack([(places < k) & order.isfinite() for k in ks])
    index, without = Index(ks, name="removed"), partial(logits_without, layer=layer, fill=fill)
    right = {n: without(own, removed=removed).argmax(2) == y for n, (own, y) in sets.items()}
    return DataFrame({n: one.double().mean(1) for n, one in right.items()}, index)


def retrained(
    target: Target, layer: str, sets: Mapping[str, ImageSet], seed: int = 0, **options: object
) -> dict[str, float]:
    """Fit a new last layer to scenes with class and scenery independent.

    Parameters
    ----------
    target : Target
        A network of the concept world.
    layer : str
        The layer before the last one.
    sets : mapping of str to ImageSet
        Labelled scenes on which accuracy is measured.
    seed : int
        Of the 1,200 scenes that the last layer is fitted to.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to float
        Accuracy on each set.
    """

    def read(images: ImageSet) -> tuple[Tensor, Sequence[int]]:
        return activations(target, images, [layer], **options)[layer], images.labels

    new = classifier(max_iter=2_000).fit(*read(world.image_set(1_200, seed)))
    return {name: new.score(*read(images)) for name, images in sets.items()}


def curves(
    sets: Sets, layer: str, table: ConceptTable, class_w: Tensor, words: Iterable[str],
    ks: Sequence[int], fill: Fill = 0.0, draws: int = 3, seed: int = 0, more: Mapping | None = None,
) -> DataFrame:  # fmt: skip
    """Measure accuracy without neurons named after scenery, and without others.

    Parameters
    ----------
    sets, layer, ks, fill
        As in `trade_off`.
    table : ConceptTable
        Tested names of the N neurons.
    class_w : Tensor
        (C, N) class contributions.
    words : iterable of str
        The names of scenery.
    draws, seed : int
        Random orders, the mean of which is one of the rows.
    more : mapping of str to Tensor, optional
        Further orders, see `trade_off`.

    Returns
    -------
    DataFrame
        Accuracy on each set, by order and k: "scenery" by AUROC of the name; "scenery, by class",
        by contribution to each class, before a linear head; all neurons by "contribution"; and
        "random" ones.
    """
    named, none = named_after(table, words), torch.tensor(-torch.inf)
    orders = {"scenery": torch.where(named, table.tests.auroc, none)}
    if head(next(iter(sets.values()))[0].target, layer):
        orders["scenery, by class"] = torch.where(named, class_w, none)
    orders |= {**(more or {}), "contribution": class_w.mean(0)}
    found = {name: trade_off(sets, layer, own, ks, fill) for name, own in orders.items()}
    drawn = torch.rand(draws, len(named), generator=torch.Generator().manual_seed(seed))
    found["random"] = sum(trade_off(sets, layer, own, ks, fill) for own in drawn) / draws
    return concat(found, names=["order"])


def chosen(found: DataFrame, tuning: Sequence[str]) -> DataFrame:
    """Return each order's row of `curves` with the highest mean accuracy on the `tuning` sets."""
    best = found.loc[found[[*tuning]].mean(axis=1).groupby("order", sort=False).idxmax()]
    return best.drop(columns=[*tuning]).reset_index("removed")
