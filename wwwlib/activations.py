"""Capture layer outputs with forward hooks, and arrange them as activation maps.

`capture` registers hooks on layers by name, and checks that each fires exactly once: fast paths of
attention skip hooks, and shared modules call them twice. A layer's output is channels first
(B, N, h, w), channels last (B, h, w, N), tokens (B, T, N) or vectors (B, N); `Activations` arranges
each as maps a (B, N, h, w) and values z (B, N).
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from wwwlib.targets import Target
from wwwlib.targets.examine import own_copy
from wwwlib.targets.layout import Activations, read

LOCK = threading.RLock()  # held while hooks that concern one thread are on a network


class CapturedLayers(dict[str, Activations]):
    """The `Activations` of the layers captured so far, by name."""

    def __missing__(self, layer: str) -> Activations:
        raise RuntimeError(f"{layer!r} is not captured yet; run target.model(x) first.")


@contextmanager
def capture(target: Target, layers: str | Iterable[str]) -> Iterator[CapturedLayers]:
    """Capture the output of layers during one forward pass.

    Parameters
    ----------
    target : Target
        The network. Call `target.model` exactly once inside the context.
    layers : str or iterable of str
        Names from `target.layers()`.

    Yields
    ------
    CapturedLayers
        Maps each layer to its `Activations` once the model has been called.

    Raises
    ------
    ValueError
        If a layer does not exist, or its output cannot be read as maps, tokens or vectors.
    RuntimeError
        If a layer was not called exactly once.

    Notes
    -----
    The network gets a copy of its input, in the precision of its weights, so that networks that
    work in place leave the batch unchanged. One thread captures at a time; others wait.

    Examples
    --------
    ::

        with capture(target, ["layer4", "logits"]) as captured:
            logits = target.model(x)
        captured["layer4"].maps
    """
    layers = [layers] if isinstance(layers, str) else layers
    modules = {layer: target.module(layer) for layer in layers}
    captured, calls = CapturedLayers(), dict.fromkeys(modules, 0)
    sizes: list[torch.Size] = []

    def keep(layer: str, module: nn.Module, _: tuple, output: object) -> Tensor:
        calls[layer] += 1
        if not sizes:
            raise RuntimeError(f"{target.name} ran without hooks; call target.model(x).")
        captured[layer] = read(target, layer, module, output, sizes[-1])
        # The network continues with a copy: an in-place ReLU would overwrite the capture.
        return captured[layer].raw if layer in target.virtual else captured[layer].raw.clone()

    def prepare(model: nn.Module, args: tuple) -> tuple:
        sizes.append(args[0].shape)
        return own_copy(model, args[0]), *args[1:]

    with LOCK, ExitStack() as stack:
        stack.callback(target.model.register_forward_pre_hook(prepare).remove)
        for layer, module in modules.items():
            stack.callback(module.register_forward_hook(partial(keep, layer)).remove)
        yield captured
    for layer, count in calls.items():
        if count != 1:
            raise RuntimeError(
                f"The layer {layer!r} of {target.name} was called {count} times: call "
                "target.model(x) once inside capture; if you did, a fused path or an unused branch "
                "bypasses the layer, or several places share it: choose the layer around it."
            )
