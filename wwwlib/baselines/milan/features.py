"""What MILAN's encoder sees of a neuron's exemplars: its stages, pooled over the neuron's masks."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.baselines.milan.masks import Plan
from wwwlib.baselines.milan.networks import pool
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.targets import Target


@torch.inference_mode()
def see(encoder: Target, stages: Sequence[str], x: Tensor) -> list[Tensor]:
    """Return the maps (B, C, h, w) of each stage for images x (B, 3, H, W)."""
    with capture(encoder, stages) as taken:
        encoder.model(x)
    return [taken[stage].maps for stage in stages]


def pooled(maps: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Pool every stage over every mask, and put the stages side by side.

    Parameters
    ----------
    maps : sequence of Tensor
        (B, C, h, w) each.
    masks : Tensor
        (B, R, H, W) in [0, 1], R parts of each image.

    Returns
    -------
    Tensor
        (B, R, F), where F is the sum of the stages' channels; zeros for an empty mask.
    """
    return torch.cat([pool(stage, masks) for stage in maps], 2)


def exemplar_features(
    encoder: Target,
    stages: Sequence[str],
    images: ImageSet,
    plan: Plan,
    masks: Tensor,
    options: tuple = (64, 0, True),
) -> Tensor:
    """Return E of every neuron, the masked features of its exemplars.

    Parameters
    ----------
    encoder : Target
    stages : sequence of str
    images : ImageSet
    plan : Plan
        Which image stands where.
    masks : Tensor
        (N, K, H, W) bool, see `masks.masked`.
    options : (int, int, bool)
        Batch size, workers and progress of `exemplars.stream`.

    Returns
    -------
    Tensor
        (N, K, F), on the CPU. Each image passes the encoder once.
    """
    flat = masks.flatten(0, 1)

    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        maps = see(encoder, stages, x)
        for row, i in enumerate(indices.tolist()):
            own = plan.places[i]
            told = pooled([stage[row : row + 1] for stage in maps], flat[own][None].to(x.device))[0]
            kept = state.setdefault("features", told.new_zeros(len(flat), told.shape[1]))
            kept[own] = told
        return state

    shown = plan.of(images)
    features = stream(encoder, shown, step, None, None, *options, label="MILAN sees")["features"]
    return features.cpu().unflatten(0, masks.shape[:2])
