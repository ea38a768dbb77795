"""Concept sets: the distinct words from which names are chosen, and their sources.

Words come from a list, a file, class names with their synonyms, Places365 or WordNet.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from wwwlib.images import imagenet_synsets
from wwwlib.images.sources import places365_scenes
from wwwlib.language.encoders import Encoder, coarse_digest, embed_texts
from wwwlib.registry import EXTENSIONS, existing_file, expanded, extension, one_of
from wwwlib.store import Slot, Store, digest
from wwwlib.targets import Target

TEMPLATE = "A photo of a {}"
KINDS = (*EXTENSIONS, "classes", "imagenet", "wordnet", "broden", "places365", "file")
PLACES_READINGS = ("paper", "clean")
LONGEST = 500  # characters in one concept; a longer entry is a paragraph, not a concept
# Control characters but white space, half characters, and marks that change the direction of text.
_CONTROL = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)


def fold(word: str) -> str:
    """Return the form in which two spellings of one concept are equal.

    Unicode is composed (NFC), case folded, and each run of white space becomes one space.
    """
    return " ".join(unicodedata.normalize("NFC", word).casefold().split())


@dataclass(frozen=True, repr=False)
class ConceptSet:
    """Distinct concepts in the order given, and the template of their sentences.

    Blank entries and repetitions (up to case and white space) are dropped and counted.

    Parameters
    ----------
    words : sequence of str
        The concepts; the attribute is a tuple of M distinct words.
    template : str
        A sentence with exactly one ``{}``, which the word replaces.
    source : str
        Origin of the words, for messages: a file's name or a description.

    Attributes
    ----------
    repeated : tuple of str
        The entries dropped because an equal one came before them.
    blank : int
        The number of empty entries.

    Raises
    ------
    TypeError
        If `words` is one string, or an entry is not a string.
    ValueError
        If no word is left, an entry is longer than 500 characters or has control characters, or
        the template does not hold exactly one ``{}``.
    """

    words: Sequence[str]
    template: str = TEMPLATE
    source: str = "concept list"
    repeated: tuple[str, ...] = field(init=False)
    blank: int = field(init=False)

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            text = f"The template {self.template!r} must hold exactly one '{{}}'"
            raise ValueError(f"{text}, as in {TEMPLATE!r}.")
        words, repeated, blank = _distinct(self.words, self.source)
        vars(self).update(words=words, repeated=repeated, blank=blank)

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        some = ", ".join(map(repr, self.words[:3])) + (", ..." if len(self) > 3 else "")
        return f"ConceptSet({self.source!r}: {len(self)} concepts, {some}; {self.template!r})"

    @property
    def digest(self) -> str:
        """SHA-256 of words and template; the source does not matter."""
        return digest({"words": list(self.words), "template": self.template})

    @property
    def sentences(self) -> list[str]:
        """The M sentences for the text encoder."""
        return [self.template.replace("{}", word) for word in self.words]

    @property
    def bare_template(self) -> str:
        """The template without a word, "A photo of a", whose feature is t0."""
        return self.template.replace("{}", "").strip()

    @property
    def summary(self) -> str:
        """One line with the numbers of entries and of distinct concepts."""
        given = len(self.words) + len(self.repeated) + self.blank
        return (
            f"{self.source}: {given:,} entries, {len(self.words):,} distinct concepts "
            f"({len(self.repeated):,} repetitions and {self.blank:,} blank entries dropped)"
        )

    def embed(
        self,
        encoder: Encoder,
        store: Store | None = None,
        batch_size: int = 256,
        progress: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Encode every concept in the template, and the bare template (WWW, Eq. 1).

        Parameters
        ----------
        encoder : Encoder
            The image-text encoder of dimension D.
        store : Store, optional
            Keeps the features, under words, template, and name and output of the encoder.
        batch_size : int
            Sentences per call of the encoder.
        progress : bool
            Whether to show a progress bar.

        Returns
        -------
        t : Tensor
            (M, D) float32, unit-norm features of the concepts, on the CPU.
        t0 : Tensor
            (D,) float32, unit-norm feature of the bare template.
        """

        def make(checkpoint: Slot) -> tuple[dict[str, Tensor], dict]:
            t = embed_texts(encoder, self.sentences, batch_size, progress, checkpoint)
            return {"t": t, "t0": check[0]}, {"concepts": len(self)}

        check = embed_texts(encoder, [self.bare_template])
        key = {"concept_set": self.digest, "template": self.template, "encoder": encoder.name}
        key |= {"outputs": coarse_digest(check)}
        tensors = (store or Store(None)).fetch("texts", key, make).tensors
        return tensors["t"], tensors["t0"]


def _distinct(words: Iterable[str], source: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the distinct words, the repeated ones, and the number of blank entries."""
    if isinstance(words, str):
        raise TypeError(f"The concepts are the one string {words!r}; give a list of words.")
    kept: dict[str, str] = {}
    repeated, blank = [], 0
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str):
            raise TypeError(f"Entry {number} of the {source} is {word!r}; give strings.")
        fault = None
        if len(word) > LONGEST:
            fault = f"{len(word):,} characters; a concept has at most {LONGEST}; put one on a line"
        elif control := _CONTROL.search(word):
            fault = f"the control character {control[0]!r}; remove it, and save a file as UTF-8"
        if fault:
            raise ValueError(f"Line {number} of the {source}, {word[:40]!r}, has {fault}.")
        word = " ".join(unicodedata.normalize("NFC", word).split())
        if not word:
            blank += 1
        elif fold(word) in kept:
            repeated.append(word)
        else:
            kept[fold(word)] = word
    if not kept:
        raise ValueError(f"The {source} has no word but {blank} blank entries; give some words.")
    return tuple(kept.values()), tuple(repeated), blank


# Files and class names ------------------------------------------------------------------------


def from_file(path: str | Path, template: str = TEMPLATE) -> ConceptSet:
    """Read a concept set from a UTF-8 text file with one concept per line.

    Broden's labels are such a file (1,197 lines, 1,153 distinct in CLIP-Dissect's list).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not UTF-8 text, or its words are no concept set; the message gives the line.
    """
    return ConceptSet(read_lines(path), template, source=Path(path).name)


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without their ends and without a byte-order mark."""
    path = existing_file(path, "a text file with one entry a line")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        found = f"{path.name!r} is not UTF-8 text (byte {error.start})"
        raise ValueError(f"{found}; save it as UTF-8.") from error


def synonyms(classes: Target | str | Path | Iterable[str | Iterable[str]]) -> list[list[str]]:
    """Split class names such as "tench, Tinca tinca" into lists of synonyms.

    Parameters
    ----------
    classes : Target, path, or iterable
        A target (its ``classes``), a text file with one class per line, or class names; a class
        may also be given as its synonyms.

    Returns
    -------
    list of list of str
        One list for each class, in order, without repetitions.

    Raises
    ------
    ValueError
        If there is no class, or a class has no name.
    """
    if isinstance(classes, str | Path):
        lines = read_lines(classes)
        classes = lines[:-1] if lines[-1] == "" else lines  # the newline that ends the last class
    truth = []
    for number, names in enumerate(classes.classes if hasattr(classes, "classes") else classes):
        words = names.split(", ") if isinstance(names, str) else names
        distinct: dict[str, str] = {}
        for word in filter(None, map(str.strip, words)):
            distinct.setdefault(fold(word), word)
        if not distinct:
            raise ValueError(f"Class {number} has no name but {names!r}; give at least one word.")
        truth.append(list(distinct.values()))
    if not truth:
        raise ValueError("There are no class names; give at least one.")
    return truth


def places365(path: str | Path, reading: str = "paper", template: str = TEMPLATE) -> ConceptSet:
    """Read the 365 scenes of ``categories_places365.txt`` as a concept set.

    Parameters
    ----------
    path : str or Path
        A file of lines such as ``/b/balcony/exterior 24``.
    reading : {"paper", "clean"}
        "paper": as in the paper's code, "balcony-exterior" and "airplane_cabin" with its
        underscore. "clean": "balcony exterior" and "airplane cabin".
    template : str
        A sentence with exactly one ``{}``.
    """
    one_of("reading", reading, PLACES_READINGS)
    separators = str.maketrans("/", "-") if reading == "paper" else str.maketrans("/_", "  ")
    words = [scene.translate(separators) for scene in places365_scenes(path)]
    return ConceptSet(words, template, source=f"{Path(path).name} ({reading})")


# WordNet --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Synset:
    """One noun synset: its WordNet identifier, its lemmas, and its hypernyms' identifiers."""

    wnid: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


def wordnet_nouns(path: str | Path | None = None, template: str = TEMPLATE) -> ConceptSet:
    """Return the first lemma of every noun synset of WordNet, the paper's "about 80k nouns".

    WordNet 3.0 has 82,115 noun synsets with 67,186 distinct first lemmas.

    Parameters
    ----------
    path : str or Path, optional
        ``data.noun`` or its folder; None searches the places where Debian and NLTK install it.
    template : str
        A sentence with exactly one ``{}``.

    Raises
    ------
    ValueError
        If the file is not WordNet's noun database.
    FileNotFoundError
        If there is no ``data.noun``.
    """
    words = [synset.lemmas[0] for synset in read_synsets(path).values()]
    return ConceptSet(words, template, source="WordNet nouns (first lemma)")


def read_synsets(path: str | Path | None = None) -> Mapping[str, Synset]:
    """Parse ``data.noun`` into synsets, keyed by identifier ("n02084071") in the file's order.

    A line is a synset with its offset, lemmas, and pointers to other synsets, of which the
    hypernyms ("is a kind of") are kept; lines that start with two spaces are the licence.
    """
    path = find_data_noun(path)
    with path.open(encoding="utf-8") as file:
        lines = [(n, line) for n, line in enumerate(file, start=1) if not line.startswith("  ")]
    if not lines:
        raise ValueError(f"{str(path)!r} holds no synset; expected WordNet's data.noun.")
    return {one.wnid: one for one in (_parse(line, n, path) for n, line in lines)}


def find_data_noun(path: str | Path | None = None) -> Path:
    """Return the path of ``data.noun``: the one given, else the first in the usual places.

    These are the folder named by WNSEARCHDIR, NLTK's data folders (NLTK_DATA first) and
    /usr/share/wordnet.
    """
    tried = [expanded(path)] if path is not None else _usual_places()
    for place in tried:
        file = place / "data.noun" if place.is_dir() else place
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"WordNet's data.noun is not in {', '.join(map(str, tried))}; install it (Debian and "
        "Ubuntu: apt-get install wordnet-base; elsewhere: pip install nltk, then python -m "
        "nltk.downloader wordnet, and unzip it), or name its folder in WNSEARCHDIR."
    )


def _usual_places() -> list[Path]:
    named = os.environ.get("WNSEARCHDIR")
    roots = os.environ.get("NLTK_DATA", "").split(os.pathsep)
    roots += [os.path.expanduser("~/nltk_data"), "/usr/share/nltk_data", "/usr/lib/nltk_data"]
    folders = [Path(named)] if named else []
    folders += [Path(root) / "corpora" / "wordnet" for root in roots if root]
    return [folder / "data.noun" for folder in (*folders, Path("/usr/share/wordnet"))]


def _parse(line: str, number: int, path: Path) -> Synset:
    """Parse a line: offset, file, type, count (hex), lemmas with ids, pointers, gloss."""
    fields = line.split("|", 1)[0].split()
    try:
        count = int(fields[3], 16)
        lemmas = fields[4 : 4 + 2 * count : 2]
        pointers = fields[5 + 2 * count :]
        if fields[2] != "n" or len(lemmas) != count or len(pointers) % 4:
            raise ValueError
        pairs = zip(pointers[::4], pointers[1::4], strict=True)
        hypernyms = tuple(f"n{target}" for symbol, target in pairs if symbol in ("@", "@i"))
    except (IndexError, ValueError):
        found = f"Line {number} of {str(path)!r}, {line[:40].strip()!r},"
        raise ValueError(f"{found} is no noun synset of WordNet.") from None
    return Synset(f"n{fields[0]}", tuple(lemma.replace("_", " ") for lemma in lemmas), hypernyms)


# By name --------------------------------------------------------------------------------------


def concept_set(spec: str, target: Target, template: str = TEMPLATE) -> ConceptSet:
    """Build a concept set by name.

    Parameters
    ----------
    spec : str
        "world", "classes" (of the target, with synonyms), "imagenet" or "wordnet"; "broden:path",
        "places365:path", "wordnet:path" or "file:path" for lists on disk.
    target : Target
        The network whose classes "classes" stands for.
    template : str
        A sentence with exactly one ``{}``.

    Raises
    ------
    ValueError
        If there is no such concept set, or its path is missing.
    """
    kind, _, path = spec.partition(":")
    one_of("The concept set", kind, KINDS)
    if kind in ("broden", "places365", "file") and not path:
        raise ValueError(f"The concept set {spec!r} needs a file: write {kind}:path/to/the/list.")
    if provided := extension(kind):
        return ConceptSet(provided.VOCABULARY, template, source=f"the concept {kind}")
    if kind in ("classes", "imagenet"):
        words = [word for own in class_synonyms(kind, target) for word in own]
        source = "ImageNet" if kind == "imagenet" else f"classes of {target.name}"
        return ConceptSet(words, template, source)
    if kind == "wordnet":
        return wordnet_nouns(path or None, template)
    return (places365 if kind == "places365" else from_file)(path, template=template)


def class_synonyms(kind: str, target: Target) -> list[list[str]]:
    """Return the synonyms of ImageNet's or a target's classes, also those an extension lists."""
    if kind == "imagenet":
        return synonyms(imagenet_synsets().values())
    provided = extension(target.name.partition("/")[0])
    if provided and target.classes == tuple(provided.SYNONYMS):
        return [list(names) for names in provided.SYNONYMS.values()]
    return synonyms(target)
