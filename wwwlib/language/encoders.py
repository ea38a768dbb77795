"""Image-text encoders: embed images and texts in one space, where they are compared by cosine.

Anything with the members of `Encoder` can be used: a CLIP of open_clip, or an object of your own.
open_clip only warns, or does nothing, if weights meet the wrong activation, weights are missing, or
a text is truncated; each of these changes every result and is an error here.

Each image is encoded once for all neurons of which it is an exemplar. Features have unit norm.
Encoding images is a pass like any other: it is checkpointed, kept in the store, and divided among
processes, see `wwwlib.distributed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from wwwlib.distributed import Pass, concatenate, run
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, preprocessed, subset
from wwwlib.images.batches import Preprocess
from wwwlib.registry import call, check_known, extension
from wwwlib.store import Slot, digest, tensor_digest
from wwwlib.targets.examine import own_copy

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
_PREFIX = "open_clip:"
CHECKPOINT = 64  # batches of texts between two checkpoints


@runtime_checkable
class Encoder(Protocol):
    """An image-text encoder of dimension D; features of both kinds have unit norm.

    Attributes
    ----------
    name : str
        Identifies the encoder and its weights in the keys of artifacts.
    dim : int
        The dimension D of the features.
    """

    name: str
    dim: int

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return the (3, H, W) input of the image encoder for an RGB image."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) unit-norm features."""

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Encode M texts into (M, D) unit-norm features."""


MEMBERS = ("name", "dim", "preprocess", "encode_images", "encode_texts")


def encoder(spec: str, device: str = "cpu") -> Encoder:
    """Load an image-text encoder by name.

    Parameters
    ----------
    spec : str
        "world" for the concept world's CLIP; "ViT-B-32-quickgelu/openai" or
        "open_clip:ViT-B-32-quickgelu/openai" for a model and a tag of open_clip;
        "open_clip:local-dir:path" for a folder, "open_clip:hf-hub:organisation/model" for a
        repository of the hub; otherwise "module:function" or "file.py:function", see `load`.
    device : str
        Device of an open_clip model.

    Raises
    ------
    ValueError, FileNotFoundError, ImportError, AttributeError, TypeError
        As for `open_clip` and `load`.
    """
    if provided := extension(spec):
        return open_clip(f"{LOCAL}{provided.encoder_folder()}", device=device)
    if ":" in spec and not spec.startswith((_PREFIX, LOCAL, HUB)):
        return load(spec)
    name = spec.removeprefix(_PREFIX)
    whole = name.startswith((LOCAL, HUB))
    model, slash, tag = (name, "/", None) if whole else name.partition("/")
    if not slash:
        raise ValueError(f"The encoder {spec!r} names no weights: write MODEL/TAG.")
    return open_clip(model, tag, device)


# CLIP -----------------------------------------------------------------------------------------


class OpenClipEncoder:
    """A CLIP of open_clip as an `Encoder`.

    Parameters
    ----------
    name : str
        Names model and pretraining; a digest of the weights is appended.
    network : nn.Module
        The network, moved to `device` and set to evaluation mode.
    transform : callable
        Maps a PIL image to a (3, H, W) tensor.
    tokenizer : callable
        open_clip's tokenizer of that network.
    device : str
        Device of both towers.
    """

    def __init__(
        self, name: str, network: nn.Module, transform: Preprocess, tokenizer: Any, device: str
    ):
        self.network: Any = network.to(device).eval()  # open_clip's classes have no common base
        self.device = torch.device(device)
        self.tokenizer = tokenizer
        self.context_length = tokenizer.context_length
        self.preprocess = transform
        weights = tensor_digest(dict(network.state_dict()))
        made = digest([weights, repr(transform), has_quick_gelu(network), self.context_length])
        self.name = f"{name}@{made[:16]}"
        self.dim = self.encode_texts(["a"]).shape[1]

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) float32 unit-norm features on the device."""
        return self.network.encode_image(own_copy(self.network, pixels), normalize=True).float()

    @torch.no_grad()
    def encode_texts(self, texts: list[str]) -> Tensor:
        """Encode M texts into (M, D) float32 unit-norm features on the device.

        Raises
        ------
        ValueError
            If there is no text, or one has more tokens than the context length.
        """
        texts = list(texts)
        if not texts:
            raise ValueError("There is no text to encode; give at least one.")
        for text in texts:
            count = count_tokens(self.tokenizer, text)
            if count > self.context_length:
                raise ValueError(
                    f"The text {shorten(text, 60)!r} has {count} tokens, and {self.name} reads at "
                    f"most {self.context_length}; shorten the concept or the template."
                )
        tokens = self.tokenizer(texts).to(self.device)
        return self.network.encode_text(tokens, normalize=True).float()


def open_clip(model: str, pretrained: str | None = None, device: str = "cpu") -> OpenClipEncoder:
    """Load a CLIP by open_clip's name and tag, or from a local folder.

    Parameters
    ----------
    model : str
        A model name such as "ViT-B-32-quickgelu"; or "local-dir:/path" of a folder, or
        "hf-hub:organisation/model" of a repository, with ``open_clip_config.json`` (``model_cfg``
        and ``preprocess_cfg``) and ``open_clip_model.safetensors``.
    pretrained : str, optional
        The tag of the weights, such as "openai"; None for a folder.
    device : str
        Device of the network.

    Returns
    -------
    OpenClipEncoder
        Its name ends in a digest of weights, preprocessing and activation.

    Raises
    ------
    ValueError
        If name and tag do not match: OpenAI's weights need the "-quickgelu" names.
    FileNotFoundError
        If the folder, a file in it, or the download is missing.
    """
    import open_clip as backend

    folder = _local_folder(model)
    if folder is not None and pretrained is not None:
        raise ValueError(f"{model!r} brings its own weights; leave out pretrained={pretrained!r}.")
    try:
        if not model.startswith((LOCAL, HUB)):
            _check_tag(backend, model, pretrained)
        how = {"device": device, "require_pretrained": True}
        network, _, transform = backend.create_model_and_transforms(model, pretrained, **how)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"The weights of {model!r} could not be loaded ({str(error).splitlines()[0]}); put "
            f"{CONFIG} and {WEIGHTS} of one source into a folder and load '{LOCAL}/path/to/it'."
        ) from error
    label = folder.resolve().name if folder else "/".join(filter(None, (model, pretrained)))
    tokenizer = backend.get_tokenizer(model)
    return OpenClipEncoder(f"open_clip/{label}", network, transform, tokenizer, device)


def has_quick_gelu(network: nn.Module) -> bool:
    """Return whether a network contains QuickGELU activations."""
    from open_clip.transformer import QuickGELU

    return any(isinstance(module, QuickGELU) for module in network.modules())


def count_tokens(tokenizer: Any, text: str) -> int:
    """Return the number of tokens of a text before truncation, with start and end tokens."""
    if hasattr(tokenizer, "encode"):  # open_clip's own byte-pair tokenizer adds two
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(text).input_ids)


def _local_folder(model: str) -> Path | None:
    """Return the folder of a "local-dir:" name, checked for its two files, else None."""
    if not model.startswith(LOCAL):
        return None
    folder = Path(model.removeprefix(LOCAL))
    for needed in (CONFIG, "*.safetensors"):
        if not any(folder.glob(needed)):
            found = f"The folder {str(folder)!r} holds no {needed}"
            raise FileNotFoundError(f"{found}; put {CONFIG} and {WEIGHTS} there.")
    return folder


def _check_tag(backend: ModuleType, model: str, pretrained: str | None) -> None:
    """Raise a ValueError, before any download, if a model and a tag do not belong together."""
    config = backend.get_model_config(model)
    unknown = f"open_clip has no model {model!r}, and '{LOCAL}path' is how a folder is named"
    check_known(unknown, model, backend.list_models())
    tags = backend.list_pretrained_tags_by_model(model.removesuffix("-quickgelu"))
    if pretrained not in tags:
        raise ValueError(
            f"{pretrained!r} is no tag of open_clip's {model!r}; choose one of {', '.join(tags)}, "
            f"or load '{LOCAL}path' of a folder with weights of your own and {CONFIG}."
        )
    trained = backend.get_pretrained_cfg(model, pretrained).get("quick_gelu", False)
    if trained != config.get("quick_gelu", False):
        activation, suffix = ("QuickGELU", "-quickgelu") if trained else ("GELU", "")
        raise ValueError(
            f"The weights {pretrained!r} were trained with {activation}, which {model!r} does not "
            f"have; use {model.removesuffix('-quickgelu') + suffix!r}."
        )


# Encoders of your own -------------------------------------------------------------------------


def load(spec: str, *args: object, **kwargs: object) -> Encoder:
    """Call a function of your own and check that it returns an encoder.

    This runs the code that `spec` names: load only what you trust.

    Parameters and errors are those of `registry.call`.

    Raises
    ------
    TypeError
        If the result lacks members of the protocol; all of them are listed.
    """
    return checked(call(spec, "encoder", *args, **kwargs), repr(spec))


def checked(found: Any, source: str) -> Encoder:
    """Return an encoder; a TypeError lists all members of the protocol that it lacks."""
    missing = [member for member in MEMBERS if not hasattr(found, member)]
    if missing:
        raise TypeError(
            f"{source} gave a {type(found).__name__}, which lacks {', '.join(missing)}; see "
            "language.Encoder for what an encoder must have."
        )
    return found


# Embedding ------------------------------------------------------------------------------------


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


def image_features(
    encoder: Encoder, images: ImageSet, indices: Sequence[int], **options: object
) -> Tensor:
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


def embed_exemplars(
    encoder: Encoder, images: ImageSet, exemplars: Exemplars, **options: object
) -> Tensor:
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
    if not isinstance(features, Tensor) or features.shape != (count, encoder.dim):
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(
            f"Encoder {encoder.name!r} returned {found} for {count} inputs; it must return a "
            f"tensor of the shape {(count, encoder.dim)}."
        )
    features = features.detach().to("cpu", torch.float32)
    norm = features.norm(dim=1)
    wrong = ~((norm - 1).abs() < 0.01)  # true for NaN, too
    if wrong.any():
        raise ValueError(f"{encoder.name!r} gave norm {norm[wrong][0]:.4g}; features have norm 1.")
    return F.normalize(features, dim=1)  # half-precision encoders are off by up to a thousandth
