"""CLIP through open_clip, with its silent mistakes made loud.

open_clip warns, or says nothing, where weights meet the wrong activation, weights are missing, or
a text is cut; each of these changes every result, so here each is an error.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.store import digest, tensor_digest

LOCAL = "local-dir:"
CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"


class OpenClipEncoder:
    """A CLIP of open_clip behind the :class:`~wwwlib.language.Encoder` protocol.

    Parameters
    ----------
    label : str
        Names model and pretraining; the digest of the weights is appended to it.
    network : nn.Module
        The network, moved to ``device`` and set to evaluation.
    transform : callable
        PIL image -> (3, H, W) tensor.
    tokenizer : callable
        open_clip's tokenizer of that network.
    device : str or torch.device
        Where both towers run.
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
        self._transform = transform
        weights = tensor_digest(dict(network.state_dict()))
        made = digest([weights, repr(transform), has_quick_gelu(network), self.context_length])
        self.name = f"{label}@{made[:16]}"
        self.dim = self.encode_texts(["a"]).shape[1]

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into the (3, H, W) input of the image tower."""
        return self._transform(image)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) float32 unit-norm features on the device."""
        with torch.inference_mode():
            features = self.network.encode_image(pixels.to(self.device), normalize=True).float()
        return features.clone()  # a clone made here may take part in autograd, unlike its original

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Encode M texts into (M, D) float32 unit-norm features on the device.

        Raises
        ------
        ValueError
            If there is no text, or one has more tokens than the network reads.
        """
        texts = list(texts)
        self._check_lengths(texts)
        with torch.inference_mode():
            tokens = self.tokenizer(texts).to(self.device)
            features = self.network.encode_text(tokens, normalize=True).float()
        return features.clone()

    def _check_lengths(self, texts: list[str]) -> None:
        """Refuse what the tokenizer would cut silently, and the empty list."""
        if not texts:
            raise ValueError("There is no text to encode; give at least one.")
        for text in texts:
            count = count_tokens(self.tokenizer, text)
            if count > self.context_length:
                raise ValueError(
                    f"The text {text[:60]!r}{'...' * (len(text) > 60)} has {count} tokens, and "
                    f"{self.name} reads at most {self.context_length}; shorten the concept or the "
                    "template."
                )


def open_clip(model: str, pretrained: str | None = None, device: str = "cpu") -> OpenClipEncoder:
    """Load a CLIP by open_clip's name and tag, or from a local folder.

    Parameters
    ----------
    model : str
        A model name such as "ViT-B-32-quickgelu", or "local-dir:/path" of a folder holding
        ``open_clip_config.json`` (``model_cfg`` and ``preprocess_cfg``) and
        ``open_clip_model.safetensors``.
    pretrained : str, optional
        The tag of the weights, such as "openai"; ``None`` with a folder.
    device : str
        Where it runs.

    Returns
    -------
    OpenClipEncoder
        Its name ends in a digest of weights, preprocessing and activation.

    Raises
    ------
    ValueError
        If name and tag do not fit together: OpenAI's weights need the "-quickgelu" names.
    FileNotFoundError
        If the folder, a file in it, or the download is missing.
    """
    import open_clip as backend

    folder = _local_folder(model)
    if folder is not None and pretrained is not None:
        raise ValueError(
            f"{model!r} brings its own weights, so pretrained={pretrained!r} would be ignored; "
            "leave it out."
        )
    quick = _expected_quick_gelu(backend, model, pretrained)
    try:
        network, _, transform = backend.create_model_and_transforms(
            model, pretrained, device=device, require_pretrained=True
        )
    except RuntimeError as error:
        raise FileNotFoundError(_missing(model, pretrained, folder, error)) from error
    if quick != has_quick_gelu(network):
        raise ValueError(
            f"The weights of {model!r} need {'QuickGELU' if quick else 'plain GELU'}, but the "
            f"network has the other; check quick_gelu in {CONFIG}."
        )
    label = f"open_clip/{folder.resolve().name if folder else f'{model}/{pretrained}'}"
    return OpenClipEncoder(label, network, transform, backend.get_tokenizer(model), device)


def has_quick_gelu(network: nn.Module) -> bool:
    """Tell whether a network's activations are QuickGELU, by looking at its modules."""
    from open_clip.transformer import QuickGELU

    return any(isinstance(module, QuickGELU) for module in network.modules())


def count_tokens(tokenizer: Callable[[list[str]], Tensor], text: str) -> int:
    """Count the tokens of a text before any cut, start and end tokens included."""
    if hasattr(tokenizer, "encode"):  # open_clip's own byte-pair tokenizer adds two
        return len(tokenizer.encode(text)) + 2
    return len(tokenizer.tokenizer(text).input_ids)


def _local_folder(model: str) -> Path | None:
    """Return the folder of a "local-dir:" name, checked for its two files, else ``None``."""
    if not model.startswith(LOCAL):
        return None
    folder = Path(model.removeprefix(LOCAL))
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"The folder {str(folder)!r} holds no {CONFIG}; it must hold that file (model_cfg and "
            f"preprocess_cfg) and {WEIGHTS}."
        )
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"The folder {str(folder)!r} holds no weights; put them there as {WEIGHTS} (about "
            "600 MB for ViT-B/32)."
        )
    return folder


def _expected_quick_gelu(backend: ModuleType, model: str, pretrained: str | None) -> bool:
    """Return whether the weights were trained with QuickGELU; refuse a name that says otherwise.

    Asked before anything is downloaded.
    """
    config = backend.get_model_config(model)
    if config is None:
        raise ValueError(
            f"open_clip knows no model {model!r}; open_clip.list_models() lists its names, and "
            f"'{LOCAL}/path' reads a folder."
        )
    named = config.get("quick_gelu", False)
    if model.startswith(LOCAL):
        return named
    tags = backend.list_pretrained_tags_by_model(model.removesuffix("-quickgelu"))
    if pretrained not in tags:
        raise ValueError(
            f"{pretrained!r} is no tag of open_clip's {model!r}; choose one of {', '.join(tags)}. "
            f"Weights of your own go into a folder with {CONFIG}, read as '{LOCAL}/path': a bare "
            "file would get the wrong preprocessing unnoticed."
        )
    trained = backend.get_pretrained_cfg(model, pretrained).get("quick_gelu", False)
    if trained != named:
        other = model.removesuffix("-quickgelu") + "-quickgelu" * trained
        raise ValueError(
            f"The weights {pretrained!r} were trained with {'QuickGELU' if trained else 'GELU'}, "
            f"which {model!r} has not; use {other!r}."
        )
    return trained


def _missing(model: str, pretrained: str | None, folder: Path | None, error: Exception) -> str:
    """Say what could not be loaded, and where to put it."""
    if folder is not None:
        return (
            f"The weights in {str(folder)!r} do not fit its {CONFIG}: "
            f"{str(error).splitlines()[0]} Take both files from one source."
        )
    return (
        f"The weights {pretrained!r} of {model!r} could not be loaded "
        f"({str(error).splitlines()[0]}). Without a network, put {CONFIG} and {WEIGHTS} (about "
        f"600 MB for ViT-B/32) into a folder and load '{LOCAL}/path/to/it'."
    )
