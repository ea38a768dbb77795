"""The atlas of a network: names and class contributions of its neurons, saved, loaded and queried.

An atlas on disk is one artifact of tensors and JSON with checksums, written atomically (see
`store`); nothing is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from wwwlib import targets
from wwwlib.atlas.explain import Explanation, make_explanation, run_model
from wwwlib.concepts import ConceptTable
from wwwlib.evaluation import NameTests
from wwwlib.exemplars import Exemplars
from wwwlib.registry import check_known, expanded, whole_number
from wwwlib.store import Slot, versions
from wwwlib.targets import Target
from wwwlib.targets.examine import same_fingerprint

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 8
_SHARED = ("class_count", "t", "t0", "thumbnails", "minor_thumbnails")  # saved for all layers


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """Names and class contributions of the N neurons of one layer.

    Attributes
    ----------
    name : str
        The layer; the final one is "logits".
    major, minor : ConceptTable
        Names from whole probe images, and from their crops.
    v, minor_v : Tensor of float32, shape (N, D)
        Mean image features of the exemplars, the input of `concepts.discover`.
    exemplars, minor_exemplars : Exemplars
        Probe images, and crops, with the highest activation. Their class sums have no rows.
    class_w : Tensor of float64, shape (C, N)
        Class contributions: mean of w over the images of each class; nan without images.
    head : Tensor, shape (C, N), or None
        Weight of the linear layer, if only pooling and one linear layer follow: contributions are
        then exact and need no backward pass.
    stability : Tensor of float64, shape (N,), or None
        Share of bootstrap probe sets with the same top concept; None if it was not measured.
    verified : ConceptTable or None
        Names chosen by test images among those of a smaller alpha, see `evaluation.verify`; None
        without test images.
    right_r : Tensor of float64, shape (8, R), or None
        r of R right predictions on labelled images, each image left out of its class mean; row
        k - 1, in ascending order, is for k neurons per track, nan where r is not defined.
    usual_z : Tensor of float32, shape (R, N), or None
        Means of activations over positions, of up to 200 of the images behind `class_w`.
    given : bool
        Whether the names of `major` were given with the directions, see `targets.Dictionary`, and
        not chosen by their exemplars; scores are those of the given names, thresholds nan.
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
    verified: ConceptTable | None = None
    right_r: Tensor | None = None
    usual_z: Tensor | None = None
    given: bool = False

    @property
    def exact(self) -> bool:
        """Whether contributions are exact; otherwise they are first-order approximations."""
        return self.head is not None

    def __len__(self) -> int:
        return len(self.major)


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Small copies of exemplar images, by image index.

    Attributes
    ----------
    index : Tensor of int64, shape (U,)
        Image indices, ascending.
    pixels : Tensor of uint8, shape (U, S, S, 3)
        Central squares in RGB.
    """

    index: Tensor
    pixels: Tensor

    def __getitem__(self, i: int) -> Image.Image:
        """Return the thumbnail of image `i`, or raise a KeyError if there is none."""
        place = (self.index == i).nonzero()
        if not len(place):
            raise KeyError(f"There is no thumbnail of image {i}: no neuron has it as an exemplar.")
        return Image.fromarray(self.pixels[place[0, 0]].numpy())

    def __contains__(self, i: int) -> bool:
        return bool((self.index == i).any())


_TABLES = ("major", "minor", "verified")  # fields of a record that are a ConceptTable
_RECORDS = {"exemplars": Exemplars, "thumbnails": Thumbnails, "tests": NameTests}


@dataclass(frozen=True, eq=False, repr=False)
class Atlas:
    """Everything about a network that does not depend on the image to explain; see `build`.

    Attributes
    ----------
    target : Target
        The network.
    layers : dict of str to LayerRecord
        Neurons by layer.
    class_count : Tensor of int64, shape (C,)
        Number of images of each class behind the class contributions.
    words : tuple of str
        The M concepts.
    t, t0 : Tensor of float32, shapes (M, D) and (D,)
        Text features of the concepts and of the bare template; with the `v` of a layer,
        `concepts.discover` names its neurons again, for instance with another alpha.
    thumbnails, minor_thumbnails : Thumbnails
        Thumbnails of the exemplars, and of the crops.
    settings : dict
        JSON values: probe set, labels, words, encoder, k, alpha, signed, versions.
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
        """Source of the classes behind the class contributions: labels, predictions or mixed."""
        return self.settings["labelled"]

    @property
    def signed(self) -> bool:
        """Whether contributions keep their sign."""
        return self.settings["signed"]

    def layer(self, name: str | None = None) -> LayerRecord:
        """Return the record of a layer, by default of the last one that is not "logits".

        Raises
        ------
        ValueError
            If the atlas does not have it.
        """
        if name is None:
            hidden = [one for one in self.layers if one != "logits"]
            return self.layers[hidden[-1] if hidden else "logits"]
        check_known(f"The atlas of {self.target.name} has no layer {name!r}", name, self.layers)
        return self.layers[name]

    def names(self, layer: str | None = None) -> "DataFrame":
        """Return the names of the neurons of a layer as a table.

        Parameters
        ----------
        layer : str, optional
            See `layer`.

        Returns
        -------
        pandas.DataFrame
            One row per neuron: "neuron", "names" and "scores" (major concepts, best first; empty
            if the neuron abstains), "stability" (nan if it was not measured), and the tests of the
            first name: "test" in words, "auroc", "rank", "p", "pearson", "best" and "best_auroc" of
            any concept, "verified" and "verified_auroc", the name chosen by test images. See
            `evaluation.NameTests`; nan where it was not tested.
        """
        from pandas import DataFrame

        record = self.layer(layer)
        tests, verified, n = record.major.tests, record.verified, len(record)
        columns: dict[str, object] = {
            "neuron": range(n),
            "names": record.major.names,
            "scores": [[round(s, 4) for s in row] for row in record.major.scores],
            "stability": torch.nan if record.stability is None else record.stability.numpy(),
            "test": [record.major.test_words(i) for i in range(n)],
        }
        for name in ("auroc", "rank", "p", "pearson", "best", "best_auroc"):
            value = torch.nan if tests is None else getattr(tests, name)
            columns[name] = value.numpy() if isinstance(value, Tensor) else value
        columns["verified"] = verified.names if verified else [[]] * n
        known = verified.tests if verified else None
        columns["verified_auroc"] = torch.nan if known is None else known.auroc.numpy()
        return DataFrame(columns)

    def class_index(self, cls: int | str) -> int:
        """Return the index of a class given by name or index.

        Raises
        ------
        ValueError
            If the class does not exist or its name is ambiguous.
        """
        if not isinstance(cls, str):
            last = len(self.classes) - 1
            if (cls := whole_number("The class", cls, 0)) > last:
                raise ValueError(f"Class {cls} does not exist; there are classes 0 to {last}.")
            return cls
        places = [i for i, one in enumerate(self.classes) if one == cls]
        check_known(f"{self.target.name} has no class {cls!r}", cls, self.classes)
        if len(places) > 1:
            raise ValueError(f"The classes {places} are all called {cls!r}; give an index.")
        return places[0]

    def class_with_images(self, cls: int | str) -> int:
        """Return the index of a class that has class contributions.

        Raises
        ------
        ValueError
            As `class_index`, and if the atlas has no images of the class.
        """
        index = self.class_index(cls)
        if not self.class_count[index]:
            raise ValueError(
                f"The atlas of {self.target.name} has no images of the class "
                f"{self.classes[index]!r}; choose another, or build it with `labelled` images."
            )
        return index

    def where(self, layer: str | None = None) -> str | None:
        """Return the default kind of the maps of a layer, see `maps.default_kinds`."""
        return self.settings["maps"][self.layer(layer).name]

    def explain(
        self,
        image: Image.Image | str | Path | bytes,
        layer: str | None = None,
        top: int = 5,
        cls: int | str | None = None,
        label: int | str | None = None,
        percentile: float = 90.0,
        where: str | None = None,
        instead_of: int | str | None = None,
    ) -> Explanation:
        """Explain one image and its class (WWW, Figure 2).

        Runs one forward pass, and one backward pass unless contributions are exact.

        Parameters
        ----------
        image : PIL.Image.Image, path or bytes
            Files and bytes pass the checks of `images.decode`.
        layer : str, optional
            See `layer`.
        top : int
            Neurons per track, k in the paper, at least 1.
        cls : int or str, optional
            Class of the class track, by default the predicted class. Where the atlas has no images
            of it, the weights of the linear head, if there is one, stand in for its contributions.
        label : int or str, optional
            The true class, which is only shown.
        percentile : float
            In [0, 100): percentile of a map above which its concept region lies.
        where : {"activation", "contribution"}, optional
            Whether maps show where neurons are active (the paper's), or where they contribute to
            the class, see `maps.contribution`. The default depends on the layer, see `where`.
        instead_of : int or str, optional
            "Why this class rather than that one": contributions are to the difference of the two
            logits, and keep their sign. The class track has the difference of class contributions.

        Returns
        -------
        Explanation
            If the predicted class has neither images nor a linear head, its class track is empty
            and r is nan.

        Raises
        ------
        ValueError
            If the image cannot be used, an argument is out of range, a class has neither images
            nor a linear head or is compared with itself, or the decision depends on no position
            of the layer.
        """
        record = self.layer(layer)
        own = self.class_index if record.exact else self.class_with_images
        wanted, other = (None if one is None else own(one) for one in (cls, instead_of))
        name = None if label is None else self.classes[self.class_index(label)]
        where = self.where(record.name) if where is None else where
        output = run_model(self.target, record, image, self.signed, where, other)
        return make_explanation(output, record, top, wanted, name, percentile, self)

    def save(self, folder: str | Path) -> None:
        """Write the atlas to ``<folder>/atlas``, replacing an atlas that is there.

        Raises
        ------
        OSError
            If it cannot be written; an earlier atlas stays unchanged.
        """
        given = (n for one in self.layers.values() if one.given for [n] in one.major.names)
        words, tensors = [*dict.fromkeys((*self.words, *given))], dict[str, Tensor]()
        pack = partial(_pack, tensors=tensors, number={word: j for j, word in enumerate(words)})
        record = {
            "format": FORMAT,
            "versions": versions(),
            "target": self.target.key(),
            "classes": list(self.classes),
            "words": words,
            "layers": [pack(layer, f"layers/{i}") for i, layer in enumerate(self.layers.values())],
            "settings": self.settings,
            **{name: pack(getattr(self, name), name) for name in _SHARED},
        }
        slot = _slot(folder)
        with slot.locked():
            slot.save(tensors, record)

    @classmethod
    def load(cls, folder: str | Path, target: Target | None = None) -> "Atlas":
        """Read an atlas.

        Parameters
        ----------
        folder : str or path
            The folder given to `save`.
        target : Target, optional
            The network, which is not part of the file; by default it is loaded by its name.

        Raises
        ------
        FileNotFoundError
            If the folder has no atlas.
        ValueError
            If the atlas is damaged, was built for another network or preprocessing, or its network
            cannot be loaded by name.
        """
        tensors, record = _read(folder)
        target = _load_target(record["target"]["name"]) if target is None else target
        _check_target(record, target, folder)
        unpack = partial(_unpack, tensors=tensors, words=record["words"])
        parts = [unpack(part, f"layers/{i}") for i, part in enumerate(record["layers"])]
        return cls(
            target=target,
            layers={part["name"]: LayerRecord(**part) for part in parts},
            words=tuple(record["words"][: len(tensors["t"])]),  # given names follow
            settings=record["settings"],
            **{name: unpack(record[name], name) for name in _SHARED},
        )


def _slot(folder: str | Path) -> Slot:
    return Slot(expanded(folder), "atlas", {})


def _read(folder: str | Path) -> tuple[dict[str, Tensor], dict]:
    try:
        found = _slot(folder).read()
    except ValueError as error:
        raise ValueError(f"{error}; save the atlas again, or restore the file.") from error
    if found is None:
        raise FileNotFoundError(f"There is no atlas in {str(folder)!r}; give Atlas.save's folder.")
    if found.record["format"] != FORMAT:
        raise ValueError(
            f"The atlas in {str(folder)!r} has format {found.record['format']}, but this wwwlib "
            f"reads format {FORMAT}; it was written by wwwlib "
            f"{found.record['versions']['wwwlib']}: build it again, or use that version."
        )
    return found.tensors, found.record


def _load_target(name: str) -> Target:
    try:
        return targets.load(name)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"The atlas was built for the network {name!r}, which cannot be loaded by name "
            f"({error}); pass the network."
        ) from error


def _check_target(record: dict, target: Target, folder: str | Path) -> None:
    stored, key = record["target"], target.key()
    for what, same in (
        ("weights", stored["weights"] == key["weights"]),
        ("preprocessing", stored["preprocess"][1] == key["preprocess"][1]),
        ("outputs", same_fingerprint(stored["outputs"][1], key["outputs"][1])),
        ("class names", record["classes"] == list(target.classes)),
    ):
        if not same:
            raise ValueError(
                f"The atlas in {str(folder)!r} was built for {stored['name']} with other {what} "
                f"than those of {target.name}; pass that network, or build an atlas for this one."
            )


def _pack(value: object, path: str, tensors: dict[str, Tensor], number: dict[str, int]) -> object:
    """Return a part of an atlas as JSON values; tensors, by their path, are put beside it."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return None
    if isinstance(value, ConceptTable):
        value = _in_numbers(value, number)
    parts = value if isinstance(value, dict) else vars(value) if is_dataclass(value) else None
    if parts is None:
        return value
    return {name: _pack(one, f"{path}/{name}", tensors, number) for name, one in parts.items()}


def _unpack(value: object, path: str, tensors: Mapping[str, Tensor], words: list[str]) -> Any:
    """Return what `_pack` packed; the last name of its path says what it is."""
    if value is None:
        return tensors.get(path)
    if not isinstance(value, dict):
        return value
    parts = {name: _unpack(one, f"{path}/{name}", tensors, words) for name, one in value.items()}
    kind = path.rpartition("/")[2].removeprefix("minor_")
    if kind in _TABLES:
        return _in_words(parts, words)
    return _RECORDS[kind](**parts) if kind in _RECORDS else parts


def _in_numbers(table: ConceptTable, number: Mapping[str, int]) -> dict:
    """Return a table as tensors: words by number and scores, neuron after neuron; their counts."""
    scores = [score for row in table.scores for score in row]
    concept = torch.tensor([number[name] for row in table.names for name in row]).long()
    score, length = torch.tensor(scores, dtype=torch.float64), [len(row) for row in table.names]
    kept = {name: getattr(table, name) for name in ("threshold", "abstained", "tests")}
    return {"concept": concept, "score": score, "length": torch.tensor(length), **kept}


def _in_words(parts: dict, words: list[str]) -> ConceptTable:
    """Return the table that `_in_numbers` took apart."""
    concept, score, length = (parts.pop(name).tolist() for name in ("concept", "score", "length"))
    spans = list(pairwise(accumulate(length, initial=0)))
    names = [[words[j] for j in concept[start:end]] for start, end in spans]
    return ConceptTable(names, [score[start:end] for start, end in spans], **parts)
