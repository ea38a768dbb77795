"""What the explorer knows, without a widget: choices in, records out, nothing worked out twice.

A choice is an attribute; an answer is a method. The network is run once for each image and layer;
another class, alpha, number of neurons or percentile is told from what it answered then.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from PIL import Image
from torch import Tensor

from wwwlib import world
from wwwlib.atlas import (
    Atlas,
    Explanation,
    Found,
    LayerRecord,
    Look,
    Neuron,
    Track,
    find,
    look,
    tell,
)
from wwwlib.atlas.classes import class_name
from wwwlib.concepts import discover, score
from wwwlib.images import ImageSet, decode
from wwwlib.language import Encoder

KEPT = 64  # looks at images that are remembered


@dataclass(frozen=True)
class Change:
    """What is taken away from a picture of the world, or painted anew; None leaves a thing as is.

    Attributes
    ----------
    scene, finish : str or None
        Another scene behind the object, another texture or material on it.
    missing : tuple of str
        Parts of the object that are left out.
    thing : bool
        Whether the distractor stays.
    """

    scene: str | None = None
    finish: str | None = None
    missing: tuple[str, ...] = ()
    thing: bool = True

    def __bool__(self) -> bool:
        return self != Change()

    def of(self, scene: world.Scene) -> world.Scene:
        """Return the description of a scene with this change."""
        return replace(
            scene,
            scene=self.scene or scene.scene,
            finish=self.finish or scene.finish,
            missing=tuple(sorted({*scene.missing, *self.missing})),
            thing=scene.thing if self.thing else None,
        )


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to choose from; those of the world can be changed."""

    images: ImageSet
    scene: Callable[[int], world.Scene] | None = None


@dataclass(frozen=True, eq=False)
class NeuronPage:
    """All that is known of one neuron before any image is shown.

    Attributes
    ----------
    layer : str
    index : int
    names, minor : list of (str, float)
        Concepts with their scores, best first, at the chosen alpha and at the atlas's own.
    scores : Tensor, shape (M,)
        The scores of all concepts.
    threshold : float
        From which on a concept is kept; nan where the neuron abstains.
    classes : list of (str, float)
        The classes that rely on it most, with its share of all neurons' contributions there.
    exemplars, minor_exemplars : list of int
        Indices of its best images, and of its best crops.
    stability : float or None
        Share of bootstrap probe sets that give it the same name.
    """

    layer: str
    index: int
    names: list[tuple[str, float]]
    minor: list[tuple[str, float]]
    scores: Tensor
    threshold: float
    classes: list[tuple[str, float]]
    exemplars: list[int]
    minor_exemplars: list[int]
    stability: float | None


@dataclass(eq=False)
class Model:
    """The state of the explorer.

    Attributes
    ----------
    books : dict of str to Atlas
        The networks to choose from.
    pictures : dict of str to Pictures
        The sets of images to choose from.
    encoder : Encoder or None
        The one that the atlases were named with; without it no word can be looked for.
    """

    books: Mapping[str, Atlas]
    pictures: Mapping[str, Pictures]
    encoder: Encoder | None = None
    network: str = ""
    layer: str = ""
    source: str = ""
    index: int = 0
    upload: Image.Image | None = None
    uploads: int = 0
    change: Change = field(default_factory=Change)
    cls: int | None = None
    top: int = 3
    percentile: float = 90.0
    alpha: float = 0.95

    def __post_init__(self) -> None:
        if not self.books or not self.pictures:
            raise ValueError("The explorer needs an atlas and a set of images; give one of each.")
        self.source = self.source or next(iter(self.pictures))
        self._look = lru_cache(maxsize=KEPT)(self._look)
        self.choose_network(self.network or next(iter(self.books)))

    # Choices ------------------------------------------------------------------------------

    def choose_network(self, name: str) -> None:
        """Take another network; a layer that it has not, and a class, are given up."""
        self.network = name
        if self.layer not in self.book.layers:
            self.layer = self.book.layer().name
        if self.cls is not None and self.cls >= len(self.book.classes):
            self.cls = None

    def choose_image(self, source: str, index: int) -> None:
        """Take an image of a set; changes of the last one are given up."""
        images = self.pictures[source].images
        if not 0 <= index < len(images):
            raise ValueError(f"Picture {index} does not exist; {source} has {len(images)}, from 0.")
        self.source, self.index = source, index
        self.upload, self.change = None, Change()

    def choose_upload(self, data: bytes) -> None:
        """Take somebody's own picture, after the checks that every probe image passes.

        Raises
        ------
        ValueError
            If it cannot be used; the picture before it stays.
        """
        self.upload, self.change = decode(data), Change()
        self.uploads += 1

    # Answers ------------------------------------------------------------------------------

    @property
    def book(self) -> Atlas:
        """The atlas of the chosen network."""
        return self.books[self.network]

    @property
    def record(self) -> LayerRecord:
        """What is known of the chosen layer."""
        return self.book.layer(self.layer)

    @property
    def scene(self) -> world.Scene | None:
        """The description of the chosen picture as it was, if it is one of the world."""
        described = self.pictures[self.source].scene
        return None if self.upload or described is None else described(self.index)

    @property
    def label(self) -> str | None:
        """The true class, where it is known by a name that the network knows."""
        images = self.pictures[self.source].images
        name = None if self.upload else class_name(images, self.index, self.book.classes)
        return name if name in self.book.classes else None

    def image(self, change: Change | None = None) -> Image.Image:
        """Return the chosen picture, with the chosen change or another one."""
        change = self.change if change is None else change
        if self.upload:
            return self.upload
        if change and self.scene:
            return world.render_image(change.of(self.scene))
        return self.pictures[self.source].images.image(self.index)

    def look(self, change: Change | None = None) -> Look:
        """Return what the network answers to the picture; it is asked once."""
        change = self.change if change is None else change
        which = self.uploads if self.upload else (self.source, self.index, change)
        return self._look(self.network, self.layer, which)

    def _look(self, network: str, layer: str, which: object) -> Look:
        change = None if self.upload else which[2]
        return look(self.book.target, self.record, self.image(change), self.book.signed)

    def explanation(self) -> Explanation:
        """Return the explanation under all choices."""
        if self.cls is not None and not self.book.class_count[self.cls]:
            raise ValueError(
                f"Nothing is known of the class {self.book.classes[self.cls]!r} in general; "
                "choose a class of which the probe set has images."
            )
        chosen = (self.top, self.cls, self.label, self.percentile)
        told = tell(self.look(), self.record, *chosen)
        return replace(told, sample=self._named(told.sample), cls=self._named(told.cls))

    def before(self) -> Look:
        """Return what the network answered before the picture was changed."""
        return self.look(Change())

    def page(self, index: int) -> NeuronPage:
        """Return what is known of a neuron of the chosen layer.

        Raises
        ------
        ValueError
            If there is no such neuron.
        """
        record, book = self.record, self.book
        if not 0 <= index < len(record):
            raise ValueError(f"{self.layer} has neurons 0 to {len(record) - 1}, and no {index}.")
        s = score(record.v[index : index + 1], book.t, book.t0)[0]
        table = self._names([index])
        weight = (record.class_w[:, index] / record.class_w.abs().sum(1)).nan_to_num(0.0)
        best = weight.argsort(descending=True, stable=True)[:5].tolist()
        return NeuronPage(
            layer=self.layer,
            index=index,
            names=list(zip(table.names[0], table.scores[0], strict=True)),
            minor=list(zip(record.minor.names[index], record.minor.scores[index], strict=True)),
            scores=s,
            threshold=float("nan") if table.abstained[0] else table.threshold[0].item(),
            classes=[(book.classes[c], weight[c].item()) for c in best if weight[c] > 0],
            exemplars=[i for i in record.exemplars.index[index].tolist() if i >= 0],
            minor_exemplars=[i for i in record.minor_exemplars.index[index].tolist() if i >= 0],
            stability=None if record.stability is None else record.stability[index].item(),
        )

    def search(self, word: str) -> list[Found]:
        """Return the neurons that stand for a word, see `atlas.find`."""
        if self.encoder is None:
            raise ValueError("No encoder is at hand, so no word can be looked for; give one.")
        return find(self.book, word, self.encoder)

    def _names(self, indices: list[int]):
        return discover(
            self.record.v[indices], self.book.t, self.book.t0, self.book.words, self.alpha
        )

    def _named(self, track: Track) -> Track:
        """Return a track whose neurons have the names that the chosen alpha lets through."""
        if not track.neurons:
            return track
        names = self._names([neuron.index for neuron in track.neurons]).names
        pairs: list[tuple[Neuron, list[str]]] = list(zip(track.neurons, names, strict=True))
        return replace(track, neurons=tuple(replace(n, names=tuple(own)) for n, own in pairs))
