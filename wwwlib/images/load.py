"""Open a probe set by the name of its kind, as a parameter of a notebook gives it."""

from pathlib import Path

from wwwlib.images.broden import broden
from wwwlib.images.datasets import imagenet, imagenette, places365
from wwwlib.images.folder import folder
from wwwlib.images.image_set import ImageSet, subset
from wwwlib.registry import extension

FOLDERS = {
    "folder": folder,
    "imagenet": imagenet,
    "imagenette": imagenette,
    "places365": places365,
    "broden": broden,
}


def load(
    kind: str,
    root: str | Path | None = None,
    count: int | None = None,
    seed: int = 0,
    least_side: int | None = None,
) -> ImageSet:
    """Open a probe set.

    Parameters
    ----------
    kind : {"world", "folder", "imagenet", "imagenette", "places365", "broden"}
        "folder" takes any images, with subfolders as classes if there are any.
    root : str or Path, optional
        Where the images are; the world draws its own.
    count : int, optional
        Take so many images, evenly spaced over the set; default: all.
    seed : int
        Which world.
    least_side : int, optional
        Decode large JPEG files at a fraction of their size; see `open_files` of `images.folder`.

    Raises
    ------
    ValueError
        If there is no such kind, a folder is not named, or it holds fewer than `count` images, or
        `least_side` is given for the world.
    """
    if provided := extension(kind):
        if least_side is not None:
            raise ValueError(
                f"least_side is {least_side}, but {kind} has no files to decode smaller; leave "
                "it out."
            )
        return provided.image_set(count, seed)
    if kind not in FOLDERS:
        raise ValueError(f"There is no probe set {kind!r}; use 'world' or one of {list(FOLDERS)}.")
    if not root:
        raise ValueError(f"The probe set {kind!r} needs a folder: give its path as root.")
    images = FOLDERS[kind](root, least_side=least_side)
    if count is None:
        return images
    if not 1 <= count <= len(images):
        raise ValueError(
            f"{count} images were asked for, but {str(root)!r} has {len(images)}; give a count "
            "from 1 to that number."
        )
    return subset(images, [i * len(images) // count for i in range(count)])
