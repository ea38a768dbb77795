"""Concept sets and ground truth from the lists that the paper names: classes, Broden, Places365.

The same list serves twice. As a concept set its words are candidates for every neuron; as ground
truth each class is the list of its synonyms, and a name is right if it is one of them.
"""

from collections.abc import Iterable
from pathlib import Path

from wwwlib.language.concept_sets import TEMPLATE, ConceptSet, fold, from_file, read_lines

PLACES_READINGS = ("paper", "clean")


def synonyms(classes: object) -> list[list[str]]:
    """Split class names such as "tench, Tinca tinca" into lists of synonyms.

    Parameters
    ----------
    classes : Target, iterable of str, str or Path
        A target (its ``classes``), class names, or a text file with one class a line.

    Returns
    -------
    list of list of str
        One list for each class, in order; no synonym twice.

    Raises
    ------
    ValueError
        If there is no class, or a class has no name.
    """
    truth = []
    for number, name in enumerate(_class_names(classes)):
        words: dict[str, str] = {}
        for word in filter(None, map(str.strip, name.split(", "))):
            words.setdefault(fold(word), word)
        if not words:
            raise ValueError(
                f"Class {number} has no name ({name!r}); give each class at least one word."
            )
        truth.append(list(words.values()))
    if not truth:
        raise ValueError("There are no class names; give at least one.")
    return truth


def classes(target: object, template: str = TEMPLATE) -> ConceptSet:
    """Return the words of all classes of a target, synonyms included, as a concept set.

    Parameters
    ----------
    target : Target, iterable of str, str or Path
        As for :func:`synonyms`.
    template : str
        A sentence with exactly one ``{}``.
    """
    words = [word for names in synonyms(target) for word in names]
    return ConceptSet(words, template, source=f"classes of {getattr(target, 'name', 'a list')}")


def imagenet_classes() -> dict[str, str]:
    """Return ImageNet's 1,000 classes: WordNet identifier -> "tench, Tinca tinca".

    The lemmas come with timm, so nothing is downloaded. Two classes are called "crane" alone, and
    a dozen lemmas belong to two classes: the identifiers tell them apart.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {
        wnid: info.label_name_to_description(wnid, detailed=False) for wnid in info.label_names()
    }


def broden(path: str | Path, template: str = TEMPLATE) -> ConceptSet:
    """Read Broden's labels, one a line (1,197 lines, 1,153 distinct in CLIP-Dissect's list)."""
    return from_file(path, template)


def places365(path: str | Path, reading: str = "paper", template: str = TEMPLATE) -> ConceptSet:
    """Read the 365 scenes of ``categories_places365.txt`` as a concept set.

    Parameters
    ----------
    path : str or Path
        A file of lines such as ``/b/balcony/exterior 24``.
    reading : {"paper", "clean"}
        "paper": as the paper's code has it, "balcony-exterior" and "airplane_cabin" with its
        underscore. "clean": "balcony exterior" and "airplane cabin".
    template : str
        A sentence with exactly one ``{}``.
    """
    _check_reading(reading)
    join = "-".join if reading == "paper" else _spaced
    words = [join(parts) for parts in _places(path)]
    return ConceptSet(words, template, source=f"{Path(path).name} ({reading})")


def places365_truth(path: str | Path, reading: str = "paper") -> list[list[str]]:
    """Return the ground truth of the 365 scenes.

    The paper's code keeps only what follows the last slash, "exterior" for
    ``/b/balcony/exterior``, which its own concept set does not hold: 75 scenes cannot be named
    right, and a perfect answer scores a hit rate of .7945. In the "clean" reading truth and
    concept set agree.
    """
    _check_reading(reading)
    last = reading == "paper"
    return [[parts[-1] if last else _spaced(parts)] for parts in _places(path)]


def _class_names(classes: object) -> Iterable[str]:
    """Return class names from a target, a file or an iterable."""
    if isinstance(classes, str | Path):
        lines = read_lines(classes)
        return lines[:-1] if lines[-1] == "" else lines  # the newline that ends the last class
    return getattr(classes, "classes", classes)


def _places(path: str | Path) -> list[list[str]]:
    """Return ``["balcony", "exterior"]`` for each line ``/b/balcony/exterior 24``."""
    places = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        parts = line.split()[0].split("/")
        if len(parts) < 3 or parts[0] or not all(parts[1:]):
            raise ValueError(
                f"Line {number} of {str(path)!r} is {line.strip()!r}; expected a scene such as "
                "'/b/balcony/exterior 24'."
            )
        places.append(parts[2:])
    return places


def _spaced(parts: list[str]) -> str:
    """Join a scene and its qualifier as plain words."""
    return " ".join(parts).replace("_", " ")


def _check_reading(reading: str) -> None:
    """Refuse a reading of Places365 that does not exist."""
    if reading not in PLACES_READINGS:
        raise ValueError(
            f"The reading {reading!r} is unknown; choose one of {', '.join(PLACES_READINGS)}."
        )
