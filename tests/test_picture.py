"""The pictures of docs/start.md and the README: captions are those of the committed facts."""

import json
from pathlib import Path
from types import SimpleNamespace

import first_picture
import picture
import pytest
from PIL import Image

from wwwlib import targets, world
from wwwlib.world import CLASSES, HOME

ROOT = Path(__file__).resolve().parents[1]
KNOWN = json.loads((ROOT / f"{picture.NAME}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def network():
    return targets.load(picture.NETWORK)


@pytest.mark.parametrize(
    ("page", "name", "write", "limit"),
    [
        ("docs/start.md", picture.NAME, picture.with_picture, 300_000),
        ("README.md", first_picture.NAME, first_picture.readme, 400_000),
    ],
)
def test_the_caption_on_the_page_is_made_from_the_facts(page, name, write, limit):
    text = (ROOT / page).read_text(encoding="utf-8")
    known = json.loads((ROOT / f"{name}.json").read_text(encoding="utf-8"))
    assert write(text, known) == text
    with pytest.raises(ValueError, match="0 pairs"):
        write("no picture", known)
    with Image.open(ROOT / f"{name}.png") as drawn:
        assert drawn.width > 900
    assert (ROOT / f"{name}.png").stat().st_size < limit


def test_the_facts_are_those_of_the_network(network):
    """Breaks if the network, the painter or the choice changed, and the picture did not."""
    scene = world.sample(KNOWN["index"], picture.SEED, swap=True)
    assert (scene.subject, scene.scene) == (KNOWN["label"], KNOWN["scene"])
    image = world.render_image(scene)
    p, c = picture.probabilities(network, [image])[0].max(0)
    assert CLASSES[c] == KNOWN["predicted"] != KNOWN["label"]
    assert p.item() == pytest.approx(KNOWN["probability"], abs=0.01)
    found = picture.repainted(network, KNOWN["index"])
    for kind in ("scenes", "things"):
        assert found[kind].keys() == KNOWN[kind].keys()
        for name, (guess, value) in found[kind].items():
            assert value == pytest.approx(KNOWN[kind][name][1], abs=0.02)
            assert guess == KNOWN[kind][name][0]
    neurons = [n["index"] for n in KNOWN["neurons"]]
    guess, value = picture.without(network, image, neurons)
    assert guess == KNOWN["without"][0] and value == pytest.approx(KNOWN["without"][1], abs=0.01)


def test_neurons_are_removed_as_by_a_hook(network):
    image, neurons = world.image_set(9, 5).image(8), [3, 40, 108]

    def silence(module, inputs, output):
        output = output.clone()
        output[:, neurons] = 0
        return output

    handle = network.model.get_submodule(picture.LAYER).register_forward_hook(silence)
    p, c = picture.probabilities(network, [image])[0].max(0)
    handle.remove()
    guess, value = picture.without(network, image, neurons)
    assert guess == CLASSES[c] and value == pytest.approx(p.item(), abs=1e-3)
    assert (guess, value) != picture.without(network, image, [])


def test_the_error_with_most_neurons_named_after_the_scenery_is_chosen(network, monkeypatch):
    monkeypatch.setattr(picture, "COUNT", 48)
    images = world.image_set(48, picture.SEED, swap=True)
    p = picture.probabilities(network, [images.image(i) for i in range(48)])
    wrong = [i for i in range(48) if p[i].argmax() != images.label(i)]
    chosen, asked = wrong[2], iter(wrong)

    def explain(image, top, label):
        i = next(asked)
        home = HOME[CLASSES[p[i].argmax()]]
        names = [(home,), ("x", home), (home,) if i == chosen else ()]
        return SimpleNamespace(sample=SimpleNamespace(neurons=[SimpleNamespace(names=n)
                                                               for n in names]))  # fmt: skip

    index, _ = picture.choose(network, SimpleNamespace(explain=explain))
    assert index == chosen and next(asked, None) is None


@pytest.mark.parametrize("unusual", [True, False])
def test_the_caption_says_what_the_facts_say(unusual):
    neurons = [{"index": 1, "names": ["sea"], "test": "AUROC .91, 1st of 9", "share": 0.2},
               {"index": 2, "names": ["sea", "boat"], "test": "AUROC .88, 2nd of 9", "share": 0.1},
               {"index": 3, "names": ["sail"], "test": "untested", "share": 0.1}]  # fmt: skip
    known = {"label": "cat", "predicted": "boat", "scene": "sea", "probability": 0.5,
             "neurons": neurons, "share": 0.4, "r": 0.5, "r_words": "r = .50", "at_home": 0.9,
             "unusual": unusual, "on_thing": (0.3, 0.1), "without": ("cat", 0.6),
             "scenes": {"sea": ("boat", 0.5), "road": ("cat", 0.7), "city": ("cat", 0.6)},
             "things": {"cat": ("boat", 0.5), "dog": ("dog", 0.9)}}  # fmt: skip
    said = picture.caption(known)
    for part in (
        "Why is this cat a boat?", "right about 90 %", "is in a sea", "prediction is boat (50 %)",
        "2 of the 3 neurons", "named *sea*", "an AUROC of .88 to .91", "30 % of their heatmap",
        "covers 10 %", "the neurons carry 40 %", "without them the prediction is cat (60 %)",
        "into 3 scenes, the same cat is recognised in 2", "of 2 things in the same sea, 1 are",
        "is a warning" if unusual else "gives no warning",
    ):  # fmt: skip
        assert part in said, part
