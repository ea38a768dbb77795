"""Embed texts and the images of exemplars; each image is encoded once for all its neurons.

Features have unit norm. Encoding images is a pass like any other: it is checkpointed, kept in the
store, and divided among processes, see `wwwlib.distributed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from wwwlib.distributed import Pass, concatenate, run
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, preprocessed, subset
from wwwlib.language.encoders import Encoder
from wwwlib.store import Slot, digest

CHECKPOINT = 64  # batches of texts between two checkpoints


def embed_texts(
    encoder: Encoder,
    texts: Sequence[str],
    batch_size: int = 256,
    progress: bool = False,
    checkpoint: Slot | None = None,
) -> Tensor:
    """Encode M texts in batches, continuing from a checkpoint if there is one.

    Returns
    -------
    Tensor
        (M, D) float32 unit-norm features on the CPU.

    Raises
    ------
    ValueError
        If the encoder returns another shape, or features that are not of unit norm.
    """
    found = checkpoint and checkpoint.load()
    parts = [found.tensors["t"]] if found else []
    starts = range(len(parts[0]) if found else 0, len(texts), batch_size)
    bar = tqdm(starts, desc="concepts", unit="batch", disable=not progress)
    for number, start in enumerate(bar, start=1):
        batch = list(texts[start : start + batch_size])
        parts.append(_unit_rows(encoder.encode_texts(batch), len(batch), encoder))
        if checkpoint and number % CHECKPOINT == 0:
            checkpoint.save({"t": torch.cat(parts)}, {})
    return torch.cat(parts)


def image_features(encoder: Encoder, images: ImageSet, indices: Sequence[int], **options) -> Tensor:
    """Encode the images of the given indices.

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
        The images.
    indices : sequence of int
        B indices, in any order.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    Tensor
        (B, D) float32 unit-norm features on the CPU, in the order of `indices`.

    Raises
    ------
    ValueError
        If the encoder returns another shape, or features that are not of unit norm.
    """
    if not len(indices):
        return torch.zeros(0, encoder.dim)

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, dict[str, Tensor]]:
        return {"features": {"v": _unit_rows(encoder.encode_images(x), len(x), encoder)}}

    chosen = subset(images, indices)
    kind, label = "image-features", f"images through {encoder.name}"
    p = Pass(_Tower(encoder), chosen, ["features"], step, concatenate, kind, label=label)
    return run(p, **options)["features"]["v"]


@dataclass(frozen=True, eq=False)
class _Tower:
    """The image encoder as the target of a pass; it moves images to its own device itself."""

    encoder: Encoder
    device: ClassVar[torch.device] = torch.device("cpu")

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.encoder.preprocess(image)

    def key(self) -> dict:
        """Identify the encoder by its features of a fixed image, too: any may have its name."""
        ramp = Image.linear_gradient("L")
        image = Image.merge("RGB", (ramp, ramp.rotate(90), Image.radial_gradient("L")))
        x = preprocessed(self.preprocess, image, "test image")[None]
        features = _unit_rows(self.encoder.encode_images(x), 1, self.encoder)
        return {"encoder": self.encoder.name, "outputs": coarse_digest(features)}

    def to(self, device: str | torch.device) -> "_Tower":
        return self


def embed_exemplars(encoder: Encoder, images: ImageSet, exemplars: Exemplars, **options) -> Tensor:
    """Return the image features v of every neuron's exemplars (WWW, Eq. 1).

    Parameters
    ----------
    encoder : Encoder
        The image-text encoder of dimension D.
    images : ImageSet
        The probe set that the exemplars index.
    exemplars : Exemplars
        The top K images of N neurons.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    Tensor
        (N, K, D) float32 on the CPU, of unit norm; zeros for missing exemplars and for neurons
        whose status is not 0, so that these abstain.
    """
    valid = (exemplars.index >= 0) & (exemplars.status == 0).unsqueeze(1)
    distinct, place = exemplars.index[valid].unique(return_inverse=True)
    v = torch.zeros(*exemplars.index.shape, encoder.dim)
    v[valid] = image_features(encoder, images, distinct, **options)[place]
    return v


def coarse_digest(features: Tensor) -> str:
    """Digest of unit-norm features, rounded so that devices and numbers of threads agree."""
    return digest((features * 50).round().int().tolist())


def _unit_rows(features: Tensor, count: int, encoder: Encoder) -> Tensor:
    """Return `count` unit-norm rows as float32 on the CPU, or raise what the encoder violates."""
    if features.ndim != 2 or len(features) != count:
        raise ValueError(
            f"Encoder {encoder.name!r} returned features of shape {tuple(features.shape)} for "
            f"{count} inputs; it must return one row for each."
        )
    features = features.detach().to("cpu", torch.float32)
    norm = features.norm(dim=1)
    wrong = ~((norm - 1).abs() < 0.01)  # true for NaN, too
    if wrong.any():
        raise ValueError(
            f"Encoder {encoder.name!r} returned a feature of norm {norm[wrong][0]:.4g}; features "
            "must be of unit norm: divide each by its norm before returning it."
        )
    return F.normalize(features, dim=1)  # half-precision encoders are off by up to a thousandth
