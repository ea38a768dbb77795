"""Two sets that share no image: one to learn from, one to test on.

An image that is part of its class's mean agrees with it for that reason alone, and the agreement
looks like an excellent detector of errors. So `halves` cuts one set in two, of which `distinct`
has left every photograph once, and `check_apart` refuses two sets that share an image.
"""

from collections.abc import Sequence

import torch

from wwwlib.images.image_set import ImageSet, subset


def halves(labels: Sequence[int | None], seed: int = 0) -> tuple[list[int], list[int]]:
    """Split images in two, every class in halves as equal as can be.

    Parameters
    ----------
    labels : sequence of int or None
        The class of each image.
    seed : int
        Draws the halves.

    Returns
    -------
    class side, tested : list of int
        Indices, ascending. A class with one image is in one of them only.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator).tolist()
    order = sorted(shuffled, key=lambda i: -1 if labels[i] is None else labels[i])
    return sorted(order[::2]), sorted(order[1::2])


def distinct(images: ImageSet) -> ImageSet:
    """Leave out every file whose bytes an earlier file of the set has under another name."""
    first = {_content(images, i): i for i in reversed(range(len(images)))}
    kept = sorted(first.values())
    return images if len(kept) == len(images) else subset(images, kept)


def check_apart(known: ImageSet, tested: ImageSet) -> None:
    """Refuse to test on images that the class side was estimated from.

    Images count as the same if their files have the same bytes, whatever they are called; or if
    they have the same name and the same pixels. One picture in two encodings is not noticed.

    Parameters
    ----------
    known : ImageSet
        The images behind the class contributions.
    tested : ImageSet
        The images whose errors are to be found.

    Raises
    ------
    ValueError
        If they share an image; the sentence names it.
    """
    place = {name: i for i, name in enumerate(known.names)}
    files = {_content(known, i): name for name, i in place.items()}
    for j, name in enumerate(tested.names):
        i = place.get(name)
        if i is not None and _same(known, i, tested, j):
            raise ValueError(
                f"The tested image {name!r} is also among the images of the class side, which "
                "would know the answer already; take another seed, or the other of two halves."
            )
        if twin := files.get(_content(tested, j)):
            raise ValueError(
                f"The tested image {name!r} is also among the images of the class side, as "
                f"{twin!r}, which would know the answer already; keep one of the two files."
            )


def _content(images: ImageSet, i: int) -> str | tuple[str, int]:
    """Return what tells an image by its bytes; by set and place where it comes from no file."""
    return images.sha256(i) or (images.fingerprint, i)


def _same(known: ImageSet, i: int, tested: ImageSet, j: int) -> bool:
    u, v = known.image(i), tested.image(j)
    return u.size == v.size and u.tobytes() == v.tobytes()
