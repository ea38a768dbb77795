"""MILAN by its authors: their package, where a user has installed it, fed from the house's records.

Masks are cut as here, and laid on the part of each image that the network saw; what follows
(encoder, decoder, choice) is theirs, with weights that they trained on descriptions of ImageNet
and Places networks.
"""

from importlib import import_module

import torch
from torch import Tensor
from torchvision.transforms import v2
from tqdm.auto import tqdm

from wwwlib.baselines.milan.masks import Alive, alive, levels, masked
from wwwlib.baselines.milan.naming import BEAM, QUANTILE, WEIGHT, K
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.store import Store
from wwwlib.targets import Target, denormalize

PACKAGE, SIZE = "src.milan", 224
_BLOCK = 32  # neurons whose masks and images are held at once


def pretrained(key: str = "base", device: str = "cpu"):
    """Load the authors' decoder.

    Parameters
    ----------
    key : str
        Which descriptions it was trained on: "base" (all of theirs), "imagenet", "places365", ...
    device : str
        Where it runs.

    Returns
    -------
    nn.Module

    Raises
    ------
    ImportError
        If their package is not installed.
    """
    try:
        package = import_module(PACKAGE)
    except ImportError as error:
        raise ImportError(
            f"The authors' MILAN cannot be imported as {PACKAGE} ({error}); get it from "
            "github.com/evandez/neuron-descriptions, install its requirements, and put its folder "
            "on PYTHONPATH."
        ) from error
    return package.pretrained(key, map_location=device).to(device).eval()


def describe(
    target: Target,
    layer: str,
    images: ImageSet,
    exemplars: Exemplars,
    decoder,
    *,
    weight: float = WEIGHT,
    beam: int = BEAM,
    k: int = K,
    quantile: float = QUANTILE,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> ConceptTable:
    """Describe each neuron of a layer with the authors' decoder, re-ranked as in their paper.

    Parameters
    ----------
    decoder : nn.Module
        See `pretrained`; images reach it as (1, k, 3, 224, 224) in [0, 1], masks as
        (1, k, 1, 224, 224).
    target, layer, images, exemplars, weight, beam, k, quantile
        As for `milan.describe`, and so are the result and the errors.
    batch_size, workers, store, progress
        Likewise.
    """
    chosen, options = alive(exemplars, images, k), (batch_size, workers, False)
    level = levels(target, layer, images, chosen, quantile, options, store)
    names: list[list[str]] = [[] for _ in chosen.live]
    scores: list[list[float]] = [[] for _ in chosen.live]
    told = {"strategy": "rerank", "temperature": weight, "beam_size": beam}
    bar = tqdm(total=len(chosen.index), desc="MILAN", unit="neuron", disable=not progress)
    for block in chosen.live.nonzero()[:, 0].split(_BLOCK):
        part = _part(chosen, block)
        masks = masked(target, layer, images, part, level, (SIZE, SIZE), options)
        for n, index, mask in zip(block.tolist(), part.index.tolist(), masks, strict=True):
            with torch.inference_mode():
                found = decoder(*_shown(target, images, index, mask, decoder), **told)
            names[n], scores[n] = [str(found.captions[0])], [float(found.scores[0])]
            bar.update()
    bar.close()
    least = torch.tensor([own[0] if own else 0.0 for own in scores])
    return ConceptTable(names, scores, least, ~chosen.live)


def _part(exemplars: Alive, block: Tensor) -> Alive:
    """Return some of the neurons that are alive."""
    live = torch.zeros_like(exemplars.live).index_fill_(0, block, True)
    return Alive(exemplars.index[live[exemplars.live]], live)


def _shown(target: Target, images: ImageSet, index: list[int], mask: Tensor, decoder) -> tuple:
    """Return images, as the network saw them, and masks as the authors' decoder takes them."""
    look = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((SIZE, SIZE), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    device = next(decoder.parameters()).device
    wholes = (images.image(i) for i in index)
    x = torch.stack([look(denormalize(target, one, target.preprocess(one))) for one in wholes])
    return x[None].to(device), mask[None, :, None].float().to(device)
