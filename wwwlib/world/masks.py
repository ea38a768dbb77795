"""Exact pixel masks of the concept world, the ground truth of Network Dissection."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from wwwlib.images import ImageSet
from wwwlib.store import digest
from wwwlib.world.extension import image_set
from wwwlib.world.scenes import render, sample
from wwwlib.world.vocabulary import CATEGORIES

_HASHED = 8  # images whose masks enter the fingerprint


@dataclass(frozen=True)
class WorldMasks:
    """Masks of the images of `image_set`, as `baselines.network_dissection.Masks` describes them.

    Parameters
    ----------
    seed : int
        Which world.
    context_bias : float in [0, 1]
        How strongly classes are tied to scenes.
    swap : bool
        Show every class in other classes' scenes only.

    Attributes
    ----------
    categories : mapping of str to str
        The category of each concept.
    fingerprint : str
        SHA-256, equal for equal masks.
    """

    seed: int = 0
    context_bias: float = 0.0
    swap: bool = False
    categories: Mapping[str, str] = field(init=False, repr=False, compare=False)
    fingerprint: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        pairs = ((word, name) for name, words in CATEGORIES.items() for word in words)
        object.__setattr__(self, "categories", dict(pairs))
        hashed = [
            {word: np.packbits(mask).tobytes().hex() for word, mask in self(i).items()}
            for i in range(_HASHED)
        ]
        content = [self.seed, float(self.context_bias), self.swap, self.categories, hashed]
        object.__setattr__(self, "fingerprint", digest({"world": content}))

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (64, 64) bool mask of each concept that image i shows."""
        return render(sample(i, self.seed, self.context_bias, swap=self.swap)).masks


def image_set_with_masks(
    count: int, seed: int = 0, context_bias: float = 0.0, *, swap: bool = False
) -> tuple[ImageSet, WorldMasks]:
    """Return the first `count` images of a concept world, see `image_set`, and their masks.

    Raises
    ------
    ValueError
        If `count` is less than 1.
    """
    images = image_set(count, seed, context_bias, swap=swap)
    return images, WorldMasks(seed, context_bias, swap)
