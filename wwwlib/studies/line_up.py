"""WWW and CLIP-Dissect on equal terms: the same neurons, images, encoder and words.

What differs is what each method makes of them. WWW keeps as many names as its threshold lets
through; CLIP-Dissect gives as many as it is asked for, so it stands here three times: with a single
name, with more of them, and with as many as WWW gave to that very neuron.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from wwwlib import concepts, world
from wwwlib.baselines import clip_dissect, falcon, milan
from wwwlib.baselines.falcon import Captions, Falcon, Shards
from wwwlib.baselines.network_dissection import Dissection
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import OK, Exemplars
from wwwlib.images import ImageSet
from wwwlib.language import ConceptSet, Encoder, fold, image_features, imagenet_classes
from wwwlib.scores.agreement import Words
from wwwlib.store import Store
from wwwlib.studies import published
from wwwlib.studies.answers import Answer, cut

WWW, EQUAL = "WWW", "CLIP-Dissect equal k"


def line_up(
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
) -> dict[str, Answer]:
    """Name the neurons of one layer by WWW and by CLIP-Dissect's soft-WPMI.

    Parameters
    ----------
    v : Tensor
        (I, D) unit-norm features of all probe images.
    exemplars : Exemplars
        The images that excite each of N neurons most, enough of them for both methods.
    words : ConceptSet
        In WWW's template; CLIP-Dissect reads the words bare, as its authors do.
    encoder : Encoder
        The one that `v` comes from.
    k, dissect_k : int
        How many of the exemplars WWW and CLIP-Dissect look at.
    alpha : float
        WWW's threshold.
    tops : sequence of int
        How many names CLIP-Dissect gives; at most as many as there are words count.
    store : Store, optional
        Keeps the words' features.

    Returns
    -------
    dict of method to Answer

    Raises
    ------
    ValueError
        If there are fewer exemplars than a method asks for, or shapes do not fit together.
    """
    own = concepts.discover(
        exemplar_features(v, first(exemplars, k)), *words.embed(encoder, store), words.words, alpha
    )
    sizes = [len(names) for names in own.names]
    bare, _ = ConceptSet(words.words, "{}", words.source).embed(encoder, store)
    most = min(len(words), max(*tops, *sizes))
    wide = first(exemplars, dissect_k)
    named = clip_dissect.soft_wpmi(v, bare, wide, words.words, most).names
    answers = {WWW: Answer(own.names, words.words)}
    for top in tops:
        shorter = [names[:top] for names in named]
        size = min(top, len(words))
        answers[f"CLIP-Dissect top {top}"] = Answer(shorter, words.words, size)
    return answers | {EQUAL: Answer(cut(named, sizes), words.words)}


def dissected(dissection: Dissection, words: Iterable[str], informed: bool = False) -> Answer:
    """Return Network Dissection's answer about a layer, at its authors' least IoU.

    Labels are spelled as among the words of the table's concept set, see `spelled`.
    """
    words = list(words)
    names, (own,) = spelled(dissection.table().names, words), spelled([dissection.concepts], words)
    return Answer(names, tuple(own), informed=informed)


def best_concepts(
    dissection: Dissection,
    words: Iterable[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
) -> dict[int, list[str]]:
    """Return the truth about hidden neurons: the concept of best IoU, with its synonyms.

    A neuron whose maps meet no mask is missing. Labels without synonyms are spelled as among the
    words of the concept set that neurons are named from, see `spelled`.
    """
    names, known = dissection.table(minimum=0).names, synonyms or {}
    plain = spelled(names, words)
    return {i: list(known.get(own[0], plain[i])) for i, own in enumerate(names) if own}


def spelled(names: Words, words: Iterable[str]) -> list[list[str]]:
    """Spell Broden's labels as a concept set does, so that spelling decides over nobody's score.

    Of ``swimming_pool-s`` that reading is taken which the set holds: as it stands, with spaces for
    underscores, or without its suffix as well; the last one, if it holds none of them.
    """
    held = {fold(word) for word in words}

    def spell(label: str) -> str:
        readings = (label, label.replace("_", " "), published.strip(label))
        return next((one for one in readings if fold(one) in held), readings[-1])

    return [[spell(label) for label in own] for own in names]


def fits(dissection: Dissection) -> dict[str, float]:
    """Tell how well a layer's best concepts fit: a truth of low IoU is the best of bad fits."""
    best = dissection.iou.amax(1)
    return {
        "neurons": len(best),
        "median of best IoU": best.median().item(),
        "detectors": sum(map(bool, dissection.table().names)),
    }


def corpus(spec: str, encoder: Encoder, store: Store | None = None) -> Captions | Shards:
    """Open FALCON's captions.

    Parameters
    ----------
    spec : str
        "world" for the captions of the concept world, "imagenet" for WordNet's definitions of
        ImageNet's classes, a text file with one caption a line, or a folder of LAION's shards.
    encoder : Encoder
        The one that also encodes the images.
    store : Store, optional
        Keeps the captions' features.
    """
    if spec == "world":
        return falcon.captions(world.training_captions(), encoder, store)
    if spec == "imagenet":
        return falcon.captions(imagenet_definitions(), encoder, store)
    folder = Path(spec).is_dir()
    return falcon.shards(spec) if folder else falcon.text_file(spec, encoder, store)


def imagenet_definitions() -> list[str]:
    """Return a sentence for each of ImageNet's classes: its first word, and what WordNet says."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    told = {
        wnid: info.label_name_to_description(wnid, detailed=True) for wnid in info.label_names()
    }
    definitions = (text.partition(": ")[2] for text in told.values())
    first = (words.split(", ")[0] for words in imagenet_classes().values())
    return [f"{word}, {text}" for word, text in zip(first, definitions, strict=True)]


def reading(
    descriptions: ConceptTable | None, words: Sequence[str], informed: bool = False
) -> dict[str, Answer]:
    """Return what MILAN's descriptions say in a concept set's words; nothing without any.

    MILAN is informed where its decoder learnt from such masks, with their names, as the truth is
    made from.
    """
    if descriptions is None:
        return {}
    read = milan.words(descriptions, words).names
    return {"MILAN": Answer(read, tuple(words), informed=informed)}


def grouped(found: Falcon) -> Answer:
    """Return FALCON's answer about the single neurons of a layer."""
    return Answer([list(own) for own in found.table().names], None)


def probe_features(
    encoder: Encoder,
    images: ImageSet,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
) -> Tensor:
    """Encode a whole probe set: (I, D) unit-norm features on the CPU, kept in the store.

    WWW needs the exemplars' features alone, but CLIP-Dissect may ask for any image's, so both look
    theirs up here.
    """
    every, options = range(len(images)), (batch_size, workers)
    if store is None:
        return image_features(encoder, images, every, *options)
    key = {"encoder": encoder.name, "images": images.fingerprint, "indices": "all"}
    return store.fetch(
        "image-features",
        key,
        lambda _: ({"v": image_features(encoder, images, every, *options)}, {}),
    ).tensors["v"]


def first(exemplars: Exemplars, k: int) -> Exemplars:
    """Keep each neuron's first k exemplars.

    Raises
    ------
    ValueError
        If there are fewer.
    """
    if not 1 <= k <= exemplars.index.shape[1]:
        raise ValueError(
            f"k is {k}, but {exemplars.index.shape[1]} exemplars were collected; give 1 to that."
        )
    return replace(exemplars, index=exemplars.index[:, :k], value=exemplars.value[:, :k])


def exemplar_features(v: Tensor, exemplars: Exemplars) -> Tensor:
    """Look the features (N, K, D) of exemplars up among those of all images (I, D).

    They are zero, so that the neuron abstains, as `language.embed_exemplars` makes them: where the
    status is not `OK`, and where no exemplar was left.
    """
    shown = (exemplars.index >= 0) & (exemplars.status == OK).unsqueeze(1)
    return v[exemplars.index.clamp_min(0)] * shown.unsqueeze(2).to(v)
