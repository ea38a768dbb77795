"""Download what a profile needs and may be downloaded: resumed, checked, then put in its place.

A file grows beside its place under another name and is renamed when its checksum is right, so that
what has the right name is whole. The hub's own client does the same for the hub.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterable
from pathlib import Path

from check import examine, may_fetch
from filelock import FileLock
from needs import Need
from tqdm import tqdm

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # in a row, each of them going on where the last one broke off


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
    """Download one need, and unpack it if it is an archive."""
    if need.repo:
        from huggingface_hub import snapshot_download

        try:
            snapshot_download(need.repo, allow_patterns=list(need.holds))
        except Exception as error:  # the hub's client and its network each have their own errors
            raise OSError(f"{need.source} cannot be had ({type(error).__name__})") from error
        return
    target = need.archive or need.path
    checks = {"sha256": need.sha256, "md5": need.md5}
    download(need.url, target, {kind: value for kind, value in checks.items() if value})
    if need.archive:
        unpack(need.archive, need.path)
        need.archive.unlink()


def download(url: str, target: Path, expected: dict[str, str], attempts: int = ATTEMPTS) -> None:
    """Download a file, going on where an earlier attempt broke off.

    Parameters
    ----------
    url : str
        http or https.
    target : Path
        Where it goes once it is whole and right.
    expected : dict
        Digest, or its beginning, by algorithm ("sha256", "md5"); may be empty.
    attempts : int
        How often in a row a broken connection is taken up again.

    Raises
    ------
    OSError
        If it cannot be had; what has come so far is kept.
    ValueError
        If what came is not what was expected; it is thrown away.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http address.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with FileLock(f"{part}.lock"):
        for attempt in range(1, attempts + 1):
            try:
                _continue(url, part)
                break
            except OSError as error:
                if attempt == attempts or _hopeless(error):
                    kept = part.stat().st_size if part.exists() else 0
                    raise OSError(
                        f"{url} cannot be had ({error}); {kept:,} bytes are kept, and the same "
                        "command goes on from there"
                    ) from error
                time.sleep(min(2 ** (attempt - 1), 10) if attempts > 1 else 0)
        _verify(part, url, expected)
        os.replace(part, target)


def _continue(url: str, part: Path) -> None:
    """Append what is missing; a server that sends everything again is taken from the start."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "wwwlib"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing lies beyond: it is whole, or another file altogether
            raise
        error.close()
        if error.headers.get("Content-Range") != f"bytes */{have}":
            part.unlink()
            raise ConnectionError("the file at this address has become shorter") from error
        return
    with answer:
        on = answer.status == 206 and _begins_at(answer.headers.get("Content-Range"), have)
        _write(answer, part, have if on else 0)


def _begins_at(content_range: str | None, have: int) -> bool:
    return (content_range or "").startswith(f"bytes {have}-")


def _write(answer, part: Path, have: int) -> None:
    left = answer.headers.get("Content-Length")
    total = have + int(left) if left else None
    shown = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(total=total, initial=have, desc=part.stem, **shown) as bar,
    ):
        while block := answer.read(CHUNK):
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the connection broke off after {size:,} of {total:,} bytes")


def _hopeless(error: OSError) -> bool:
    """Whether asking again would get the same answer: no such file, not allowed."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500


def _verify(part: Path, url: str, expected: dict[str, str]) -> None:
    for kind, value in expected.items():
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if not found.startswith(value):
            part.unlink()
            raise ValueError(
                f"what came from {url} is another file: its {kind} begins with "
                f"{found[: min(len(value), 16)]}, not {value[:16]}; it was thrown away"
            )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive that holds the folder, or its content, and rename it into place.

    Raises
    ------
    ValueError
        If it is no archive, or holds a path that leads out of it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as place:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as content:
                    content.extractall(place)  # takes .. and / out of names itself
            else:
                with tarfile.open(archive) as content:
                    content.extractall(place, filter="data")
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise ValueError(f"{str(archive)!r} cannot be unpacked ({error})") from error
        inner = Path(place) / folder.name
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(inner if inner.is_dir() else place, folder)
        Path(place).mkdir(exist_ok=True)
