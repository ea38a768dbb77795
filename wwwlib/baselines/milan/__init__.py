"""MILAN: describes neurons in a few words from the image regions that excite them.

The 15 exemplars of a neuron are masked where its map exceeds its .99 quantile, features of an
encoder are pooled over the masks, and an attentive decoder proposes descriptions d by beam search.
Of these, ``log p(d | E) - weight log p(d)``, pointwise mutual information, prefers what is specific
to the neuron over what is probable for all. `load` opens the describer that was trained on the
concept world, `candidates` proposes descriptions of a layer's neurons, `Candidates.ranked` chooses
among them, and `words` finds the words of a concept set in the descriptions.

For networks on ImageNet there are the authors' labels (`studies.literature.label_rows`).

Hernandez, Schwettmann, Bau, Bagashvili, Torralba and Andreas, "Natural Language Descriptions of
Deep Visual Features", ICLR 2022.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.baselines.common import best_of_blocks, concept_table, ranked_table
from wwwlib.baselines.milan.exemplars import choose, features, masks
from wwwlib.baselines.milan.networks import Describer, beam_search, load, log_probability, save
from wwwlib.concepts import ConceptTable
from wwwlib.distributed import Options, State
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.registry import require
from wwwlib.store import tensor_digest
from wwwlib.targets import Target

K, QUANTILE, WEIGHT, BEAM, LENGTH = 15, 0.99, 0.2, 50, 8
_BLOCK = 256  # neurons per beam search


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
    store, progress = Options(**options).store, Options(**options).progress
    key = {
        "target": target.key(), "layer": layer, "images": images.fingerprint,
        "exemplars": tensor_digest({"index": chosen.index, "live": chosen.live}),
        "describer": describer.digest, "beam": beam, "quantile": quantile, "length": length,
    }  # fmt: skip
    kept = store.load("milan", key)
    if kept is None:
        shown = masks(target, layer, chosen, quantile, describer.encoder, **options)
        e = features(describer, chosen, shown, **options)
        kept = store.save("milan", key, _search(describer, e, beam, length, progress))
    log_p = kept.tensors["log_p"].masked_fill(~chosen.live[:, None], -torch.inf)
    rows = zip(kept.tensors["tokens"].tolist(), chosen.live.tolist(), strict=True)
    texts = [[describer.text(row) for row in own] if live else [] for own, live in rows]
    return Candidates(texts, log_p, kept.tensors["log_prior"])


@torch.inference_mode()
def _search(describer: Describer, e: Tensor, beam: int, length: int, progress: bool) -> State:
    """Search for the descriptions of features e (N, k, F), a block of neurons at a time."""
    decoder, language, found = describer.decoder, describer.language, []
    for block in tqdm(e.split(_BLOCK), "MILAN's beam search", disable=not progress):
        memory, state = decoder.begin(block.to(decoder.mean.device))
        tokens, log_p = beam_search(decoder.step, state, memory, beam, length)
        flat = tokens.flatten(0, 1)
        log_prior = log_probability(language.step, language.begin(len(flat)), flat)
        found.append((tokens.cpu(), log_p.cpu(), log_prior.unflatten(0, log_p.shape).cpu()))
    tokens, log_p, log_prior = (torch.cat(parts) for parts in zip(*found, strict=True))
    return {"tokens": tokens, "log_p": log_p, "log_prior": log_prior}


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
    found: list[dict[str, float]] = [{} for _ in table.names]
    for own, texts, values in zip(found, table.names, table.scores, strict=True):
        for text, value in zip(texts, values, strict=True):
            for word in _phrases(_normalized(text).split(), known, longest):
                own.setdefault(word, value)
    return concept_table(found)


def _phrases(tokens: list[str], known: dict[str, str], longest: int) -> list[str]:
    """Return the known phrases among tokens, from left to right, without overlap."""
    for end in range(min(longest, len(tokens)), 0, -1):
        if word := _lookup(tokens[:end], known):
            return [word, *_phrases(tokens[end:], known, longest)]
    return _phrases(tokens[1:], known, longest) if tokens else []


def _lookup(tokens: list[str], known: dict[str, str]) -> str | None:
    """Return the vocabulary's spelling of a phrase as it is, or else of its singular."""
    lemmas = require("lemminflect", "baselines").getLemma(tokens[-1], upos="NOUN")
    phrases = (" ".join([*tokens[:-1], last]) for last in (tokens[-1], *lemmas))
    return next((known[phrase] for phrase in phrases if phrase in known), None)


def _normalized(text: str) -> str:
    """Return lower-case words with single spaces, without punctuation and underscores."""
    return " ".join(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))
