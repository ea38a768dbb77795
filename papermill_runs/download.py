"""One file from an address, going on where the connection broke off, until it is whole and right.

It is whole when as much has come as the server told, and right when its checksum is. What has come
so far stays, with the word by which the server knows that version: of a file that has changed
since, it sends all instead of the rest.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 5  # each of them going on where the last one broke off
AGAIN = (408, 429)  # a client's faults that pass: too slow, too often


def download(url: str, part: Path, expected: Mapping[str, str], attempts: int = ATTEMPTS) -> None:
    """Download into a file, going on from what an earlier attempt left in it.

    Parameters
    ----------
    url : str
        http or https.
    part : Path
        A file of our own; beside it stands for a while ``<part>.version``.
    expected : mapping
        Digest, or its beginning, by algorithm ("sha256", "md5"); may be empty.
    attempts : int
        How often a broken connection is taken up.

    Raises
    ------
    OSError
        If it cannot be had; what has come so far is kept.
    ValueError
        If what came is not what was expected; it is thrown away.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http address.")
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, attempts + 1):
        try:
            told = _continue(url, part)
            if not told and _wrong(part, expected):
                raise ConnectionError("it ended without a word on whether this is all")
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == attempts or _hopeless(error):
                raise _given_up(url, part, error) from error
            time.sleep(min(2 ** (attempt - 1), 10))
    _version(part).unlink(missing_ok=True)
    if wrong := _wrong(part, expected):
        part.unlink()
        raise ValueError(f"what came from {url} is another file: {wrong}; it was thrown away")


def _given_up(url: str, part: Path, error: Exception) -> OSError:
    kept = part.stat().st_size if part.exists() else 0
    reason = str(error) or type(error).__name__
    return OSError(
        f"{url} cannot be had ({reason}); {kept:,} bytes are kept, and the same command goes on "
        "from there"
    )


def _hopeless(error: Exception) -> bool:
    """Whether asking again would get the same answer: no such file, not allowed."""
    refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
    return refused and error.code not in AGAIN


def _continue(url: str, part: Path) -> bool:
    """Append what is missing; return whether the server told how much there is in all."""
    have = part.stat().st_size if part.exists() else 0
    try:
        answer = urllib.request.urlopen(_request(url, part, have), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing lies beyond: it is whole, or another file altogether
            raise
        error.close()
        if error.headers.get("Content-Range") != f"bytes */{have}":
            part.unlink()
            raise ConnectionError("the file at this address has become shorter") from error
        return True
    with answer:
        on = answer.status == 206
        if on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise ConnectionError("another part of it was sent than was asked for")
        return _write(answer, part, have if on else 0)


def _request(url: str, part: Path, have: int) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"User-Agent": "wwwlib"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if _version(part).exists():
            request.add_header("If-Range", _version(part).read_text(encoding="latin-1"))
    return request


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _remember(answer, part: Path) -> None:
    """Keep what names this version of the file; a weak ETag may name others, too."""
    tag = answer.headers.get("ETag", "")
    found = tag if tag.startswith('"') else answer.headers.get("Last-Modified")
    if found:
        _version(part).write_text(found, encoding="latin-1")
    else:
        _version(part).unlink(missing_ok=True)


def _write(answer, part: Path, have: int) -> bool:
    total = _total(answer, have)
    shown = {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
    with (
        open(part, "ab" if have else "wb") as file,
        tqdm(total=total, initial=have, desc=part.stem, **shown) as bar,
    ):
        _remember(answer, part)
        while block := answer.read1(CHUNK):  # what has come before a break is written, too
            file.write(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if total is not None and size < total:
        raise ConnectionError(f"the connection broke off after {size:,} of {total:,} bytes")
    return total is not None or answer.chunked  # the end of chunks is told, too


def _total(answer, have: int) -> int | None:
    """Return how long the whole file is, where the server tells."""
    left, of = answer.headers.get("Content-Length"), answer.headers.get("Content-Range", "")
    if left:
        return have + int(left)
    total = of.rpartition("/")[2]
    return int(total) if have and total.isdecimal() else None


def _wrong(part: Path, expected: Mapping[str, str]) -> str | None:
    """Return in words the first checksum that is not as expected."""
    for kind, value in expected.items():
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if not found.startswith(value):
            return f"its {kind} begins with {found[: min(len(value), 16)]}, not {value[:16]}"
    return None
