"""Download what a profile needs and may be downloaded: resumed, checked, then put in its place.

A file grows beside its place under another name and takes its own only when it was found right, so
that what has the right name is whole. Nothing that lay there is deleted or written over: it is kept
under another name. The hub's own client does the same for the hub.
"""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

from check import examine, may_fetch
from download import download
from filelock import FileLock
from needs import Need

_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def fetch(needs: Iterable[Need]) -> int:
    """Get what is missing and may be had; return how many still are missing."""
    missing = 0
    for need in needs:
        if examine(need).fault is None:
            continue
        if not may_fetch(need):
            print(f"{need.name}: not for --fetch: {need.licence}; see --check", file=sys.stderr)
            missing += 1
            continue
        try:
            get(need)
            fault = examine(need).fault
        except (OSError, ValueError) as error:
            fault = str(error)
        if fault:
            print(f"{need.name}: {fault}", file=sys.stderr)
            missing += 1
        else:
            print(f"{need.name}: fetched")
    return missing


def get(need: Need) -> None:
    """Download one need, unpack it if it is an archive, and put it in its place if it is right.

    Raises
    ------
    OSError
        If it cannot be had; what has come so far is kept.
    ValueError
        If what came is not right; then what lies in its place stays there.
    """
    if need.repo:
        _from_hub(need)
        return
    target = need.archive or need.path
    checks = {"sha256": need.sha256, "md5": need.md5}
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    need.path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{part}.lock"):
        download(need.url, part, {kind: value for kind, value in checks.items() if value})
        try:
            _place(need, part)
        except ValueError:
            part.unlink(missing_ok=True)  # or the next attempt would begin with it
            raise
        part.unlink(missing_ok=True)


def _from_hub(need: Need) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(need.repo, allow_patterns=list(need.holds))
    except Exception as error:  # the hub's client and its network each have their own errors
        raise OSError(f"{need.source} cannot be had ({type(error).__name__})") from error


def _place(need: Need, part: Path) -> None:
    """Look at what came before anything in its place is touched; then put it there."""
    with tempfile.TemporaryDirectory(dir=need.path.parent, prefix=".fetched-") as room:
        fresh = Path(room) / need.path.name
        if need.archive:
            fresh = unpack(part, Path(room), need.path.name)
        else:
            os.replace(part, fresh)
        if fault := examine(replace(need, path=fresh)).fault:
            fault = fault.replace(str(fresh), need.url)
            raise ValueError(f"what came is not right, so that nothing was put in place: {fault}")
        if aside := set_aside(need.path):
            print(f"{need.name}: what lay at {need.path} is kept as {aside}")
        os.replace(fresh, need.path)


def unpack(archive: Path, room: Path, name: str) -> Path:
    """Unpack an archive that holds a folder of this name, or its content; return the folder.

    Raises
    ------
    ValueError
        If it is no archive, or holds a path that leads out of it.
    """
    content = room / "content"
    content.mkdir()
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(content)  # takes .. and / out of names itself
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(content, filter="data")
    except _DAMAGED as error:
        raise ValueError(f"{str(archive)!r} cannot be unpacked ({error})") from error
    inner = content / name
    return inner if inner.is_dir() else content


def set_aside(path: Path) -> Path | None:
    """Give what lies at a path another name, and return that; None where nothing lies."""
    if not os.path.lexists(path):  # a link to nowhere is somebody's, too
        return None
    names = (path.with_name(f"{path.name}.replaced-{i}") for i in count(1))
    aside = next(one for one in names if not os.path.lexists(one))
    os.rename(path, aside)
    return aside
