"""WordNet's nouns, read from the database file `data.noun` itself.

A line is a synset: its offset, its lemmas, and pointers to other synsets; of these the hypernyms
("is a kind of") are kept. Lines that start with two spaces are the licence.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wwwlib.language.concept_sets import TEMPLATE, ConceptSet

READINGS = ("first_lemma", "synsets", "strings")


@dataclass(frozen=True)
class Synset:
    """One noun meaning: its WordNet identifier, its lemmas, and its hypernyms' identifiers."""

    wnid: str
    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


def wordnet_nouns(
    path: str | Path | None = None, reading: str = "first_lemma", template: str = TEMPLATE
) -> ConceptSet:
    """Return WordNet's nouns as a concept set; "about 80k nouns" has three readings.

    Parameters
    ----------
    path : str or Path, optional
        ``data.noun`` or its folder; ``None`` looks where Debian and NLTK put it.
    reading : {"first_lemma", "synsets", "strings"}
        "first_lemma", the paper's: the first lemma of every synset (82,115 entries, 67,186
        distinct in WordNet 3.0). "synsets": every synset's lemmas joined by commas
        (75,796 distinct, since some meanings share all their lemmas).
        "strings": every lemma (117,798 distinct).
    template : str
        A sentence with exactly one ``{}``.

    Returns
    -------
    ConceptSet
        Underscores as spaces; ``.summary`` tells the counts before and after repetitions.

    Raises
    ------
    ValueError
        If the reading is unknown, or the file is no WordNet noun database.
    FileNotFoundError
        If there is no ``data.noun``.
    """
    if reading not in READINGS:
        raise ValueError(
            f"The reading {reading!r} is unknown; choose one of {', '.join(READINGS)}."
        )
    synsets = read_synsets(path).values()
    if reading == "first_lemma":
        words = [synset.lemmas[0] for synset in synsets]
    elif reading == "synsets":
        words = [", ".join(synset.lemmas) for synset in synsets]
    else:
        words = [lemma for synset in synsets for lemma in synset.lemmas]
    return ConceptSet(words, template, source=f"WordNet nouns ({reading})")


def read_synsets(path: str | Path | None = None) -> Mapping[str, Synset]:
    """Parse ``data.noun`` into synsets, keyed by identifier ("n02084071") in the file's order."""
    path = find_data_noun(path)
    synsets = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.startswith("  "):
                synset = _parse(line, number, path)
                synsets[synset.wnid] = synset
    if not synsets:
        raise ValueError(f"{str(path)!r} holds no synset; expected WordNet's data.noun.")
    return synsets


def find_data_noun(path: str | Path | None = None) -> Path:
    """Return the path of ``data.noun``: the one given, else the first in the usual places.

    The usual places are the folder named by WNSEARCHDIR, NLTK's data folders (NLTK_DATA first)
    and /usr/share/wordnet.
    """
    tried = [Path(path).expanduser()] if path is not None else _usual_places()
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
    """Return the files that Debian's package and NLTK's downloader would have written."""
    roots = [Path(root) for root in os.environ.get("NLTK_DATA", "").split(os.pathsep) if root]
    roots += [Path.home() / "nltk_data", Path("/usr/share/nltk_data"), Path("/usr/lib/nltk_data")]
    places = [root / "corpora" / "wordnet" / "data.noun" for root in roots]
    named = os.environ.get("WNSEARCHDIR")
    first = [Path(named) / "data.noun"] if named else []
    return [*first, *places, Path("/usr/share/wordnet/data.noun")]


def _parse(line: str, number: int, path: Path) -> Synset:
    """Read one line: offset, file, type, count (hex), lemmas with ids, pointers, gloss."""
    fields = line.split("|", 1)[0].split()
    try:
        count = int(fields[3], 16)
        lemmas = fields[4 : 4 + 2 * count : 2]
        pointers = fields[5 + 2 * count :]
        if fields[2] != "n" or len(lemmas) != count or len(pointers) % 4:
            raise ValueError
        hypernyms = [
            f"n{target}"
            for symbol, target in zip(pointers[::4], pointers[1::4], strict=True)
            if symbol in ("@", "@i")
        ]
    except (IndexError, ValueError):
        raise ValueError(
            f"Line {number} of {str(path)!r} is no noun synset ({line[:40].strip()!r}); expected "
            "WordNet's data.noun, unchanged."
        ) from None
    names = tuple(lemma.replace("_", " ") for lemma in lemmas)
    return Synset(f"n{fields[0]}", names, tuple(hypernyms))
