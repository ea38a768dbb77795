"""State of the explorer, without widgets: choices as attributes, results as methods.

The network runs once for each image and layer; another class, alpha, number of neurons or
percentile is computed from its output.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from PIL import Image, ImageStat
from torch import Tensor

from wwwlib import world
from wwwlib.atlas import Atlas, Explanation, LayerRecord, Track
from wwwlib.atlas.explain import ModelOutput, make_explanation, run_model
from wwwlib.concepts import ConceptTable, discover, score
from wwwlib.images import ImageSet, decode
from wwwlib.images.image_set import Box, box_pixels
from wwwlib.language import Encoder
from wwwlib.studies.datasets import class_name

CACHE_SIZE = 64  # outputs of the network that are kept


@dataclass(frozen=True)
class Change:
    """A change to a picture, all but `box` for scenes of the concept world; None changes nothing.

    Attributes
    ----------
    scene, finish : str or None
        Another background scene, another texture or material of the object.
    missing : tuple of str
        Parts of the object to remove.
    thing : bool
        Whether the distractor stays.
    box : (left, top, right, bottom) or None
        What is covered by the picture's mean colour, in fractions of its sides.
    """

    scene: str | None = None
    finish: str | None = None
    missing: tuple[str, ...] = ()
    thing: bool = True
    box: Box | None = None

    def __bool__(self) -> bool:
        return self != Change()

    def of(self, scene: world.Scene) -> world.Scene:
        """Return a scene with this change."""
        return replace(
            scene,
            scene=self.scene or scene.scene,
            finish=self.finish or scene.finish,
            missing=tuple(sorted({*scene.missing, *self.missing})),
            thing=scene.thing if self.thing else None,
        )

    def cover(self, image: Image.Image) -> Image.Image:
        """Return an image with the box covered."""
        if self.box is None:
            return image
        covered, mean = image.copy(), ImageStat.Stat(image).mean
        covered.paste(tuple(map(round, mean)), box_pixels(self.box, *image.size))
        return covered


@dataclass(frozen=True, eq=False)
class Pictures:
    """A set of images to choose from, with a function from index to scene if it can be changed."""

    images: ImageSet
    scene: Callable[[int], world.Scene] | None = None


@dataclass(frozen=True, eq=False)
class NeuronPage:
    """Names, scores, classes and exemplars of one neuron.

    Attributes
    ----------
    record : LayerRecord
        Of its layer, with its exemplars, the stability of its first name, and tests.
    index : int
    names, minor : list of (str, float)
        Major concepts at the chosen alpha, and minor ones at that of the atlas, with scores.
    scores : Tensor, shape (M,)
        Scores of all concepts.
    threshold : float
        Lowest selected score; nan if the neuron abstains, or has a name that was given.
    classes : list of (str, float)
        The classes to which it contributes most, with its share of their contributions.
    """

    record: LayerRecord
    index: int
    names: list[tuple[str, float]]
    minor: list[tuple[str, float]]
    scores: Tensor
    threshold: float
    classes: list[tuple[str, float]]


@dataclass(frozen=True)
class Match:
    """A neuron found by `Model.search`.

    Attributes
    ----------
    layer, index : str, int
        Layer and index of the neuron.
    score : float
        Score of the word, in [-2, 2] (WWW, Eq. 1).
    share : float
        Score divided by that of the neuron's best concept; above 1 the word fits better.
    names : tuple of str
        Major concepts of the neuron.
    """

    layer: str
    index: int
    score: float
    share: float
    names: tuple[str, ...]


@dataclass(eq=False)
class Model:
    """State of the explorer.

    Attributes
    ----------
    books : dict of str to Atlas
        The networks to choose from.
    pictures : dict of str to Pictures
        The sets of images to choose from.
    encoder : Encoder or None
        The encoder that the atlases were built with, needed by `search`.
    network, layer, source, index, upload, change, cls, instead, top, percentile, alpha
        The current choices.
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
    instead: int | None = None
    top: int = 3
    percentile: float = 90.0
    alpha: float = 0.95

    def __post_init__(self) -> None:
        if not self.books or not self.pictures:
            raise ValueError("The explorer needs an atlas and a set of images; give one of each.")
        self.source = self.source or next(iter(self.pictures))
        self._run = lru_cache(maxsize=CACHE_SIZE)(self._run)
        self.choose_network(self.network or next(iter(self.books)))

    def choose_network(self, name: str) -> None:
        """Choose a network; reset the layer and the class if it does not have them."""
        self.network = name
        if self.layer not in self.book.layers:
            self.layer = self.book.layer().name
        for side in ("cls", "instead"):
            if (getattr(self, side) or 0) >= len(self.book.classes):
                setattr(self, side, None)

    def choose_image(self, source: str, index: int) -> None:
        """Choose an image of a set and reset the change."""
        images = self.pictures[source].images
        if not 0 <= index < len(images):
            raise ValueError(f"Picture {index} does not exist; {source} has {len(images)}, from 0.")
        self.source, self.index = source, index
        self.upload, self.change = None, Change()

    def choose_upload(self, data: bytes) -> None:
        """Choose an uploaded image, after the checks of `images.decode`.

        Raises
        ------
        ValueError
            If it cannot be used; the previous choice is kept.
        """
        self.upload, self.change = decode(data), Change()
        self.uploads += 1

    @property
    def book(self) -> Atlas:
        """The atlas of the chosen network."""
        return self.books[self.network]

    @property
    def record(self) -> LayerRecord:
        """The record of the chosen layer."""
        return self.book.layer(self.layer)

    @property
    def scene(self) -> world.Scene | None:
        """The unchanged scene of the chosen picture, if it is one of the concept world."""
        described = self.pictures[self.source].scene
        return None if self.upload or described is None else described(self.index)

    @property
    def label(self) -> str | None:
        """The true class, if it is known and one of the network's classes."""
        images = self.pictures[self.source].images
        name = None if self.upload else class_name(images, self.index, self.book.classes)
        return name if name in self.book.classes else None

    def image(self, change: Change | None = None) -> Image.Image:
        """Return the chosen picture, with the chosen change or a given one."""
        change = self.change if change is None else change
        if change and self.scene:
            image = world.render_image(change.of(self.scene))
        else:
            image = self.upload or self.pictures[self.source].images.image(self.index)
        return change.cover(image)

    def output(self, change: Change | None = None) -> ModelOutput:
        """Return the output of the network for the picture, from the cache if it has run before."""
        change = self.change if change is None else change
        which = (self.uploads if self.upload else 0, self.source, self.index, change)
        return self._run(self.network, self.layer, which, self.instead)

    def _run(self, network: str, layer: str, which: tuple, instead: int | None) -> ModelOutput:
        book, record = self.book, self.record
        kind, image = book.where(record.name), self.image(which[-1])
        return run_model(book.target, record, image, book.signed, kind, instead)

    def explanation(self, change: Change | None = None) -> Explanation:
        """Return the explanation for all current choices, or for another change of the picture."""
        if self.cls is not None:
            self.book.class_with_images(self.cls)
        chosen = (self.top, self.cls, self.label, self.percentile, self.book)
        found = make_explanation(self.output(change), self.record, *chosen)
        return replace(found, sample=self._named(found.sample), cls=self._named(found.cls))

    def page(self, index: int) -> NeuronPage:
        """Return the page of a neuron of the chosen layer.

        Raises
        ------
        ValueError
            If the neuron does not exist.
        """
        record, book = self.record, self.book
        if not 0 <= index < len(record):
            raise ValueError(f"{self.layer} has neurons 0 to {len(record) - 1}, and no {index}.")
        table = self._names([index])
        weight = (record.class_w[:, index] / record.class_w.abs().sum(1)).nan_to_num(0.0)
        best = weight.argsort(descending=True, stable=True)[:5].tolist()
        return NeuronPage(
            record=record,
            index=index,
            names=list(zip(table.names[0], table.scores[0], strict=True)),
            minor=[]
            if record.minor.supported(index) is False
            else list(zip(record.minor.names[index], record.minor.scores[index], strict=True)),
            scores=score(record.v[index : index + 1], book.t, book.t0)[0],
            threshold=float("nan") if table.abstained[0] else table.threshold[0].item(),
            classes=[(book.classes[c], weight[c].item()) for c in best if weight[c] > 0],
        )

    def search(self, word: str, top: int = 8) -> list[Match]:
        """Find the neurons that a word fits best, over all layers.

        The word need not be in the concept set: it is embedded in the template and scored like the
        concepts (WWW, Eq. 1).

        Returns
        -------
        list of Match
            At most `top`, best score first, without neurons that abstain and scores that are not
            positive.

        Raises
        ------
        ValueError
            If the word is empty, or the encoder missing or not that of the atlas.
        """
        book, encoder, word = self.book, self.encoder, " ".join(word.split())
        if encoder is None:
            raise ValueError("The explorer has no encoder to search with; give it one.")
        if not word:
            raise ValueError("The word is empty; give one, such as a colour or a part.")
        template = book.settings["words"]["template"]
        sentences = [template.replace("{}", word), template.replace("{}", "").strip()]
        if own := encoder.name == book.settings["encoder"]:
            t = encoder.encode_texts(sentences).float().cpu()
            own = t.shape[1:] == book.t0.shape and (t[1] - book.t0).abs().max() < 0.01
        if not own:
            raise ValueError(
                f"The atlas was built with {book.settings['encoder']}, but the encoder is "
                f"{encoder.name}, or gives other features; give the one that it was built with."
            )
        found = []
        for name, layer in book.layers.items():
            for i, s in enumerate(score(layer.v, t[:1], book.t0)[:, 0].tolist()):
                best = layer.major.scores[i][:1]
                if best and min(s, *best) > 0:
                    found.append(Match(name, i, s, s / best[0], tuple(layer.major.names[i])))
        return sorted(found, key=lambda one: -one.score)[:top]

    def _names(self, indices: list[int]) -> ConceptTable:
        v, book, own = self.record.v[indices], self.book, self.record.major
        if self.record.given:
            names, scores = ([column[i] for i in indices] for column in (own.names, own.scores))
            return ConceptTable(names, scores, own.threshold[indices], own.abstained[indices])
        return discover(v, book.t, book.t0, book.words, self.alpha)

    def _named(self, track: Track) -> Track:
        """Return a track with the names that are selected at the chosen alpha."""
        if not track.neurons:
            return track
        names = self._names([neuron.index for neuron in track.neurons]).names
        pairs = zip(track.neurons, names, strict=True)
        return replace(track, neurons=tuple(replace(n, names=tuple(own)) for n, own in pairs))
