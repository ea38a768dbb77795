"""Comparison of naming methods on the same neurons, images, encoder and words: WWW, section 4.1.

WWW keeps as many names as its threshold allows; CLIP-Dissect gives a number that it is asked for,
so it is run with one name, with more of them, and with WWW's number for each neuron ("equal k").
The other functions open the networks, masks and captions that parameters name, and bring the
results of Network Dissection and MILAN into the same form.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from wwwlib import concepts, targets, world
from wwwlib.baselines import clip_dissect, milan, network_dissection
from wwwlib.baselines.falcon import Captions, Shards, corpus
from wwwlib.baselines.network_dissection import Dissection
from wwwlib.exemplars import OK, Exemplars
from wwwlib.images import ImageSet, halves, imagenet_synsets, subset
from wwwlib.language import ConceptSet, Encoder, fold, places365
from wwwlib.language.concept_sets import read_lines
from wwwlib.scores import Words
from wwwlib.store import Store
from wwwlib.studies import conclusions, literature, metrics
from wwwlib.studies.tables import MethodNames


def network(
    name: str, weights: str | None = None, truth: str = "classes", device: str = "cpu"
) -> tuple[targets.Target, list[list[str]]]:
    """Load a network, and the true names of its classes.

    Parameters
    ----------
    name, weights : str
        For `targets.load`. With a truth of Places365 its scenes are the network's classes.
    truth : str
        For `metrics.truth`.
    device : str
        Device of the network.
    """
    kind, _, path = truth.partition(":")
    classes = places365(path, "clean").words if kind == "places365" else None
    target = targets.load(name, weights, classes=classes).to(device)
    return target, metrics.truth(truth, target)


def masked_sets(
    probe: str, broden: str | None, count: int, seed: int = 0, own: ImageSet | None = None
) -> list[ImageSet]:
    """Return images with masks for Network Dissection, and others for the truth; empty without.

    Parameters
    ----------
    probe : str
        "world" has masks of its own.
    broden : str, optional
        Folder of Broden, whose training half is dissected; its validation half gives the truth.
    count : int
        Images of the world in each half.
    seed : int
        Seed of the world, or of the halves of `own`.
    own : ImageSet, optional
        Images that are halved if they have masks.
    """
    if broden:
        return [network_dissection.broden(broden, split) for split in ("train", "val")]
    if probe == "world":
        return [world.image_set(count, s) for s in (seed, seed + 1)]
    return [subset(own, part) for part in (halves(own.labels, seed) if own and own.masks else ())]


# WWW and CLIP-Dissect -------------------------------------------------------------------------


def www_and_clip_dissect(
    v: Tensor,
    exemplars: Exemplars,
    words: ConceptSet,
    encoder: Encoder,
    *,
    k: int = 40,
    dissect_k: int = 100,
    alpha: float = 0.95,
    tops: Sequence[int] = (1, 5),
    store: Store | None = None,
) -> dict[str, MethodNames]:
    """Name the neurons of one layer by WWW and by CLIP-Dissect's soft-WPMI.

    Parameters
    ----------
    v : Tensor
        (I, D) unit-norm features of all probe images.
    exemplars : Exemplars
        Of N neurons, enough of them for both methods.
    words : ConceptSet
        In WWW's template; CLIP-Dissect uses the bare words, as its authors do.
    encoder : Encoder
        The encoder of `v`.
    k, dissect_k : int
        Number of exemplars that WWW and CLIP-Dissect use.
    alpha : float
        WWW's threshold.
    tops : sequence of int
        Numbers of names of CLIP-Dissect, at most the number of words.
    store : Store, optional
        Keeps the features of the words.

    Returns
    -------
    dict of method to MethodNames

    Raises
    ------
    ValueError
        If there are fewer exemplars than a method uses, or shapes do not fit.
    """
    features = exemplar_features(v, exemplars.first(k))
    own = concepts.discover(features, *words.embed(encoder, store), words.words, alpha).names
    sizes = [len(names) for names in own]
    bare, _ = ConceptSet(words.words, "{}", words.source).embed(encoder, store)
    most = min(len(words), max(*tops, *sizes))
    ranked = clip_dissect.soft_wpmi(v, bare, exemplars.first(dissect_k), words.words, most).names
    methods = {"WWW": MethodNames(own, words.words)}
    for top in tops:
        shorter, size = [names[:top] for names in ranked], min(top, len(words))
        methods[f"CLIP-Dissect top {top}"] = MethodNames(shorter, words.words, size)
    # Where WWW abstains the first name is kept: abstaining is WWW's choice alone.
    equal = [names[: max(1, size)] for names, size in zip(ranked, sizes, strict=True)]
    return methods | {conclusions.EQUAL: MethodNames(equal, words.words)}


def exemplar_features(v: Tensor, exemplars: Exemplars) -> Tensor:
    """Look up the features (N, K, D) of exemplars among those of all images (I, D).

    They are zero, so that the neuron abstains, as from `language.embed_exemplars`: where the
    status is not `OK`, and where an exemplar is missing.
    """
    shown = (exemplars.index >= 0) & (exemplars.status == OK).unsqueeze(1)
    return v[exemplars.index.clamp_min(0)] * shown.unsqueeze(2).to(v)


# The other methods ----------------------------------------------------------------------------


def dissection_names(dissection: Dissection, words: Iterable[str]) -> MethodNames:
    """Return Network Dissection's names of a layer, above its authors' IoU threshold.

    Labels are spelled as in the table's concept set, see `match_spelling`.
    """
    *names, own = match_spelling([*dissection.table().names, dissection.concepts], words)
    return MethodNames(names, tuple(own))


def milan_names(descriptions: concepts.ConceptTable, words: Sequence[str]) -> MethodNames:
    """Return the words of a concept set that MILAN's descriptions contain."""
    return MethodNames(milan.words(descriptions, words).names, tuple(words))


def best_concepts(
    scan: Dissection, words: Iterable[str], synonyms: Mapping[str, Sequence[str]] | None = None
) -> dict[int, list[str]]:
    """Return the truth of hidden neurons: the concept of highest IoU, with its synonyms.

    Only detectors have one, neurons whose IoU exceeds the threshold of Network Dissection's
    authors. Labels without synonyms are spelled as in the concept set, see `match_spelling`.
    """
    names, known = scan.table().names, synonyms or {}
    plain = match_spelling(names, words)
    return {i: list(known.get(own[0], plain[i])) for i, own in enumerate(names) if own}


def match_spelling(names: Words, words: Iterable[str]) -> list[list[str]]:
    """Spell Broden's labels as in a concept set, so that spelling does not affect scores.

    A label such as ``swimming_pool-s`` is replaced by the first of these forms that is in the set:
    unchanged, with spaces for underscores, without its suffix as well; else by the last one.
    """
    known = {fold(word) for word in words}

    def spell(label: str) -> str:
        forms = (label, label.replace("_", " "), literature.strip_suffix(label))
        return next((form for form in forms if fold(form) in known), forms[-1])

    return [[spell(label) for label in own] for own in names]


def captions(spec: str, encoder: Encoder, store: Store | None = None) -> Captions | Shards:
    """Open FALCON's captions.

    Parameters
    ----------
    spec : str
        "world" for the captions of the concept world, "imagenet" for WordNet's definitions of
        ImageNet's classes, a text file with one caption a line, or a folder of LAION's shards.
    encoder : Encoder
        The encoder of the images.
    store : Store, optional
        Keeps the features of the captions.
    """
    built_in = {"world": world.training_captions, "imagenet": imagenet_definitions}
    if spec not in built_in and Path(spec).is_dir():
        return corpus.shards(spec)
    texts = built_in[spec]() if spec in built_in else read_lines(spec)
    return corpus.captions(texts, encoder, store)


def imagenet_definitions() -> list[str]:
    """Return a sentence for each of ImageNet's classes: its first word and WordNet's definition."""
    from timm.data import ImageNetInfo

    describe = ImageNetInfo("imagenet-1k").label_name_to_description
    pairs = ((lemmas[0], describe(w, detailed=True)) for w, lemmas in imagenet_synsets().items())
    return [f"{word}, {text.partition(': ')[2]}" for word, text in pairs]
