"""The atlas of a network: names and class contributions of its neurons, saved, loaded and queried.

An atlas on disk is one artifact of tensors and JSON with checksums, written atomically (see
`store`); nothing is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from wwwlib import targets
from wwwlib.atlas.explain import Explanation, make_explanation, run_model
from wwwlib.concepts import ConceptTable, score
from wwwlib.evaluation import NameTests
from wwwlib.exemplars import Exemplars
from wwwlib.language import Encoder
from wwwlib.registry import expanded, whole_number
from wwwlib.store import Slot, versions
from wwwlib.targets import Target
from wwwlib.targets.examine import same_fingerprint
from wwwlib.targets.target import nearest

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 4
_TABLES = ("major", "minor", "verified")


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

    def __contains__(self, i: object) -> bool:
        return bool((self.index == i).any())


@dataclass(frozen=True)
class Match:
    """A neuron found by `Atlas.find`.

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
        if name not in self.layers:
            raise ValueError(
                f"The atlas of {self.target.name} has no layer {name!r}; it was built for "
                f"{', '.join(map(repr, self.layers))}: choose one of them or build it again."
            )
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
        columns = {
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
        columns["verified_auroc"] = verified.tests.auroc.numpy() if verified else torch.nan
        return DataFrame(columns)

    def class_index(self, cls: int | str) -> int:
        """Return the index of a class given by name or index.

        Raises
        ------
        ValueError
            If the class does not exist or its name is ambiguous.
        """
        if not isinstance(cls, str):
            if (cls := whole_number("The class", cls, 0)) >= len(self.classes):
                raise ValueError(
                    f"Class {cls} does not exist; {self.target.name} has classes 0 to "
                    f"{len(self.classes) - 1}."
                )
            return cls
        places = [i for i, one in enumerate(self.classes) if one == cls]
        if not places:
            raise ValueError(
                f"{self.target.name} has no class {cls!r}; the nearest are "
                f"{nearest(cls, self.classes)}."
            )
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
                f"{self.classes[index]!r}; choose a class with images, or build it with a "
                "`labelled` set that has some."
            )
        return index

    def explain(
        self,
        image: Image.Image | str | Path | bytes,
        layer: str | None = None,
        top: int = 5,
        cls: int | str | None = None,
        label: int | str | None = None,
        percentile: float = 90.0,
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

        Returns
        -------
        Explanation
            If the predicted class has neither images nor a linear head, its class track is empty
            and r is nan.

        Raises
        ------
        ValueError
            If the image cannot be used, an argument is out of range, or `cls` has neither
            images nor a linear head.
        """
        record = self.layer(layer)
        own = self.class_index if record.exact else self.class_with_images
        wanted = None if cls is None else own(cls)
        name = None if label is None else self.classes[self.class_index(label)]
        output = run_model(self.target, record, image, self.signed)
        return make_explanation(output, record, top, wanted, name, percentile, self)

    def find(self, word: str, encoder: Encoder, top: int = 8) -> list[Match]:
        """Find the neurons that a word fits best, over all layers.

        The word need not be in the concept set: it is embedded in the template and scored like the
        concepts (WWW, Eq. 1).

        Parameters
        ----------
        word : str
            One or a few words.
        encoder : Encoder
            The encoder that the atlas was built with.
        top : int
            Maximum number of results.

        Returns
        -------
        list of Match
            Best score first, without neurons that abstain and scores that are not positive.

        Raises
        ------
        ValueError
            If the word is empty or the encoder is another one.
        """
        word, top = " ".join(word.split()), whole_number("top", top)
        if not word:
            raise ValueError("The word is empty; give one, such as a colour or a part.")
        template = self.settings["words"]["template"]
        sentences = [template.replace("{}", word), template.replace("{}", "").strip()]
        if own := encoder.name == self.settings["encoder"]:
            t = encoder.encode_texts(sentences).float().cpu()
            own = t.shape[1:] == self.t0.shape and (t[1] - self.t0).abs().max() < 0.01
        if not own:
            raise ValueError(
                f"The atlas was built with {self.settings['encoder']}, but the encoder is "
                f"{encoder.name}, or gives other features; give the one that it was built with."
            )
        found = []
        for name, layer in self.layers.items():
            for i, s in enumerate(score(layer.v, t[:1], self.t0)[:, 0].tolist()):
                best = layer.major.scores[i][:1]
                if best and s > 0:
                    found.append(Match(name, i, s, s / best[0], tuple(layer.major.names[i])))
        return sorted(found, key=lambda one: -one.score)[:top]

    def save(self, folder: str | Path) -> None:
        """Write the atlas to ``<folder>/atlas``, replacing an atlas that is there.

        Raises
        ------
        OSError
            If it cannot be written; an earlier atlas stays unchanged.
        """
        tensors = {"class_count": self.class_count, "t": self.t, "t0": self.t0}
        for name in ("thumbnails", "minor_thumbnails"):
            pictures = getattr(self, name)
            tensors |= {f"{name}/index": pictures.index, f"{name}/pixels": pictures.pixels}
        number = {word: j for j, word in enumerate(self.words)}
        layers, tests = list(self.layers.values()), {}
        for i, layer in enumerate(layers):
            packed, tests[layer.name] = _pack_layer(layer, number)
            tensors |= {f"layers/{i}/{name}": tensor for name, tensor in packed.items()}
        record = {
            "format": FORMAT,
            "versions": versions(),
            "target": self.target.key(),
            "classes": list(self.classes),
            "words": list(self.words),
            "layers": [layer.name for layer in layers],
            "tests": tests,
            "images": [layers[0].exemplars.images, layers[0].minor_exemplars.images],
            "settings": self.settings,
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
        return cls(
            target=target,
            layers={
                name: _unpack_layer(name, _below(tensors, f"layers/{i}"), record)
                for i, name in enumerate(record["layers"])
            },
            class_count=tensors["class_count"],
            words=tuple(record["words"]),
            t=tensors["t"],
            t0=tensors["t0"],
            thumbnails=Thumbnails(**_below(tensors, "thumbnails")),
            minor_thumbnails=Thumbnails(**_below(tensors, "minor_thumbnails")),
            settings=record["settings"],
        )


def _slot(folder: str | Path) -> Slot:
    return Slot(expanded(folder), "atlas", {})


def _read(folder: str | Path) -> tuple[dict[str, Tensor], dict]:
    try:
        found = _slot(folder).read()
    except ValueError as error:
        raise ValueError(f"{error}; save the atlas again, or restore the file.") from error
    if found is None:
        raise FileNotFoundError(
            f"There is no atlas in {str(folder)!r}; give the folder of Atlas.save."
        )
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


def _pack_layer(layer: LayerRecord, number: Mapping[str, int]) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors of a layer, and what is no tensor of the tests of its names."""
    names = ("v", "minor_v", "class_w", "head", "stability", "right_r")
    packed = {name: part for name in names if (part := getattr(layer, name)) is not None}
    tests = {}
    for name in _TABLES:
        table = getattr(layer, name)
        if table is not None:
            parts, tests[name] = _pack_table(table, number)
            packed |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
    for name in ("exemplars", "minor_exemplars"):
        found = getattr(layer, name)
        parts = [f.name for f in fields(found) if f.name != "images"]
        packed |= {f"{name}/{part}": getattr(found, part) for part in parts}
    return packed, tests


def _unpack_layer(name: str, tensors: dict[str, Tensor], record: dict) -> LayerRecord:
    words, tests, (images, cropped) = record["words"], record["tests"][name], record["images"]
    return LayerRecord(
        name=name,
        **{t: _unpack_table(_below(tensors, t), words, rest) for t, rest in tests.items()},
        v=tensors["v"],
        minor_v=tensors["minor_v"],
        exemplars=Exemplars(**_below(tensors, "exemplars"), images=images),
        minor_exemplars=Exemplars(**_below(tensors, "minor_exemplars"), images=cropped),
        class_w=tensors["class_w"],
        head=tensors.get("head"),
        stability=tensors.get("stability"),
        right_r=tensors.get("right_r"),
    )


def _pack_table(table: ConceptTable, number: Mapping[str, int]) -> tuple[dict[str, Tensor], dict]:
    """Return word indices and scores of all neurons in one row, and the number of each; and tests.

    The second result has what is no tensor of the tests.
    """
    scores = [score for row in table.scores for score in row]
    packed = {
        "concept": torch.tensor([number[name] for row in table.names for name in row]).long(),
        "score": torch.tensor(scores, dtype=torch.float64),
        "length": torch.tensor([len(row) for row in table.names]),
        "threshold": table.threshold,
        "abstained": table.abstained,
    }
    tests = {} if table.tests is None else vars(table.tests)
    tensors = {name: value for name, value in tests.items() if isinstance(value, Tensor)}
    packed |= {f"tests/{name}": value for name, value in tensors.items()}
    return packed, {name: value for name, value in tests.items() if name not in tensors}


def _unpack_table(tensors: dict[str, Tensor], words: list[str], rest: dict) -> ConceptTable:
    concept, score = tensors["concept"].tolist(), tensors["score"].tolist()
    spans = list(pairwise(accumulate(tensors["length"].tolist(), initial=0)))
    return ConceptTable(
        names=[[words[j] for j in concept[start:end]] for start, end in spans],
        scores=[score[start:end] for start, end in spans],
        threshold=tensors["threshold"],
        abstained=tensors["abstained"],
        tests=NameTests(**_below(tensors, "tests"), **rest) if rest else None,
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
