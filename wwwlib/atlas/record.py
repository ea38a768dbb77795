"""What an atlas is made of, and what it answers: plain frozen records that compute nothing.

A `LayerRecord` says what is known of a layer before any image is shown; `Explanation`, with its two
tracks of named neurons, is what it has to say about one image (WWW, Figure 2). Names of concepts,
classes and images are foreign strings: whoever puts them on a page escapes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from wwwlib.atlas.sentence import as_dict, as_sentence
from wwwlib.concepts import STABLE, ConceptTable
from wwwlib.exemplars import Exemplars


@dataclass(frozen=True, eq=False)
class Neuron:
    """A neuron of one explanation: what it sees, where it looked, and how much it carried.

    Attributes
    ----------
    index : int
        Its number in the layer.
    names, minor : tuple of str
        Major and minor concepts, best first; empty where it abstains.
    contribution : float
        Its share of the summed absolute contributions of all neurons of the layer, in [0, 1]; in
        [-1, 1] where the atlas keeps signs.
    exemplars, minor_exemplars : tuple of int
        Indices of the probe images, and of their crops, that excite it most, best first.
    region : Tensor of bool, shape (H, W)
        The concept region in the image (WWW, section 3.3).
    map : Tensor, shape (H, W)
        Its activation map in the image, clamped at zero from below.
    stability : float or None
        Share of bootstrap probe sets on which it keeps its top concept; None if nobody asked.
    """

    index: int
    names: tuple[str, ...]
    minor: tuple[str, ...]
    contribution: float
    exemplars: tuple[int, ...]
    minor_exemplars: tuple[int, ...]
    region: Tensor
    map: Tensor
    stability: float | None = None

    @property
    def sure(self) -> bool:
        """Whether its name would more likely than not survive another probe set."""
        return self.stability is None or self.stability >= STABLE


@dataclass(frozen=True, eq=False)
class Track:
    """One side of Figure 2: the neurons that matter to this image, or to its class in general.

    Attributes
    ----------
    kind : {"sample", "class"}
    class_index, class_name : int, str
        The class whose evidence this is.
    probability : float
        Its softmax probability for this image.
    neurons : tuple of Neuron
        The most important first; empty in a class track of a class that has no images.
    heatmap : Tensor, shape (H, W)
        The weighted sum of the neurons' maps (WWW, Eq. 4); zeros where there are none.
    """

    kind: str
    class_index: int
    class_name: str
    probability: float
    neurons: tuple[Neuron, ...]
    heatmap: Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """What, where and why for one image (WWW, Figure 2).

    Attributes
    ----------
    image : PIL.Image.Image
        RGB, W x H pixels, as the network saw it: resized and cropped.
    label : str or None
        The name of the true class, if it is known.
    predicted : int
        Index of the predicted class.
    predicted_name : str
        Its name.
    probability : float
        Its softmax probability.
    layer : str
        The layer that was explained.
    sample : Track
        The neurons that carried this prediction.
    cls : Track
        The neurons that carry the class in general, drawn with this image's maps.
    r : float
        Cosine of the two heatmaps; low values mean doubt, nan that there is nothing to compare.
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

    def to_dict(self) -> dict:
        """Return JSON values: regions as boxes, area shares and position words, not as pixels."""
        return as_dict(self)

    def to_sentence(self) -> str:
        """Return the explanation in words, as plain text with names between asterisks."""
        return as_sentence(self)


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """What is known of the N neurons of one layer.

    Attributes
    ----------
    name : str
        The layer; the final one is "logits".
    major, minor : ConceptTable
        Names from whole probe images, and from their crops.
    v, minor_v : Tensor of float32, shape (N, D)
        Mean image features of the exemplars, from which `concepts.score` names them again.
    exemplars, minor_exemplars : Exemplars
        The images, and the crops, that excite each neuron most. Their class sums are left out
        (no rows): they have become `class_w`.
    class_w : Tensor of float64, shape (C, N)
        Class contributions: the mean of w over the images of each class; nan without images.
    head : Tensor, shape (C, N), or None
        Weights of the linear layer, where only pooling and that follow: contributions are exact
        there, and need no backward pass.
    stability : Tensor of float64, shape (N,), or None
        Share of bootstrap probe sets on which each neuron keeps its top concept.
    """

    name: str
    major: ConceptTable
    minor: ConceptTable
    v: Tensor
    minor_v: Tensor
    exemplars: Exemplars
    minor_exemplars: Exemplars
    class_w: Tensor
    head: Tensor | None
    stability: Tensor | None = None

    @property
    def exact(self) -> bool:
        """Whether contributions are exact here; elsewhere they are of first order."""
        return self.head is not None

    def __len__(self) -> int:
        return len(self.major)


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Small pictures of exemplars, by image index.

    Attributes
    ----------
    index : Tensor of int64, shape (U,)
        Image indices, ascending.
    pixels : Tensor of uint8, shape (U, S, S, 3)
        Their middle squares in RGB.
    """

    index: Tensor
    pixels: Tensor

    def __getitem__(self, i: int) -> Image.Image:
        """Return the picture of image `i`; a KeyError says that none was kept."""
        place = (self.index == i).nonzero()
        if not len(place):
            raise KeyError(f"There is no thumbnail of image {i}: it is among no neuron's best.")
        return Image.fromarray(self.pixels[place[0, 0]].numpy())

    def __contains__(self, i: object) -> bool:
        return bool((self.index == i).any())

    def __iter__(self) -> Iterator[int]:
        return iter(self.index.tolist())

    def __len__(self) -> int:
        return len(self.index)
