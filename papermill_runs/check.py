"""Is everything there that a profile needs, and is it right? Nothing runs, nothing is changed.

A file is known by its SHA-256, or by as much of it as its publisher tells; a data set by its count
and by the names of its files, which their numbering foretells. Which folder each lies in is known
by the digest of the listing, if somebody tells it; if not, `seen` compares it with an earlier one.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from needs import Need

from wwwlib.store import file_digest

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Finding:
    """What was found of a need: what is wrong with it, or else how it was recognised.

    Its `digest` is there where no published checksum vouches for it, for a later check to compare.
    """

    need: Need
    fault: str | None
    known_by: str = ""
    digest: str | None = None


def check(needs: Iterable[Need]) -> list[Finding]:
    """Look at every need."""
    return [examine(need) for need in needs]


def examine(need: Need) -> Finding:
    """Look at one need."""
    look = _hub if need.repo else _folder if need.folder else _file
    try:
        ways, mark = look(need)
    except _Fault as fault:
        return Finding(need, str(fault))
    except OSError as error:
        return Finding(need, f"cannot be read ({error.strerror or error})")
    except (UnicodeDecodeError, csv.Error) as error:
        return Finding(need, f"is damaged, or another file ({error})")
    return Finding(need, None, ", ".join(ways), mark)


def told(findings: Iterable[Finding], data: Path) -> str:
    """Return the findings in words: what is right in a line each, what is not with what to do."""
    lines, wrong = [], 0
    for found in findings:
        need = found.need
        if found.fault is None:
            lines.append(f"  right    {need.name}: {found.known_by}")
            continue
        wrong += 1
        if found.digest:  # it is there, and right but for being another than before
            lines.append(f"  CHANGED  {need.name}: {found.fault}")
            continue
        lines += [
            f"  MISSING  {need.name}: {found.fault}",
            f"             what     {need.what} ({need.size})",
            f"             from     {need.source}",
            f"             terms    {need.licence}",
            f"             put it   {need.place}",
            f"             fetch    {'by --fetch' if may_fetch(need) else 'by yourself'}",
        ]
    if not lines:
        return "It needs nothing beside this repository."
    end = f"{wrong} of {wrong + sum(f.fault is None for f in findings)} are missing or wrong."
    return "\n".join([f"Data folder: {data} (WWW_DATA names another one)", *lines, end])


def may_fetch(need: Need) -> bool:
    """Whether it may be downloaded without asking anybody."""
    return bool(need.url or need.repo)


class _Fault(Exception):
    pass


def _file(need: Need) -> tuple[list[str], str | None]:
    path, mark = need.path, None
    if not path.is_file():
        raise _Fault(f"there is no file {str(path)!r}")
    ways = [hashed(path, need.sha256)] if need.sha256 else []
    if need.md5:
        ways.append(_md5(path, need.md5))
    if need.lines is not None:
        found = len(path.read_text(encoding="utf-8").split("\n")) - path.read_bytes().endswith(
            b"\n"
        )
        _same(found, need.lines, "lines")
        ways.append(f"{found:,} lines")
    if need.weights:
        mark = _fitted(path, *need.weights)
        target, classes = need.weights
        ways.append(f"fits {target} with {classes} classes, weights {mark[:16]}")
    return ways, mark


def hashed(path: Path, expected: str) -> str:
    """Return in words by how much of its SHA-256 a file is known, or raise."""
    found = file_digest(path)
    if not found.startswith(expected):
        raise _Fault(
            f"{str(path)!r} is another file: its SHA-256 begins with "
            f"{found[: min(len(expected), 16)]}, not {expected[:16]}; delete it and get it again"
        )
    if len(expected) == 64:
        return f"SHA-256 {found[:16]}..."
    return f"the first {len(expected)} digits of SHA-256, {expected}, all that is published"


def _md5(path: Path, expected: str) -> str:
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != expected:
        raise _Fault(f"{str(path)!r} is another file: its MD5 is {found}, not {expected}")
    return f"MD5 {found}"


def _fitted(path: Path, target: str, classes: int) -> str:
    """Put a checkpoint without a published checksum into its network; return its digest."""
    from wwwlib import targets

    try:
        return targets.load(target, path, classes=[str(i) for i in range(classes)]).digest
    except ValueError as error:
        raise _Fault(str(error).rstrip(".")) from None


def _folder(need: Need) -> tuple[list[str], str | None]:
    path, mark = need.path, None
    if not path.is_dir():
        raise _Fault(f"there is no folder {str(path)!r}")
    for name in need.holds:
        if not (path / name).exists():
            raise _Fault(f"{str(path)!r} holds no {name}")
    ways = [f"holds {', '.join(need.holds)}"] if need.holds else []
    if need.folders is not None:
        _wnids(path, need.folders)
        ways.append(f"{need.folders:,} folders")
    if need.files is not None:
        listing = _listing(need)
        mark = None if need.listing else listing
        ways.append(f"{need.files:,} files, listing {listing[:16]}")
    if need.indexed:
        ways.append(f"{_indexed(path, need.indexed):,} images in its index")
    if need.synsets is not None:
        with (path / "data.noun").open(encoding="utf-8") as lines:
            _same(sum(not line.startswith("  ") for line in lines), need.synsets, "synsets")
        ways.append(f"{need.synsets:,} synsets")
    return ways, mark


def _wnids(path: Path, count: int) -> None:
    from wwwlib.images import imagenet_synsets

    found = {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
    _same(len(found), count, "folders")
    if foreign := sorted(found - set(imagenet_synsets())):
        raise _Fault(f"the folder {foreign[0]!r} is named by none of ImageNet's wnids")


def _listing(need: Need) -> str:
    """Compare the files' names with those foretold; return the digest of their paths."""
    seen = [p for p in need.path.rglob("*") if p.is_file()]
    paths = sorted(p for p in seen if not p.name.startswith("."))
    _same(len(paths), need.files, "files")
    names = sorted(path.name for path in paths)
    if need.pattern:
        expected = sorted(need.pattern.format(i) for i in range(1, need.files + 1))
        if digest(names) != digest(expected):
            odd = next(a for a, b in zip(names, expected, strict=True) if a != b)
            raise _Fault(f"the file {odd!r} does not belong to it, or another one is missing")
    if need.each:
        sizes = Counter(path.parent.name for path in paths)
        name, size = max(sizes.items(), key=lambda item: abs(item[1] - need.each))
        if size != need.each:
            raise _Fault(f"the folder {name!r} holds {size} files, expected {need.each}")
    if not all(path.stat().st_size for path in paths):
        raise _Fault("some of its files are empty")
    found = digest([path.relative_to(need.path).as_posix() for path in paths])
    if need.listing and not found.startswith(need.listing):
        raise _Fault(
            f"its files lie in other folders than they should: the SHA-256 of their listing begins "
            f"with {found[: min(len(need.listing), 16)]}, not {need.listing[:16]}"
        )
    return found


def _indexed(path: Path, images: str) -> int:
    """Count the images of Broden's index, which must be there; its labels must be, too."""
    listed, _ = _column(path / "index.csv", "image"), _column(path / "label.csv", "name")
    lost = [name for name in listed if not (path / images / name).is_file()]
    if lost:
        raise _Fault(f"{len(lost):,} images of its index.csv are not there, {lost[0]!r} among them")
    return len(listed)


def _column(path: Path, name: str) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        found = [row.get(name) for row in csv.DictReader(file)]
    if not found or found[0] is None:
        raise _Fault(f"its {path.name} has no rows with a column {name!r}")
    return found


def digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of names, a line each."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _hub(need: Need) -> tuple[list[str], None]:
    """Look into the hub's cache, which names a large file by its SHA-256."""
    from huggingface_hub import try_to_load_from_cache

    known = 0
    for name in need.holds:
        found = try_to_load_from_cache(need.repo, name)
        if not isinstance(found, str) or not Path(found).is_file():
            raise _Fault(f"the hub's cache holds no {name} of {need.repo}")
        blob = Path(found).resolve()
        if _SHA256.fullmatch(blob.name):
            hashed(blob, blob.name)
            known += 1
    return [f"{len(need.holds)} files in the hub's cache, {known} checked by their SHA-256"], None


def _same(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise _Fault(f"it has {found:,} {what}, expected {expected:,}")
