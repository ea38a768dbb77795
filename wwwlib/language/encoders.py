"""Image-text encoders: embed images and texts in one space, where they are compared by cosine.

Anything with the members of `Encoder` can be used: a CLIP of open_clip, or an object of your own.
open_clip only warns, or does nothing, if weights meet the wrong activation, weights are missing, or
a text is truncated; each of these changes every result and is an error here.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.registry import existing_file, extension
from wwwlib.store import digest, tensor_digest

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
_PREFIX = "open_clip:"


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
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) unit-norm features."""
        ...

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Encode M texts into (M, D) unit-norm features."""
        ...


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
    label : str
        Names model and pretraining; a digest of the weights is appended.
    network : nn.Module
        The network, moved to `device` and set to evaluation mode.
    transform : callable
        Maps a PIL image to a (3, H, W) tensor.
    tokenizer : callable
        open_clip's tokenizer of that network.
    device : str or torch.device
        Device of both towers.
    """

    def __init__(
        self,
        label: str,
        network: nn.Module,
        transform: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[list[str]], Tensor],
        device: str | torch.device = "cpu",
    ):
        self.network = network.to(device).eval()
        self.device = torch.device(device)
        self.tokenizer = tokenizer
        self.context_length = tokenizer.context_length
        self.preprocess = transform
        weights = tensor_digest(dict(network.state_dict()))
        made = digest([weights, repr(transform), has_quick_gelu(network), self.context_length])
        self.name = f"{label}@{made[:16]}"
        self.dim = self.encode_texts(["a"]).shape[1]

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) float32 unit-norm features on the device."""
        with torch.inference_mode():
            features = self.network.encode_image(pixels.to(self.device), normalize=True).float()
        return features.clone()  # outside of inference mode, so that autograd accepts it

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
        with torch.inference_mode():
            tokens = self.tokenizer(texts).to(self.device)
            features = self.network.encode_text(tokens, normalize=True).float()
        return features.clone()


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
        network, _, transform = backend.create_model_and_transforms(
            model, pretrained, device=device, require_pretrained=True
        )
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"The weights of {model!r} could not be loaded ({str(error).splitlines()[0]}); put "
            f"{CONFIG} and {WEIGHTS} of one source into a folder and load '{LOCAL}/path/to/it'."
        ) from error
    label = folder.resolve().name if folder else "/".join(filter(None, (model, pretrained)))
    return OpenClipEncoder(
        f"open_clip/{label}", network, transform, backend.get_tokenizer(model), device
    )


def has_quick_gelu(network: nn.Module) -> bool:
    """Return whether a network contains QuickGELU activations."""
    from open_clip.transformer import QuickGELU

    return any(isinstance(module, QuickGELU) for module in network.modules())


def count_tokens(tokenizer: Callable[[list[str]], Tensor], text: str) -> int:
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
            raise FileNotFoundError(
                f"The folder {str(folder)!r} holds no {needed}; put {CONFIG} (model_cfg and "
                f"preprocess_cfg) and {WEIGHTS} there."
            )
    return folder


def _check_tag(backend: ModuleType, model: str, pretrained: str | None) -> None:
    """Raise a ValueError, before any download, if a model and a tag do not belong together."""
    config = backend.get_model_config(model)
    if config is None:
        raise ValueError(
            f"open_clip has no model {model!r}; see open_clip.list_models(), or use '{LOCAL}path'."
        )
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

    Parameters
    ----------
    spec : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    *args, **kwargs
        Arguments of the function.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If `spec` is not of that form.
    FileNotFoundError, ImportError, AttributeError
        If the file, the module, or the function in it does not exist.
    TypeError
        If the result lacks members of the protocol; all of them are listed.
    """
    place, colon, function = spec.rpartition(":")
    if not (colon and place and function.isidentifier()):
        raise ValueError(f"The encoder is {spec!r}; write module:function or file.py:function.")
    file = place.endswith(".py")
    module = _import_file(Path(place)) if file else importlib.import_module(place)
    make = getattr(module, function, None)
    if not callable(make):
        raise AttributeError(f"{place!r} has no function {function!r}; check the encoder {spec!r}.")
    found = make(*args, **kwargs)
    missing = [member for member in MEMBERS if not hasattr(found, member)]
    if missing:
        raise TypeError(
            f"{spec!r} gave a {type(found).__name__}, which lacks {', '.join(missing)}; see "
            "language.Encoder for what an encoder must have."
        )
    return found


def _import_file(path: Path) -> ModuleType:
    """Import a module from a file outside of Python's path."""
    path = existing_file(path, "one that defines the encoder's function")
    name = f"wwwlib.language.loaded.{path.stem}"  # does not collide with importable modules
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look the module up there
    spec.loader.exec_module(module)
    return module
