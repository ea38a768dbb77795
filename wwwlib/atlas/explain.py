"""Explain one image: one forward pass, at most one backward pass, and the two tracks of Figure 2.

`look` runs the network, once; `tell` makes an explanation of what it answered, as often as somebody
wants another class, another number of neurons or another percentile. The sample track takes the
neurons that contribute most to this prediction, the class track those that contribute most to the
class in general; both are drawn with this image's activation maps.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wwwlib import maps
from wwwlib.atlas.record import Explanation, LayerRecord, Neuron, Track
from wwwlib.contributions import contribute
from wwwlib.images import MAX_PIXELS, decode
from wwwlib.targets import Target, denormalize

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")


def explain(
    target: Target,
    record: LayerRecord,
    image: Image.Image | str | Path | bytes,
    top: int = 5,
    cls: int | None = None,
    label: str | None = None,
    signed: bool = False,
    percentile: float = 90.0,
) -> Explanation:
    """Explain one image with what is known of a layer; see `Atlas.explain`."""
    if top < 1:
        raise ValueError(f"top is {top}, but a track needs at least one neuron: give top >= 1.")
    return tell(look(target, record, image, signed), record, top, cls, label, percentile)


@dataclass(frozen=True, eq=False)
class Look:
    """What a network answered to one image, from which any explanation of a layer follows.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, W x H pixels, as the network saw it.
    classes : tuple of str
        The network's C class names.
    a : Tensor, shape (1, N, h, w)
        Activation maps of the layer.
    w : Tensor of float64, shape (N,)
        Contributions to the predicted class.
    p : Tensor of float64, shape (C,)
        Softmax probabilities.
    """

    image: Image.Image
    classes: tuple[str, ...]
    a: Tensor
    w: Tensor
    p: Tensor

    @property
    def predicted(self) -> int:
        """Index of the predicted class."""
        return int(self.p.argmax())


def look(
    target: Target,
    record: LayerRecord,
    image: Image.Image | str | Path | bytes,
    signed: bool = False,
) -> Look:
    """Run the network on one image: one forward pass, and a backward one where it is needed."""
    whole = opened(image)
    x = target.preprocess(whole)
    a, w, p = _answer(target, record, x, signed)
    return Look(denormalize(target, whole, x), target.classes, a, w, p)


def tell(
    seen: Look,
    record: LayerRecord,
    top: int = 5,
    cls: int | None = None,
    label: str | None = None,
    percentile: float = 90.0,
) -> Explanation:
    """Make the explanation of an image that was looked at; nothing runs through the network."""
    predicted = seen.predicted
    shown = predicted if cls is None else cls
    draw = _Drawing(seen, record, top, percentile)
    sample = draw.track("sample", predicted, seen.w)
    general = draw.track("class", shown, record.class_w[shown])
    similar = maps.similarity(sample.heatmap[None], general.heatmap[None])
    return Explanation(
        image=seen.image,
        label=label,
        predicted=predicted,
        predicted_name=seen.classes[predicted],
        probability=seen.p[predicted].item(),
        layer=record.name,
        sample=sample,
        cls=general,
        r=similar.item(),
    )


def opened(image: Image.Image | str | Path | bytes) -> Image.Image:
    """Return any image as RGB, after the checks that every probe image passes.

    Raises
    ------
    ValueError
        If it cannot be used; the sentence says why.
    TypeError
        If it is no image, path or bytes.
    """
    if isinstance(image, str | Path | bytes):
        return decode(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"The image is a {type(image).__name__}; give a PIL image, path or bytes.")
    if image.width * image.height > MAX_PIXELS or image.mode not in _MODES:
        raise ValueError(
            f"The image has {image.width} x {image.height} pixels of mode {image.mode}; give at "
            f"most {MAX_PIXELS:,} pixels of one of the modes {', '.join(_MODES)}."
        )
    return image.convert("RGB")


def _answer(
    target: Target, record: LayerRecord, x: Tensor, signed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the network once: maps (1, N, h, w), contributions (N,) and probabilities (C,)."""
    x, linear = x.unsqueeze(0).to(target.device), False
    if record.exact:
        weight = record.head.to(target.device)
        linear = weight, weight.new_zeros(len(weight))  # no contribution depends on the bias
    found = contribute(target, x, record.name, signed=signed, linear=linear)
    a = found.activations.maps
    a = a.to("cpu", torch.promote_types(a.dtype, torch.float32))
    return a, found.w[0].double().cpu(), found.logits[0].double().softmax(0).cpu()


class _Drawing:
    """Draws tracks of one image from what the network said about it once."""

    def __init__(self, seen, record, top, percentile):
        self.classes, self.record, self.a, self.p = seen.classes, record, seen.a, seen.p
        self.size, self.top, self.percentile = seen.image.size[::-1], top, percentile

    def track(self, kind: str, cls: int, w: Tensor) -> Track:
        """Return the track of the neurons with the largest w (N,); nan, the unknown, is none."""
        order = w.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
        chosen = order[w[order].isfinite()][: self.top]
        heatmap = torch.zeros(self.size, dtype=self.a.dtype)
        if len(chosen):
            self.check(chosen)
            heatmap = maps.heatmap(self.a[:, chosen], w[chosen], self.top, self.size)[0]
        return Track(
            kind=kind,
            class_index=cls,
            class_name=self.classes[cls],
            probability=self.p[cls].item(),
            neurons=self.neurons(chosen, w) if len(chosen) else (),
            heatmap=heatmap,
        )

    def neurons(self, chosen: Tensor, w: Tensor) -> tuple[Neuron, ...]:
        """Return the records of the chosen neurons, in this order."""
        a, record = self.a[:, chosen], self.record
        drawn = maps.resize(a, self.size)[0]
        regions = maps.region(a, self.percentile, self.size)[0]
        total = w[w.isfinite()].abs().sum().item()
        return tuple(
            Neuron(
                index=i,
                names=tuple(record.major.names[i]),
                minor=tuple(record.minor.names[i]),
                contribution=w[i].item() / total if total else 0.0,
                exemplars=_kept(record.exemplars.index[i]),
                minor_exemplars=_kept(record.minor_exemplars.index[i]),
                region=region,
                map=drawing,
                stability=None if record.stability is None else record.stability[i].item(),
            )
            for i, region, drawing in zip(chosen.tolist(), regions, drawn, strict=True)
        )

    def check(self, chosen: Tensor) -> None:
        """Refuse a map that cannot be drawn, by its neuron's name."""
        for i in chosen.tolist():
            if not self.a[0, i].isfinite().all():
                raise ValueError(
                    f"Neuron {i} of {self.record.name!r} answers this image with numbers that are "
                    "not finite, so it cannot be drawn; explain another image or layer."
                )


def _kept(index: Tensor) -> tuple[int, ...]:
    return tuple(i for i in index.tolist() if i >= 0)
