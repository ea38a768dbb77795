"""Artifacts on disk, each kept with the arguments that made it.

An artifact is two files, ``<root>/<kind>/<digest of key>.safetensors`` with the tensors and a
``.json`` sidecar with key, record, and checksums of both. An equal key loads it; any other key,
library version or format neither finds nor overwrites it. What is damaged is made again.

The sidecar is the commit point: both files are synced under temporary names, then the tensors are
renamed, then the sidecar: a reader finds a whole artifact or none. Nothing is pickled. Checksums
detect damage, not forgery: those who may write to a shared store are trusted. Empty ``.lock`` files
stay, since one that is removed while another process waits for it would not exclude a third.
"""

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor, contiguous_format

from wwwlib import __version__
from wwwlib.registry import expanded

Tensors = Mapping[str, Tensor]
FORMAT = 1  # of the two files; part of every key, so that formats live side by side
# The libraries whose version can change a number in an artifact.
LIBRARIES = "numpy pillow torch torchvision timm open_clip_torch transformers sentence-transformers"
_DAMAGE = (OSError, ValueError, LookupError, TypeError, RecursionError, safetensors.SafetensorError)
_SILENT = 5.0  # seconds of waiting for a lock before a warning


def digest(obj: Any) -> str:
    """SHA-256 (64 hex digits) of an object's canonical JSON; what JSON cannot hold is a TypeError.

    Dictionary order does not matter and a tuple equals a list; 1, 1.0 and True all differ.
    """
    return hashlib.sha256(_canonical(obj)).hexdigest()


def file_digest(path: str | Path) -> str:
    """SHA-256 (64 hex digits) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_digest(tensors: Tensors) -> str:
    """SHA-256 (64 hex digits) of the file that the store would write for these tensors."""
    return hashlib.sha256(to_bytes(tensors)).hexdigest()


def to_bytes(tensors: Tensors) -> bytes:
    """Return tensors in the safetensors format, on the CPU and in order of name."""
    return safetensors.torch.save(_own(tensors))


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """Return the tensors that `to_bytes` wrote, in order of name."""
    return dict(sorted(safetensors.torch.load(data).items()))


def versions() -> dict[str, str]:
    """Versions of wwwlib and of every installed library that can change an artifact's numbers."""
    found = {"wwwlib": __version__}
    for name in LIBRARIES.split():
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True)
class Artifact:
    """What the store keeps.

    Attributes
    ----------
    tensors : dict[str, Tensor]
        On the CPU, in order of name.
    record : dict
        JSON values; tuples have become lists.
    key, digest : dict, str
        All arguments that made it, with library versions under ``"versions"``, and the digest of
        these, the files' name: put it into the key of what is made from this.
    """

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    key: dict[str, Any]
    digest: str


@dataclass(frozen=True)
class Slot:
    """The place of one artifact, or of the checkpoint of one; without a root, nothing is kept."""

    root: Path | None
    kind: str
    key: dict[str, Any]

    @property
    def path(self) -> Path:
        """Path of both files, without their suffixes."""
        return (self.root or Path(os.devnull)) / self.kind / digest(self.key)

    def read(self) -> Artifact | None:
        """Return what lies here, None if nothing does; a byte that changed is a ValueError."""
        sidecar = f"{self.path}.json"
        if not os.path.exists(sidecar):
            return None
        try:
            return self._verified(sidecar)
        except _DAMAGE as error:
            # A save in place of another is between its two renames, was killed there, or has ended.
            for place in (f"{sidecar}.tmp", sidecar):
                with suppress(*_DAMAGE):
                    return self._verified(place)
            raise ValueError(f"The artifact {sidecar} is damaged ({error})") from error

    def _verified(self, sidecar: str) -> Artifact:
        raw = _read(sidecar)
        stored = _parse(raw)
        if raw != _sidecar(stored["kind"], stored["key"], stored["record"], stored["tensors"]):
            raise ValueError("the sidecar does not agree with its checksum")
        if stored["kind"] != self.kind or _canonical(stored["key"]) != _canonical(self.key):
            raise ValueError("it was made with another key")
        blob = _read(f"{self.path}.safetensors")
        if hashlib.sha256(blob).hexdigest() != stored["tensors"]:
            raise ValueError("the tensor file does not agree with its checksum")
        return Artifact(from_bytes(blob), stored["record"], self.key, self.path.name)

    def load(self) -> Artifact | None:
        """Return what lies here; None if nothing does, or, after a warning, if it is damaged."""
        try:
            return self.read()
        except ValueError as error:
            warnings.warn(f"{error}; it is ignored and has to be made again.", stacklevel=3)
            return None

    def save(self, tensors: Tensors, record: dict | None = None) -> Artifact:
        """Put tensors and record here, all or nothing; the caller holds the artifact's lock."""
        record = _parse(_canonical(record or {}, "record"))
        tensors = _own(tensors)
        if self.root is not None:
            blob = safetensors.torch.save(tensors)
            sidecar = _sidecar(self.kind, self.key, record, hashlib.sha256(blob).hexdigest())
            _commit(self.path, {".safetensors": blob, ".json": sidecar})
        return Artifact(tensors, record, self.key, self.path.name)

    def clear(self) -> None:
        """Remove what lies here; what cannot be removed costs room but does no harm."""
        for suffix in (".json", ".safetensors", ".json.tmp", ".safetensors.tmp"):
            with suppress(OSError):
                os.unlink(f"{self.path}{suffix}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process and thread out; see `Store.fetch` for one that is already in."""
        if self.root is None:
            yield
            return
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.with_suffix(".lock"))
            try:
                held = lock.acquire(timeout=_SILENT)
            except Timeout:
                text = f"Waiting for another process or thread that makes the artifact {self.path}."
                warnings.warn(text, stacklevel=3)
                held = lock.acquire()
        with held:
            yield


@dataclass(frozen=True)
class Store:
    """A folder of artifacts, safe to share between processes; ``Store(None)`` keeps nothing.

    Each method takes a `kind`, the folder under `root` (letters, digits, ``-``, ``_``), and a
    `key`, the arguments that made the artifact (JSON values), to which `versions` are added here.
    A write that fails is an OSError with one sentence, and leaves earlier artifacts untouched.
    """

    root: Path | str | None

    @classmethod
    def default(cls) -> "Store":
        """Return the store in the folder ``WWW_STORE``, or else in ``~/.cache/wwwlib``."""
        return cls(expanded(os.environ.get("WWW_STORE") or "~/.cache/wwwlib"))

    def load(self, kind: str, key: dict) -> Artifact | None:
        """Return the artifact of this key; None if absent, or, after a warning, if damaged."""
        return self.slot(kind, key).load()

    def save(self, kind: str, key: dict, tensors: Tensors, record: dict | None = None) -> Artifact:
        """Keep tensors of any shapes and a record of JSON values (nan too) under this key."""
        with (slot := self.slot(kind, key)).locked():
            return slot.save(tensors, record)

    def fetch(self, kind: str, key: dict, make: Callable[[Slot], tuple]) -> Artifact:
        """Return the artifact of this key, making and keeping it if it is not there.

        It is made by ``tensors, record = make(checkpoint)``. A long pass may start from
        ``checkpoint.load()``, None at first, and ``checkpoint.save(tensors, record)`` now and then;
        it outlives a kill and goes with the final save. Of several processes that ask at once one
        makes the artifact, and the others wait.
        """
        slot = self.slot(kind, key)
        checkpoint = self.checkpoint(kind, key)
        with suppress(ValueError):
            if found := slot.read():
                checkpoint.clear()  # a kill just after the final save leaves it behind
                return found
        with slot.locked():
            if not (found := slot.load()):  # unless made by another while this one waited
                found = slot.save(*make(checkpoint))
            checkpoint.clear()
        return found

    def checkpoint(self, kind: str, key: dict) -> Slot:
        """Return the place of the checkpoint that `fetch` gives to `make` for this key."""
        return replace(self.slot(kind, key), kind=f"{kind}.checkpoint")

    def slot(self, kind: str, key: dict) -> Slot:
        """Return the place of the artifact of this key."""
        if not re.fullmatch(r"[\w-]+", kind, re.ASCII):
            raise ValueError(f"The artifact kind {kind!r} has more than letters, digits, - and _.")
        if "versions" in key:
            raise ValueError("The key has an entry 'versions', which the store adds; rename it.")
        full = {**key, "versions": {**versions(), "artifact format": FORMAT}}
        return Slot(Path(self.root) if self.root else None, kind, _parse(_canonical(full, "key")))


def _sidecar(kind: str, key: dict, record: dict, tensors: str) -> bytes:
    """Render the one and only sidecar with this content, `tensors` being their file's SHA-256."""
    content = {"kind": kind, "key": key, "record": record, "tensors": tensors}
    return _canonical({**content, "checksum": digest(content)}, indent=1) + b"\n"


def _canonical(obj: Any, where: str = "object", indent: int | None = None) -> bytes:
    return json.dumps(_plain(obj, where), sort_keys=True, indent=indent).encode("ascii")


def _parse(data: bytes) -> Any:
    return json.loads(data, object_hook=lambda d: float(d["$float"]) if "$float" in d else d)


def _plain(obj: Any, where: str) -> Any:
    """Return `obj` in strict JSON, or say which part of it has no place there."""
    if isinstance(obj, float) and not math.isfinite(obj):
        return {"$float": str(float(obj))}  # JSON has no word for nan and the infinities
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, list | tuple):
        return [_plain(part, f"{where}[{i}]") for i, part in enumerate(obj)]
    if isinstance(obj, dict) and "$float" not in obj and all(isinstance(k, str) for k in obj):
        return {name: _plain(part, f"{where}[{name!r}]") for name, part in obj.items()}
    hint = "; give the digest of what lies there, or str(path)" if isinstance(obj, Path) else ""
    raise TypeError(
        f"{where} is {obj!r:.200}, a {type(obj).__name__}, but only None, bool, int, float, str, "
        f"lists, and dictionaries with string keys (not '$float') can be kept{hint}."
    )


def _own(tensors: Tensors) -> dict[str, Tensor]:
    """Copy tensors in order of name: dense, contiguous, on the CPU, sharing memory with nothing."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{name!r}] is a {type(tensor).__name__}, not a Tensor.")
    dense = {n: x.dequantize() if x.is_quantized else x.to_dense() for n, x in tensors.items()}
    parts = ((name, dense[name].detach()) for name in sorted(dense))
    return {name: x.to("cpu", copy=True, memory_format=contiguous_format) for name, x in parts}


def _read(path: str) -> bytes:
    if not os.path.isfile(path):  # a pipe would be read for ever
        raise ValueError(f"{os.path.basename(path)} is missing or no regular file")
    return Path(path).read_bytes()


def _commit(path: Path, contents: dict[str, bytes]) -> None:
    """Write one file a suffix, then let them appear in order: room runs out before any appears."""
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for suffix, data in contents.items():
                Path(f"{path}{suffix}.tmp").unlink(missing_ok=True)
                with open(f"{path}{suffix}.tmp", "xb") as file:  # never through a link
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            for suffix in contents:
                os.replace(f"{path}{suffix}.tmp", f"{path}{suffix}")
                _sync(path.parent)
    finally:
        for suffix in contents:
            with suppress(OSError):
                os.unlink(f"{path}{suffix}.tmp")


def _sync(folder: Path) -> None:
    """Make a rename in this folder survive a power cut (Windows cannot open folders for that)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's word on a failed write into a sentence that helps."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"Cannot write the artifact {path}: {error.strerror}; earlier artifacts are untouched, "
            "so make room there, or set WWW_STORE to another folder, and run again.",
        ) from error
