"""Where images lie: a folder of this machine, or one behind a URL that fsspec can read.

``s3://bucket/val``, ``gs://``, ``https://``, ``hf://datasets/...``, ``memory://`` and the like need
their own package (s3fs, gcsfs, ...) and take keys, endpoints and other options from fsspec's own
configuration: ``FSSPEC_S3_ANON=true`` in the environment, or files in ``~/.config/fsspec``.
"""

from collections.abc import Iterator
from pathlib import Path

from upath import UPath

Place = Path | UPath


def place(where: str | Place) -> Place:
    """Return a local path for a path, and one behind fsspec for a URL.

    It is to be made anew in each process: connections do not survive a fork.

    Raises
    ------
    ValueError
        If no installed package reads this kind of URL.
    """
    if "://" not in str(where):
        return Path(where)
    try:
        found = UPath(str(where))
        found.fs  # noqa: B018  finds out whether the package is there
        return found
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"The URL {str(where)!r} cannot be read ({error}); install the package that fsspec "
            "names, or give a folder."
        ) from error


def existing(root: str | Place) -> Place:
    """Return the absolute path of a folder, or say that there is none."""
    root = place(root)
    root = root.expanduser().absolute() if isinstance(root, Path) else root
    if not root.is_dir():
        raise NotADirectoryError(f"There is no folder {str(root)!r}; give one that holds images.")
    return root


def subfolders(root: str | Place) -> tuple[str, ...]:
    """Return the names of a folder's subfolders, sorted, hidden ones left out."""
    entries = existing(root).iterdir()
    return tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))


def files(root: Place) -> list[str]:
    """Return the paths of all files below a folder, relative to it, in order of name.

    The order is the same here and behind a URL, so that a copy has the fingerprint of the original.
    """
    if isinstance(root, Path):
        return [str(path.relative_to(root)) for path in _walk(root)]
    start = root.path.rstrip("/") + "/"
    found = [path.removeprefix(start).split("/") for path in root.fs.find(start)]
    seen = [parts for parts in found if not any(part.startswith(".") for part in parts)]
    return ["/".join(parts) for parts in sorted(seen)]


def _walk(folder: Path, above: frozenset = frozenset()) -> Iterator[Path]:
    """Walk a folder in order of name, never into a folder that the walk is already in."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, above | {here})
        else:
            yield entry
