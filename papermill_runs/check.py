"""What a profile needs beside this repository, and whether it is there and right.

The needs are declared in ``needs.yaml``. Nothing is downloaded or changed here. A file is verified
by its SHA-256, or the part of it that is published; a data set by the number and names of its
files. What has no published checksum is recorded in ``seen.json`` in the data folder by the first
check that finds it right, and later checks compare with that.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parameters import nearest, read_yaml
from profiles import write_json

PATH = Path(__file__).with_name("needs.yaml")
SEEN = "seen.json"
TORCHVISION = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Need:
    """One file, folder or repository of the Hugging Face hub, and what is known to be in it."""

    name: str
    what: str
    licence: str
    size: str = "size unknown"
    source: str = ""  # an address, perhaps with an instruction
    path: Path | None = None  # None for the hub, which has its own cache
    folder: bool = False
    url: str | None = None  # where it may be downloaded without asking
    archive: Path | None = None  # where the download of a folder goes, to be unpacked
    hub: str | None = None  # a repository there; `holds` are its files
    holds: Sequence[str] = ()  # files or folders that must be in it
    sha256: str | None = None  # all of it, or as many first digits as are published
    md5: str | None = None  # of an archive, or a file without a published SHA-256
    lines: int | None = None
    synsets: int | None = None
    folders: int | None = None
    files: int | None = None
    each: int | None = None  # files in every folder
    pattern: str | None = None  # names of the files, by number from 1
    indexed: str | None = None  # folder of the images that index.csv lists, as in Broden
    weights: Sequence | None = None  # a target and its classes, whose network it must fit

    @property
    def downloadable(self) -> bool:
        """Whether it may be downloaded without asking."""
        return bool(self.url or self.hub)


@dataclass(frozen=True)
class Finding:
    """The result of checking a need: its fault, or else how it was verified.

    `digest` is set where no published checksum exists, for a later check to compare.
    """

    need: Need
    fault: str | None
    verified_by: str = ""
    digest: str | None = None


class _Fault(Exception):
    pass


def load(names: Iterable[str], data: Path, path: Path = PATH) -> list[Need]:
    """Return the needs of these names, as a YAML file declares them, with paths in a data folder.

    Raises ValueError if there is no need of a name, or an entry has an unknown field.
    """
    known = read_yaml(path.read_text(encoding="utf-8"))
    for name in names:
        if name not in known:
            raise ValueError(
                f"There is no need {name!r} in {path.name}; {nearest(name, [*known])}."
            )
    return [_need(name, dict(known[name]), data) for name in names]


def _need(name: str, entry: dict[str, Any], data: Path) -> Need:
    if "torchvision" in entry:  # the name of its file has the first digits of its SHA-256
        import torch

        file = entry.pop("torchvision")
        entry |= {"file": Path(torch.hub.get_dir()) / "checkpoints" / file}
        entry |= {"url": TORCHVISION + file, "sha256": re.search(r"-(\w+)\.", file)[1]}
    for kind in ("folder", "file"):
        if kind in entry:
            entry |= {"path": data / entry.pop(kind), "folder": kind == "folder"}
    if "archive" in entry:
        entry["archive"] = data / entry["archive"]
    page = f"https://huggingface.co/{entry['hub']}" if "hub" in entry else entry.get("url", "")
    if unknown := entry.keys() - {field.name for field in fields(Need)}:
        raise ValueError(f"The need {name!r} has an unknown field {min(unknown)!r}.")
    return Need(name, **{"source": page} | entry)


def examine(need: Need) -> Finding:
    """Check one need."""
    checker, ways = _hub if need.hub else _folder if need.folder else _file, []
    try:
        digest = checker(need, ways)
    except _Fault as fault:
        return Finding(need, str(fault))
    except OSError as error:
        return Finding(need, f"cannot be read ({error.strerror or error})")
    except (UnicodeDecodeError, csv.Error) as error:
        return Finding(need, f"is damaged, or another file ({error})")
    return Finding(need, None, ", ".join(ways), digest)


def table(findings: Sequence[Finding], data: Path) -> str:
    """Return the findings as text: one line for what is right, and what to do about the rest."""
    lines = [f"Data folder: {data} (WWW_DATA names another one)"]
    for found in findings:
        need = found.need
        if found.fault is None:
            lines.append(f"  right    {need.name}: {found.verified_by}")
        elif found.digest:  # right in itself, but not the one that was there before
            lines.append(f"  CHANGED  {need.name}: {found.fault}")
        else:
            lines += [
                f"  MISSING  {need.name}: {found.fault}",
                f"             what     {need.what} ({need.size})",
                f"             from     {need.source}",
                f"             terms    {need.licence}",
                f"             put it   {need.path or f'the cache of the hub, as {need.hub}'}",
                f"             fetch    {'by --fetch' if need.downloadable else 'by yourself'}",
            ]
    wrong = sum(found.fault is not None for found in findings)
    lines.append(f"{wrong} of {len(findings)} are missing or wrong.")
    return "\n".join(lines) if findings else "It needs nothing beside this repository."


# Each checker appends to `ways` how a need was verified, raises `_Fault` if it is not right, and
# returns a digest where no checksum is published.


def _file(need: Need, ways: list[str]) -> str | None:
    path = need.path
    if not path.is_file():
        raise _Fault(f"there is no file {str(path)!r}")
    for kind, expected in (("sha256", need.sha256), ("md5", need.md5)):
        if expected:
            _hashed(path, kind, expected, ways)
    if need.lines is not None:
        text = path.read_text(encoding="utf-8")
        _same(len(text.split("\n")) - text.endswith("\n"), need.lines, "lines", ways)
    if not need.weights:
        return None
    from wwwlib import targets

    target, classes = need.weights
    try:
        digest = targets.load(target, path, classes=[str(i) for i in range(classes)]).digest
    except ValueError as error:
        raise _Fault(str(error).rstrip(".")) from None
    ways.append(f"fits {target} with {classes} classes, weights {digest[:16]}")
    return digest


def wrong_digest(path: Path, kind: str, expected: str) -> str | None:
    """Return the digest of a file if it does not begin with the expected digits."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return None if found.startswith(expected) else found[: min(len(expected), 16)]


def _hashed(path: Path, kind: str, expected: str, ways: list[str]) -> None:
    name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    if found := wrong_digest(path, kind, expected):
        raise _Fault(
            f"{str(path)!r} is another file: its {name} begins with {found}, not {expected[:16]}; "
            "delete it and get it again"
        )
    part = f"the first {len(expected)} digits of {name}, {expected}, all that is published"
    ways.append(part if len(expected) < 32 else f"{name} {expected[:16]}...")


def _same(found: int, expected: int, what: str, ways: list[str]) -> None:
    if found != expected:
        raise _Fault(f"it has {found:,} {what}, expected {expected:,}")
    ways.append(f"{found:,} {what}")


def _folder(need: Need, ways: list[str]) -> str | None:
    path, digest = need.path, None
    if not path.is_dir():
        raise _Fault(f"there is no folder {str(path)!r}")
    for name in need.holds:
        if not (path / name).exists():
            raise _Fault(f"{str(path)!r} holds no {name}")
    if need.holds:
        ways.append(f"holds {', '.join(need.holds)}")
    if need.folders is not None:
        from wwwlib.images import imagenet_synsets

        found = {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
        _same(len(found), need.folders, "folders", ways)
        if foreign := sorted(found - set(imagenet_synsets())):
            raise _Fault(f"the folder {foreign[0]!r} is named by none of ImageNet's wnids")
    if need.files is not None:
        digest = _listing(need, ways)
    if need.indexed:
        for file, column in (("label.csv", "name"), ("index.csv", "image")):
            with (path / file).open(newline="", encoding="utf-8") as rows:
                listed = [row.get(column) or "" for row in csv.DictReader(rows)]
            if not listed or not listed[0]:
                raise _Fault(f"its {file} has no rows with a column {column!r}")
        lost = [name for name in listed if not (path / need.indexed / name).is_file()]
        if lost:
            count = f"{len(lost):,} images of its index.csv"
            raise _Fault(f"{count} are not there, {lost[0]!r} among them")
        ways.append(f"{len(listed):,} images in its index")
    if need.synsets is not None:
        with (path / "data.noun").open(encoding="utf-8") as lines:
            _same(sum(not line.startswith("  ") for line in lines), need.synsets, "synsets", ways)
    return digest


def _listing(need: Need, ways: list[str]) -> str:
    """Compare the files' names with the expected ones; return the digest of their paths."""
    every = [p for p in need.path.rglob("*") if p.is_file()]
    paths = sorted(p for p in every if not p.name.startswith("."))
    _same(len(paths), need.files, "files", ways)
    if need.pattern:
        names = sorted(path.name for path in paths)
        expected = sorted(need.pattern.format(i) for i in range(1, need.files + 1))
        odd = [a for a, b in zip(names, expected, strict=True) if a != b]
        if odd:
            raise _Fault(f"the file {odd[0]!r} does not belong to it, or another one is missing")
    for name, size in Counter(path.parent.name for path in paths).items():
        if need.each and size != need.each:
            raise _Fault(f"the folder {name!r} holds {size} files, expected {need.each}")
    if not all(path.stat().st_size for path in paths):
        raise _Fault("some of its files are empty")
    listing = "\n".join(path.relative_to(need.path).as_posix() for path in paths)
    digest = hashlib.sha256(listing.encode()).hexdigest()
    ways.append(f"listing {digest[:16]}")
    return digest


def _hub(need: Need, ways: list[str]) -> None:
    """Check the cache of the hub, where a large file has its SHA-256 as its name."""
    from huggingface_hub import try_to_load_from_cache

    verified: list[str] = []
    for name in need.holds:
        found = try_to_load_from_cache(need.hub, name)
        if not isinstance(found, str) or not Path(found).is_file():
            raise _Fault(f"the cache of the hub holds no {name} of {need.hub}")
        blob = Path(found).resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            _hashed(blob, "sha256", blob.name, verified)
    ways.append(f"{len(need.holds)} files in the cache, {len(verified)} checked by their SHA-256")


def compare(findings: Sequence[Finding], data: Path) -> list[Finding]:
    """Compare the digests of what was found right with earlier ones, and record new ones.

    Returns the findings; what has changed since has a fault, and keeps its digest. Raises
    ValueError if the record in the data folder is damaged.
    """
    path, compared, new = data / SEEN, [], {}
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known = {name: {"digest": one["digest"], "on": one["on"]} for name, one in known.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}); delete it, and the next check records what it finds."
        ) from error
    for found in findings:
        name, ways, before = found.need.name, found.verified_by, known.get(found.need.name)
        if found.digest and not before:
            new[name] = {"digest": found.digest, "on": datetime.now(UTC).date().isoformat()}
            found = replace(found, verified_by=f"{ways}, recorded for later checks")
        elif found.digest and before["digest"] == found.digest:
            found = replace(found, verified_by=f"{ways}, as on {before['on']}")
        elif found.digest:
            change = f"it differs from what was here on {before['on']} ({ways})"
            hint = f"put that back, or delete its entry in {path} if the change is intended"
            found = replace(found, fault=f"{change}; {hint}")
        compared.append(found)
    try:
        if new:
            write_json(path, known | new)
    except OSError as error:  # a data folder may be read-only
        print(f"{path} cannot be written ({error.strerror}); nothing is recorded.", file=sys.stderr)
    return compared
