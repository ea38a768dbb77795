"""The explorer without a browser: forward passes, content and escaping of its page."""

import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import atlas, concepts, images, language, targets, world
from wwwlib.explorer import Change, Model, Pictures, explorer, markup
from wwwlib.plots.style import share

EVIL = ('<img src=x onerror="alert(1)">', "<script>alert(2)</script>", "a&b 'c' \"d\"")


def scene(i):
    return world.sample(i, 7)


@pytest.fixture(scope="module")
def clip():
    return language.encoder("world")


@pytest.fixture(scope="module")
def book(clip):
    """An atlas of two layers of world/conv, from four images a class."""
    words = language.ConceptSet(world.VOCABULARY)
    made = (targets.load("world/conv"), world.image_set(96), clip, words, ["layer4", "logits"])
    return atlas.build(*made, k=4, progress=False)


@pytest.fixture
def pictures():
    return {"world": Pictures(world.image_set(30, seed=7), scene)}


@pytest.fixture
def model(book, clip, pictures):
    return Model({"conv": book}, pictures, clip)


@pytest.fixture
def passes(book):
    """Counts how often the network is run."""
    seen = []
    hook = book.target.model.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


class Tags(HTMLParser):
    """Collects the elements of a page, their attributes and their text."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


# The model ----------------------------------------------------------------------------------


def test_an_explanation_is_that_of_the_atlas(model, book):
    """Breaks if the explorer shows another explanation than `Atlas.explain`."""
    model.choose_image("world", 5)
    model.top, model.percentile, model.cls = 4, 80.0, 2
    ours = model.explanation()
    theirs = book.explain(model.image(), top=4, percentile=80.0, cls=2, label=model.label)
    assert ours.to_dict() == theirs.to_dict()
    assert torch.equal(ours.sample.heatmap, theirs.sample.heatmap)


def test_the_network_runs_once_for_a_picture(model, passes):
    """Sliders and classes use its stored output; a changed picture is another picture."""
    model.explanation()
    assert len(passes) == 1
    for name, value in (("top", 7), ("percentile", 60.0), ("alpha", 0.6), ("cls", 3)):
        setattr(model, name, value)
        model.explanation()
    model.page(9), model.search("boat")
    assert len(passes) == 1
    model.change = Change(scene="night")
    model.explanation(), model.output(Change())
    assert len(passes) == 2
    model.change = Change()
    model.explanation()
    assert len(passes) == 2
    model.choose_image("world", 1)
    model.explanation()
    assert len(passes) == 3


@pytest.mark.parametrize("alpha", [0.5, 0.9, 1.0])
def test_names_follow_alpha(model, book, alpha):
    model.alpha = alpha
    record = book.layer()
    table = concepts.discover(record.v, book.t, book.t0, book.words, alpha)
    for neuron in model.explanation().sample.neurons:
        assert list(neuron.names) == table.names[neuron.index]
    page = model.page(17)
    assert [name for name, _ in page.names] == table.names[17]
    assert torch.allclose(page.scores, concepts.score(record.v[17:18], book.t, book.t0)[0])


def test_the_classes_of_a_neuron_are_those_it_contributes_most_to(model, book):
    share = book.layer().class_w / book.layer().class_w.sum(1, keepdim=True)
    best = share[:, 40].topk(5)
    expected = [(book.classes[c], s) for s, c in zip(*map(torch.Tensor.tolist, best), strict=True)]
    found = model.page(40).classes
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [s for _, s in found] == pytest.approx([s for _, s in expected])


def test_a_word_finds_the_neurons_that_it_scores_highest_for(model, book, clip):
    found = model.search("  wheel ")
    t = clip.encode_texts(["A photo of a wheel"])
    every = {}
    for name, layer in book.layers.items():
        s = concepts.score(layer.v, t, book.t0)[:, 0]
        every |= {(name, i): s[i].item() for i in range(len(s)) if layer.major.names[i]}
    best = [s for s in sorted(every.values(), reverse=True)[:8] if s > 0]
    assert [one.score for one in found] == pytest.approx(best, abs=1e-6)
    # by value: an encoder gives one text a little other features than two, and neurons may tie
    own = [every[one.layer, one.index] for one in found]
    assert own == pytest.approx(best, abs=1e-6) and len({(o.layer, o.index) for o in found}) == 8
    for one in found:
        assert one.share == pytest.approx(
            one.score / book.layer(one.layer).major.scores[one.index][0]
        )


def test_a_search_needs_a_word_and_an_encoder(model, book, pictures):
    with pytest.raises(ValueError, match="The word is empty"):
        model.search("   ")
    with pytest.raises(ValueError, match="has no encoder"):
        Model({"conv": book}, pictures).search("boat")

    class Other:
        name = "other"

    with pytest.raises(ValueError, match="but the encoder is other"):
        Model({"conv": book}, pictures, Other()).search("boat")


def test_another_encoder_of_the_same_name_finds_nothing(book, clip, pictures):
    class Namesake:
        name = clip.name

        def encode_texts(self, texts):
            return clip.encode_texts(texts).flip(1)

    assert Model({"conv": book}, pictures, clip).search("sail")
    with pytest.raises(ValueError, match="or gives other features"):
        Model({"conv": book}, pictures, Namesake()).search("sail")


def test_a_change_repaints_the_world_and_only_that(model):
    model.choose_image("world", 3)
    before = world.sample(3, 7)
    change = Change(scene="night", finish="wood", missing=before.parts[:1], thing=False)
    model.change = change
    expected = replace(before, scene="night", finish="wood", thing=None,
                       missing=tuple(sorted({*before.missing, before.parts[0]})))  # fmt: skip
    assert np.array_equal(np.asarray(model.image()), np.asarray(world.render_image(expected)))
    assert np.array_equal(np.asarray(model.image(Change())), np.asarray(world.render_image(before)))
    assert not Change() and change


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_box_of_any_picture_can_be_covered(model, uploaded):
    """Breaks if other pixels change, or the covered ones keep what they showed."""
    if uploaded:
        rng = np.random.RandomState(0)
        model.choose_upload(png(Image.fromarray(np.uint8(rng.randint(0, 255, (40, 60, 3))))))
    whole = np.asarray(model.image(Change()), float)
    model.change = Change(box=(0.25, 0.5, 0.75, 1.0))
    covered, (height, width) = np.asarray(model.image(), float), whole.shape[:2]
    inside = np.zeros((height, width), bool)
    inside[height // 2 :, width // 4 : width * 3 // 4] = True
    assert np.array_equal(covered[~inside], whole[~inside])
    assert np.allclose(covered[inside], whole.mean((0, 1)), atol=0.51)
    assert np.array_equal(np.asarray(model.image(Change())), whole)


def test_another_picture_forgets_the_change_and_the_upload(model):
    model.change = Change(scene="night")
    model.choose_upload(png(Image.new("RGB", (40, 30), "red")))
    assert model.image().size == (40, 30) and model.label is None and model.scene is None
    assert not model.change
    model.choose_image("world", 2)
    assert model.upload is None and model.label == world.CLASSES[2]


def test_two_uploads_are_two_pictures(model, passes):
    for colour in ("red", "blue"):
        model.choose_upload(png(Image.new("RGB", (64, 64), colour)))
        shown = np.asarray(model.explanation().image)
        assert tuple(shown[5, 5]) == ((255, 0, 0) if colour == "red" else (0, 0, 255))
    assert len(passes) == 2


@pytest.mark.parametrize("data", [b"", b"GIF89a nonsense", b"<svg onload=alert(1)>"])
def test_what_is_no_picture_is_refused_and_the_last_one_stays(model, data):
    model.choose_image("world", 4)
    with pytest.raises(ValueError, match="The image 'upload' cannot be used"):
        model.choose_upload(data)
    assert model.upload is None and model.index == 4


@pytest.mark.parametrize(
    "ask, message",
    [(lambda m: m.choose_image("world", 30), "Picture 30 does not exist; world has 30"),
     (lambda m: m.page(128), "layer4 has neurons 0 to 127, and no 128")],
)  # fmt: skip
def test_what_does_not_exist_is_named(model, ask, message):
    with pytest.raises(ValueError, match=message):
        ask(model)


def test_an_explorer_of_nothing_is_refused(book):
    with pytest.raises(ValueError, match="needs an atlas and a set of images"):
        Model({}, {})
    with pytest.raises(ValueError, match="needs an atlas and a set of images"):
        Model({"conv": book}, {})


# The page -----------------------------------------------------------------------------------


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def words(page):
    return " ".join(" ".join(Tags(page).text).split())


def test_every_control_changes_the_page(book, clip, pictures):
    """Breaks if a control is not wired, or wired to another choice."""
    page = explorer({"conv": book}, pictures, clip)
    control = page.choices
    for name, value, part in (
        ("alpha", 0.6, "explanation"), ("top", 5, "explanation"), ("percentile", 60, "explanation"),
        ("cls", 7, "explanation"), ("instead", 9, "explanation"),
        ("neuron", 33, "neuron_page"), ("word", "wheel", "matches"),
        ("scene", "night", "change_result"), ("finish", "wood", "change_result"),
        ("layer", "logits", "explanation"), ("source", "world", None),
    ):  # fmt: skip
        before = getattr(page, part).value if part else None
        control[name].value = value
        assert part is None or getattr(page, part).value != before, name
        assert not page.message.value
    assert "Class: " + world.CLASSES[7] in words(page.explanation.value)
    assert "rather than " + world.CLASSES[9] in words(page.explanation.value)


def test_parts_can_be_taken_away_and_come_back(book, clip, pictures):
    page = explorer({"conv": book}, pictures, clip)
    page._choose_image(3)
    parts = page.choices["parts"]
    assert parts.options == scene(3).parts
    parts.value = parts.options[:1]
    assert page.model.change == Change(missing=parts.options[:1])
    before, now = page.model.explanation(Change()), page.model.explanation()
    shown = words(page.change_result.value)
    for one in (before, now):
        assert one.predicted_name in shown and one.r_words in shown
        assert all(f"{n.index}, " in shown for n in one.sample.neurons)
    p = page.model.output().p[before.predicted].item()
    assert f"{share(before.probability)} before, {share(p)} now" in shown
    page.choices["restore"].click()
    assert not page.model.change and not page.change_result.value and parts.value == ()


def marked(page):
    """Return the labels of the buttons that are marked as the explained picture."""
    labels = [one.children[1].description for one in page.strip.children]
    return [words for words in labels if "✓" in words]


def test_the_strip_shows_which_picture_is_explained(book, clip, pictures):
    """Breaks if only a colour, or nothing, shows it."""
    page = explorer({"conv": book}, pictures, clip)
    assert marked(page) == ["Picture 0 ✓"]
    page._choose_image(3)
    assert marked(page) == ["Picture 3 ✓"]
    page.choices["later"].click()
    assert not marked(page)
    page.choices["earlier"].click()
    assert marked(page) == ["Picture 3 ✓"]


def test_an_upload_is_compared_with_itself_when_a_box_covers_it(book, clip, pictures):
    page = explorer({"conv": book}, pictures, clip)
    page._choose_upload([{"content": memoryview(png(world.render_image(scene(3))))}])
    page._update()
    assert page.repaint.layout.display == "none"  # no scene of the world is known
    page.choices["across"].value = (0, 60)
    assert not page.model.change and not page.change_result.value  # of no height yet
    page.choices["down"].value = (20, 100)
    assert page.model.change == Change(box=(0.0, 0.2, 0.6, 1.0))
    before, now = page.model.explanation(Change()), page.model.explanation()
    assert before.probability != now.probability
    shown = words(page.change_result.value)
    assert before.r_words in shown and now.r_words in shown
    page._choose_image(2)
    assert page.choices["across"].value == page.choices["down"].value == (0, 0)
    assert not page.model.change and page.repaint.layout.display == ""


def test_an_upload_is_explained_and_a_wrong_one_is_refused_in_a_sentence(book, clip, pictures):
    page = explorer({"conv": book}, pictures, clip)
    page._choose_upload([{"content": memoryview(png(Image.new("RGB", (50, 50), "green")))}])
    page._update()
    assert "The true class is not known." in words(page.explanation.value)
    assert not marked(page), "a picture of the strip is called the one explained"
    before = page.explanation.value
    wrong = {"name": EVIL[0], "type": "image/png", "size": 2, "content": memoryview(b"no")}
    wrong["last_modified"] = datetime.now(UTC)
    page.choices["upload"].set_trait("value", (wrong,))
    assert "cannot be used" in words(page.message.value) and page.explanation.value == before
    assert ("p", {"role": "alert"}) in Tags(page.message.value).found


def test_the_strip_turns_from_end_to_end(book, clip, pictures):
    page = explorer({"conv": book}, pictures, clip)
    assert len(page.strip.children) == 8
    for _ in range(9):
        page.choices["later"].click()
    visible = [box for box in page.strip.children if box.layout.display != "none"]
    assert [box.children[1].description for box in visible][-1] == "Picture 29" and len(
        visible
    ) == 6
    visible[-1].children[1].click()
    assert page.model.index == 29 and marked(page) == ["Picture 29 ✓"]
    page._choose_image(0)
    for _ in range(9):
        page.choices["earlier"].click()
    assert page.strip.children[0].children[1].description == "Picture 0 ✓"


def test_turning_the_strip_makes_no_widgets(book, clip, pictures):
    """Breaks if every turn leaves models behind, in the kernel and in the page."""
    page = explorer({"conv": book}, pictures, clip)
    before = len(_instances)
    for _ in range(3):
        page.choices["later"].click()
    assert len(_instances) == before


def test_the_same_file_can_be_uploaded_twice(book, clip, pictures):
    page = explorer({"conv": book}, pictures, clip)
    data = memoryview(png(Image.new("RGB", (50, 50), "green")))
    file = {"name": "a.png", "type": "image/png", "size": len(data), "content": data}
    file["last_modified"] = datetime.now(UTC)
    for count in (1, 2):
        page.choices["upload"].set_trait("value", (file,))
        assert page.model.uploads == count and page.choices["upload"].value == ()
        page._choose_image(3)


def test_every_picture_has_words_in_its_place_and_no_id_is_shown_by_colour_alone(model, book):
    found = model.explanation()
    page = Tags(markup.explanation(found, book))
    pictures = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(pictures) > 10 and all(one["alt"].strip() for one in pictures)
    text = " ".join(page.text)
    for neuron in (*found.sample.neurons, *found.cls.neurons):
        assert f"Neuron {neuron.index}:" in text


def test_the_similarity_has_its_place_in_words_and_a_bar(book, model):
    found = model.explanation()
    found = replace(found, r=0.7, right_r=torch.linspace(0.5, 1, 30, dtype=torch.float64))
    page = markup.explanation(found, book)
    assert "r = .70, lower than 60 % of 30 right predictions" in page and "width:70%" in page
    assert "width:0%" in markup.explanation(replace(found, r=-0.4), book)
    assert "r is not defined" in markup.explanation(replace(found, r=float("nan")), book)


def test_without_a_class_side_there_is_one_track(book, model):
    found = model.explanation()
    found = replace(found, cls=replace(found.cls, neurons=()), r=float("nan"))
    page = markup.explanation(found, book)
    assert "There is no class side" in page
    assert page.count("<section>") == 1 and page.count("heatmap of the") == 1
    found = replace(found, cls=replace(found.sample, by_weights=True))
    assert "from weights of the linear head" in markup.explanation(found, book)


# Other people's words -----------------------------------------------------------------------


class Projection:
    """An encoder without weights, for words that a tokenizer need not read."""

    name, dim = "projection", 8

    def preprocess(self, image):
        return pil_to_tensor(image.resize((4, 4))).float() / 255

    def encode_images(self, pixels):
        weight = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
        return nn.functional.normalize(pixels.flatten(1) @ weight, dim=1)

    def encode_texts(self, texts):
        rows = [torch.randn(8, generator=torch.Generator().manual_seed(len(t))) for t in texts]
        return nn.functional.normalize(torch.stack(rows), dim=1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """An explorer whose classes, concepts, folders and file names are markup."""
    root = tmp_path_factory.mktemp("foreign")
    for c, name in enumerate(("<b onmouseover=alert(3)>", "<script>x<")):
        (root / name).mkdir()
        for i in range(6):
            noise = np.random.default_rng(10 * c + i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"<img src=x onerror=alert({i})>.png")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(4, 2))  # fmt: skip

    def prepare(image):
        return pil_to_tensor(image.resize((16, 16))).float() / 255

    target = targets.wrap(net, prepare, EVIL[:2], "<i>net</i>")
    probe, encoder = images.folder(root), Projection()
    made = atlas.build(
        target, probe, encoder, language.ConceptSet(EVIL), ["1"], k=2, progress=False
    )
    return explorer({"<u>net</u>": made}, {"<em>": probe}, encoder)


def test_markup_in_names_of_all_kinds_is_text(foreign):
    """Breaks if one foreign word reaches the page as an element or inside an attribute."""
    foreign.choices["word"].value = EVIL[0]
    foreign.model.cls = 1
    foreign._update()
    thumbnails = "".join(box.children[0].value for box in foreign.strip.children)
    failed = markup.templates().failure(ValueError(EVIL[1]))
    parts = (foreign.explanation, foreign.neuron_page, foreign.matches)
    pages = [*(part.value for part in parts), thumbnails, failed]
    for page in pages:
        tags = Tags(page)
        known = {"div", "p", "h3", "h4", "b", "img", "section", "figure", "figcaption", "table",
                 "tr", "td", "th", "svg", "rect", "line"}  # fmt: skip
        assert {tag for tag, _ in tags.found} <= known
        for tag, attributes in tags.found:
            assert not [name for name in attributes if name.startswith("on")]
            assert tag != "img" or attributes["src"].startswith("data:image/png;base64,")
    text = " ".join(words(page) for page in pages)
    assert "<script>alert(2)</script>" in text and "onerror" in text


def test_nothing_but_markup_writes_html_and_it_has_no_script(foreign):
    assert not re.search(r"<script|javascript:|https?:", markup.templates().style())
    for part in (foreign.explanation, foreign.neuron_page, foreign.matches):
        assert "<script" not in part.value and "http" not in part.value


# Tiles --------------------------------------------------------------------------------------


def test_a_region_keeps_its_colours_and_the_rest_is_paled():
    image = Image.new("RGB", (20, 20), (200, 40, 40))
    region = torch.zeros(20, 20, dtype=torch.bool)
    region[5:15, 5:15] = True
    drawn = np.asarray(markup.region_tile(image, region, 0, 160)).astype(int)
    assert drawn.shape == (160, 160, 3)
    assert tuple(drawn[80, 80]) == (200, 40, 40)  # inside, as it was
    inside, outside = drawn[80, 80], drawn[5, 5]
    assert np.ptp(outside) < np.ptp(inside) / 2  # outside, paled
    assert not np.array_equal(drawn[80, 38], drawn[5, 5])  # a line lies between them


def test_tiles_keep_the_proportions_of_the_picture():
    wide = Image.new("RGB", (40, 20))
    for tile in (markup.picture_tile(wide, 100), markup.heat_tile(wide, torch.rand(20, 40), 100)):
        assert tile.size == (100, 50)
