"""Read the explanation of every image of a set, on images that the class side has never seen.

`survey` is one pass over the tested images, and `Survey` its step: per image the logits, the
prediction and how its evidence agrees with that of its class. What follows from these for doubt is
the business of `reliability`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wwwlib.contributions import contribute_all, head
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.store import Store, tensor_digest
from wwwlib.studies.readings import Readings, readings
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What a survey found out.

    Attributes
    ----------
    logits : Tensor of float32, shape (n, C)
    predicted : Tensor of int64, shape (n,)
    readings : dict of (layer, k) to Readings
        (n,) each.
    """

    logits: Tensor
    predicted: Tensor
    readings: dict[tuple[str, int], Readings]

    def at(self, chosen: Tensor) -> "Surveyed":
        """Return the record of some images: a mask (n,) or indices."""
        read = {
            key: Readings(*(getattr(one, field.name)[chosen] for field in fields(one)))
            for key, one in self.readings.items()
        }
        return Surveyed(self.logits[chosen], self.predicted[chosen], read)


def survey(
    target: Target,
    images: ImageSet,
    class_w: Mapping[str, Tensor],
    tops: Sequence[int],
    signed: bool = False,
    store: Store | None = None,
    **options: object,
) -> Surveyed:
    """Read the explanation of every image of a set.

    Parameters
    ----------
    target, class_w, tops, signed
        As for `Survey`.
    images : ImageSet
        The tested images, none of them behind `class_w`; see `images.check_apart`.
    store : Store, optional
        Keeps the result, and the state of a pass that was killed.
    **options
        See `exemplars.stream`.

    Returns
    -------
    Surveyed
    """
    step = Survey(target, class_w, tops, signed)
    key = {
        "target": target.key(),
        "images": images.fingerprint,
        "class_w": tensor_digest(dict(class_w)),
        "tops": list(tops),
        "signed": signed,
        "readings": "float64",
    }

    def make(slot: object = None) -> tuple[dict[str, Tensor], dict]:
        return stream(target, images, step, slot, label="survey", **options), {}

    return step.finish(make()[0] if store is None else store.fetch("survey", key, make).tensors)


class Survey:
    """A step for `exemplars.stream`: read a batch of explanations, and keep the numbers.

    Parameters
    ----------
    target : Target
        The network.
    class_w : mapping of str to Tensor
        For each layer the class contributions (C, N); rows of nan for unknown classes.
    tops : sequence of int
        Neurons per heatmap, k; each is tried.
    signed : bool
        Whether contributions keep their sign, as those of the classes did.
    """

    def __init__(
        self,
        target: Target,
        class_w: Mapping[str, Tensor],
        tops: Sequence[int],
        signed: bool = False,
    ):
        self.target, self.tops, self.signed = target, tuple(tops), signed
        self.class_w = {layer: w.to(target.device) for layer, w in class_w.items()}
        self.heads = {layer: head(target, layer) or False for layer in class_w}

    def __call__(self, state: Mapping[str, Tensor], indices: Tensor, x: Tensor) -> dict:
        """Add a batch `x` (B, 3, H, W) to the state."""
        found = contribute_all(self.target, x, self.class_w, signed=self.signed, linear=self.heads)
        one = next(iter(found.values()))
        batch = {"logits": one.logits.float().cpu(), "predicted": one.classes.cpu()}
        for layer, seen in found.items():
            a, general = seen.activations.maps.double(), self.class_w[layer][seen.classes]
            for top in self.tops:
                read = readings(a, seen.w, general, top, tuple(x.shape[-2:]))
                for field in fields(read):
                    batch[f"{layer}|{top}|{field.name}"] = getattr(read, field.name)
        return {
            name: torch.cat([state[name].cpu(), values]) if name in state else values
            for name, values in batch.items()
        }

    def finish(self, state: Mapping[str, Tensor]) -> Surveyed:
        """Turn the state after the last image into a record."""
        found = {
            (layer, top): Readings(
                *(state[f"{layer}|{top}|{field.name}"] for field in fields(Readings))
            )
            for layer in self.class_w
            for top in self.tops
        }
        return Surveyed(state["logits"], state["predicted"], found)
