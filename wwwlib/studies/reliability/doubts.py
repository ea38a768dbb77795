"""Doubts: what the logits say about a prediction, and what its explanation says.

Softmax doubts read the logits alone. A reading of an explanation says how far the evidence for this
image and for its class in general agree (`readings.readings`); one less it is a doubt.
"""

from dataclasses import fields

from torch import Tensor

from wwwlib.atlas import Readings, Surveyed


def softmax_doubts(logits: Tensor) -> dict[str, Tensor]:
    """Return four doubts that read the logits alone.

    Parameters
    ----------
    logits : Tensor
        (B, C), C at least 2.

    Returns
    -------
    dict of str to Tensor
        (B,) float64 each: "max softmax", one less the highest probability, precise where that is
        close to one; "entropy" of the probabilities, in nats; "margin", one less the gap of the two
        highest probabilities; "energy", the negative log-sum-exp of the logits.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or a logit is not finite.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.isfinite().all():
        raise ValueError(
            f"The logits have shape {tuple(logits.shape)}; expected finite values of shape (B, C) "
            "with at least two classes."
        )
    logits = logits.detach().double()
    ranked = logits.sort(1, descending=True).values
    rest = (ranked[:, 1:] - ranked[:, :1]).exp()  # beside the best class, whose value is 1
    odds = rest.sum(1)
    logs = logits.log_softmax(1)
    return {
        "max softmax": odds / (1 + odds),
        "entropy": -(logs.exp() * logs).sum(1),
        "margin": (odds + rest[:, 0]) / (1 + odds),
        "energy": -logits.logsumexp(1),
    }


def explanation_doubts(readings: Readings) -> dict[str, Tensor]:
    """Return one less each reading, by its name; what cannot be compared counts as no agreement.

    Parameters
    ----------
    readings : Readings
        Of B images.

    Returns
    -------
    dict of str to Tensor
        (B,) float64 each, "r" first; 1 where a reading is nan.
    """
    return {f.name: 1 - getattr(readings, f.name).nan_to_num(0.0) for f in fields(readings)}


def doubts_of(found: Surveyed, layer: str, top: int) -> dict[str, Tensor]:
    """Return every doubt of surveyed images: of their explanations, then of their logits.

    Parameters
    ----------
    found : Surveyed
        See `survey.survey`.
    layer, top : str, int
        One of the surveyed layers and numbers of neurons.

    Returns
    -------
    dict of str to Tensor
        (n,) float64 each: "1 - r" first, then one less each other reading, then those of
        `softmax_doubts`.

    Raises
    ------
    ValueError
        If that layer and number were not surveyed.
    """
    if (layer, top) not in found.readings:
        raise ValueError(
            f"Layer {layer!r} with the top {top} neurons was not surveyed; there are "
            f"{', '.join(f'{name!r} with {k}' for name, k in found.readings)}."
        )
    read = explanation_doubts(found.readings[layer, top])
    return {f"1 - {name}": d for name, d in read.items()} | softmax_doubts(found.logits)
