"""Labels that others published, as rows of the tables: of ResNet-50, and scored without running it.

`published` reads the files; what is in them was said of other images than a table's, by their
authors' own runs.
"""

from pathlib import Path

from wwwlib.studies import published
from wwwlib.studies.answers import Answer

TARGET, FINAL = "torchvision/resnet50", "fc"  # the network, and their name of its logits
_LAYER = "{layer}"


def dissection(path: str | Path, layer: str = FINAL) -> dict[str, Answer]:
    """Return Network Dissection's labels in both readings, one name a neuron.

    What it chose from is not in the file, so the labels that occur in it stand for that. In hidden
    layers it was told by which masks the truth is chosen, and so is a yardstick.

    Parameters
    ----------
    path : path
        A CSV file about the final layer, or a path in which ``{layer}`` stands for the layer.
    layer : str
        In the authors' words: ``fc``, ``layer4`` and so on.

    Returns
    -------
    dict of row to Answer
        Nothing about a hidden layer of which there is no file.
    """
    file = Path(str(path).replace(_LAYER, layer))
    if layer != FINAL and (_LAYER not in str(path) or not file.is_file()):
        return {}
    answers = {}
    for reading, told in (("raw", "as published"), ("stripped", "stripped")):
        names = published.network_dissection(file, reading).names
        words = dict.fromkeys(word for own in names for word in own)
        answer = Answer(names, tuple(words), 1, informed=layer != FINAL)
        answers[f"Network Dissection {told}"] = answer
    return answers


def by_layer(
    clip_dissect: str | Path | None = None, milan: str | Path | None = None
) -> dict[str, dict[str, Answer]]:
    """Return CLIP-Dissect's and MILAN's labels: {their name of a layer: {row: Answer}}.

    CLIP-Dissect chose from Broden's words, of which the file shows those that were used; MILAN
    wrote its own.
    """
    found: dict[str, dict[str, Answer]] = {}
    sources = (("CLIP-Dissect", clip_dissect, published.clip_dissect),
               ("MILAN", milan, published.milan))  # fmt: skip
    for method, path, read in sources:
        for layer in published.layers(path) if path else ():
            names = read(path, layer).names
            used = tuple(dict.fromkeys(word for own in names for word in own))
            words = None if method == "MILAN" else used
            answer = Answer(names, words, 1)
            found.setdefault(layer, {})[f"{method} as published"] = answer
    return found


def rows(
    target: str,
    layer: str,
    count: int,
    network_dissection: str | Path | None = None,
    clip_dissect: str | Path | None = None,
    milan: str | Path | None = None,
) -> dict[str, Answer]:
    """Return the published labels that are about a layer of this network; none for another.

    Parameters
    ----------
    target, layer : str
        The labels are about ``torchvision/resnet50``, its final layer and ``layer1`` and so on.
    count : int
        The layer's neurons: a file of another number of units is about another layer.
    network_dissection, clip_dissect, milan : path, optional
        The CSV files; of Network Dissection's, see `dissection`.
    """
    if target != TARGET:
        return {}
    theirs = FINAL if layer == "logits" else layer
    found = dissection(network_dissection, theirs) if network_dissection else {}
    found |= by_layer(clip_dissect, milan).get(theirs, {})
    return {method: own for method, own in found.items() if len(own.names) == count}
