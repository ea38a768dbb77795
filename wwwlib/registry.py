"""What the core reaches only by name: packages beside it, and optional dependencies.

Also the checks of arguments that all parts share.

The core imports neither until they are used. An extension, such as the concept world behind
"world/conv", is a module with any of

- ``target(name, weights) -> Target``, behind ``targets.load("<extension>/<name>")``
- ``image_set(count, seed) -> ImageSet``, behind ``wwwlib.build(model, "<extension>")``
- ``encoder_folder() -> Path``, an open_clip folder, behind ``language.encoder("<extension>")``
- ``VOCABULARY``, the words behind ``language.concept_set("<extension>")``
- ``SYNONYMS``, a dict of class names to all their names, for targets with these classes.
"""

import difflib
import importlib.util
import operator
import sys
from collections.abc import Collection, Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsIndex

EXTENSIONS = {"world": "wwwlib.world"}


def extension(name: str) -> ModuleType | None:
    """Return the module registered under a name, None if there is none."""
    return import_module(EXTENSIONS[name]) if name in EXTENSIONS else None


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"captum.attr"``.
    extra : str
        The extra of wwwlib that installs it.

    Raises
    ------
    ImportError
        If it is not installed; the sentence names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        text = f"{module.partition('.')[0]} is not installed ({error}); install it with:"
        raise ImportError(f"{text} pip install 'wwwlib[{extra}]'.") from error


def call(spec: str, what: str, *args: object, **kwargs: object) -> Any:
    """Call a function of the user's.

    Parameters
    ----------
    spec : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    what : str
        What the function returns, for messages.
    *args, **kwargs
        Arguments of the function.

    Raises
    ------
    ValueError
        If `spec` is not of that form.
    FileNotFoundError, ImportError, AttributeError
        If the file, the module, or the function in it does not exist.
    """
    place, colon, function = spec.rpartition(":")
    if not (colon and place and function.isidentifier()):
        raise ValueError(f"The {what} is {spec!r}; write module:function or file.py:function.")
    module = _import_file(place, what) if place.endswith(".py") else import_module(place)
    make = getattr(module, function, None)
    if not callable(make):
        raise AttributeError(f"{place!r} has no function {function!r}; check the {what} {spec!r}.")
    return make(*args, **kwargs)


def _import_file(place: str, what: str) -> ModuleType:
    """Import a module from a file outside of Python's path."""
    path = existing_file(place, f"one that defines the {what}'s function")
    name = f"wwwlib.loaded.{path.stem}"  # does not collide with importable modules
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader, "the suffix .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up there
    spec.loader.exec_module(module)
    return module


def whole_number(name: str, value: SupportsIndex, least: int = 1) -> int:
    """Return an argument as int; a ValueError names it if it is no whole number or too small."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; give a whole number, at least {least}.")
    return number


def one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raise a ValueError, which lists the choices, if an argument is none of them."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}; use one of {', '.join(known)}.")


def check_known(message: str, word: str, words: Iterable[str]) -> None:
    """Raise a ValueError, a message with the most similar words, if a word is none of them."""
    if word not in (words := list(words)):
        close = difflib.get_close_matches(str(word), words, n=5, cutoff=0.0)
        raise ValueError(f"{message}; the nearest are {', '.join(map(repr, close))}.")


def existing_file(path: str | Path, what: str) -> Path:
    """Return a path, its "~" expanded; a FileNotFoundError says what to give if it is no file."""
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; give {what}.")
    return path


def expanded(path: str | Path) -> Path:
    """Return a path with its "~" expanded; a ValueError if that home folder is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"The path {str(path)!r} lies in a home folder that is not known; set HOME, or give "
            "the whole path (of the store in WWW_STORE)."
        ) from error
