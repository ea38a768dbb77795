"""Explanations of one image: two tracks of named neurons with regions, shares and heatmaps.

`run_model` runs the network once; `make_explanation` turns its output into an `Explanation`, for
any class, number of neurons or percentile, without running it again. The sample track has the
neurons that contribute most to this prediction, the class track those that contribute most to the
class on average; both use maps of this image (WWW, Figure 2): the activation maps of the paper, or
contribution maps.

Names of concepts and classes are arbitrary strings. Sentences quote them and keep them on one line;
code that writes HTML has to escape a sentence as a whole.
"""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from wwwlib import maps
from wwwlib.contributions import Linear, contribute
from wwwlib.images import decode, preprocessed
from wwwlib.registry import one_of, whole_number
from wwwlib.targets import Target, denormalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 20  # right predictions among which an r is placed
UNLIKE = 0.01  # share of probe images as far from the others below which an image is unlike them


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
        Activation or contribution map in the image, clamped at zero.
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
    layer_size : int
        Number of neurons of the layer.
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
    layer_size: int
    by_weights: bool = False

    @property
    def share(self) -> float:
        """Share of the layer's absolute contributions that the track's neurons carry, in [0, 1]."""
        return sum(abs(neuron.contribution) for neuron in self.neurons)

    @property
    def share_words(self) -> str:
        """The share in words: "5 of 128 neurons carry .30 of all contributions"."""
        count, share = len(self.neurons), _short(self.share)
        of = f"{count} of {self.layer_size:,} neurons"
        return f"{of} {'carries' if count == 1 else 'carry'} {share} of all contributions"


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
    where : {"activation", "contribution"}
        Whether maps show where neurons are active, or where they contribute to the class.
    instead_of, instead_probability : str or None, float
        The class that the prediction is compared with, and its probability. Contributions are then
        those to the difference of the two logits.
    likeness : float
        Share of probe images that are as far from their nearest one as this image is from its
        nearest, in (0, 1], see `likeness`; nan if it is not known.
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
    where: str = maps.ACTIVATION
    instead_of: str | None = None
    instead_probability: float = 0.0
    likeness: float = math.nan

    def __repr__(self) -> str:
        return f"Explanation({self.predicted_name!r}, {_short(self.probability)}; {self.layer!r})"

    def to_sentence(self) -> str:
        """Return the explanation as one paragraph of plain text."""
        head = f"Predicted {quoted(self.predicted_name)} ({_short(self.probability)})"
        if self.instead_of is not None:
            head += f" rather than {quoted(self.instead_of)} ({_short(self.instead_probability)})"
        if self.label not in (None, self.predicted_name):
            head += f", true class {quoted(self.label)}"
        neurons = "; ".join(_neuron_words(one, self.where) for one in self.sample.neurons)
        neurons = f"{neurons}; {self.sample.share_words}" if neurons else "no neuron contributes"
        return f"{head}: {neurons}. {self._comparison()}. {self.warning}".rstrip()

    __str__ = to_sentence

    def to_dict(self) -> dict:
        """Return JSON values, with regions as boxes, areas and positions; nan becomes None."""
        width, height = self.image.size
        return {
            "layer": self.layer,
            "where": self.where,
            "image": {"width": width, "height": height},
            "label": self.label,
            "predicted": _class_dict(self.predicted, self.predicted_name, self.probability),
            "instead_of": self.instead_of
            and {"name": self.instead_of, "probability": self.instead_probability},
            "sample": _track_dict(self.sample),
            "class": _track_dict(self.cls),
            "r": None if math.isnan(self.r) else self.r,
            "r_words": self.r_words,
            "likeness": None if math.isnan(self.likeness) else self.likeness,
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
            raise ValueError("There is no atlas with images; use plots.two_tracks(e, atlas).")
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

    @property
    def warning(self) -> str:
        """A sentence if the image is unlike the probe set, else empty.

        About 1 % of new images that are like those of the probe set are called unlike it.
        """
        if not self.likeness < UNLIKE:
            return ""
        return "Unlike the probe set: 99 % of its images are nearer to another one than this image."

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
    maps : callable
        Takes the index of a class; returns activation maps (1, N, h, w), or contribution maps of
        that class.
    w : Tensor of float64, shape (N,)
        Contributions to the predicted class.
    p : Tensor of float64, shape (C,)
        Probabilities.
    z : Tensor, shape (N,)
        Means of activations over positions.
    where : {"activation", "contribution"}
        The kind of the maps.
    instead_of : int or None
        Index of the class that the predicted one is compared with: w and contribution maps are then
        those of the difference of the two logits.
    """

    image: Image.Image
    classes: tuple[str, ...]
    maps: Callable[[int], Tensor]
    w: Tensor
    p: Tensor
    z: Tensor
    where: str = "activation"
    instead_of: int | None = None

    @property
    def predicted(self) -> int:
        """Index of the predicted class."""
        return int(self.p.argmax())


def run_model(
    target: Target,
    record: Any,
    image: Image.Image | str | Path | bytes,
    signed: bool = False,
    where: str | None = maps.ACTIVATION,
    instead_of: int | None = None,
) -> ModelOutput:
    """Run the network on one image: one forward pass and at most one backward pass.

    A second class, and contribution maps of another class than the predicted one, take another run.

    Parameters
    ----------
    target : Target
    record : LayerRecord
        The layer to explain.
    image : PIL.Image.Image, path or bytes
    signed : bool
        Whether contributions keep their sign.
    where : {"activation", "contribution"} or None
        The maps to draw, see `Atlas.where`.
    instead_of : int, optional
        Another class, for contributions to the difference of the logits, which keep their sign.

    Raises
    ------
    ValueError, TypeError
        If the image cannot be used, see `images.decode`, or `where` is None, since the logits
        depend on no position of the layer.
    """
    if where is None:
        raise ValueError(maps.unreached(target, record.name))
    one_of("where", where, (maps.ACTIVATION, maps.CONTRIBUTION))
    decoded = decode(image)
    name = str(image) if isinstance(image, str | Path) else "in memory"
    x = preprocessed(target.preprocess, decoded, name)
    linear = where == maps.ACTIVATION and without_bias(record.head, target.device)
    batch = x.unsqueeze(0).to(target.device)
    signed = signed or instead_of is not None
    run = partial(contribute, target, batch, record.name, signed=signed, linear=linear)
    found = run()
    other = None if instead_of is None else run(instead_of)

    @cache
    def drawn(cls: int) -> Tensor:
        if where == maps.ACTIVATION:
            a = found.activations.maps
        else:
            a = (found if cls == found.classes[0] else run(cls)).maps
            a = a if other is None else a - other.maps
        return a.to("cpu", torch.promote_types(a.dtype, torch.float32))

    p = target.probabilities(found.logits[0].double()).cpu()
    shown = denormalize(target, decoded, x)
    w = (found.w if other is None else found.w - other.w)[0].double().cpu()
    z = found.activations.maps[0].float().mean((1, 2)).cpu()
    return ModelOutput(shown, target.classes, drawn, w, p, z, where, instead_of)


def likeness(z: Tensor, usual: Tensor) -> float:
    """Compute how usual activations are: a conformal p-value of the nearest neighbour's distance.

    Distances are Euclidean, each neuron divided by its standard deviation among the other images.

    Parameters
    ----------
    z : Tensor, shape (N,)
        Means of activations over positions, of an image.
    usual : Tensor, shape (R, N)
        Those of other images.

    Returns
    -------
    float
        Share of images, this one among them, that are at least as far from the nearest other one
        as `z` is from its nearest; in (0, 1].

    References
    ----------
    Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
    """
    scale = usual.std(0, correction=0)
    scale = scale.clamp(min=max(1e-3 * scale.max().item(), 1e-30))  # of neurons that hardly vary
    nearest = torch.cdist(usual / scale, usual / scale).fill_diagonal_(torch.inf).min(1).values
    own = torch.cdist(z[None] / scale, usual / scale).min()
    return (1 + (nearest >= own).sum().item()) / (1 + len(usual))


def without_bias(weight: Tensor | None, device: torch.device) -> Linear | Literal[False]:
    """Return a linear head for `contributions.contribute`, which does not need its bias."""
    if weight is None:
        return False
    weight = weight.to(device)
    return weight, weight.new_zeros(len(weight))


def make_explanation(
    output: ModelOutput,
    record: Any,
    top: int,
    cls: int | None,
    label: str | None,
    percentile: float,
    atlas: Any,
) -> Explanation:
    """Explain the output of `run_model`.

    Parameters
    ----------
    output : ModelOutput
    record : LayerRecord
        The layer given to `run_model`.
    top, label, percentile
        As in `Atlas.explain`.
    cls : int or None
        Index of the class of the class track; None for the predicted class.
    atlas : Atlas
        That of the layer, kept for `Explanation.plot`.

    Raises
    ------
    ValueError
        If `top` is less than 1, a map to be drawn is not finite, or a class is compared with
        itself.
    """
    top = whole_number("top", top)
    predicted, other = output.predicted, output.instead_of
    cls = predicted if cls is None else cls
    if other in (predicted, cls):
        which = "the predicted class" if other == predicted else "that of the class track"
        raise ValueError(f"instead_of is {output.classes[other]!r}, {which}; give another one.")
    sample = _track(output, record, "sample", predicted, output.w, top, percentile)
    pair = [record.class_w[c] for c in (cls, other) if c is not None]
    by_weights = record.exact and not all(w.isfinite().any() for w in pair)
    if by_weights and record.head is not None:
        pair = [record.head[c].double() for c in (cls, other) if c is not None]
        pair = pair if atlas.signed else [w.abs() for w in pair]
    w = pair[0] - pair[1] if len(pair) > 1 else pair[0]
    general = _track(output, record, "class", cls, w, top, percentile)
    usual = cls == predicted and other is None and output.where == atlas.where(record.name)
    known = record.right_r if usual and not by_weights else None
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
        where=output.where,
        instead_of=None if other is None else output.classes[other],
        instead_probability=0.0 if other is None else output.p[other].item(),
        likeness=math.nan if record.usual_z is None else likeness(output.z, record.usual_z),
    )


def region_words(region: Tensor, where: str = maps.ACTIVATION) -> str:
    """Describe where a concept region (H, W) lies: "active in the upper left", "not active".

    That of a contribution map is "contributing in the upper left".
    """
    verb = "active" if where == maps.ACTIVATION else "contributing"
    place = maps.position(region)
    if place is None:
        return f"not {verb}"
    one_word = place in ("upper", "lower", "left", "right", "middle")
    return f"{verb} in the {place}{' part' if one_word else ''}"


def quoted(name: str) -> str:
    """Return a name in double quotes on one line.

    Quotes and backslashes are escaped; white space and control characters become one space.
    """
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in name)
    return '"' + " ".join(kept.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _track(output: Any, record: Any, kind: str, cls: int, w: Tensor, top: int, q: float) -> Track:
    """Return the track of the neurons with the largest finite w (N,); `q` is the percentile."""
    order = w.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    chosen = order[w[order].isfinite()][:top]
    a, size = output.maps(cls)[:, chosen], output.image.size[::-1]
    neurons, heatmap = tuple[Neuron, ...](), torch.zeros(size, dtype=a.dtype)
    if len(chosen):
        maps.check_finite(a, chosen[None], f" of {record.name!r}")
        heatmap = maps.heatmap(a, w[chosen], top, size, output.where == maps.ACTIVATION)[0]
        drawn, regions = maps.resize(a, size)[0], maps.region(a, q, size)[0]
        total = w[w.isfinite()].abs().sum().item()
        neurons = tuple(
            _neuron(record, i, w[i].item() / total if total else 0.0, region, drawing)
            for i, region, drawing in zip(chosen.tolist(), regions, drawn, strict=True)
        )
    return Track(kind, cls, output.classes[cls], output.p[cls].item(), neurons, heatmap, len(w))


def _neuron(record: Any, i: int, contribution: float, region: Tensor, drawing: Tensor) -> Neuron:
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


def _neuron_words(neuron: Neuron, where: str) -> str:
    names = ", ".join(quoted(name) for name in neuron.names) or "no concept"
    names += f"; {neuron.test}" if neuron.names else ""
    share = f"{_short(neuron.contribution)} of the contribution"
    return f"neuron {neuron.index} ({names}), {share}, {region_words(neuron.region, where)}"


def _track_dict(track: Track) -> dict:
    return {
        "kind": track.kind,
        "by_weights": track.by_weights,
        "share": track.share,
        "class": _class_dict(track.class_index, track.class_name, track.probability),
        "neurons": [_neuron_dict(neuron) for neuron in track.neurons],
    }


def _class_dict(index: int, name: str, probability: float) -> dict:
    return {"index": index, "name": name, "probability": probability}


def _neuron_dict(neuron: Neuron) -> dict:
    """Return all but the map of a neuron, and its region in numbers and words."""
    shown = {name: [*one] if isinstance(one, tuple) else one for name, one in vars(neuron).items()}
    del shown["map"]
    area, position = neuron.region.float().mean().item(), maps.position(neuron.region)
    return {**shown, "region": {"box": _box(neuron.region), "area": area, "position": position}}


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
