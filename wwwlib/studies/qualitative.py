"""Qualitative comparison of methods: neuron names (WWW, Figure 3) and one image (WWW, Table 1).

Figure 3 shows neurons of the final layer and, below each, the hidden neurons with the largest class
contributions, with each method's graded names (`wordnet.grade`). Table 1 asks what was seen, where,
and why it decided: a method without an answer to a question leaves it out.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from wwwlib import atlas, maps
from wwwlib.baselines import craft, falcon, grad_cam
from wwwlib.contributions import Contributions, contribute
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.scores import Words
from wwwlib.studies.tables import MethodNames
from wwwlib.studies.wordnet import Graded, Hypernyms, graded
from wwwlib.targets import Target, denormalize

# Figure 3: neuron names -----------------------------------------------------------------------


class NeuronNames(NamedTuple):
    """One neuron with the names that each method gives it.

    Attributes
    ----------
    title : str
        The neuron, and its contribution if it is a hidden one.
    truth : tuple of str
        The synonyms of its true concept; empty where it is not known.
    pictures : tuple of PIL image
        Its exemplars, best first.
    names : mapping of method to names with grades, or None
        The grade is None where the truth is not known; no names where the method abstains, and
        None for a method that was not run.
    hidden : bool
        Whether it is a hidden neuron that contributes to the final neuron above it.
    """

    title: str
    truth: tuple[str, ...]
    pictures: tuple[Image.Image, ...]
    names: Mapping[str, Graded | None]
    hidden: bool = False


class LayerNames(NamedTuple):
    """The N neurons of a layer with the names that each method gives them.

    Attributes
    ----------
    name : str
        The layer.
    exemplars : Exemplars
        Of all N neurons.
    methods : mapping of method to MethodNames
    truth : mapping of neuron to list of str
        The synonyms of its true concept; neurons without truth are missing.
    """

    name: str
    exemplars: Exemplars
    methods: Mapping[str, MethodNames]
    truth: Mapping[int, Sequence[str]]

    def neuron(self, i: int, images: ImageSet, tree: Hypernyms | None, prefix: str) -> NeuronNames:
        """Return neuron i with up to eight exemplars; the title begins with `prefix`."""
        truth = tuple(self.truth.get(i, ()))
        names = {
            method: None if own.names is None else graded(own.names[i], truth, tree)
            for method, own in self.methods.items()
        }
        index = [o for o in self.exemplars.index[i].tolist() if o >= 0][:8]
        pictures = tuple(images.image(o).convert("RGB") for o in index)
        title = f"{prefix}neuron {i} of {self.name}"
        return NeuronNames(title, truth, pictures, names, hidden=bool(prefix))


def neuron_names(
    target: Target,
    images: ImageSet,
    final: LayerNames,
    hidden: LayerNames,
    classes: Sequence[int],
    hypernyms: Hypernyms | None = None,
    **options: object,
) -> list[NeuronNames]:
    """Select neurons as WWW, Figure 3, with all methods' names.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set, with at least one labelled image of each class.
    final, hidden : LayerNames
        The logits, and a layer before them.
    classes : sequence of int
        The final neurons.
    hypernyms : Hypernyms, optional
        Without WordNet no name is near.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    list of NeuronNames
        Each final neuron, followed by the two hidden ones of the largest class contributions, with
        up to eight exemplars.

    Raises
    ------
    ValueError
        If a class has no image.
    """
    share = class_contributions(target, images, hidden.name, classes, **options)
    found = []
    for c, row in zip(classes, share, strict=True):
        found.append(final.neuron(c, images, hypernyms, ""))
        for rank, neuron in enumerate(row.argsort(descending=True)[:2].tolist(), start=1):
            part = row[neuron] / row.sum()
            prefix = f"{rank}. {part:.0%} of the contributions to {target.classes[c]}: "
            found.append(hidden.neuron(neuron, images, hypernyms, prefix))
    return found


def class_contributions(
    target: Target, images: ImageSet, layer: str, classes: Sequence[int], **options: object
) -> Tensor:
    """Return the class contributions (len(classes), N) of a layer, from images of those classes.

    Parameters, options and errors are those of `neuron_names`.
    """
    if lacking := classes_without_images(target, images, classes):
        shown = {label for label in images.labels if label is not None}
        raise ValueError(
            f"No image of {images.name!r} is of class {lacking[0]} of {target.name}; choose "
            f"classes among the {len(shown)} that it shows."
        )
    images = atlas.match_labels(images, target)
    own = subset(images, [i for i, label in enumerate(images.labels) if label in set(classes)])
    w, _ = atlas.class_contributions(target, own, [layer], **options)
    return w[layer][list(classes)]


def classes_without_images(target: Target, images: ImageSet, classes: Sequence[int]) -> list[int]:
    """Return the classes of which there is no image; all, if the images have other classes."""
    shown = set(atlas.match_labels(images, target, warn=False).labels)
    return [c for c in classes if c not in shown]


# Table 1: one image ---------------------------------------------------------------------------


class LocalExplanation(NamedTuple):
    """One method's explanation of one image; None for a question that it does not answer.

    Attributes
    ----------
    method : str
    what : tuple of str, or None
        Names of what was seen, a line per neuron.
    where : Tensor or None
        (H, W), a heatmap of non-negative floats, or a bool region.
    why : tuple of str, or None
        Contributions to the decision, a line each.
    pictures : tuple of PIL image
        Crops, for a method without names.
    ran : bool
        Whether the method was run.
    """

    method: str
    what: tuple[str, ...] | None = None
    where: Tensor | None = None
    why: tuple[str, ...] | None = None
    pictures: tuple[Image.Image, ...] = ()
    ran: bool = True


class Prediction(NamedTuple):
    """The prediction that all methods explain.

    Attributes
    ----------
    image : PIL image
        W x H pixels, as the network's preprocessing leaves it.
    x : Tensor, shape (1, 3, H, W)
        The preprocessed image.
    layer : str
    found : Contributions
        Of the layer to the predicted class.
    neurons : tuple of int
        Those with the largest contributions; all methods explain them.
    title : str
        The predicted class, and whether it is correct.
    about : str
        The neurons, in words.
    cls : int
        The predicted class.
    """

    image: Image.Image
    x: Tensor
    layer: str
    found: Contributions
    neurons: tuple[int, ...]
    title: str
    about: str
    cls: int

    def resized(self, m: Tensor) -> Tensor:
        """Return a map (1, h, w) at the size of the image, (H, W)."""
        return maps.resize(m[:, None], self.image.size[::-1])[0, 0].detach().cpu()


def predict(target: Target, image: Image.Image, layer: str, truth: str | None = None) -> Prediction:
    """Run a network on one image, and find the three neurons with the largest contributions.

    Parameters
    ----------
    target : Target
    image : PIL image
    layer : str
        A layer with maps or patch tokens.
    truth : str, optional
        The image's true class.
    """
    x = target.preprocess(image).unsqueeze(0).to(target.device)
    found = contribute(target, x, layer)
    neurons = tuple(found.w[0].argsort(descending=True)[:3].tolist())
    cls, p = int(found.classes[0]), target.probabilities(found.logits[0]).max()
    name = target.classes[cls]
    ending = "" if truth is None else ", correct" if truth == name else f"; the truth is {truth}"
    title = f"predicted: {name}, {p:.0%}{ending}"
    listed = ", ".join(map(str, neurons))
    about = f"methods name the neurons of {layer} with the largest contributions: {listed}"
    shown = denormalize(target, image, x[0].cpu())
    return Prediction(shown, x, layer, found, neurons, title, about, cls)


def explain_www(prediction: Prediction, names: Words, class_w: Tensor | None) -> LocalExplanation:
    """Explain by WWW: named neurons, their heatmap, and their shares of the contributions.

    Parameters
    ----------
    prediction : Prediction
    names : list of list of str
        The names of the layer's N neurons.
    class_w : Tensor or None
        (N,) contributions to the predicted class, which are then compared with the sample's.
    """
    w, a, top = prediction.found.w, prediction.found.activations.maps, len(prediction.neurons)
    size = prediction.image.size[::-1]
    heat = maps.heatmap(a, w, top, size)
    why = [f"neuron {n}: {w[0, n] / w[0].sum():.0%}" for n in prediction.neurons]
    if class_w is None:
        why += ["its class: not known"]
    else:
        cls = class_w.to(w)[None]
        r = maps.similarity(heat, maps.heatmap(a, cls, top, size)).item()
        listed = ", ".join(map(str, cls[0].argsort(descending=True)[:top].tolist()))
        why += [f"its class: neurons {listed}", f"heatmap similarity: r = {r:.2f}"]
    return explain_names("WWW", prediction, names)._replace(where=heat[0].cpu(), why=tuple(why))


def explain_names(method: str, prediction: Prediction, names: Words | None) -> LocalExplanation:
    """Explain by names alone; None for a method that was not run."""
    if names is None:
        return LocalExplanation(method, ran=False)
    lines = (f"{n}: {', '.join(names[n]) or 'no concept'}" for n in prediction.neurons)
    return LocalExplanation(method, tuple(lines))


def explain_dissection(prediction: Prediction, names: Words, threshold: Tensor) -> LocalExplanation:
    """Explain by Network Dissection: names, and where the first neuron exceeds its threshold.

    Parameters
    ----------
    prediction, names
        As for `explain_names`.
    threshold : Tensor, shape (N,)
        `Dissection.threshold`.
    """
    first, own = prediction.neurons[0], explain_names("Network Dissection", prediction, names)
    a = prediction.resized(prediction.found.activations.maps[:, first])
    return own._replace(where=a > threshold[first])


def explain_grad_cam(target: Target, prediction: Prediction) -> LocalExplanation:
    """Explain by Grad-CAM: where, and nothing else."""
    m = grad_cam.grad_cam(target, prediction.x, prediction.layer)
    return LocalExplanation("Grad-CAM", where=prediction.resized(m))


def explain_craft(
    target: Target,
    prediction: Prediction,
    images: ImageSet,
    layer: str | None = None,
    name: str | None = None,
    **options: object,
) -> LocalExplanation:
    """Explain by CRAFT: four crops of the first concept, its heatmap, and three Sobol indices.

    CRAFT factorises the predicted class, with the image itself where it is among the others; the
    explanation states from how many images, and whether it is.

    Parameters
    ----------
    target : Target
    prediction : Prediction
    images : ImageSet
        Labelled; those of the predicted class are used.
    layer : str, optional
        One without negative values; by default that of the prediction.
    name : str, optional
        The image's name, where it is one of `images`.
    **options
        See `craft.craft`.
    """
    own = images_of_class(target, prediction, images)
    if own is None:
        return LocalExplanation("CRAFT", ("none: there is no image of this class",))
    try:
        found = craft.craft(target, layer or prediction.layer, own, prediction.cls, **options)
    except craft.CraftError as error:  # of transformers, where all layers have negative values
        return LocalExplanation("CRAFT", (f"none: {error}",))
    patches = found.patches[0][:4]
    boxes = [tuple(box) for _, *box in patches]
    crops = falcon.crop_to_boxes(target, own, [i for i, *_ in patches], boxes)
    total = found.importance.tolist()
    what = f"concept 1 of {len(total)}, from {_source(found, own, name)}; crops, no name"
    why = (f"concept {j}: Sobol index {one:.2f}" for j, one in enumerate(total[:3], start=1))
    where = prediction.resized(found.heatmap(target, prediction.x))
    pictures = tuple(crops.image(i) for i in range(len(crops)))
    return LocalExplanation("CRAFT", (what,), where, tuple(why), pictures)


def _source(found: craft.Craft, images: ImageSet, name: str | None) -> str:
    count = len(found.images)
    if name not in (images.names[i] for i in found.images):
        return f"{count} other image{'s' * (count > 1)} of the class"
    return f"{count} images of the class with this one" if count > 1 else "this image alone"


def images_of_class(
    target: Target, prediction: Prediction, images: ImageSet, without: str | None = None
) -> ImageSet | None:
    """Return the images labelled as the predicted class, without one name; None if there are none.

    An image that contributes to its own class mean agrees with it for that reason alone.
    """
    images = atlas.match_labels(images, target)
    own = [i for i, label in enumerate(images.labels) if label == prediction.cls]
    own = [i for i in own if images.names[i] != without]
    return subset(images, own) if own else None
