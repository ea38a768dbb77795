"""Describe the neurons of a layer: exemplars, masks, features, beams, and the choice among them.

Beam search proposes what is likely given the exemplars; ``log p(d | E) - weight log p(d)`` then
prefers what is special to them over what is said of every neuron: pointwise mutual information.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.milan.describer import Describer
from wwwlib.baselines.milan.features import exemplar_features
from wwwlib.baselines.milan.masks import alive, levels, masked, plan
from wwwlib.baselines.milan.networks import log_probability
from wwwlib.baselines.milan.search import beam_search
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.store import Store, tensor_digest
from wwwlib.targets import Target, visible_box

K, QUANTILE, WEIGHT, BEAM, LENGTH = 15, 0.99, 0.2, 50, 8
_BLOCK = 256  # neurons that are searched for at once
_APART = 0.02  # of an image's side: two views closer than that are one


@dataclass(frozen=True)
class Candidates:
    """What beam search proposes for N neurons.

    Attributes
    ----------
    texts : list of list of str
        For each neuron B descriptions, the likeliest first; none for neurons that abstain.
    told : Tensor, shape (N, B)
        log p(d | E); -inf where there is no description, and for neurons that abstain.
    spoken : Tensor, shape (N, B)
        log p(d).
    """

    texts: list[list[str]]
    told: Tensor
    spoken: Tensor

    def ranked(self, weight: float = WEIGHT, k: int = 1) -> ConceptTable:
        """Choose by ``log p(d | E) - weight log p(d)``.

        Parameters
        ----------
        weight : float
            At least 0; the paper's lambda. With 0 the likeliest description wins.
        k : int
            Most descriptions of a neuron.

        Returns
        -------
        ConceptTable
            Of equals, the likelier comes first.

        Raises
        ------
        ValueError
            If an argument is out of range.
        """
        if not 0 <= weight < float("inf") or k < 1:
            raise ValueError(
                f"weight = {weight} and k = {k}; the weight must be 0 or more, as .2 in the paper, "
                "and a neuron needs at least 1 description."
            )
        score = torch.where(self.told.isfinite(), self.told - weight * self.spoken, -torch.inf)
        value, order = score.sort(dim=1, descending=True, stable=True)
        counts = value[:, :k].isfinite().sum(1).tolist()
        names = [
            [texts[j] for j in row[:count]]
            for texts, row, count in zip(self.texts, order.tolist(), counts, strict=True)
        ]
        scores = [row[:count] for row, count in zip(value.tolist(), counts, strict=True)]
        least = torch.tensor([own[-1] if own else 0.0 for own in scores])
        return ConceptTable(names, scores, least, torch.tensor([not own for own in names]))


def describe(
    target: Target,
    layer: str,
    images: ImageSet,
    exemplars: Exemplars,
    describer: Describer,
    *,
    weight: float = WEIGHT,
    beam: int = BEAM,
    k: int = K,
    quantile: float = QUANTILE,
    length: int = LENGTH,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> ConceptTable:
    """Describe each neuron of a layer in a few words.

    The layer's maps are cut at each neuron's quantile; the final layer has none, so its exemplars
    are shown whole. The target's preprocessing and the describer's must show the same part of an
    image, since the masks of one are laid on the other; this is tried on the first image.

    Parameters
    ----------
    target : Target
    layer : str
        A name from ``target.layers()``.
    images : ImageSet
        The probe set.
    exemplars : Exemplars
        Of that layer and probe set, at least k a neuron. `exemplars.collect` ranks them by the
        neuron activation, on equal terms with other methods; `milan.collect` as the authors do.
    describer : Describer
        See `load`.
    weight : float
        Of log p(d), the paper's lambda.
    beam, length : int
        Descriptions that are compared for a neuron, and most words of one, its end among them.
    k : int
        Exemplars that are looked at; the paper takes 15.
    quantile : float
        In (0, 1).
    batch_size, workers, progress
        See `exemplars.stream`.
    store : Store, optional
        Keeps quantiles and candidates, so that another weight costs nothing.

    Returns
    -------
    ConceptTable
        One description a neuron, its score the objective. Neurons abstain whose status is not
        `OK`.

    Raises
    ------
    ValueError
        If an argument is out of range, or exemplars and layer do not fit together.

    References
    ----------
    Hernandez et al., "Natural Language Descriptions of Deep Visual Features", ICLR 2022,
    section 3.
    """
    found = candidates(
        target, layer, images, exemplars, describer, beam=beam, k=k, quantile=quantile,
        length=length, batch_size=batch_size, workers=workers, store=store, progress=progress,
    )  # fmt: skip
    return found.ranked(weight)


def candidates(
    target: Target,
    layer: str,
    images: ImageSet,
    exemplars: Exemplars,
    describer: Describer,
    *,
    beam: int = BEAM,
    k: int = K,
    quantile: float = QUANTILE,
    length: int = LENGTH,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> Candidates:
    """Propose descriptions, for `Candidates.ranked` to choose among; see `describe`."""
    chosen, options = alive(exemplars, images, k), (batch_size, workers, progress)
    if not chosen.live.any():
        none = torch.zeros(len(chosen.live), 1)
        return Candidates([[] for _ in chosen.live], torch.full_like(none, -torch.inf), none)

    def make(_) -> tuple[dict, dict]:
        features = _features(target, layer, images, chosen, describer, quantile, options, store)
        return _searched(describer, features, beam, length, progress), {}

    if store is None:
        return _told(describer, chosen.live, make(None)[0])
    key = {
        "target": target.key(), "layer": layer, "images": images.fingerprint,
        "exemplars": tensor_digest({"index": chosen.index, "live": chosen.live}),
        "describer": describer.digest, "beam": beam, "quantile": quantile, "length": length,
    }  # fmt: skip
    return _told(describer, chosen.live, store.fetch("milan", key, make).tensors)


def _features(target, layer, images, exemplars, describer, quantile, options, store) -> Tensor:
    """Return E (n, k, F) of the neurons that are alive."""
    encoder = describer.encoder
    size = tuple(encoder.preprocess(images.image(0)).shape[1:])
    level = levels(target, layer, images, exemplars, quantile, options, store)
    if level is not None:
        _same_part(target, encoder, images.image(0).size)
    masks = masked(target, layer, images, exemplars, level, size, options)
    where = plan(exemplars.index)
    return exemplar_features(encoder, describer.stages, images, where, masks, options)


def _same_part(target: Target, encoder: Target, size: tuple[int, int]) -> None:
    """Refuse two networks that see different parts of an image."""
    own, other = (visible_box(network, size) for network in (target, encoder))
    if max(abs(a - b) for a, b in zip(own, other, strict=True)) > _APART:
        raise ValueError(
            f"Of an image of {size[0]} x {size[1]} pixels {target.name} sees the part "
            f"{tuple(round(share, 2) for share in own)} and the describer's {encoder.name} "
            f"{tuple(round(share, 2) for share in other)}; give the target a preprocessing that "
            "shows what the describer sees."
        )


@torch.inference_mode()
def _searched(
    describer: Describer, features: Tensor, beam: int, length: int, progress: bool
) -> dict[str, Tensor]:
    """Search for the descriptions of features (n, k, F), a block of neurons at a time."""
    decoder, language, found = describer.decoder, describer.language, []
    device = decoder.mean.device
    bar = tqdm(total=len(features), desc="MILAN speaks", unit="neuron", disable=not progress)
    for block in features.split(_BLOCK):
        memory, state = decoder.begin(block.to(device))
        tokens, told = beam_search(decoder.step, state, memory, beam, length)
        flat = tokens.flatten(0, 1)
        spoken = log_probability(language.step, language.begin(len(flat)), flat)
        found.append((tokens.cpu(), told.cpu(), spoken.unflatten(0, told.shape).cpu()))
        bar.update(len(block))
    bar.close()
    tokens, told, spoken = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"tokens": tokens, "told": told, "spoken": spoken}


def _told(describer: Describer, live: Tensor, found: dict[str, Tensor]) -> Candidates:
    """Turn words by number into text, and give the neurons that abstain their empty rows."""
    told = torch.full((len(live), found["told"].shape[1]), -torch.inf)
    spoken = torch.zeros_like(told)
    told[live], spoken[live] = found["told"], found["spoken"]
    texts: list[list[str]] = [[] for _ in live]
    for n, rows in zip(live.nonzero()[:, 0].tolist(), found["tokens"].tolist(), strict=True):
        texts[n] = [describer.text(row) for row in rows]
    return Candidates(texts, told, spoken)
