"""Download what a profile needs: resumed, verified, then put in its place.

A file grows beside its place under another name, so that what has the right name is complete.
Nothing that is there is deleted or overwritten: it is kept under another name.
"""

from __future__ import annotations

import gzip
import http.client
import os
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path, PurePosixPath

from check import Need, examine, wrong_digest
from execute import one_line
from filelock import FileLock
from tqdm import tqdm

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # each of them resumes the one before
TEMPORARY = (408, 429)  # errors of the client that pass: too slow, too often
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def fetch(needs: Iterable[Need]) -> int:
    """Download what is missing and may be downloaded; return how many are still missing."""
    missing = 0
    for need in needs:
        if examine(need).fault is None:
            continue
        fault = f"not for --fetch: {need.licence}; see --check"
        if need.url or need.hub:
            try:
                get(need)
                fault = examine(need).fault
            except (OSError, ValueError) as error:
                fault = str(error)
        if fault:
            print(f"{need.name}: {one_line(fault, 2000)}", file=sys.stderr)
            missing += 1
        else:
            print(f"{need.name}: fetched")
    return missing


def get(need: Need) -> None:
    """Download one need, unpack it if it is an archive, and put it in its place if it is right.

    Raises OSError if the download fails; ValueError if what came is not right.
    """
    if need.hub:
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(need.hub, allow_patterns=list(need.holds))
        except Exception as error:  # the hub's client and its network each have their own errors
            reason = type(error).__name__
            raise OSError(f"{need.source} cannot be downloaded ({reason})") from error
        return
    target = need.archive or need.path
    part = target.with_name(f"{target.name}.part")
    for path in (part, need.path):
        path.parent.mkdir(parents=True, exist_ok=True)
    digests = {kind: getattr(need, kind) for kind in ("sha256", "md5") if getattr(need, kind)}
    with FileLock(f"{part}.lock"):
        download(need.url, part, digests)
        try:
            _place(need, part)
        except ValueError:
            part.unlink(missing_ok=True)  # the next attempt would resume it
            raise
        part.unlink(missing_ok=True)


def _place(need: Need, part: Path) -> None:
    """Check a download before anything in its place is touched; then put it there."""
    with tempfile.TemporaryDirectory(dir=need.path.parent, prefix=".fetched-") as place:
        fresh = Path(place) / need.path.name
        fresh = unpack(part, Path(place), fresh.name) if need.archive else part.replace(fresh)
        if fault := examine(replace(need, path=fresh)).fault:
            fault = fault.replace(str(fresh), need.url)
            raise ValueError(f"what came is not right, so that nothing was put in place: {fault}")
        if aside := set_aside(need.path):
            print(f"{need.name}: what was at {need.path} is kept as {aside}")
        os.replace(fresh, need.path)


def unpack(archive: Path, place: Path, name: str) -> Path:
    """Unpack an archive that holds a folder of this name, or its content; return the folder."""
    content = place / "content"
    try:
        zipped = zipfile.is_zipfile(archive)  # whose module removes .. and / from names itself
        with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as packed:
            packed.extractall(content, **({} if zipped else harmless(packed)))
    except _DAMAGED as error:
        raise ValueError(f"{str(archive)!r} cannot be unpacked ({error})") from error
    return inner if (inner := content / name).is_dir() else content


def harmless(packed: tarfile.TarFile) -> dict:
    """Return options by which nothing is written outside of the folder for what is unpacked."""
    if hasattr(tarfile, "data_filter"):
        return {"filter": "data"}
    members = packed.getmembers()  # Python 3.11 before its fourth patch, as in Debian 12
    for one in members:
        path = PurePosixPath(one.name)
        if path.is_absolute() or ".." in path.parts or not (one.isfile() or one.isdir()):
            raise tarfile.TarError(f"{one.name!r} is a link, or leads out of its folder")
    return {"members": members}


def set_aside(path: Path) -> Path | None:
    """Rename what is at a path and return the new path; None where there is nothing."""
    if not os.path.lexists(path):  # a broken link is kept, too
        return None
    names = (path.with_name(f"{path.name}.replaced-{i}") for i in count(1))
    return path.rename(next(one for one in names if not os.path.lexists(one)))


def download(url: str, part: Path, expected: Mapping[str, str], attempts: int = ATTEMPTS) -> None:
    """Download into a file with these digests, or their beginnings, by algorithm; none if unknown.

    With a digest, what an earlier attempt left in the file is resumed; without one it could not be
    seen whether both parts are of the same version, and the download starts again. Raises OSError
    after so many broken connections, and ValueError after deleting another file than expected.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not an http address.")
    for attempt in range(1, attempts + 1):
        try:
            complete = _append(url, part, resume=bool(expected))
            wrong = [kind for kind in expected if wrong_digest(part, kind, expected[kind])]
            if not wrong:
                return
            if complete:
                part.unlink()
                given = f"its {wrong[0]} does not begin with {expected[wrong[0]][:16]}"
                raise ValueError(f"what came from {url} is another file: {given}; it was deleted")
            raise ConnectionError("it ended early")
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code in range(400, 500)
            if attempt == attempts or (refused and error.code not in TEMPORARY):
                kept = part.stat().st_size if part.exists() else 0
                reason = f"({str(error) or type(error).__name__}); {kept:,} bytes are kept"
                text = f"{url} cannot be downloaded {reason}, and the same command goes on"
                raise OSError(text) from error
            time.sleep(min(2 ** (attempt - 1), 10))


def _append(url: str, part: Path, resume: bool) -> bool:
    """Append what is missing; return whether the end is known to be the end of the file."""
    have = part.stat().st_size if resume and part.exists() else 0
    ranged = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers={"User-Agent": "wwwlib", **ranged})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return True  # nothing is missing
        part.unlink()
        raise ConnectionError("the file at this address is shorter") from error
    have = have if answer.status == 206 else 0
    total = None if answer.length is None else have + answer.length
    bar = {"total": total, "initial": have, "desc": part.stem, "unit_divisor": 1000}
    with answer, open(part, "ab" if have else "wb") as file:
        with tqdm.wrapattr(file, "write", **bar) as growing:
            while block := answer.read1(CHUNK):  # what has come before a break is written, too
                growing.write(block)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the connection ended after {size:,} of {total:,} bytes")
    return total is not None or answer.chunked
