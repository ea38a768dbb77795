"""What the concept world provides by name: images, networks, an encoder, words and their masks."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from wwwlib.images import ImageSet
from wwwlib.store import digest
from wwwlib.targets import Target, library, wrap
from wwwlib.world import networks
from wwwlib.world.scenes import Scene, render_image, sample
from wwwlib.world.vocabulary import CLASSES, DATA


@dataclass(frozen=True, eq=False)
class _World:
    seed: int
    context_bias: float
    swap: bool

    def scene(self, i: int) -> Scene:
        return sample(i, self.seed, self.context_bias, swap=self.swap)

    def __call__(self, i: int) -> Image.Image:
        return _painted(self.seed, i, self.context_bias, self.swap).copy()


@lru_cache(maxsize=5_000)  # 60 MB; painting costs more than a small network's forward pass
def _painted(seed: int, i: int, context_bias: float, swap: bool) -> Image.Image:
    return render_image(sample(i, seed, context_bias, swap=swap))


def image_set(
    count: int | None = None, seed: int = 0, context_bias: float = 0.0, *, swap: bool = False
) -> ImageSet:
    """Draw the first `count` images of the concept world `seed`.

    Image i is ``render(sample(i, seed, context_bias, swap=swap))``: the same call gives the
    caption's scene and, in ``.masks``, which pixels show which concept.

    Parameters
    ----------
    count : int, optional
        Number of images, at least 1; 100 a class if left out.
    seed : int
        Which world.
    context_bias : float in [0, 1]
        How strongly classes are tied to scenes.
    swap : bool
        Show every class in other classes' scenes only.
    """
    count = 100 * len(CLASSES) if count is None else count
    if count < 1:
        raise ValueError(f"count is {count}; a world needs at least 1 image.")
    reader = _World(seed, context_bias, swap)
    labels = tuple(CLASSES.index(reader.scene(i).subject) for i in range(count))
    # The arguments decide the pixels as long as the painters stay the same: hash a few of them.
    drawn = hashlib.sha256(b"".join(reader(i).tobytes() for i in range(min(count, 24))))
    content = {"world": [count, seed, float(context_bias), swap], "drawn": drawn.hexdigest()}
    return ImageSet(
        name=f"world-{seed}",
        fingerprint=digest({**content, "labels": labels}),
        names=tuple(f"world-{seed}/{i:06d}" for i in range(count)),
        labels=labels,
        classes=tuple(CLASSES),
        reader=reader,
    )


def target(name: str, weights: str | Path | None = None) -> Target:
    """Load one of the world's networks: conv, vit, conv-biased or vit-biased."""
    library.check_known(
        f"world/{name}",
        f"world/{name}",
        [f"world/{n}{b}" for n in networks.NETWORKS for b in ("", "-biased")],
    )
    model = networks.NETWORKS[name.removesuffix("-biased")]()
    file = DATA / f"{name}.safetensors" if weights is None else weights
    usual = "restore it from the repository, train it again with `make world`, or pass 'random'"
    megabytes = library.megabytes(model) / 2  # half precision on disk
    library.fill_from_file(f"world/{name}", model, file, megabytes, usual)
    return wrap(model, networks.preprocess(), CLASSES, f"world/{name}")


def encoder_folder() -> Path:
    """Return the open_clip folder of the world's CLIP."""
    return DATA / "clip"
