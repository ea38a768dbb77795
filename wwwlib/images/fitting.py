"""Batches that fit: one that is too large for the memory is halved, and so are those after it.

How many images an accelerator can take at once depends on the network, on the layers that are read
and on who else uses it, so nobody should have to guess. Results do not depend on where a batch is
cut, beyond the network's own rounding.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

State = TypeVar("State")
Step = Callable[[State, Tensor, Tensor], State]


class Fitting:
    """Take steps over batches, in parts that fit into the memory.

    Parameters
    ----------
    step : callable
        ``step(state, indices, x) -> state`` for `indices` (B,) and `x` (B, 3, H, W). It leaves
        the state that it was given as it is: a step that ran out of memory is taken again.
    device : str or torch.device
        Where indices and images go, part by part.
    """

    def __init__(self, step: Step, device: str | torch.device = "cpu"):
        self.step, self.device = step, torch.device(device)
        self.most = None  # images at once, known once memory ran out

    def __call__(self, state: State, indices: Tensor, x: Tensor) -> State:
        """Take in a batch, as one part or as several in their order.

        Raises
        ------
        RuntimeError
            If not even one image fits.
        """
        done = 0
        while done < len(indices):
            part = slice(done, done + (self.most or len(indices)))
            size = len(indices[part])
            fits, state = self._tried(state, indices[part], x[part])
            if fits:
                done += size
            elif size > 1:
                self.most = size // 2
            else:
                raise RuntimeError(
                    f"Not even one image fits into the memory of {self.device} beside what it "
                    "holds; free some of it, read fewer layers, or use device=cpu."
                )
        return state

    def _tried(self, state: State, indices: Tensor, x: Tensor) -> tuple[bool, State]:
        """Take one step if there is memory for it; otherwise hand back the state as it was."""
        try:
            indices, x = indices.to(self.device), x.to(self.device, non_blocking=True)
            return True, self.step(state, indices, x)
        except torch.OutOfMemoryError:
            pass  # what the step held is freed with the traceback, so only after this block
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return False, state
