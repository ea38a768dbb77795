"""Draw the picture of docs/start.md: a decision that is due to its scenery, found and tested.

    python papermill_runs/picture.py

The network `world/conv-biased` was trained with each class mostly in its home scene. Of the images
that show classes elsewhere, the one is drawn whose neurons are most often named after the home
scene of the class that is wrongly predicted. Writes the picture and its facts to docs/, and the
caption, made from the facts, into the page.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import wwwlib
from wwwlib import contributions, targets, world
from wwwlib.atlas import Atlas, Explanation
from wwwlib.plots import page, style
from wwwlib.plots.style import BODY, GREY, HEAD, SMALL, VERMILION, share
from wwwlib.world import CLASSES, HOME, SCENES

ROOT = Path(__file__).resolve().parents[1]
NAME = "docs/decided_by_scenery"
NETWORK, LAYER, SEED, COUNT, TOP = "world/conv-biased", "layer4", 1, 240, 5
BEGIN, END = "<!-- picture: papermill_runs/picture.py -->", "<!-- end of picture -->"
SIZE = 9.6, 5.72  # inches
ROWS = 3  # neurons drawn of those explained


# What is shown ------------------------------------------------------------------------------------


def probabilities(f: targets.Target, pictures: list[Image.Image] | Tensor) -> Tensor:
    """Return (B, C) probabilities of pictures, or of inputs (B, 3, H, W)."""
    if not isinstance(pictures, Tensor):
        pictures = torch.stack([f.preprocess(one) for one in pictures])
    with torch.inference_mode():
        return f.model(pictures).softmax(1)


def without_neurons(f: targets.Target, x: Tensor, layer: str, sets: Tensor) -> Tensor:
    """Predict an image with sets of neurons of the layer before a linear head set to zero; exact.

    Parameters
    ----------
    f : Target
        The network.
    x : Tensor
        (3, H, W) input.
    layer : str
        A layer that only pooling and a linear layer follow.
    sets : Tensor
        (S, n) int64 neurons of each set.

    Returns
    -------
    Tensor
        (S, C) probabilities.
    """
    weight, bias = contributions.head(f, layer)
    with torch.inference_mode():
        z = contributions.forward(f, x[None], [layer])[1][layer].z
        return (z.repeat(len(sets), 1).scatter(1, sets, 0.0) @ weight.T + bias).softmax(1)


def choose(f: targets.Target, book: Atlas) -> tuple[int, Explanation]:
    """Return the error whose neurons are most often named after scenery, and its explanation.

    The scenery is the home scene of the predicted class; of equal errors, the most probable.
    """
    images = world.image_set(COUNT, SEED, swap=True)
    p = probabilities(f, [images.image(i) for i in range(COUNT)])
    found = []
    for i in range(COUNT):
        guess = int(p[i].argmax())
        if guess != images.label(i):
            e = book.explain(images.image(i), top=TOP, label=images.label(i))
            named = sum(HOME[CLASSES[guess]] in n.names[:1] for n in e.sample.neurons)
            found.append((named, p[i, guess].item(), i, e))
    *_, index, explanation = max(found, key=lambda one: one[:2])
    return index, explanation


def repainted(f: targets.Target, index: int) -> dict[str, dict[str, tuple[str, float]]]:
    """Predict the same thing in every scene, and every thing in the same scene.

    Returns
    -------
    dict
        "scenes" and "things": for each the predicted class and its probability.
    """
    scene = world.sample(index, SEED, swap=True)
    changed = {
        "scenes": {name: replace(scene, scene=name) for name in SCENES},
        "things": {name: replace(scene, subject=name, missing=()) for name in CLASSES},
    }
    found = {}
    for kind, own in changed.items():
        p = probabilities(f, [world.render_image(one) for one in own.values()])
        best = zip(own, p.argmax(1).tolist(), p.amax(1).tolist(), strict=True)
        found[kind] = {name: (CLASSES[c], round(value, 4)) for name, c, value in best}
    return found


def without(f: targets.Target, image: Image.Image, neurons: list[int]) -> tuple[str, float]:
    """Return the class predicted with neurons set to zero, and its probability."""
    sets = torch.tensor([neurons], dtype=torch.long)
    value, c = without_neurons(f, f.preprocess(image), LAYER, sets)[0].max(0)
    return CLASSES[c], round(value.item(), 4)


def facts(f: targets.Target, index: int, e: Explanation) -> dict:
    """Return what picture and caption say, as JSON values."""
    neurons = [
        {"index": n.index, "names": list(n.names), "test": n.test, "share": n.contribution}
        for n in e.sample.neurons
    ]
    thing = torch.from_numpy(world.render(world.sample(index, SEED, swap=True)).masks[e.label])
    heat = e.sample.heatmap / e.sample.heatmap.sum()
    on_thing = heat[thing].sum().item(), thing.float().mean().item()
    unusual = e.right_r is not None and (e.right_r > e.r).double().mean().item() > 0.95
    removed = without(f, e.image, [n.index for n in e.sample.neurons])
    known = {"index": index, "label": e.label, "predicted": e.predicted_name}
    known |= {"probability": e.probability, "scene": world.sample(index, SEED, swap=True).scene}
    known |= {"neurons": neurons, "share": e.sample.share, "r": e.r, "r_words": e.r_words}
    home = world.image_set(COUNT, SEED, context_bias=1.0)
    p = probabilities(f, [home.image(i) for i in range(COUNT)])
    known["at_home"] = (p.argmax(1) == torch.tensor(home.labels)).double().mean().item()
    known |= {"without": removed, "on_thing": on_thing, "unusual": unusual}
    return known | repainted(f, index)


def caption(known: dict) -> str:
    """Return the caption: what the facts say, whichever they are."""
    label, guess, scene = known["label"], known["predicted"], known["scene"]
    named = [n["test"] for n in known["neurons"] if scene in n["names"][:1]]
    tested = [one.split()[1].rstrip(",") for one in named if one.startswith("AUROC")] or ["unknown"]
    scenes, things = known["scenes"], known["things"]
    right = sum(c == label for c, _ in scenes.values())
    same = sum(c == guess for c, _ in things.values())
    (other, p), (on_thing, area) = known["without"], known["on_thing"]
    doubt = "is a warning" if known["unusual"] else "gives no warning"
    return (
        f"*Why is this {label} a {guess}?* The network was trained with each class mostly in its "
        f"home scene, and is right about {share(known['at_home'])} of such new images. This "
        f"{label} is in a {scene}, and the prediction is {guess} ({share(known['probability'])}). "
        f"**What**: {len(named)} of the {len(known['neurons'])} neurons that contribute most are "
        f"named *{scene}*; on other images these names have an AUROC of {min(tested)} "
        f"to {max(tested)}. **Where**: {share(on_thing)} of their heatmap lies on the {label}, "
        f"which covers {share(area)} of the picture. **Why**: the neurons carry "
        f"{share(known['share'])} of all contributions; without them the prediction is {other} "
        f"({share(p)}). **How sure**: painted into {len(scenes)} scenes, the same {label} is "
        f"recognised in {right}; of {len(things)} things in the same {scene}, "
        f"{same} are called {guess}. The similarity of the heatmaps of class and image, "
        f"{known['r_words']}, {doubt}."
    )


def with_picture(text: str, known: dict) -> str:
    """Replace the picture and its caption in the text of docs/start.md."""
    alt = (
        f"A {known['label']} in a {known['scene']}, predicted {known['predicted']}: three neurons "
        "with their names, regions, exemplars and shares; the heatmaps of class and image; the "
        f"same {known['label']} in other scenes, and other things in the same {known['scene']}"
    )
    return filled(text, BEGIN, END, f"![{alt}]({Path(NAME).name}.png)", caption(known))


def filled(text: str, begin: str, end: str, *paragraphs: str) -> str:
    """Replace what is between two marks in a text by paragraphs.

    Raises
    ------
    ValueError
        If the text does not have each mark once.
    """
    block = "\n\n".join(
        textwrap.fill(one.replace(" %", "\0%"), 110, break_long_words=False, break_on_hyphens=False)
        for one in paragraphs
    ).replace("\0%", " %")
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    found, count = place.subn(lambda _: f"{begin}\n{block}\n{end}", text)
    if count != 1:
        raise ValueError(f"The page has {count} pairs of {begin!r} and {end!r}; write one.")
    return found


def write(figure: Figure, known: dict, name: str, page: Path, text: str, dpi: int) -> None:
    """Write a picture and its facts, as name.png and name.json, and the text of a page."""
    with style.in_style():
        figure.savefig(ROOT / f"{name}.png", dpi=dpi)
    facts = json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False)
    (ROOT / f"{name}.json").write_text(facts + "\n", encoding="utf-8")
    page.write_text(text, encoding="utf-8")


# The picture --------------------------------------------------------------------------------------


def axes_at(figure: Figure, x: float, y: float, width: float, height: float):
    """Return axes at inches from the upper left corner of a page of `SIZE`."""
    wide, tall = SIZE
    axes = figure.add_axes((x / wide, 1 - (y + height) / tall, width / wide, height / tall))
    axes.set_axis_off()
    return axes


def image_at(figure: Figure, picture, x: float, y: float, side: float, colour: str | None = None):
    """Draw a square picture, with a frame of a colour if one is given."""
    axes = page.draw(axes_at(figure, x, y, side, side), picture)
    axes.set_axis_on()
    if colour:
        axes.spines[:].set(color=colour, linewidth=2)
    return axes


def _predictions(figure: Figure, x, y, title: str, cells: list[tuple]) -> None:
    """Draw repainted pictures in two columns, with their predictions; wrong ones in colour."""
    side = 0.83
    page.write(axes_at(figure, x, y, 3, 0.2), title, size=SMALL + 0.5, colour=GREY)
    for place, (picture, above, guess, right) in enumerate(cells):
        left, top = x + place % 4 * (side + 0.09), y + 0.24
        colour = style.GREEN if right else VERMILION
        image_at(figure, picture, left, top, side, colour)
        axes = axes_at(figure, left, top + side + 0.03, side, 0.35)
        mark = "✓" if right else "✗"
        page.write(axes, [above], size=SMALL, colour=GREY)
        page.write(axes, f"{mark} {guess}", page.leading(), size=SMALL, bold=True, colour=colour)


def neuron(figure: Figure, e: Explanation, place: int, y: float, book: Atlas, said) -> None:
    """Draw a neuron of an explanation: region, names, lines about it, exemplars and share.

    Parameters
    ----------
    figure : Figure
        The page.
    e : Explanation
        Of the picture.
    place : int
        Of the neuron, by contribution.
    y : float
        The upper edge, in inches.
    book : Atlas
        With the exemplars' thumbnails.
    said : list of str
        Lines below the names.
    """
    side, x, thumb, n = 1.08, 2.55, 0.5, e.sample.neurons[place]
    page.spot(axes_at(figure, x, y, side, side), e.image, n.region, place)
    left, words = x + side + 0.12, axes_at(figure, x + side + 0.12, y, 2.0, side)
    top = page.write(words, style.fit(", ".join(n.names) or "no name", 1.85, HEAD, bold=True),
                     size=HEAD, bold=True)  # fmt: skip
    page.write(words, said, top, colour=GREY)
    y += 0.42 + (len(said) - 1) * page.leading()
    for column, i in enumerate(exemplars_drawn(n, book)):
        image_at(figure, book.thumbnails[i], left + column * (thumb + 0.05), y, thumb)
    bar = axes_at(figure, left, y + 0.55, 1.6, 0.11)
    part = n.contribution / e.sample.neurons[0].contribution
    bar.barh([0], [part], color=style.look(place)[0])
    bar.set(xlim=(0, 1.32), ylim=(-0.5, 0.5))
    bar.text(part + 0.03, 0, share(n.contribution), va="center", size=SMALL)


def exemplars_drawn(n, book: Atlas) -> list[int]:
    """Return the exemplars of a neuron that are drawn, as indices into the probe set."""
    return [i for i in n.exemplars if i in book.thumbnails][:3]


@style.styled
def draw(known: dict, e: Explanation, book: Atlas) -> Figure:
    """Draw the explanation with callouts: what, where, why, and how sure."""
    figure, scene = Figure(figsize=SIZE), world.sample(known["index"], SEED, swap=True)
    label, guess = known["label"], known["predicted"]
    title = f"Why is this {label} a {guess}?"
    page.write(axes_at(figure, 0.2, 0.14, 9, 0.4), title, size=15, bold=True)
    heads = ((0.2, "The decision"), (2.55, "What, where, why"), (5.75, "How sure: painted again"))
    for x, head in heads:
        page.write(axes_at(figure, x, 0.62, 3, 0.3), head, size=HEAD + 0.5, bold=True)
    image_at(figure, e.image, 0.2, 0.92, 2.0, VERMILION)
    words = axes_at(figure, 0.2, 2.98, 2.1, 0.5)
    y = page.write(words, f"✗ {guess}, {share(e.probability)}", size=HEAD, bold=True,
                   colour=VERMILION)  # fmt: skip
    page.write(words, f"It is a {label} in a {scene.scene}.", y)
    for place, (name, track) in enumerate((("class", e.cls), ("image", e.sample))):
        left = 0.2 + place * 1.04
        image_at(figure, page.heated(e.image, track.heatmap), left, 3.72, 0.96)
        page.write(axes_at(figure, left, 4.7, 1, 0.2), f"heatmap: {name}", colour=GREY)
    first, _, rest = known["r_words"].partition(", ")
    words = axes_at(figure, 0.2, 4.98, 2.1, 0.8)
    y = page.write(words, first, size=HEAD, bold=True)
    page.write(words, style.fit(rest, 2.05, lines=3), y, colour=GREY)
    for place, n in enumerate(e.sample.neurons[:ROWS]):
        said = [f"neuron {n.index}; {n.test.split(',')[0]}"]
        neuron(figure, e, place, 0.92 + place * 1.3, book, said)
    words = axes_at(figure, 2.55, 4.86, 3.0, 0.9)
    named = Counter(n["names"][0] for n in known["neurons"] if n["names"]).most_common(1)[0]
    other, p = known["without"]
    lines = (
        f"{named[1]} of the first {len(known['neurons'])} neurons are named {named[0]}; they carry "
        f"{share(known['share'])} of all contributions. Set to zero: {other}, {share(p)}."
    )
    page.write(words, style.fit(lines, 2.95, size=BODY, lines=4), size=BODY)
    _repainted(figure, known, scene)
    return figure


def _repainted(figure: Figure, known: dict, scene) -> None:
    """Draw the right column: some scenes, some things, and the counts over all of them."""
    label, guess, x = known["label"], known["predicted"], 5.75
    scenes = sorted(known["scenes"], key=lambda s: (s != HOME[label], -known["scenes"][s][1]))
    cells = []
    for name in [s for s in scenes if s != scene.scene][:4]:
        c, _ = known["scenes"][name]
        cells.append((world.render_image(replace(scene, scene=name)), name, c, c == label))
    _predictions(figure, x, 0.92, f"the same {label} in other scenes", cells)
    right = sum(c == label for c, _ in known["scenes"].values())
    line = f"recognised in {right} of {len(known['scenes'])} scenes"
    page.write(axes_at(figure, x, 2.4, 3.6, 0.3), line, size=BODY, bold=True)
    things, cells = [t for t in known["things"] if t not in (label, guess)], []
    wrong = [t for t in things if known["things"][t][0] == guess]
    for name in [*wrong[:3], *[t for t in things if known["things"][t][0] == t][:1]]:
        changed = replace(scene, subject=name, missing=())
        c, _ = known["things"][name]
        cells.append((world.render_image(changed), name, c, c == name))
    _predictions(figure, x, 3.05, f"other things in the same {scene.scene}", cells)
    same = sum(c == guess for c, _ in known["things"].values())
    line = f"{same} of {len(known['things'])} things are called {guess}"
    page.write(axes_at(figure, x, 4.53, 3.6, 0.3), line, size=BODY, bold=True)


def main() -> None:
    """Build the atlas, choose the case, and write picture, facts and caption."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    f, probe = targets.load(NETWORK), world.image_set(1200)
    book = wwwlib.build(f, probe, [LAYER], "world", encoder="world", test="world")
    index, e = choose(f, book)
    known = facts(f, index, e)
    path = ROOT / "docs" / "start.md"
    text = with_picture(path.read_text(encoding="utf-8"), known)
    write(draw(known, e, book), known, NAME, path, text, 110)
    print(caption(known))


if __name__ == "__main__":
    main()
