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
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parameters import read_yaml, unknown
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
    hub: str | None = None  # a repository there, likewise; `holds` are its files
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


@dataclass
class Finding:
    """The result of checking a need: its fault, or else how it was verified.

    `digest` is set where no published checksum exists, for a later check to compare.
    """

    need: Need
    fault: str | None = None
    ways: list[str] = field(default_factory=list)
    digest: str | None = None

    @property
    def verified_by(self) -> str:
        """How it was verified, in words."""
        return ", ".join(self.ways)


def load(names: Iterable[str], data: Path, path: Path = PATH) -> list[Need]:
    """Return needs as a YAML file declares them; ValueError if an entry or a field is unknown."""
    known = read_yaml(path.read_text(encoding="utf-8"))
    for name in names:
        if name not in known:
            raise unknown(f"There is no need {name!r} in {path.name}", name, known)
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
    allowed = [one.name for one in fields(Need)]
    for key in entry.keys() - allowed:
        raise unknown(f"The need {name!r} has an unknown field {key!r}", key, allowed)
    return Need(name, **{"source": page} | entry)


def examine(need: Need) -> Finding:
    """Check one need."""
    found = Finding(need)
    try:
        (_hub if need.hub else _folder if need.folder else _file)(need, found)
    except OSError as error:
        found.fault = f"cannot be read ({error.strerror or error})"
    except (UnicodeDecodeError, csv.Error) as error:
        found.fault = f"is damaged, or another file ({error})"
    except ValueError as error:
        found.fault = str(error).rstrip(".")
    found.digest = None if found.fault else found.digest
    return found


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
                f"             fetch    {'by --fetch' if need.url or need.hub else 'by yourself'}",
            ]
    wrong = sum(found.fault is not None for found in findings)
    lines.append(f"{wrong} of {len(findings)} are missing or wrong.")
    return "\n".join(lines) if findings else "It needs nothing beside this repository."


# Each checker below adds to `found` how a need was verified, or raises ValueError.


def _file(need: Need, found: Finding) -> None:
    path = need.path
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    for kind, expected in (("sha256", need.sha256), ("md5", need.md5)):
        if expected:
            found.ways.append(_hashed(path, kind, expected))
    if need.lines is not None:
        text = path.read_text(encoding="utf-8")
        _same(len(text.split("\n")) - text.endswith("\n"), need.lines, "lines", found)
    if need.weights:
        from wwwlib import targets

        target, classes = need.weights
        net = targets.load(target, path, classes=[str(i) for i in range(classes)])
        found.digest = net.digest
        found.ways.append(f"fits {target} with {classes} classes, weights {net.digest[:16]}")


def wrong_digest(path: Path, kind: str, expected: str) -> str | None:
    """Return the digest of a file if it does not begin with the expected digits."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, kind).hexdigest()
    return None if digest.startswith(expected) else digest[: min(len(expected), 16)]


def _hashed(path: Path, kind: str, expected: str) -> str:
    name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    if wrong := wrong_digest(path, kind, expected):
        other = f"its {name} begins with {wrong}, not {expected[:16]}"
        raise ValueError(f"{str(path)!r} is another file: {other}; delete it and get it again")
    part = f"the first {len(expected)} digits of {name}, {expected}, all that is published"
    return part if len(expected) < 32 else f"{name} {expected[:16]}..."


def _same(number: int, expected: int, what: str, found: Finding) -> None:
    if number != expected:
        raise ValueError(f"it has {number:,} {what}, expected {expected:,}")
    found.ways.append(f"{number:,} {what}")


def _folder(need: Need, found: Finding) -> None:
    path = need.path
    if not path.is_dir():
        raise ValueError(f"there is no folder {str(path)!r}")
    for name in need.holds:
        if not (path / name).exists():
            raise ValueError(f"{str(path)!r} holds no {name}")
    if need.holds:
        found.ways.append(f"holds {', '.join(need.holds)}")
    if need.folders is not None:
        from wwwlib.images import imagenet_synsets

        inner = {p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")}
        _same(len(inner), need.folders, "folders", found)
        if foreign := sorted(inner - set(imagenet_synsets())):
            raise ValueError(f"the folder {foreign[0]!r} is named by none of ImageNet's wnids")
    if need.files is not None:
        _listing(need, found)
    if need.indexed:
        for file, column in (("label.csv", "name"), ("index.csv", "image")):
            with (path / file).open(newline="", encoding="utf-8") as rows:
                listed = [row.get(column) or "" for row in csv.DictReader(rows)]
            if not listed or not listed[0]:
                raise ValueError(f"its {file} has no rows with a column {column!r}")
        if lost := [one for one in listed if not (path / need.indexed / one).is_file()]:
            count = f"{len(lost):,} images of its index.csv"
            raise ValueError(f"{count} are not there, {lost[0]!r} among them")
        found.ways.append(f"{len(listed):,} images in its index")
    if need.synsets is not None:
        with (path / "data.noun").open(encoding="utf-8") as lines:
            _same(sum(not one.startswith("  ") for one in lines), need.synsets, "synsets", found)


def _listing(need: Need, found: Finding) -> None:
    """Compare the files' names with the expected ones; the digest is that of their paths."""
    every = [p for p in need.path.rglob("*") if p.is_file()]
    paths = sorted(p for p in every if not p.name.startswith("."))
    _same(len(paths), need.files, "files", found)
    if need.pattern:
        names = sorted(path.name for path in paths)
        expected = sorted(need.pattern.format(i) for i in range(1, need.files + 1))
        if odd := [a for a, b in zip(names, expected, strict=True) if a != b]:
            raise ValueError(f"the file {odd[0]!r} does not belong to it, or another is missing")
    for name, size in Counter(path.parent.name for path in paths).items():
        if need.each and size != need.each:
            raise ValueError(f"the folder {name!r} holds {size} files, expected {need.each}")
    if not all(path.stat().st_size for path in paths):
        raise ValueError("some of its files are empty")
    listing = "\n".join(path.relative_to(need.path).as_posix() for path in paths)
    found.digest = hashlib.sha256(listing.encode()).hexdigest()
    found.ways.append(f"listing {found.digest[:16]}")


def _hub(need: Need, found: Finding) -> None:
    """Check the cache of the hub, where a large file has its SHA-256 as its name."""
    from huggingface_hub import try_to_load_from_cache

    verified = 0
    for name in need.holds:
        file = try_to_load_from_cache(need.hub, name)
        if not isinstance(file, str) or not Path(file).is_file():
            raise ValueError(f"the cache of the hub holds no {name} of {need.hub}")
        blob = Path(file).resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            verified += bool(_hashed(blob, "sha256", blob.name))
    checked = f"{verified} checked by their SHA-256"
    found.ways.append(f"{len(need.holds)} files in the cache, {checked}")


def compare(findings: Sequence[Finding], data: Path) -> Sequence[Finding]:
    """Compare digests of what was found right with the record in the data folder; add new ones.

    Returns the findings; what has changed since has a fault, and keeps its digest.
    """
    path, new, today = data / SEEN, {}, datetime.now(UTC).date().isoformat()
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known = {name: {"digest": one["digest"], "on": one["on"]} for name, one in known.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "delete it, and the next check records what it finds."
        raise ValueError(f"{path} is damaged ({error!r}); {hint}") from error
    for found in [found for found in findings if found.digest]:
        before = known.get(found.need.name)
        if not before:
            new[found.need.name] = {"digest": found.digest, "on": today}
            found.ways.append("recorded for later checks")
        elif before["digest"] == found.digest:
            found.ways.append(f"as on {before['on']}")
        else:
            change = f"it differs from what was here on {before['on']} ({found.verified_by})"
            hint = f"put that back, or delete its entry in {path} if the change is intended"
            found.fault = f"{change}; {hint}"
    try:
        if new:
            write_json(path, known | new)
    except OSError as error:  # a data folder may be read-only
        print(f"{path} cannot be written ({error.strerror}); nothing is recorded.", file=sys.stderr)
    return findings
