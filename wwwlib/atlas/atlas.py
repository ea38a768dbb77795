"""The atlas of one network: everything about it that does not depend on the image to explain."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from PIL import Image
from torch import Tensor

from wwwlib.atlas import files
from wwwlib.atlas.explain import explain
from wwwlib.atlas.record import Explanation, LayerRecord, Thumbnails
from wwwlib.targets import Target
from wwwlib.targets.target import nearest


@dataclass(frozen=True, eq=False, repr=False)
class Atlas:
    """What `build` found out about a network, ready to explain any image.

    Attributes
    ----------
    target : Target
        The network.
    layers : dict of str to LayerRecord
        What its neurons see and which classes they carry, by layer.
    class_count : Tensor of int64, shape (C,)
        Images of each class behind the class contributions; 0: nothing is known of that class.
    words : tuple of str
        The M concepts.
    t, t0 : Tensor of float32, shapes (M, D) and (D,)
        Their text features, and the bare template's: with a layer's `v`, `concepts.discover` names
        its neurons again, for instance with another alpha.
    thumbnails, minor_thumbnails : Thumbnails
        Pictures of the best exemplars, and of the best crops.
    settings : dict
        JSON values: how it was built: probe set, labels, words, k, alpha, signed, versions.
    """

    target: Target
    layers: Mapping[str, LayerRecord]
    class_count: Tensor
    words: tuple[str, ...]
    t: Tensor
    t0: Tensor
    thumbnails: Thumbnails
    minor_thumbnails: Thumbnails
    settings: dict

    def __repr__(self) -> str:
        return f"Atlas({self.target.name!r}: {', '.join(self.layers)}; {len(self.words)} concepts)"

    @property
    def classes(self) -> tuple[str, ...]:
        """The C class names."""
        return self.target.classes

    @property
    def labelled(self) -> str:
        """What told the class of each labelled image: "labels", "predictions" or "mixed"."""
        return self.settings["labelled"]

    @property
    def signed(self) -> bool:
        """Whether contributions keep their sign."""
        return self.settings["signed"]

    def layer(self, name: str | None = None) -> LayerRecord:
        """Return what is known of a layer, by default the last one that is not "logits".

        Raises
        ------
        ValueError
            If the atlas does not hold it; the sentence names those that it holds.
        """
        if name is None:
            hidden = [one for one in self.layers if one != "logits"]
            return self.layers[hidden[-1] if hidden else "logits"]
        if name not in self.layers:
            raise ValueError(
                f"The atlas of {self.target.name} has no layer {name!r}; it was built for "
                f"{', '.join(map(repr, self.layers))}, so choose one of them or build it again."
            )
        return self.layers[name]

    def class_index(self, cls: int | str) -> int:
        """Return the index of a class given by name or index.

        Raises
        ------
        ValueError
            If there is no such class (the nearest names are given), or two of that name.
        """
        if isinstance(cls, str):
            return self._named(cls)
        if not 0 <= cls < len(self.classes):
            raise ValueError(
                f"Class {cls} does not exist; {self.target.name} has {len(self.classes)}, from 0."
            )
        return int(cls)

    def _named(self, name: str) -> int:
        places = [i for i, one in enumerate(self.classes) if one == name]
        if not places:
            raise ValueError(
                f"{self.target.name} has no class {name!r}; the nearest are "
                f"{nearest(name, self.classes)}."
            )
        if len(places) > 1:
            raise ValueError(f"The classes {places} are all called {name!r}; give one index.")
        return places[0]

    def explain(
        self,
        image: Image.Image | str | Path | bytes,
        layer: str | None = None,
        top: int = 5,
        cls: int | str | None = None,
        label: int | str | None = None,
        percentile: float = 90.0,
    ) -> Explanation:
        """Explain one image: what, where and why, for it and for its class (WWW, Figure 2).

        One forward pass, and one backward pass unless the layer's contributions are exact.

        Parameters
        ----------
        image : PIL.Image.Image, path or bytes
            Files and bytes pass the checks of `images.decode`.
        layer : str, optional
            See `layer`.
        top : int
            Neurons per track, k in the paper, at least 1; at most N are there.
        cls : int or str, optional
            The class of the class track ("why not this one?"); by default the predicted class.
        label : int or str, optional
            The true class, if it is known; it is only told, never used.
        percentile : float
            In [0, 100): concept regions keep what lies above this percentile of the map.

        Returns
        -------
        Explanation
            Where the predicted class has no images, its class track is empty and r is nan.

        Raises
        ------
        ValueError
            If the image cannot be used, an argument is out of range, or `cls` has no images.
        """
        record = self.layer(layer)
        wanted = None if cls is None else self.class_index(cls)
        if wanted is not None and not self.class_count[wanted]:
            raise ValueError(
                f"Nothing is known of the class {self.classes[wanted]!r} in general: the atlas of "
                f"{self.target.name} was built without an image of it; choose a class with "
                "images, or build it with a `labelled` set that has some."
            )
        name = None if label is None else self.classes[self.class_index(label)]
        return explain(self.target, record, image, top, wanted, name, self.signed, percentile)

    def save(self, folder: str | Path) -> None:
        """Write the atlas to ``<folder>/atlas``: safetensors and JSON, checksummed, all or nothing.

        Raises
        ------
        OSError
            If it cannot be written; an earlier atlas stays untouched.
        """
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        files.save(folder, parts.pop("target"), parts)

    @classmethod
    def load(cls, folder: str | Path, target: Target) -> "Atlas":
        """Read an atlas for the network that it was built for.

        Parameters
        ----------
        folder : str or path
            Where `save` put it.
        target : Target
            The network, which an atlas does not hold.

        Raises
        ------
        FileNotFoundError
            If there is no atlas in the folder.
        ValueError
            If a byte of it has changed, or it belongs to another network or preprocessing.
        """
        return cls(target=target, **files.load(folder, target))
