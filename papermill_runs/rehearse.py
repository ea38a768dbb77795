"""A rehearsal: every step of a profile on images of noise with random weights, quickly.

It shows, before days of work, that a profile runs from end to end on this machine. Its figures mean
nothing, and everything that it writes says so. What stands in for the data is in `stand_ins`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
from profiles import House, Profile, load
from stand_ins import IMAGES, LOCAL, SENTENCES, SHOWN, network

BANNER = "REHEARSAL: random weights and images, figures mean nothing"
SMALL = {  # of what each costs a pass through the network, enough to go through every step
    "probe_count": IMAGES,
    "tested": 24,
    "silenced": 8,
    "compared": [2, 4, 2],
    "pictured": [*SHOWN[:2]],
}


def adapted(profile: Profile, house: House) -> Profile:
    """Return a profile with random weights, a random CLIP and few images in place of its own."""
    change = partial(_section, target=profile.common.get("target"), house=house)
    common = change(profile.common)
    common |= {"probe_count": IMAGES} if "probe_root" in common else {}
    common |= {"batch_size": 16, "workers": 0, "device": _device()}
    notebooks = {book: change(values) for book, values in profile.notebooks.items()}
    return replace(
        profile, description=BANNER, minutes=None, needs=(), common=common, notebooks=notebooks
    )


def _section(values: Mapping[str, Any], target: str | None, house: House) -> dict[str, Any]:
    found = {name: _stand_in(name, value, house) for name, value in values.items()}
    target, stands = values.get("target", target), str(values.get("weights"))
    named = bool({"target", "weights"} & values.keys()) and not stands.startswith(str(house.data))
    if named and target and not target.startswith("world/"):
        found["weights"] = str(network(house.data, target))
    if "also" in found and "also_weights" not in found:
        found["also"] = []  # their weights would be the library's own, which are not random
    return found


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _stand_in(name: str, value: Any, house: House) -> Any:
    if name in SMALL:
        return SMALL[name]
    if isinstance(value, list):
        return [_stand_in(name, one, house) for one in value]
    if name == "also_weights":
        return "random"
    if name == "sentences" and value:
        return str(house.data / SENTENCES)
    if isinstance(value, str) and value.startswith("open_clip:") and not value.startswith(LOCAL):
        model = value.removeprefix("open_clip:").partition("/")[0]
        return f"{LOCAL}{house.data / 'clip' / model}"
    return value


def begin(house: House, profile: Profile, out: str | None) -> tuple[House, Profile]:
    """Return a house with a data folder of the rehearsal's own, and the profile adapted to it."""
    title = f"{profile.name}-rehearsal"
    staged = replace(house, stage=house.run(out or title) / "data")
    rehearsed = adapted(load(staged, profile.name), staged)
    return staged, replace(rehearsed, name=title)


def stamp(draft: Path, folder: Path) -> dict[str, str]:
    """Say in an executed notebook, cell by cell, and in its results that they mean nothing.

    Returns
    -------
    dict
        The same word for the manifest.
    """
    results = folder / "results.json"
    if draft.exists():
        _stamp_notebook(draft)
    if results.exists():
        found = json.loads(results.read_text(encoding="utf-8"))
        results.write_text(json.dumps({"rehearsal": BANNER, **found}, indent=2), encoding="utf-8")
    return {"rehearsal": BANNER}


def _stamp_notebook(draft: Path) -> None:
    book = nbformat.read(draft, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code" and cell.outputs:
            said = nbformat.v4.new_output("stream", name="stdout", text=f"{BANNER}\n")
            cell.outputs.insert(0, said)
    book.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {BANNER}"))
    nbformat.write(book, draft)
