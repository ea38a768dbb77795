"""Image features of exemplars: each image is encoded once, however many neurons share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from wwwlib.distributed import Pass, concatenate, run
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.language.concept_sets import unit_rows
from wwwlib.language.encoders import Encoder


def image_features(
    encoder: Encoder, images: ImageSet, indices: Sequence[int] | Tensor, **options: object
) -> Tensor:
    """Encode the images of the given indices, in one pass.

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
    indices : sequence of int
        Which of them, B in number, in any order.
    **options
        Fields of `distributed.Options`. A store keeps the features under encoder, images and
        indices.

    Returns
    -------
    Tensor
        (B, D) float32 unit-norm features on the CPU, in the order of `indices`.

    Raises
    ------
    ValueError
        If the encoder returns another shape, or features that are not of unit norm.
    """
    indices = torch.as_tensor(indices).tolist()
    if not indices:
        return torch.zeros(0, encoder.dim)

    def step(names: list[str], rows: Tensor, pixels: Tensor) -> dict[str, dict[str, Tensor]]:
        v = unit_rows(encoder.encode_images(pixels), len(rows), encoder)
        return {name: {"v": v} for name in names}

    chosen = subset(images, indices)
    embedding = Pass(
        _EncoderInput(encoder.name, encoder.preprocess),
        chosen,
        ["features"],
        step,
        concatenate,
        "image-features",
        label="image features",
    )
    return run(embedding, **options)["features"]["v"]


@dataclass(frozen=True, eq=False)
class _EncoderInput:
    """What `distributed.Pass` needs of an encoder, which moves images to its device itself."""

    name: str
    preprocess: Callable[[Image.Image], Tensor]
    device: ClassVar[torch.device] = torch.device("cpu")

    def key(self) -> str:
        return self.name

    def to(self, device: str | torch.device) -> None:
        """Leave the encoder where it is."""


def embed_exemplars(
    encoder: Encoder, images: ImageSet, exemplars: Exemplars, **options: object
) -> Tensor:
    """Return the image features v of every neuron's exemplars.

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
        The probe set that the exemplars index.
    exemplars : Exemplars
        The top K images of N neurons.
    **options
        As for `image_features`.

    Returns
    -------
    Tensor
        (N, K, D) float32 on the CPU, of unit norm; zeros for a neuron whose status is not 0 and
        where no exemplar was left, so that such a neuron abstains.
    """
    shown = (exemplars.index >= 0) & (exemplars.status == 0).unsqueeze(1)
    distinct, place = exemplars.index[shown].unique(return_inverse=True)
    v = torch.zeros(*exemplars.index.shape, encoder.dim)
    v[shown] = image_features(encoder, images, distinct, **options)[place]
    return v
