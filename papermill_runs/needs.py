"""What a profile needs beside this repository: declared in ``needs.yaml``, completed by libraries.

Addresses, sizes and checksums of weights are asked of the library that publishes them; nothing is
known here twice. Paths are below the data folder, ``$WWW_DATA`` or ``~/.cache/www``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from parameters import nearest

PATH = Path(__file__).with_name("needs.yaml")
LIBRARIES = ("torchvision", "timm", "open_clip", "torchvision_data")


@dataclass(frozen=True)
class Need:
    """One file, folder or repository of the hub.

    Attributes
    ----------
    name, what, size, source, licence : str
        For people; `source` is an address and perhaps a word on what to do there.
    path : Path or None
        Where it is to be; None for the hub, which has its own cache.
    url : str or None
        Where it may be downloaded without asking anybody.
    repo : str or None
        Of the Hugging Face hub; `holds` are its files.
    sha256 : str or None
        All of it, or as many first digits as its publisher tells.
    md5 : str or None
        Of an archive or a file whose publisher tells nothing better.
    archive : Path or None
        What the address gives, to be unpacked where the folder shall be.
    folders, files, each, lines, synsets : int or None
        How many there must be.
    pattern : str or None
        Names of the files, by number from 1.
    listing : str or None
        SHA-256, or its beginning, of the sorted paths of all files below the folder, a line each.
    indexed : str or None
        Folder of the images that ``index.csv`` lists, as Broden has it.
    holds : tuple of str
        Files or folders that must be in it.
    weights : (str, int) or None
        A target and its number of classes, whose network the file must fit.
    """

    name: str
    what: str
    licence: str
    size: str = "size unknown"
    source: str = ""
    path: Path | None = None
    folder: bool = False
    url: str | None = None
    repo: str | None = None
    sha256: str | None = None
    md5: str | None = None
    archive: Path | None = None
    folders: int | None = None
    files: int | None = None
    each: int | None = None
    lines: int | None = None
    synsets: int | None = None
    pattern: str | None = None
    listing: str | None = None
    indexed: str | None = None
    holds: tuple[str, ...] = ()
    weights: tuple[str, int] | None = None

    @property
    def place(self) -> str:
        """Where to put it, for people."""
        return str(self.path) if self.path else f"the hub's cache, as {self.repo}"


def load(names: Iterable[str], data: Path, path: Path = PATH) -> list[Need]:
    """Return the needs of these names.

    Parameters
    ----------
    names : iterable of str
        From a profile's ``needs:``.
    data : Path
        The data folder.
    path : Path
        The YAML file that declares them.

    Raises
    ------
    ValueError
        If there is no need of a name, or an entry has an unknown field.
    """
    known = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = []
    for name in names:
        if name not in known:
            raise ValueError(
                f"There is no need {name!r} in {path.name}; {nearest(name, [*known])}."
            )
        found.append(_need(name, known[name], data))
    return found


def _need(name: str, entry: dict[str, Any], data: Path) -> Need:
    entry = dict(entry)
    for library in LIBRARIES:
        if library in entry:
            entry |= _FACTS[library](entry.pop(library))
    if "hub" in entry:
        entry["repo"] = entry.pop("hub")
    if "repo" in entry:
        entry.setdefault("source", f"https://huggingface.co/{entry['repo']}")
    for kind in ("folder", "file"):
        if kind in entry:
            entry |= {"path": data / entry.pop(kind), "folder": kind == "folder"}
    if "archive" in entry:
        entry["archive"] = data / entry["archive"]
    entry.setdefault("source", entry.get("url", ""))
    allowed = {field.name for field in fields(Need)} - {"name"}
    for field in entry:
        if field not in allowed:
            raise ValueError(f"The need {name!r} has an unknown field {field!r}.")
    sequences = {key: tuple(entry[key]) for key in ("holds", "weights") if key in entry}
    return Need(name, **entry | sequences)


def _torchvision(weights: str) -> dict[str, Any]:
    """Read the first digits of the SHA-256 off the file name, where torchvision puts them."""
    import torch
    from torchvision import models

    chosen = models.get_weight(weights)
    file = Path(chosen.url).name
    return {
        "path": Path(torch.hub.get_dir()) / "checkpoints" / file,
        "url": chosen.url,
        "sha256": re.search(r"-([0-9a-f]{8,})\.", file)[1],
        "size": f"{chosen.meta['_file_size']:.0f} MB",
    }


def _timm(model: str) -> dict[str, Any]:
    import timm

    repo = timm.get_pretrained_cfg(model).hf_hub_id
    return {"repo": repo, "holds": ("model.safetensors",)}


def _open_clip(spec: str) -> dict[str, Any]:
    import open_clip

    repo = open_clip.get_pretrained_cfg(*spec.split("/"))["hf_hub"].rstrip("/")
    return {"repo": repo, "holds": ("open_clip_model.safetensors",)}


def _torchvision_data(kind: str) -> dict[str, Any]:
    from torchvision.datasets import Imagenette, Places365

    if kind == "imagenette":
        url, md5 = Imagenette._ARCHIVES["320px"]
        return {"url": url, "md5": md5}
    lists = {"scenes": Places365._CATEGORIES_META, "val": Places365._FILE_LIST_META["val"]}
    return {"md5": lists[kind.removeprefix("places365-")][1]}


_FACTS = {
    "torchvision": _torchvision,
    "timm": _timm,
    "open_clip": _open_clip,
    "torchvision_data": _torchvision_data,
}
