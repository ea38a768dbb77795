"""A concept set is the vocabulary that names are chosen from: distinct words and one template.

The words come from a list or a file, are cleaned once, and remember what was dropped; the template
turns each into the sentence that the text encoder reads, "A photo of a {}" in the paper.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.language.encoders import Encoder
from wwwlib.store import Store, digest

TEMPLATE = "A photo of a {}"
CHECKPOINT = 64  # batches of texts after which a long encoding is saved
LONGEST = 100  # words in one concept; a longer entry is a paragraph that slipped into the list


def fold(word: str) -> str:
    """Return the form in which two spellings of one concept are equal.

    Unicode is composed (NFC), case folded, and each run of white space becomes one space.
    """
    return " ".join(unicodedata.normalize("NFC", word).casefold().split())


@dataclass(frozen=True)
class ConceptSet:
    """Distinct concepts in the order given, and the template that they are read in.

    Blank entries and repetitions (up to case and white space) are dropped and remembered.

    Parameters
    ----------
    words : iterable of str
        The concepts; afterwards a tuple of M distinct words.
    template : str
        A sentence with exactly one ``{}``, where the word goes.
    source : str
        Where the words come from, for messages: a file's name or a description.

    Attributes
    ----------
    repeated : tuple of str
        The entries dropped because an equal one stood before them.
    blank : int
        How many entries were empty or white space.

    Raises
    ------
    TypeError
        If ``words`` is one string, or an entry is no string.
    ValueError
        If no word is left, a word is longer than 100 words, or the template has not one ``{}``.
    """

    words: Iterable[str]
    template: str = TEMPLATE
    source: str = "concept list"
    repeated: tuple[str, ...] = field(init=False, repr=False)
    blank: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Clean the words once, so that every later reader may trust them."""
        if self.template.count("{}") != 1:
            raise ValueError(
                f"The template {self.template!r} holds {self.template.count('{}')} places for the "
                f"word; write exactly one '{{}}', as in {TEMPLATE!r}."
            )
        words, repeated, blank = _distinct(self.words, self.source)
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "repeated", repeated)
        object.__setattr__(self, "blank", blank)

    def __len__(self) -> int:
        """Return the number M of distinct concepts."""
        return len(self.words)

    @property
    def digest(self) -> str:
        """SHA-256 of words and template: equal sets have equal digests, whatever their source."""
        return digest({"words": list(self.words), "template": self.template})

    @property
    def sentences(self) -> list[str]:
        """The M sentences that the text encoder reads."""
        return [self.template.replace("{}", word) for word in self.words]

    @property
    def bare_template(self) -> str:
        """The template without a word, "A photo of a", whose feature is ``t0``."""
        return self.template.replace("{}", "").strip()

    @property
    def summary(self) -> str:
        """One line saying how many entries were given, and how many concepts they are."""
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
        """Encode every concept in the template, and the bare template.

        Parameters
        ----------
        encoder : Encoder
            The image-text encoder of dimension D.
        store : Store, optional
            Where features are kept, under words, template and encoder; ``None`` encodes afresh.
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

        def make(checkpoint: object = None) -> tuple[dict[str, Tensor], dict]:
            t = self._encode(encoder, batch_size, progress, checkpoint)
            t0 = unit_rows(encoder.encode_texts([self.bare_template]), 1, encoder)
            return {"t": t, "t0": t0[0]}, {"concepts": len(self)}

        if store is None:
            tensors, _ = make()
        else:
            key = {
                "concept_set": self.digest,
                "template": self.template,
                "encoder": encoder.name,
            }
            tensors = store.fetch("texts", key, make).tensors
        return tensors["t"], tensors["t0"]

    def _encode(
        self, encoder: Encoder, batch_size: int, progress: bool, checkpoint: object
    ) -> Tensor:
        """Encode the sentences in batches, going on from a checkpoint and leaving some."""
        found = checkpoint.load() if checkpoint else None
        parts = [found.tensors["t"]] if found else []
        first = len(parts[0]) if found else 0
        sentences = self.sentences
        starts = range(first, len(self), batch_size)
        bar = tqdm(starts, desc="concepts", unit="batch", disable=not progress)
        for number, start in enumerate(bar, start=1):
            texts = sentences[start : start + batch_size]
            parts.append(unit_rows(encoder.encode_texts(texts), len(texts), encoder))
            if checkpoint and number % CHECKPOINT == 0:
                checkpoint.save({"t": torch.cat(parts)}, {})
        return torch.cat(parts)


def from_file(path: str | Path, template: str = TEMPLATE) -> ConceptSet:
    """Read a concept set from a UTF-8 text file, one concept a line.

    Parameters
    ----------
    path : str or Path
        The file; blank lines and repetitions are dropped and remembered.
    template : str
        A sentence with exactly one ``{}``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not UTF-8 text, or its words are no concept set; the message names the line.
    """
    return ConceptSet(read_lines(path), template, source=Path(path).name)


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a UTF-8 text file, without their ends and without a byte-order mark."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r}; give the path of a text file with one entry a line."
        )
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name!r} is not UTF-8 text (byte {error.start}); save it as UTF-8, one entry "
            "a line."
        ) from error


def unit_rows(features: Tensor, count: int, encoder: Encoder) -> Tensor:
    """Return ``count`` unit-norm rows as float32 on the CPU, or say what the encoder did wrong."""
    if features.ndim != 2 or len(features) != count:
        raise ValueError(
            f"Encoder {encoder.name!r} returned features of shape {tuple(features.shape)} for "
            f"{count} inputs; it must return one row for each."
        )
    features = features.detach().to("cpu", torch.float32)
    norm = features.norm(dim=1)
    wrong = ~((norm - 1).abs() < 0.01)  # written so that NaN is wrong too
    if wrong.any():
        raise ValueError(
            f"Encoder {encoder.name!r} returned a feature of norm {norm[wrong][0]:.4g}; features "
            "must be of unit norm: divide each by its norm before returning it."
        )
    return F.normalize(features, dim=1)  # half-precision encoders are off by up to a thousandth


def _distinct(words: Iterable[str], source: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Split entries into the distinct words, the repeated ones, and the number of blank ones."""
    if isinstance(words, str):
        raise TypeError(
            f"The concepts are the one string {words!r}; give a list of words, or read a file "
            "with language.from_file."
        )
    kept: dict[str, str] = {}
    repeated, blank = [], 0
    for number, word in enumerate(words, start=1):
        word = _clean(word, number, source)
        if not word:
            blank += 1
        elif fold(word) in kept:
            repeated.append(word)
        else:
            kept[fold(word)] = word
    if not kept:
        raise ValueError(
            f"The {source} holds no concept ({blank} blank entries); give at least one word."
        )
    return tuple(kept.values()), tuple(repeated), blank


def _clean(word: str, number: int, source: str) -> str:
    """Return an entry composed and stripped; refuse what no template can hold."""
    if not isinstance(word, str):
        raise TypeError(
            f"Entry {number} of the {source} is {word!r} ({type(word).__name__}); concepts "
            "are strings."
        )
    parts = unicodedata.normalize("NFC", word).split()
    if len(parts) > LONGEST:
        raise ValueError(
            f"Line {number} of the {source}, {' '.join(parts[:6])!r} ..., is {len(parts)} words "
            f"long; a concept has at most {LONGEST}: put one concept on each line."
        )
    return " ".join(parts)
