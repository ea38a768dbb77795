"""An atlas on disk: one artifact of tensors and JSON, with the store's checksums and atomic writes.

Names lie in the record as JSON strings and are read as data, whatever they contain; the concept
tables hold their numbers.
"""

from collections.abc import Mapping
from dataclasses import fields
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wwwlib.atlas.record import LayerRecord, Thumbnails
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import Exemplars
from wwwlib.store import Slot, versions
from wwwlib.targets import Target

FORMAT = 2
_PICTURES = ("thumbnails", "minor_thumbnails")


def save(folder: str | Path, target: Target, parts: Mapping[str, Any]) -> None:
    """Write an atlas's fields, all but its target, in place of what was in ``<folder>/atlas``."""
    layers = list(parts["layers"].values())
    number = {word: j for j, word in enumerate(parts["words"])}
    tensors = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
    for name in _PICTURES:
        shown = parts[name]
        tensors |= {f"{name}/index": shown.index, f"{name}/pixels": shown.pixels}
    for i, layer in enumerate(layers):
        packed = _pack_layer(layer, number)
        tensors |= {f"layers/{i}/{name}": tensor for name, tensor in packed.items()}
    record = {
        "format": FORMAT,
        "versions": versions(),
        "target": target.key(),
        "classes": list(target.classes),
        "words": list(parts["words"]),
        "layers": [layer.name for layer in layers],
        "images": [layers[0].exemplars.images, layers[0].minor_exemplars.images],
        "settings": parts["settings"],
    }
    slot = _slot(folder)
    with slot.locked():
        slot.save(tensors, record)


def load(folder: str | Path, target: Target) -> dict[str, Any]:
    """Return what `save` was given."""
    tensors, record = _read(folder)
    _check_target(record, target, folder)
    layers = {
        name: _unpack_layer(name, _under(tensors, f"layers/{i}"), record)
        for i, name in enumerate(record["layers"])
    }
    return {
        "layers": layers,
        "words": tuple(record["words"]),
        "settings": record["settings"],
        **{name: Thumbnails(**_under(tensors, name)) for name in _PICTURES},
        **{name: tensor for name, tensor in tensors.items() if "/" not in name},
    }


def _slot(folder: str | Path) -> Slot:
    return Slot(Path(folder).expanduser(), "atlas", {})


def _read(folder: str | Path) -> tuple[dict[str, Tensor], dict]:
    try:
        found = _slot(folder).read()
    except ValueError as error:
        raise ValueError(f"{error}; save the atlas again, or restore the file.") from error
    if found is None:
        raise FileNotFoundError(
            f"There is no atlas in {str(folder)!r}; give the folder that Atlas.save wrote to."
        )
    if found.record["format"] != FORMAT:
        raise ValueError(
            f"The atlas in {str(folder)!r} has format {found.record['format']}, but this wwwlib "
            f"reads {FORMAT}; it was written by wwwlib {found.record['versions']['wwwlib']}: build "
            "it again, or read it with that version."
        )
    return found.tensors, found.record


def _check_target(record: dict, target: Target, folder: str | Path) -> None:
    """Refuse a network that would say something else than the one that was studied."""
    stored, key = record["target"], target.key()
    for what, same in (
        ("weights", stored["weights"] == key["weights"]),
        ("preprocessing", stored["preprocess"][1] == key["preprocess"][1]),
        ("class names", record["classes"] == list(target.classes)),
    ):
        if not same:
            raise ValueError(
                f"The atlas in {str(folder)!r} was built for {stored['name']} with other {what} "
                f"than those of {target.name}; load that network, or build an atlas for this one."
            )


def _pack_layer(layer: LayerRecord, number: Mapping[str, int]) -> dict[str, Tensor]:
    packed = {name: getattr(layer, name) for name in ("v", "minor_v", "class_w")}
    for name in ("head", "stability"):
        if getattr(layer, name) is not None:
            packed[name] = getattr(layer, name)
    for name in ("major", "minor"):
        table = _pack_table(getattr(layer, name), number)
        packed |= {f"{name}/{part}": tensor for part, tensor in table.items()}
    for name in ("exemplars", "minor_exemplars"):
        found = getattr(layer, name)
        parts = [f.name for f in fields(found) if f.name != "images"]
        packed |= {f"{name}/{part}": getattr(found, part) for part in parts}
    return packed


def _unpack_layer(name: str, tensors: dict[str, Tensor], record: dict) -> LayerRecord:
    words, (images, cut) = record["words"], record["images"]
    return LayerRecord(
        name=name,
        major=_unpack_table(_under(tensors, "major"), words),
        minor=_unpack_table(_under(tensors, "minor"), words),
        v=tensors["v"],
        minor_v=tensors["minor_v"],
        exemplars=Exemplars(**_under(tensors, "exemplars"), images=images),
        minor_exemplars=Exemplars(**_under(tensors, "minor_exemplars"), images=cut),
        class_w=tensors["class_w"],
        head=tensors.get("head"),
        stability=tensors.get("stability"),
    )


def _pack_table(table: ConceptTable, number: Mapping[str, int]) -> dict[str, Tensor]:
    """Turn names into numbers of words, all neurons in one row, with the length of each."""
    scores = [score for row in table.scores for score in row]
    return {
        "concept": torch.tensor([number[name] for row in table.names for name in row]).long(),
        "score": torch.tensor(scores, dtype=torch.float64),
        "length": torch.tensor([len(row) for row in table.names]),
        "threshold": table.threshold,
        "abstained": table.abstained,
    }


def _unpack_table(tensors: dict[str, Tensor], words: list[str]) -> ConceptTable:
    concept, score = tensors["concept"].tolist(), tensors["score"].tolist()
    spans = list(pairwise(accumulate(tensors["length"].tolist(), initial=0)))
    return ConceptTable(
        names=[[words[j] for j in concept[start:end]] for start, end in spans],
        scores=[score[start:end] for start, end in spans],
        threshold=tensors["threshold"],
        abstained=tensors["abstained"],
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
