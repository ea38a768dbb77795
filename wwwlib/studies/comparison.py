"""Comparison of naming methods on the same neurons, images, encoder and words: WWW, section 4.1.

WWW keeps as many names as its threshold allows; CLIP-Dissect gives a number that it is asked for,
so it is run with one name, with more of them, and with WWW's number for each neuron ("equal k").
The other functions open the networks, probe sets and captions that parameters name, and bring the
results of Network Dissection, FALCON and MILAN into the same form.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from wwwlib import concepts, language, targets, world
from wwwlib.atlas import shown_classes
from wwwlib.baselines import clip_dissect, falcon, milan, network_dissection
from wwwlib.baselines.common import first
from wwwlib.baselines.falcon import Captions, Shards
from wwwlib.baselines.network_dissection import Dissection, Masks
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import OK, Exemplars
from wwwlib.images import ImageSet, imagenet_synsets
from wwwlib.language import ConceptSet, Encoder, fold
from wwwlib.scores import Words
from wwwlib.store import Store
from wwwlib.studies import datasets
from wwwlib.studies.conclusions import EQUAL
from wwwlib.studies.literature import strip_suffix
from wwwlib.studies.tables import MethodNames, truncate
from wwwlib.targets import Target

T = TypeVar("T")


# Networks and probe sets ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the comparison.

    Attributes
    ----------
    name : str
        The target's name in tables, with its weights where two networks share that name.
    target : Target
    hidden : str
        Its hidden layer.
    spec : str
        Source of its truth, see `language.truth`.
    truth : list of list of str
        The synonyms of its classes.
    """

    name: str
    target: Target
    hidden: str
    spec: str
    truth: list[list[str]]

    def shown_truth(self, probe: ImageSet) -> dict[int, list[str]]:
        """Return the truth of the classes that a probe set shows; of all, if it has other classes.

        See `atlas.shown_classes`.
        """
        return {i: self.truth[i] for i in shown_classes(probe, self.target)}


def networks(
    names: Sequence[str],
    weights: Sequence[str | None],
    hidden: Sequence[str],
    truths: Sequence[str],
    device: str = "cpu",
) -> list[Network]:
    """Load the networks of a comparison.

    Parameters
    ----------
    names : sequence of str
        For `targets.load`; a network may occur twice, with other weights.
    weights : sequence of str or None
        Of each; missing ones at the end are the library's own.
    hidden : sequence of str
        A hidden layer of each.
    truths : sequence of str
        For `language.truth`; missing ones at the end are the first one's.
    device : str
        Device of the networks.

    Raises
    ------
    ValueError
        If hidden layers are missing, or there are more weights or truths than networks.
    """
    if len(hidden) != len(names):
        raise ValueError(f"{len(hidden)} hidden layers for {len(names)} networks; give one each.")
    weights = _filled(weights, None, len(names), "weights")
    truths = _filled(truths, truths[0], len(names), "truths")
    found = []
    for name, file, layer, spec in zip(names, weights, hidden, truths, strict=True):
        kind, _, path = spec.partition(":")
        scenes = language.places365_truth(path, "clean") if kind == "places365" else None
        classes = scenes and [synonyms[0] for synonyms in scenes]
        target = targets.load(name, file, classes=classes).to(device)
        title = f"{name} ({file})" if names.count(name) > 1 else name
        found.append(Network(title, target, layer, spec, language.truth(spec, target)))
    return found


def probe_sets(
    kinds: Sequence[str], roots: Sequence[str | None], count: int | None = None, seed: int = 0
) -> dict[str, ImageSet]:
    """Open the probe sets of a comparison, by their names.

    Parameters
    ----------
    kinds : sequence of str
        For `datasets.load`.
    roots : sequence of str or None
        The folder of each; missing ones at the end are None.
    count, seed
        For `datasets.load`.

    Raises
    ------
    ValueError
        If there are more folders than probe sets, or two probe sets have one name.
    """
    found: dict[str, ImageSet] = {}
    for kind, root in zip(kinds, _filled(roots, None, len(kinds), "folders"), strict=True):
        probe = datasets.load(kind, root, count, seed)
        if probe.name in found:
            raise ValueError(f"Two probe sets are called {probe.name!r}; rename a folder.")
        found[probe.name] = probe
    return found


def masked_sets(
    probe: str, broden: str | None, count: int, seed: int = 0
) -> list[tuple[ImageSet, Masks]]:
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
        Seed of the world.
    """
    if broden:
        return [network_dissection.broden(broden, split) for split in ("train", "val")]
    seeds = (seed, seed + 1) if probe == "world" else ()
    return [world.image_set_with_masks(count, s) for s in seeds]


def _filled(values: Sequence[T], default: T, count: int, what: str) -> list[T]:
    if len(values) > count:
        raise ValueError(f"There are {len(values)} {what} for {count}; give at most one for each.")
    return [*values, *[default] * (count - len(values))]


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
    features = exemplar_features(v, first(exemplars, k))
    own = concepts.discover(features, *words.embed(encoder, store), words.words, alpha).names
    sizes = [len(names) for names in own]
    bare, _ = ConceptSet(words.words, "{}", words.source).embed(encoder, store)
    most = min(len(words), max(*tops, *sizes))
    wide = first(exemplars, dissect_k)
    ranked = clip_dissect.soft_wpmi(v, bare, wide, words.words, most).names
    methods = {"WWW": MethodNames(own, words.words)}
    for top in tops:
        shorter, size = [names[:top] for names in ranked], min(top, len(words))
        methods[f"CLIP-Dissect top {top}"] = MethodNames(shorter, words.words, size)
    return methods | {EQUAL: MethodNames(truncate(ranked, sizes), words.words)}


def exemplar_features(v: Tensor, exemplars: Exemplars) -> Tensor:
    """Look up the features (N, K, D) of exemplars among those of all images (I, D).

    They are zero, so that the neuron abstains, as from `language.embed_exemplars`: where the
    status is not `OK`, and where an exemplar is missing.
    """
    shown = (exemplars.index >= 0) & (exemplars.status == OK).unsqueeze(1)
    return v[exemplars.index.clamp_min(0)] * shown.unsqueeze(2).to(v)


# The other methods ----------------------------------------------------------------------------


def dissection_names(
    dissection: Dissection, words: Iterable[str], informed: bool = False
) -> MethodNames:
    """Return Network Dissection's names of a layer, above its authors' IoU threshold.

    Labels are spelled as in the table's concept set, see `match_spelling`.
    """
    words = list(words)
    names = match_spelling(dissection.table().names, words)
    (own,) = match_spelling([dissection.concepts], words)
    return MethodNames(names, tuple(own), informed=informed)


def best_concepts(
    dissection: Dissection,
    words: Iterable[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> dict[int, list[str]]:
    """Return the truth of hidden neurons: the concept of highest IoU, with its synonyms.

    Neurons whose maps overlap no mask are missing. Labels without synonyms are spelled as in the
    concept set, see `match_spelling`.
    """
    names, known = dissection.table(minimum=0).names, synonyms or {}
    plain = match_spelling(names, words)
    return {i: list(known.get(own[0], plain[i])) for i, own in enumerate(names) if own}


def match_spelling(names: Words, words: Iterable[str]) -> list[list[str]]:
    """Spell Broden's labels as in a concept set, so that spelling does not affect scores.

    A label such as ``swimming_pool-s`` is replaced by the first of these forms that is in the set:
    unchanged, with spaces for underscores, without its suffix as well; else by the last one.
    """
    known = {fold(word) for word in words}

    def spell(label: str) -> str:
        forms = (label, label.replace("_", " "), strip_suffix(label))
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
    if spec == "world":
        return falcon.captions(world.training_captions(), encoder, store)
    if spec == "imagenet":
        return falcon.captions(imagenet_definitions(), encoder, store)
    folder = Path(spec).is_dir()
    return falcon.shards(spec) if folder else falcon.text_file(spec, encoder, store)


def imagenet_definitions() -> list[str]:
    """Return a sentence for each of ImageNet's classes: its first word and WordNet's definition."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    texts = (info.label_name_to_description(w, detailed=True) for w in info.label_names())
    first = (lemmas[0] for lemmas in imagenet_synsets().values())
    return [f"{w}, {text.partition(': ')[2]}" for w, text in zip(first, texts, strict=True)]


def milan_names(
    descriptions: ConceptTable, words: Sequence[str], informed: bool = False
) -> MethodNames:
    """Return the words of a concept set that MILAN's descriptions contain.

    MILAN is informed where its decoder was trained on the masks and names behind the truth.
    """
    return MethodNames(milan.words(descriptions, words).names, tuple(words), informed=informed)
