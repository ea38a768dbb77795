"""An explanation in words and in JSON.

Both speak of regions as people do, by box, share of the picture and position. In sentences names
stand between asterisks; those inside a name are escaped as in markdown, and white space or control
characters in it become one space, so that no name can end its own emphasis or begin a new line.
Markup passes through as text: whoever writes HTML escapes the whole sentence.
"""

import math
import unicodedata
from typing import Any

from torch import Tensor

from wwwlib.maps import agreement, position


def emphasised(name: str) -> str:
    """Return a foreign name as ``*name*`` on one line, its own asterisks escaped."""
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in name)
    text = " ".join(kept.split()).replace("\\", "\\\\").replace("*", "\\*")
    return f"*{text}*"


def as_sentence(explanation: Any) -> str:
    """Return an `Explanation` in words: the prediction, who carried it, and how sure one may be."""
    neurons = "; ".join(_looked(neuron) for neuron in explanation.sample.neurons)
    said = [f"{_predicted(explanation)}.", f"{neurons[:1].upper()}{neurons[1:]}; "]
    return f"{said[0]} {said[1]}{_compared(explanation)}."


def as_dict(explanation: Any) -> dict:
    """Return an `Explanation` in JSON values; nan becomes None."""
    width, height = explanation.image.size
    return {
        "layer": explanation.layer,
        "image": {"width": width, "height": height},
        "label": explanation.label,
        "predicted": {
            "index": explanation.predicted,
            "name": explanation.predicted_name,
            "probability": explanation.probability,
        },
        "sample": _track(explanation.sample),
        "class": _track(explanation.cls),
        "r": None if math.isnan(explanation.r) else explanation.r,
        "sentence": as_sentence(explanation),
    }


def _predicted(explanation: Any) -> str:
    text = f"Predicted {emphasised(explanation.predicted_name)} ({_short(explanation.probability)})"
    if explanation.label not in (None, explanation.predicted_name):
        text += f", but the label is {emphasised(explanation.label)}"
    return text


def _looked(neuron: Any) -> str:
    names = ", ".join(emphasised(name) for name in neuron.names) or "no concept"
    names += "" if neuron.sure else " (not sure)"
    where = position(neuron.region)
    half = where in ("upper", "lower", "left", "right", "middle")  # adjectives want a noun
    looked = f"looked at the {where}{' part' * half}" if where else "looked nowhere"
    share = f"{100 * neuron.contribution:.0f} %"
    return f"neuron {neuron.index}, {names}, {looked} and carried {share}"


def _compared(explanation: Any) -> str:
    track = explanation.cls
    if not track.neurons:
        return f"nothing is known of the class {emphasised(track.class_name)} in general"
    if math.isnan(explanation.r):
        return "the class and the image cannot be compared, since one of them has no heatmap"
    if track.class_index == explanation.predicted:
        who = "the class and the image"
    else:
        who = f"the class {emphasised(track.class_name)} and the image"
    return f"{who} {agreement(explanation.r)} (r = {_short(explanation.r)})"


def _track(track: Any) -> dict:
    return {
        "kind": track.kind,
        "class": {
            "index": track.class_index,
            "name": track.class_name,
            "probability": track.probability,
        },
        "neurons": [_neuron(neuron) for neuron in track.neurons],
    }


def _neuron(neuron: Any) -> dict:
    return {
        "index": neuron.index,
        "names": list(neuron.names),
        "minor": list(neuron.minor),
        "stability": neuron.stability,
        "sure": neuron.sure,
        "contribution": neuron.contribution,
        "exemplars": list(neuron.exemplars),
        "minor_exemplars": list(neuron.minor_exemplars),
        "region": {
            "box": _box(neuron.region),
            "area": neuron.region.float().mean().item(),
            "position": position(neuron.region) or None,
        },
    }


def _box(region: Tensor) -> list[int] | None:
    """Return (left, top, right, bottom) in pixels, right and bottom exclusive; None if empty."""
    if not region.any():
        return None
    rows, columns = region.any(1).nonzero(), region.any(0).nonzero()
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _short(number: float) -> str:
    """Return two digits without a leading zero: .97, -.20, 1.00."""
    return f"{number:.2f}".replace("0.", ".", 1) if abs(number) < 0.995 else f"{number:.2f}"
