"""Which files the parameters of a run name, and by what one sees that they are still the same.

Sizes and times are read, never content: a probe set of 50,000 images takes a second. What lies
behind a URL is not asked at all, so nobody can call a run done that took its images from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from profiles import House

from wwwlib.images.files import list_files


def witness(house: House, values: Any) -> dict[str, list]:
    """Return name, times and size of every file that parameters name, by path from the house.

    Parameters
    ----------
    house : House
        Relative paths are seen from its notebooks.
    values : object
        Of one parameter or of many, however deep in lists and dicts.
    """
    root = house.root.resolve()
    named = {path for text in _texts(values) for path in _paths(house, text)}
    return {os.path.relpath(path, root): _seen(path) for path in sorted(named)}


def behind_url(values: Any) -> str | None:
    """Return a value whose content nobody can see from here, if there is one."""
    return next((text for text in _texts(values) if "://" in text), None)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _paths(house: House, text: str) -> Iterator[Path]:
    """Yield what there is of ``path``, ``kind:path``, ``library:kind:path``, ``file.py:name``."""
    root, parts = house.root.resolve(), text.split(":")
    endings = {":".join(parts[i:]) for i in range(len(parts))}
    for one in filter(None, endings | {text.rpartition(":")[0]}):
        named = house.notebooks / os.path.expanduser(one)
        if os.path.exists(named):
            path = named.resolve()
            # What the runs themselves write is no input, nor is a folder that holds it.
            if not (root.is_relative_to(path) or path.is_relative_to(root / "papermill_runs")):
                yield path


def _seen(path: Path) -> list[list]:
    if not path.is_dir():
        return [_stat(path.name, path)]
    return [_stat(name, path / name) for name in list_files(path)]


def _stat(name: str, path: Path) -> list:
    """Return the time of the inode, too: a file given another one's size and time shows by it."""
    try:
        stat = path.stat()
    except FileNotFoundError:  # a link to nowhere
        return [name]
    return [name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size]
