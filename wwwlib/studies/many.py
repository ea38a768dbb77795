"""The names in the tracks of many images at once: what `explain` says, without drawing it.

Whoever asks how often explanations name a thing needs hundreds of them, and of each only the names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.contributions import contribute, head
from wwwlib.images import ImageSet, batches
from wwwlib.maps import strongest
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class NamedTracks:
    """What the tracks of B images say.

    Attributes
    ----------
    predicted : Tensor of int64, shape (B,)
        The predicted classes.
    sample, cls : list of list of str
        For each image the major concepts of the neurons of its sample track, and of its predicted
        class's track: the most important neuron's first. A name may stand there more than once.
    """

    predicted: Tensor
    sample: list[list[str]]
    cls: list[list[str]]


def named_tracks(
    target: Target,
    images: ImageSet,
    layer: str,
    names: Sequence[Sequence[str]],
    class_w: Tensor,
    top: int = 5,
    batch_size: int = 64,
    workers: int = 0,
) -> NamedTracks:
    """Name the neurons of both tracks of every image.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The B images.
    layer : str
        A layer of N neurons.
    names : sequence of sequence of str
        The major concepts of its neurons, as `concepts.discover` finds them.
    class_w : Tensor
        (C, N) class contributions, as `LayerRecord.class_w`.
    top : int
        Neurons per track.
    batch_size, workers : int
        Images per pass, and processes that decode them.

    Returns
    -------
    NamedTracks

    Raises
    ------
    ValueError
        If a predicted class has no class contributions, or the network's answer is not finite.
    """
    linear = head(target, layer) or False
    predicted, w = [], []
    for _, x in batches(images, target.preprocess, batch_size, workers):
        found = contribute(target, x.to(target.device), layer, linear=linear)
        predicted.append(found.classes.cpu())
        w.append(found.w.cpu())
    predicted = torch.cat(predicted)
    return NamedTracks(
        predicted=predicted,
        sample=_named(torch.cat(w), names, top),
        cls=_named(class_w[predicted], names, top),
    )


def _named(w: Tensor, names: Sequence[Sequence[str]], top: int) -> list[list[str]]:
    """Return the names of the neurons with the largest w (B, N), row by row."""
    return [[name for i in row for name in names[i]] for row in strongest(w, top)[0].tolist()]
