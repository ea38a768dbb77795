"""The grid of the paper's tables: its networks, probe sets and truths, as parameters name them.

Every network is named from every probe set and every concept set. A network's truth is the list of
its classes' synonyms; that of a network trained on Places365 is its scenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from wwwlib import images, language, targets, world
from wwwlib.atlas.classes import shown_classes
from wwwlib.baselines import network_dissection
from wwwlib.baselines.network_dissection import Masks
from wwwlib.images import ImageSet
from wwwlib.targets import Target

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Network:
    """A network of the grid.

    Attributes
    ----------
    name : str
        As tables call it: the target's name, and its weights where two share that name.
    target : Target
    hidden : str
        Its hidden layer.
    spec : str
        Where its truth comes from, see `language.truth`.
    truth : list of list of str
        The synonyms of its classes.
    """

    name: str
    target: Target
    hidden: str
    spec: str
    truth: list[list[str]]

    def asked_for(self, probe: ImageSet) -> dict[int, list[str]]:
        """Return the truth about final neurons: of classes that a probe set of its own shows.

        A probe set of other classes shows the network's own by chance, so all neurons are asked
        for; see `shown_classes`.
        """
        return {i: self.truth[i] for i in shown_classes(probe, self.target)}


def networks(
    names: Sequence[str],
    weights: Sequence[str | None],
    hidden: Sequence[str],
    truths: Sequence[str],
    device: str = "cpu",
) -> list[Network]:
    """Open the networks of a grid.

    Parameters
    ----------
    names : sequence of str
        As `targets.load` takes them; the same network may stand twice, with other weights.
    weights : sequence of str or None
        Of each; those that are missing at the end are the library's own.
    hidden : sequence of str
        A hidden layer of each.
    truths : sequence of str
        As `language.truth` takes them; those that are missing at the end are the first one's.
    device : str
        Where the networks run.

    Raises
    ------
    ValueError
        If hidden layers are missing, or there are more weights or truths than networks.
    """
    if len(hidden) != len(names):
        raise ValueError(
            f"There are {len(names)} networks and {len(hidden)} hidden layers; give one for each."
        )
    weights = _filled(weights, None, len(names), "weights")
    truths = _filled(truths, truths[0], len(names), "truths")
    found = []
    for name, file, layer, spec in zip(names, weights, hidden, truths, strict=True):
        target = targets.load(name, file, classes=_scenes(spec)).to(device)
        title = f"{name} ({file})" if names.count(name) > 1 else name
        found.append(Network(title, target, layer, spec, language.truth(spec, target)))
    return found


def probes(
    kinds: Sequence[str], roots: Sequence[str | None], count: int | None = None, seed: int = 0
) -> dict[str, ImageSet]:
    """Open the probe sets of a grid, by their names.

    Parameters
    ----------
    kinds : sequence of str
        As `images.load` takes them.
    roots : sequence of str or None
        The folder of each; those that are missing at the end are None.
    count, seed
        As `images.load` takes them.

    Raises
    ------
    ValueError
        If there are more folders than probe sets, or two probe sets have one name.
    """
    roots = _filled(roots, None, len(kinds), "folders")
    found: dict[str, ImageSet] = {}
    for kind, root in zip(kinds, roots, strict=True):
        images_ = images.load(kind, root, count, seed)
        if images_.name in found:
            raise ValueError(
                f"Two probe sets are called {images_.name!r}; rename one of their folders."
            )
        found[images_.name] = images_
    return found


def masked(
    probe: str, broden: str | None, count: int, seed: int = 0
) -> list[tuple[ImageSet, Masks]]:
    """Return images with masks for Network Dissection, and others for the truth, if there are any.

    Parameters
    ----------
    probe : str
        "world" has masks of its own.
    broden : str, optional
        Broden's folder; its training half is dissected, its validation half gives the truth.
    count : int
        Images of the world in each half.
    seed : int
        Which world.

    Returns
    -------
    list of (ImageSet, Masks)
        Two of them, or none.
    """
    if broden:
        return [network_dissection.broden(broden, split) for split in ("train", "val")]
    return (
        [world.image_set_with_masks(count, s) for s in (seed, seed + 1)] if probe == "world" else []
    )


def _scenes(spec: str) -> list[str] | None:
    """Return the class names of a network whose truth is Places365; None takes the library's."""
    kind, _, path = spec.partition(":")
    if kind != "places365":
        return None
    return [names[0] for names in language.places365_truth(path, "clean")]


def _filled(values: Sequence[T], default: T, count: int, what: str) -> list[T]:
    """Return `count` values, the last ones the default."""
    if len(values) > count:
        raise ValueError(f"There are {len(values)} {what} for {count}; give at most one for each.")
    return [*values, *[default] * (count - len(values))]
