"""Weights from files, without unpickling anything but tensors."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, or from ``.pth`` and the like.

    A checkpoint that wraps it under "state_dict" or "model" is unwrapped, and the "module." that
    `DataParallel` puts before every name is taken off.

    Parameters
    ----------
    path : path
        The file; everything but ``.safetensors`` is read with ``weights_only=True``.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or holds anything but tensors and plain values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on foreign bytes torch.load raises nearly anything
        raise ValueError(
            f"The weights file {str(path)!r} is damaged, or holds more than tensors, which could "
            f"run code ({type(error).__name__}); get it again, or save its state_dict."
        ) from error
    return _unwrapped(state, path)


def _unwrapped(state: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise ValueError(
            f"The weights file {str(path)!r} holds no state dict; save model.state_dict()."
        )
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state  # as it is: old formats are recognised by an attribute of this very object


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put weights into a model, every one in its place.

    Raises
    ------
    ValueError
        If a tensor is missing, left over, or of another shape; the sentence names the first.
    """
    try:
        model.load_state_dict(state)
    except (RuntimeError, AssertionError) as error:
        complaint = shorten(" ".join(str(error).splitlines()[1:]), 240, placeholder=" ...")
        raise ValueError(
            f"The weights from {source} do not fit the network; are they of this architecture, "
            f"with this number of classes? ({complaint})"
        ) from error
