"""An encoder puts images and texts into one space, where cosine compares them.

Anything that follows the protocol will do: `open_clip` makes one from CLIP's weights, `load` takes
one from your own module or file.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """An image-text encoder of dimension D; both kinds of features have unit norm.

    Attributes
    ----------
    name : str
        Names encoder and weights; features are kept under it, so other weights need another name.
    dim : int
        The dimension D of the features.
    """

    name: str
    dim: int

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an RGB image into the (3, H, W) input of the image tower."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) unit-norm features."""
        ...

    def encode_texts(self, texts: list[str]) -> Tensor:
        """Encode M texts into (M, D) unit-norm features."""
        ...


MEMBERS = {
    "name": "a string that names the encoder and its weights",
    "dim": "the dimension of its features, a positive integer",
    "preprocess": "a callable that turns a PIL image into a (3, H, W) tensor",
    "encode_images": "a callable that turns (B, 3, H, W) pixels into (B, D) unit-norm features",
    "encode_texts": "a callable that turns a list of M strings into (M, D) unit-norm features",
}


def load(spec: str, *args: object, **kwargs: object) -> Encoder:
    """Call your function and check that it returns an encoder.

    This runs the code that ``spec`` names: load only what you trust.

    Parameters
    ----------
    spec : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    *args, **kwargs
        Handed to the function.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If ``spec`` is not of that form.
    FileNotFoundError, ImportError, AttributeError
        If the file, the module, or the function in it does not exist.
    TypeError
        If what the function returns lacks a member of the protocol; every one is named.
    """
    place, colon, function = spec.rpartition(":")
    if not (colon and place and function.isidentifier()):
        raise ValueError(
            f"The encoder {spec!r} is not of the form 'module:function' or 'file.py:function'."
        )
    module = _import_file(Path(place)) if place.endswith(".py") else _import_module(place)
    make = getattr(module, function, None)
    if not callable(make):
        raise AttributeError(f"{place!r} has no function {function!r}; check the encoder {spec!r}.")
    return check_encoder(make(*args, **kwargs), spec)


def check_encoder(encoder: object, spec: str) -> Encoder:
    """Return the encoder if it has every member of the protocol; else name those that it lacks."""
    faults = [
        f"{member!r} must be {meaning}"
        for member, meaning in MEMBERS.items()
        if not _is_sound(member, getattr(encoder, member, None))
    ]
    if faults:
        raise TypeError(
            f"{spec!r} gave a {type(encoder).__name__}, which is no encoder: {'; '.join(faults)}."
        )
    return encoder


def _is_sound(member: str, value: object) -> bool:
    """Tell whether a member has the kind that the protocol asks for."""
    if member == "name":
        return isinstance(value, str) and bool(value)
    if member == "dim":
        return isinstance(value, int) and value > 0
    return callable(value)


def _import_module(name: str) -> ModuleType:
    """Import a module by name; if there is none of that name, say how to give a file instead."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, but something that it imports is not
        raise ModuleNotFoundError(
            f"There is no module {name!r} to import; install it, or give a file as "
            "'path/to/file.py:function'."
        ) from error


def _import_file(path: Path) -> ModuleType:
    """Import a module from a file that need not be on Python's path."""
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {str(path)!r} to load an encoder from; give its path from the "
            "folder that you run in, or an absolute one."
        )
    name = f"wwwlib.language.loaded.{path.stem}"  # no name that another import could ask for
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def sentence_encoder(
    model: str | Path = "sentence-transformers/all-mpnet-base-v2", device: str = "cpu"
) -> Callable[[list[str]], Tensor]:
    """Return a function from M strings to (M, D) unit-norm sentence features.

    Parameters
    ----------
    model : str or Path
        A sentence-transformers folder, read without network, or a name to download. The paper's
        "mpnet cos" uses all-mpnet-base-v2.
    device : str
        Where it runs.

    Raises
    ------
    FileNotFoundError
        If there is no such folder and the name cannot be downloaded.
    """
    from sentence_transformers import SentenceTransformer

    folder = Path(model).expanduser()
    local = folder.is_dir()
    try:
        network = SentenceTransformer(
            str(folder) if local else str(model), device=device, local_files_only=local
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The sentence encoder {str(model)!r} is neither a folder here nor could it be "
            "downloaded; put all-mpnet-base-v2 (about 440 MB) into a folder and give its path."
        ) from error

    def encode(texts: list[str]) -> Tensor:
        return network.encode(
            list(texts),
            normalize_embeddings=True,
            convert_to_tensor=True,
            show_progress_bar=False,
        ).clone()

    return encode
