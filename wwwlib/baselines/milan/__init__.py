"""MILAN: describes neurons in a few words from the image regions that excite them.

The 15 exemplars of a neuron are masked where its map exceeds its .99 quantile, features of an
encoder are pooled over the masks, and an attentive decoder proposes descriptions d by beam search.
Of these, ``log p(d | E) - weight log p(d)``, pointwise mutual information, prefers what is specific
to the neuron over what is probable for all. `load` opens the describer that was trained on the
concept world, `candidates` proposes descriptions of a layer's neurons, `Candidates.ranked` chooses
among them, and `words` finds the words of a concept set in the descriptions.

For networks on ImageNet there are the authors' labels (`studies.literature.labels_by_layer`).

Hernandez, Schwettmann, Bau, Bagashvili, Torralba and Andreas, "Natural Language Descriptions of
Deep Visual Features", ICLR 2022.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.common import best_of_blocks, concept_table, ranked_table, visible_box
from wwwlib.baselines.milan.exemplars import choose, features, masks, quantiles
from wwwlib.baselines.milan.networks import Describer, beam_search, load, log_probability, save
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Options
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.registry import require
from wwwlib.store import tensor_digest
from wwwlib.targets import Target

__all__ = [
    "BEAM", "LENGTH", "QUANTILE", "WEIGHT", "Candidates", "Describer", "K", "candidates",
    "load", "save", "words",
]  # fmt: skip

K, QUANTILE, WEIGHT, BEAM, LENGTH = 15, 0.99, 0.2, 50, 8
_BLOCK = 256  # neurons per beam search
_TOLERANCE = 0.02  # of an image's side, between the views of two networks


@dataclass(frozen=True)
class Candidates:
    """Descriptions that beam search proposes for N neurons.

    Attributes
    ----------
    texts : list of list of str
        For each neuron B descriptions, the most probable first; none for neurons that abstain.
    log_p : Tensor, shape (N, B)
        log p(d | E); -inf where there is no description.
    log_prior : Tensor, shape (N, B)
        log p(d).
    """

    texts: list[list[str]]
    log_p: Tensor
    log_prior: Tensor

    def ranked(self, weight: float = WEIGHT) -> ConceptTable:
        """Choose the description with the highest ``log p(d | E) - weight log p(d)``.

        Parameters
        ----------
        weight : float
            At least 0; lambda in the paper. With 0 the most probable description is best.

        Returns
        -------
        ConceptTable
            Among equals the more probable comes first.

        Raises
        ------
        ValueError
            If an argument is out of range.
        """
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight is {weight}; it must be 0 or more, as .2 in the paper.")
        score = torch.where(self.log_p.isfinite(), self.log_p - weight * self.log_prior, -torch.inf)
        return ranked_table(*best_of_blocks([score], 1), self.texts)


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
    **options,
) -> Candidates:
    """Propose descriptions of each neuron of a layer.

    The preprocessing of the target and of the describer's encoder must show the same part of an
    image, since masks from one are applied to the other; this is checked on the first image.

    Parameters
    ----------
    target : Target
    layer : str
        A name from ``target.layers()``. The final layer has no maps, so that its exemplars are
        described as a whole.
    images : ImageSet
        The probe set.
    exemplars : Exemplars
        Of that layer and probe set, at least k per neuron, see `exemplars.collect`. The authors
        rank images by the highest position of a neuron's map, not by its mean.
    describer : Describer
        See `load`.
    beam : int
        Descriptions per neuron.
    k : int
        Exemplars that are used; 15 in the paper.
    quantile : float
        In (0, 1), of a neuron's map.
    length : int
        Largest number of words of a description, its end included.
    **options
        Fields of `distributed.Options`. The store keeps quantiles and candidates.

    Returns
    -------
    Candidates
        Neurons whose status is not `OK` have none.

    Raises
    ------
    ValueError
        If an argument is out of range, or exemplars and layer do not fit together.

    References
    ----------
    Hernandez et al., "Natural Language Descriptions of Deep Visual Features", ICLR 2022,
    section 3.
    """
    chosen = choose(exemplars, images, k)
    if not chosen.live.any():
        none = torch.zeros(len(chosen.live), 1)
        return Candidates([[] for _ in chosen.live], torch.full_like(none, -torch.inf), none)
    store, progress = Options(**options).store, Options(**options).progress
    key = {
        "target": target.key(), "layer": layer, "images": images.fingerprint,
        "exemplars": tensor_digest({"index": chosen.index, "live": chosen.live}),
        "describer": describer.digest, "beam": beam, "quantile": quantile, "length": length,
    }  # fmt: skip
    kept = store.load("milan", key)
    if kept is None:
        e = _features(target, layer, images, chosen, describer, quantile, options)
        kept = store.save("milan", key, _search(describer, e, beam, length, progress))
    return _candidates(describer, chosen.live, **kept.tensors)


def _features(target, layer, images, chosen, describer, quantile, options) -> Tensor:
    """Return E (n, k, F) of the live neurons."""
    encoder, first = describer.encoder, images.image(0)
    level = quantiles(target, layer, images, chosen, quantile, **options)
    if level is not None:
        _check_same_part(target, encoder, first.size)
    size = tuple(encoder.preprocess(first).shape[1:])
    shown = masks(target, layer, images, chosen, level, size, **options)
    return features(encoder, describer.stages, images, chosen.index, shown, **options)


def _check_same_part(target: Target, encoder: Target, size: tuple[int, int]) -> None:
    own, other = (visible_box(network, size) for network in (target, encoder))
    if max(abs(a - b) for a, b in zip(own, other, strict=True)) > _TOLERANCE:
        raise ValueError(
            f"Of an image of {size[0]} x {size[1]} pixels, {target.name} uses the part "
            f"{tuple(round(share, 2) for share in own)} and the describer's {encoder.name} "
            f"{tuple(round(share, 2) for share in other)}; give the target a preprocessing that "
            "shows the same part as the describer's."
        )


@torch.inference_mode()
def _search(
    describer: Describer, features: Tensor, beam: int, length: int, progress: bool
) -> dict[str, Tensor]:
    """Search for the descriptions of features (n, k, F), a block of neurons at a time."""
    decoder, language, found = describer.decoder, describer.language, []
    device = decoder.mean.device
    for block in tqdm(features.split(_BLOCK), "MILAN's beam search", disable=not progress):
        memory, state = decoder.begin(block.to(device))
        tokens, log_p = beam_search(decoder.step, state, memory, beam, length)
        flat = tokens.flatten(0, 1)
        log_prior = log_probability(language.step, language.begin(len(flat)), flat)
        found.append((tokens.cpu(), log_p.cpu(), log_prior.unflatten(0, log_p.shape).cpu()))
    tokens, log_p, log_prior = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"tokens": tokens, "log_p": log_p, "log_prior": log_prior}


def _candidates(
    describer: Describer, live: Tensor, tokens: Tensor, log_p: Tensor, log_prior: Tensor
) -> Candidates:
    """Return the candidates of all neurons, given those of the live ones."""
    every = torch.full((len(live), log_p.shape[1]), -torch.inf)
    prior = torch.zeros_like(every)
    every[live], prior[live] = log_p, log_prior
    texts: list[list[str]] = [[] for _ in live]
    for n, rows in zip(live.nonzero()[:, 0].tolist(), tokens.tolist(), strict=True):
        texts[n] = [describer.text(row) for row in rows]
    return Candidates(texts, every, prior)


def words(table: ConceptTable, vocabulary: Iterable[str]) -> ConceptTable:
    """Find the words of a vocabulary in descriptions, so that they score like other names.

    The longest phrase that starts at a word is taken, so that "hot dogs" is not a dog. Case is
    ignored, and the last word of a phrase may be a plural (LemmInflect's lemmas).

    Parameters
    ----------
    table : ConceptTable
        Descriptions.
    vocabulary : iterable of str
        Words and phrases.

    Returns
    -------
    ConceptTable
        The distinct words in each description, in its order and in the vocabulary's spelling, with
        the description's score. A neuron whose description contains none abstains.
    """
    known = {_normalized(word): word for word in vocabulary}
    longest = max((len(key.split()) for key in known), default=0)
    names, scores = [], []
    for texts, values in zip(table.names, table.scores, strict=True):
        found: dict[str, float] = {}
        for text, value in zip(texts, values, strict=True):
            for word in _phrases(_normalized(text).split(), known, longest):
                found.setdefault(word, value)
        names.append(list(found))
        scores.append(list(found.values()))
    return concept_table(names, scores)


def _phrases(tokens: list[str], known: dict[str, str], longest: int) -> Iterator[str]:
    """Yield the known phrases among tokens, from left to right, without overlap."""
    start = 0
    while start < len(tokens):
        for end in range(min(start + longest, len(tokens)), start, -1):
            if word := _lookup(tokens[start:end], known):
                yield word
                start = end - 1
                break
        start += 1


def _lookup(tokens: list[str], known: dict[str, str]) -> str | None:
    """Return the vocabulary's spelling of a phrase as it is, or else of its singular."""
    lemmas = require("lemminflect", "baselines").getLemma(tokens[-1], upos="NOUN")
    phrases = (" ".join([*tokens[:-1], last]) for last in (tokens[-1], *lemmas))
    return next((known[phrase] for phrase in phrases if phrase in known), None)


def _normalized(text: str) -> str:
    """Return lower-case words with single spaces, without punctuation and underscores."""
    return " ".join(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))
