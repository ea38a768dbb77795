"""Read the explanation of every image of a set, on images that the class side has never seen.

An image that is part of its class's mean agrees with it for that reason alone, and the agreement
looks like an excellent detector of errors. So `halves` keeps two sets apart, `check_apart` refuses
two that are not, and `survey` passes over the tested set; `Survey` is its step, and pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wwwlib.contributions import contribute_all, head
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.reliability.doubts import Readings, readings, softmax_doubts
from wwwlib.store import Store, tensor_digest
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

    def doubts(self, layer: str, top: int) -> dict[str, Tensor]:
        """Return every doubt (n,): those of the logits, and one less each reading, "1 - r" first.

        Raises
        ------
        KeyError
            If that layer and k were not surveyed.
        """
        read = self.readings[layer, top].doubts()
        return {f"1 - {name}": d for name, d in read.items()} | softmax_doubts(self.logits)

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
        The tested images, none of them behind `class_w`; see `check_apart`.
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
            a, general = seen.activations.maps.float(), self.class_w[layer][seen.classes]
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


def halves(labels: Sequence[int | None], seed: int = 0) -> tuple[list[int], list[int]]:
    """Split images in two, every class in halves as equal as can be.

    Parameters
    ----------
    labels : sequence of int or None
        The class of each image.
    seed : int
        Draws the halves.

    Returns
    -------
    class side, tested : list of int
        Indices, ascending. A class with one image is in one of them only.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator).tolist()
    order = sorted(shuffled, key=lambda i: -1 if labels[i] is None else labels[i])
    return sorted(order[::2]), sorted(order[1::2])


def check_apart(known: ImageSet, tested: ImageSet) -> None:
    """Refuse to test on images that the class side was estimated from.

    Images count as the same if they have the same name and the same pixels.

    Parameters
    ----------
    known : ImageSet
        The images behind the class contributions.
    tested : ImageSet
        The images whose errors are to be found.

    Raises
    ------
    ValueError
        If they share an image; the sentence names it.
    """
    place = {name: i for i, name in enumerate(known.names)}
    for j, name in enumerate(tested.names):
        i = place.get(name)
        if i is not None and _same(known, i, tested, j):
            raise ValueError(
                f"The tested image {name!r} is also among the images of the class side, which "
                "would know the answer already; take another seed, or the other of two halves."
            )


def _same(known: ImageSet, i: int, tested: ImageSet, j: int) -> bool:
    u, v = known.image(i), tested.image(j)
    return u.size == v.size and u.tobytes() == v.tobytes()
