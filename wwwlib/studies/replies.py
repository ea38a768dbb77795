"""One image, three questions, every method: what was seen, where it was, and why it decided.

After WWW, Table 1, but with the answers themselves instead of ticks. A method that has no answer to
a question leaves it out, which is drawn as such. All are asked about the neurons of one layer that
carried the prediction, so that their answers can be compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from wwwlib import maps
from wwwlib.atlas.classes import by_gradient, class_name, in_classes_of
from wwwlib.atlas.explain import as_seen
from wwwlib.baselines.craft import Craft, CraftError, craft
from wwwlib.baselines.falcon import crop_to_boxes
from wwwlib.baselines.grad_cam import grad_cam
from wwwlib.contributions import Contributions, contribute
from wwwlib.images import ImageSet, subset
from wwwlib.store import Store
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class Reply:
    """What one method says about one image; what it does not say is None.

    Attributes
    ----------
    method : str
    what : tuple of str, or None
        Names of what was seen, a line a neuron.
    where : Tensor or None
        (H, W), a heatmap of non-negative floats, or a bool region.
    why : tuple of str, or None
        What carried the decision, and how much, a line each.
    pictures : tuple of PIL image
        What stands for names where a method has none.
    ran : bool
        Whether anybody asked it.
    """

    method: str
    what: tuple[str, ...] | None = None
    where: Tensor | None = None
    why: tuple[str, ...] | None = None
    pictures: tuple[Image.Image, ...] = ()
    ran: bool = True


@dataclass(frozen=True, eq=False)
class Asked:
    """The image that all are asked about.

    Attributes
    ----------
    image : PIL image
        As the network saw it, W x H pixels.
    x : Tensor, shape (1, 3, H, W)
        The same for the network.
    layer : str
    found : Contributions
        Of the layer to the predicted class.
    neurons : tuple of int
        Those that carried the prediction most.
    title : str
        What was predicted, and whether it is right.
    about : str
        What all are asked about, in words.
    """

    image: Image.Image
    x: Tensor
    layer: str
    found: Contributions
    neurons: tuple[int, ...]
    title: str
    about: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.height, self.image.width


def ask(
    target: Target, image: Image.Image, layer: str, top: int = 3, truth: str | None = None
) -> Asked:
    """Let a network look at an image, and find the neurons that carry its prediction.

    Parameters
    ----------
    target : Target
    image : PIL image
        As the network is to see it; it is preprocessed as every image is.
    layer : str
        A layer with maps or patch tokens.
    top : int
        How many neurons; all methods are asked about the same ones.
    truth : str, optional
        The image's true class.
    """
    x = target.preprocess(image).unsqueeze(0).to(target.device)
    found = contribute(target, x, layer)
    neurons = tuple(found.w[0].argsort(descending=True)[:top].tolist())
    guess, sure = int(found.classes[0]), found.logits[0].softmax(0).max()
    name = target.classes[guess]
    ending = "" if truth is None else ", rightly" if truth == name else f"; it is {truth}"
    shown = as_seen(target, image, x[0].cpu())
    told = ", ".join(map(str, neurons))
    about = f"the neurons of {layer} that carried it most are {told}; methods name those"
    title = f"predicted: {name}, {sure:.0%}{ending}"
    return Asked(shown, x, layer, found, neurons, title, about)


def ask_of(target: Target, images: ImageSet, i: int, layer: str, top: int = 3) -> Asked:
    """Ask about image i of a set, with its label for the truth; see `ask`."""
    return ask(target, images.image(i), layer, top, class_name(images, i, target.classes))


def www(asked: Asked, names: Sequence[Sequence[str]], class_w: Tensor | None = None) -> Reply:
    """Answer as WWW does: named neurons, their heatmap, and their shares.

    Parameters
    ----------
    asked : Asked
    names : list of list of str
        The names of the layer's N neurons.
    class_w : Tensor, optional
        (N,) contributions to the predicted class in general: adds how far image and class agree.
    """
    w, a, top = asked.found.w, asked.found.activations.maps, len(asked.neurons)
    heat = maps.heatmap(a, w, top, asked.size)
    shares = (w[0, list(asked.neurons)] / w[0].sum()).tolist()
    why = [f"neuron {n} carries {own:.0%}" for n, own in zip(asked.neurons, shares, strict=True)]
    if class_w is None:
        why += ["its class in general: not known"]
    else:
        usual = class_w.to(w)[None]
        r = maps.similarity(heat, maps.heatmap(a, usual, top, asked.size)).item()
        usually = ", ".join(map(str, usual[0].argsort(descending=True)[:top].tolist()))
        why += [f"its class in general: {usually}", f"its heatmap and this one: r = {r:.2f}"]
    return replace(named("WWW", asked, names), where=heat[0].cpu(), why=tuple(why))


def named(method: str, asked: Asked, names: Sequence[Sequence[str]] | None) -> Reply:
    """Answer with names alone, those of the neurons asked about; None was not run."""
    if names is None:
        return Reply(method, ran=False)
    said = (f"{n}: {', '.join(names[n]) or 'no concept'}" for n in asked.neurons)
    return Reply(method, tuple(said))


def dissected(asked: Asked, names: Sequence[Sequence[str]], threshold: Tensor) -> Reply:
    """Answer as Network Dissection does: names, and where the first neuron exceeds its threshold.

    Parameters
    ----------
    asked, names
        As for `named`.
    threshold : Tensor, shape (N,)
        `Dissection.threshold`.
    """
    first = asked.neurons[0]
    a = maps.resize(asked.found.activations.maps[:, [first]], asked.size)[0, 0].cpu()
    return replace(named("Network Dissection", asked, names), where=a > threshold[first])


def cam(target: Target, asked: Asked) -> Reply:
    """Answer as Grad-CAM does: where, and nothing else."""
    m = grad_cam(target, asked.x, asked.layer)
    return Reply("Grad-CAM", where=maps.resize(m[:, None], asked.size)[0, 0].detach().cpu())


def taken_apart(
    target: Target,
    asked: Asked,
    images: ImageSet,
    layer: str | None = None,
    name: str | None = None,
    top: int = 3,
    shown: int = 4,
    **options: object,
) -> Reply:
    """Answer as CRAFT does: concepts shown by crops, where they are, and Sobol total indices.

    CRAFT takes the class apart, the image asked about among the others if it is one of them; the
    answer says of how many images its concepts come, and whether that is so.

    Parameters
    ----------
    target : Target
    asked : Asked
    images : ImageSet
        Labelled; those of the predicted class are taken apart.
    layer : str, optional
        One without negative values; the layer asked about by default.
    name : str, optional
        What the image asked about is called where it is one of `images`.
    top : int
        How many concepts to tell of.
    shown : int
        How many crops of the first one to show; CRAFT has no names.
    **options
        See `craft.craft`.
    """
    own = of_class(target, asked, images)
    if own is None:
        return Reply("CRAFT", ("nothing: there is no image of this class to take apart",))
    try:
        found = craft(target, layer or asked.layer, own, int(asked.found.classes[0]), **options)
    except CraftError as error:  # a transformer, say, has no layer without negative values
        return Reply("CRAFT", (f"nothing: {error}",))
    patches = found.patches[0][:shown]
    boxes = [tuple(box) for _, *box in patches]
    crops = crop_to_boxes(target, own, [i for i, *_ in patches], boxes)
    total = found.importance.tolist()
    return Reply(
        "CRAFT",
        (f"concept 1 of {len(total)}, from {_source(found, own, name)}: no name, but crops",),
        maps.resize(found.heatmap(target, asked.x)[:, None], asked.size)[0, 0].cpu(),
        tuple(f"concept {j}: Sobol index {one:.2f}" for j, one in enumerate(total[:top], start=1)),
        tuple(crops.image(i) for i in range(len(crops))),
    )


def _source(found: Craft, images: ImageSet, name: str | None) -> str:
    """Tell of which images a class's concepts come."""
    count = len(found.images)
    if name not in (images.names[i] for i in found.images):
        return f"{count} other image{'s' * (count > 1)} of the class"
    return f"{count} images of the class with this one" if count > 1 else "this image alone"


def of_class(target: Target, asked: Asked, images: ImageSet) -> ImageSet | None:
    """Return the images that are labelled as the predicted class, if there are any."""
    images = in_classes_of(images, target)
    c = int(asked.found.classes[0])
    own = [i for i, label in enumerate(images.labels) if label == c]
    return subset(images, own) if own else None


def in_general(
    target: Target,
    asked: Asked,
    images: ImageSet,
    apart: str | None = None,
    store: Store | None = None,
) -> Tensor | None:
    """Return the contributions (N,) of the layer to the predicted class, over its images.

    The image of the name `apart` is left out: seen on both sides, it would agree with itself.
    None if no image is left.
    """
    own = of_class(target, asked, images)
    kept = [] if own is None else [i for i, name in enumerate(own.names) if name != apart]
    if not kept:
        return None
    w, _ = by_gradient(target, subset(own, kept), [asked.layer], store=store, progress=False)
    return w[asked.layer][int(asked.found.classes[0])]
