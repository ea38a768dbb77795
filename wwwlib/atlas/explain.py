"""Explanations of one image: two tracks of named neurons with regions, shares and heatmaps.

`run_model` runs the network once; `make_explanation` turns its output into an `Explanation`, for
any class, number of neurons or percentile, without running it again. The sample track has the
neurons that contribute most to this prediction, the class track those that contribute most to the
class on average; both use the activation maps of this image (WWW, Figure 2).

Names of concepts and classes are arbitrary strings. Sentences quote them and keep them on one line;
code that writes HTML has to escape a sentence as a whole.
"""

import math
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from wwwlib import maps
from wwwlib.contributions import Linear, contribute
from wwwlib.images import decode, preprocessed
from wwwlib.registry import whole_number
from wwwlib.targets import Target, denormalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_FEWEST = 20  # right predictions among which an r is placed


@dataclass(frozen=True, eq=False)
class Neuron:
    """One neuron of an explanation.

    Attributes
    ----------
    index : int
        Index in the layer.
    names, minor : tuple of str
        Major and minor concepts, best first; empty if the neuron abstains. Minor concepts without
        support on test images are left out.
    contribution : float
        Share of the summed absolute contributions of all neurons of the layer, in [0, 1]; in
        [-1, 1] for signed contributions.
    exemplars, minor_exemplars : tuple of int
        Indices of the probe images, and of their crops, with the highest activation, best first.
    region : Tensor of bool, shape (H, W)
        Concept region in the image (WWW, section 3.3).
    map : Tensor, shape (H, W)
        Activation map in the image, clamped at zero.
    test : str
        Test of the first name, such as "AUROC .98, 1st of 103", or "untested".
    supported : bool or None
        Whether that name does better than chance on other images; None if it was not tested.
    """

    index: int
    names: tuple[str, ...]
    minor: tuple[str, ...]
    contribution: float
    exemplars: tuple[int, ...]
    minor_exemplars: tuple[int, ...]
    region: Tensor
    map: Tensor
    test: str = "untested"
    supported: bool | None = None


@dataclass(frozen=True, eq=False)
class Track:
    """The neurons that contribute most to one image, or on average to its class.

    Attributes
    ----------
    kind : {"sample", "class"}
    class_index, class_name : int, str
        The class to which they contribute.
    probability : float
        Its probability for this image, see `Target.probabilities`.
    neurons : tuple of Neuron
        Largest contribution first; empty in a class track without images of the class.
    heatmap : Tensor, shape (H, W)
        Weighted sum of the neurons' maps (WWW, Eq. 4); zeros if there are no neurons.
    by_weights : bool
        Whether the weights of the linear head stand in for contributions, in a class track without
        images of the class.
    """

    kind: str
    class_index: int
    class_name: str
    probability: float
    neurons: tuple[Neuron, ...]
    heatmap: Tensor
    by_weights: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Explanation of one image; ``print`` shows it as a sentence.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, W x H pixels, the input of the network: resized and cropped.
    label : str or None
        Name of the true class, if given.
    predicted, predicted_name, probability : int, str, float
        Predicted class and its probability.
    layer : str
        The explained layer.
    sample : Track
        The neurons that contribute most to this prediction.
    cls : Track
        The neurons that contribute most to the class on average, with the maps of this image.
    r : float
        Cosine similarity of the two heatmaps in [0, 1]; nan if one of them is zero.
    atlas : Atlas or None
        The atlas that made it, whose example images `plot` shows.
    right_r : Tensor of float64, shape (R,), or None
        r of right predictions, in ascending order, with as many neurons per track; None where they
        are not comparable.
    """

    image: Image.Image
    label: str | None
    predicted: int
    predicted_name: str
    probability: float
    layer: str
    sample: Track
    cls: Track
    r: float
    atlas: Any = None
    right_r: Tensor | None = None

    def __repr__(self) -> str:
        return f"Explanation({self.predicted_name!r}, {_short(self.probability)}; {self.layer!r})"

    def to_sentence(self) -> str:
        """Return the explanation as one paragraph of plain text."""
        head = f"Predicted {quoted(self.predicted_name)} ({_short(self.probability)})"
        if self.label not in (None, self.predicted_name):
            head += f", true class {quoted(self.label)}"
        neurons = "; ".join(map(_neuron_words, self.sample.neurons)) or "no neuron contributes"
        return f"{head}: {neurons}. {self._comparison()}."

    __str__ = to_sentence

    def to_dict(self) -> dict:
        """Return JSON values, with regions as boxes, areas and positions; nan becomes None."""
        width, height = self.image.size
        return {
            "layer": self.layer,
            "image": {"width": width, "height": height},
            "label": self.label,
            "predicted": {
                "index": self.predicted,
                "name": self.predicted_name,
                "probability": self.probability,
            },
            "sample": _track_dict(self.sample),
            "class": _track_dict(self.cls),
            "r": None if math.isnan(self.r) else self.r,
            "r_words": self.r_words,
            "sentence": self.to_sentence(),
        }

    def plot(self) -> "Figure":
        """Draw both tracks side by side, with example images (WWW, Figure 5).

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If the explanation was not made by `Atlas.explain`.
        """
        if self.atlas is None:
            raise ValueError(
                "This explanation has no atlas to take example images from; use Atlas.explain, or "
                "plots.two_tracks(explanation, atlas)."
            )
        from wwwlib import plots

        return plots.two_tracks(self, self.atlas)

    @property
    def r_words(self) -> str:
        """R in words, and its place among right predictions where at least 20 were measured."""
        if math.isnan(self.r):
            return "r is not defined, since a heatmap is zero"
        words, known = f"r = {_short(self.r, 2 if self.r < 0.995 else 4)}", self.right_r
        if known is None or len(known) < _FEWEST:
            return words
        above = 100 * int((known > self.r).sum()) // len(known)
        return f"{words}, lower than {above} % of {len(known)} right predictions"

    def _comparison(self) -> str:
        name = quoted(self.cls.class_name)
        if not self.cls.neurons:
            return f"There is no class side, since the atlas has no images of the class {name}"
        if self.cls.by_weights:
            name += " (the weights of the linear head, since the atlas has no images of it)"
        elif self.cls.class_index == self.predicted:
            name = ""
        return f"Heatmaps of the class{name and ' ' + name} and the image: {self.r_words}"


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """Output of the network for one image, sufficient for any explanation of one layer.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, W x H pixels, the input of the network.
    classes : tuple of str
        C class names.
    a : Tensor, shape (1, N, h, w)
        Activation maps of the layer.
    w : Tensor of float64, shape (N,)
        Contributions to the predicted class.
    p : Tensor of float64, shape (C,)
        Probabilities.
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


def run_model(
    target: Target, record: Any, image: Image.Image | str | Path | bytes, signed: bool = False
) -> ModelOutput:
    """Run the network on one image: one forward pass and at most one backward pass.

    Parameters
    ----------
    target : Target
    record : LayerRecord
        The layer to explain.
    image : PIL.Image.Image, path or bytes
    signed : bool
        Whether contributions keep their sign.

    Raises
    ------
    ValueError, TypeError
        If the image cannot be used; see `images.decode`.
    """
    decoded = decode(image)
    name = str(image) if isinstance(image, str | Path) else "in memory"
    x = preprocessed(target.preprocess, decoded, name)
    linear = without_bias(record.head, target.device)
    batch = x.unsqueeze(0).to(target.device)
    found = contribute(target, batch, record.name, signed=signed, linear=linear)
    a = found.activations.maps
    a = a.to("cpu", torch.promote_types(a.dtype, torch.float32))
    p = target.probabilities(found.logits[0].double()).cpu()
    shown = denormalize(target, decoded, x)
    return ModelOutput(shown, target.classes, a, found.w[0].double().cpu(), p)


def without_bias(weight: Tensor | None, device: torch.device) -> Linear | Literal[False]:
    """Return a linear head for `contributions.contribute`, which does not need its bias."""
    if weight is None:
        return False
    weight = weight.to(device)
    return weight, weight.new_zeros(len(weight))


def make_explanation(
    output: ModelOutput,
    record: Any,
    top: int = 5,
    cls: int | None = None,
    label: str | None = None,
    percentile: float = 90.0,
    atlas: Any = None,
) -> Explanation:
    """Explain the output of `run_model`.

    Parameters
    ----------
    output : ModelOutput
    record : LayerRecord
        The layer given to `run_model`.
    top, label, percentile
        As in `Atlas.explain`.
    cls : int, optional
        Index of the class of the class track; by default the predicted class.
    atlas : Atlas, optional
        Kept for `Explanation.plot`.

    Raises
    ------
    ValueError
        If `top` is less than 1, or a map to be drawn is not finite.
    """
    top = whole_number("top", top)
    predicted = output.predicted
    cls = predicted if cls is None else cls
    sample = _track(output, record, "sample", predicted, output.w, top, percentile)
    w = record.class_w[cls]
    by_weights = record.exact and not w.isfinite().any()
    if by_weights:
        w = record.head[cls].double() if atlas and atlas.signed else record.head[cls].double().abs()
    general = _track(output, record, "class", cls, w, top, percentile)
    known = record.right_r if cls == predicted and not by_weights else None
    if known is not None:
        known = known[top - 1][known[top - 1].isfinite()] if top <= len(known) else None
    return Explanation(
        image=output.image,
        label=label,
        predicted=predicted,
        predicted_name=output.classes[predicted],
        probability=output.p[predicted].item(),
        layer=record.name,
        sample=sample,
        cls=replace(general, by_weights=by_weights),
        r=maps.similarity(sample.heatmap[None], general.heatmap[None]).item(),
        atlas=atlas,
        right_r=known,
    )


def region_words(region: Tensor) -> str:
    """Describe where a concept region (H, W) lies: "active in the upper left", "not active"."""
    where = maps.position(region)
    if where is None:
        return "not active"
    one_word = where in ("upper", "lower", "left", "right", "middle")
    return f"active in the {where}{' part' if one_word else ''}"


def quoted(name: str) -> str:
    """Return a name in double quotes on one line.

    Quotes and backslashes are escaped; white space and control characters become one space.
    """
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in name)
    text = " ".join(kept.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _track(output, record, kind: str, cls: int, w: Tensor, top: int, percentile: float) -> Track:
    """Return the track of the neurons with the largest finite w (N,)."""
    order = w.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    chosen = order[w[order].isfinite()][:top]
    a, size = output.a[:, chosen], output.image.size[::-1]
    neurons, heatmap = (), torch.zeros(size, dtype=a.dtype)
    if len(chosen):
        _check_finite(a[0], chosen, record.name)
        heatmap = maps.heatmap(a, w[chosen], top, size)[0]
        drawn, regions = maps.resize(a, size)[0], maps.region(a, percentile, size)[0]
        total = w[w.isfinite()].abs().sum().item()
        neurons = tuple(
            _neuron(record, i, w[i].item() / total if total else 0.0, region, drawing)
            for i, region, drawing in zip(chosen.tolist(), regions, drawn, strict=True)
        )
    return Track(kind, cls, output.classes[cls], output.p[cls].item(), neurons, heatmap)


def _neuron(record, i: int, contribution: float, region: Tensor, drawing: Tensor) -> Neuron:
    return Neuron(
        index=i,
        names=tuple(record.major.names[i]),
        minor=() if record.minor.supported(i) is False else tuple(record.minor.names[i]),
        contribution=contribution,
        exemplars=tuple(j for j in record.exemplars.index[i].tolist() if j >= 0),
        minor_exemplars=tuple(j for j in record.minor_exemplars.index[i].tolist() if j >= 0),
        region=region,
        map=drawing,
        test=record.major.test_words(i),
        supported=record.major.supported(i),
    )


def _check_finite(a: Tensor, neurons: Tensor, layer: str) -> None:
    for i, one in zip(neurons.tolist(), a, strict=True):
        if not one.isfinite().all():
            raise ValueError(
                f"The activation map of neuron {i} of {layer!r} is not finite for this image; "
                "explain another image or layer."
            )


def _neuron_words(neuron: Neuron) -> str:
    names = ", ".join(quoted(name) for name in neuron.names) or "no concept"
    names += f"; {neuron.test}" if neuron.names else ""
    share = f"{_short(neuron.contribution)} of the contribution"
    return f"neuron {neuron.index} ({names}), {share}, {region_words(neuron.region)}"


def _track_dict(track: Track) -> dict:
    return {
        "kind": track.kind,
        "by_weights": track.by_weights,
        "class": {
            "index": track.class_index,
            "name": track.class_name,
            "probability": track.probability,
        },
        "neurons": [_neuron_dict(neuron) for neuron in track.neurons],
    }


def _neuron_dict(neuron: Neuron) -> dict:
    return {
        "index": neuron.index,
        "names": list(neuron.names),
        "minor": list(neuron.minor),
        "test": neuron.test,
        "supported": neuron.supported,
        "contribution": neuron.contribution,
        "exemplars": list(neuron.exemplars),
        "minor_exemplars": list(neuron.minor_exemplars),
        "region": {
            "box": _box(neuron.region),
            "area": neuron.region.float().mean().item(),
            "position": maps.position(neuron.region),
        },
    }


def _box(region: Tensor) -> list[int] | None:
    """Return (left, top, right, bottom) in pixels, right and bottom exclusive; None if empty."""
    if not region.any():
        return None
    rows, columns = region.any(1).nonzero(), region.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _short(number: float, digits: int = 2) -> str:
    """Format without a leading zero: .97, -.20, 1.00."""
    text = f"{number:.{digits}f}"
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0") else text
