"""The report: what its script computes, what it says, and that names in it are only text."""

import json
import re

import pytest
import torch
from PIL import Image
from playwright.sync_api import expect
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import atlas, images, language, maps, targets, world
from wwwlib.atlas.explain import make_explanation, run_model
from wwwlib.concepts import ConceptTable
from wwwlib.contributions import contribute
from wwwlib.explorer.compare import compare
from wwwlib.explorer.report import CLASSES, calibration, groups, report
from wwwlib.store import file_digest

EVIL = ("<script>document.title='hit'</script>", "<img src=x onerror=document.title='hit'>")
DRAWN = """async () => {  // whether all is drawn within ten seconds
  for (let n = 0; n < 400; n++) {
    if ([...document.querySelectorAll("canvas")].every((one) => one.drawn)) return true;
    await new Promise((done) => setTimeout(done, 25));
  }
}"""
ODD = r"$\frac{a}{b}$ </script> ‮" + "x" * 10_000


@pytest.fixture(scope="module")
def books():
    """A network with exact contributions, and a transformer with contribution maps."""
    probe, clip = world.image_set(96), language.encoder("world")
    known = world.truth(48, 900)
    words = language.concept_set("world", targets.load("world/conv"))
    return {
        name: atlas.build(
            targets.load(name), probe, clip, words, [layer], k=6, test=known, progress=False
        )
        for name, layer in (
            ("world/conv", "layer4"),
            ("world/vit", "encoder.layers.encoder_layer_1"),
        )
    }


@pytest.fixture(scope="module")
def photos():
    return world.image_set(4, 7)


@pytest.fixture(scope="module")
def path(books, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "atlas.html"
    compared = compare(books, world.image_set(96), progress=False)
    return report(books, out, photos, world.image_set(96), "wwwlib report ...", compared)


@pytest.fixture
def page(browser):
    """A page that notes every request, error and refusal of its policy."""
    made = browser.new_page(viewport={"width": 1280, "height": 900})
    made.noted = []
    made.on("request", lambda r: r.url.startswith(("data:", "file:")) or made.noted.append(r.url))
    made.on("pageerror", lambda error: made.noted.append(str(error)))
    made.on("console", lambda m: m.type in ("error", "warning") and made.noted.append(m.text))
    yield made
    made.close()


def opened(page, path, state=""):
    page.goto("about:blank")
    page.goto(f"{path.as_uri()}#{state}")
    page.locator("#count").wait_for()
    return page


@pytest.mark.parametrize("view", [0, 1], ids=["activation", "contribution"])
def test_the_page_computes_what_the_library_does(page, path, books, photos, view):
    """Breaks if regions, shares, tracks or r differ from those of `Atlas.explain`."""
    book = list(books.values())[view]
    record, image = book.layer(), photos.image(1)
    base = run_model(book.target, record, image, book.signed, book.where())
    order = base.p.argsort(descending=True)[:CLASSES].tolist()
    for k, cls, rival in ((5, -1, -1), (3, order[1], -1), (8, -1, order[2]), (1, -1, -1)):
        opened(page, path, f"pic=1&view={view}&k={k}&cls={cls}&rival={rival}&percentile=80")
        if rival < 0:
            own = None if cls < 0 else cls
            found = make_explanation(base, record, k, own, None, 80.0, book)
        else:
            other = run_model(book.target, record, image, book.signed, book.where(), rival)
            found = make_explanation(other, record, k, None, None, 80.0, book)
        shown = page.locator("#results .explained")
        tracks = json.loads(shown.get_attribute("data-tracks"))
        assert tracks[:2] == [[n.index for n in t.neurons] for t in (found.cls, found.sample)]
        for shares, track in zip(tracks[2:], (found.cls, found.sample), strict=True):
            assert shares == pytest.approx([n.contribution for n in track.neurons], abs=1e-5)
        assert float(shown.get_attribute("data-r")) == pytest.approx(found.r, abs=1e-4)
        if found.right_r is None:
            assert "right predictions" not in shown.inner_text()
        else:
            assert f"of {len(found.right_r)} right predictions" in shown.inner_text()
        inside = page.evaluate(
            "(i) => { const one = state(1), t = explain(one).sample;"
            "return [...region(resized(mapOf(one, t.key, t.chosen[i]), ...one.size))]; }",
            0,
        )
        expected = found.sample.neurons[0].region.flatten()
        assert (torch.tensor(inside).bool() != expected).float().mean() < 0.002, "16-bit maps"
    assert not page.noted


def test_a_map_is_resized_as_torch_does(page, path):
    opened(page, path)
    a = torch.rand(1, 1, 3, 5)
    found = page.evaluate(
        "(a) => [...resized({ h: 3, w: 5, a: Float64Array.from(a) }, 17, 11)]", a.flatten().tolist()
    )
    assert torch.allclose(torch.tensor(found), maps.resize(a, (11, 17)).flatten(), atol=1e-6)


def test_the_first_screen_answers_in_plain_words(page, path, books, photos):
    opened(page, path, "pic=1")
    book = books["world/conv"]
    found = book.explain(photos.image(1))
    text = page.locator("#results").inner_text()
    p = f"{100 * found.probability:.0f}\u00a0%"
    assert f"Answer: {found.predicted_name}, with a probability of {p}" in text
    for part in ("Runner-up:", "How far to trust it", "What could not be decided", "AUROC"):
        assert part in text
    order = ["Answer:", "How far to trust it", "Sample: this decision"]
    assert sorted(order, key=text.index) == order
    body = page.locator("body").inner_text()
    assert "is how much the score of a class would" in body and "wwwlib report ..." in body


def test_controls_change_the_page_and_its_link(page, path):
    opened(page, path)
    before = page.locator("#results").inner_text()
    page.get_by_text("Change what is shown").click()
    page.get_by_label("Rather than").select_option(index=1)
    assert page.locator("#results").inner_text() != before
    page.get_by_label("Rather than").select_option(index=0)
    assert page.locator("#results").inner_text() == before
    page.get_by_label("Neurons").fill("2")
    assert "Together 2 of" in page.locator("#results").inner_text()
    page.get_by_label("Beside it").select_option(index=2)
    assert page.locator("#results .explained").count() == 2
    link = page.evaluate("location.href")
    again = page.locator("#results").inner_text()
    opened(page, path)
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#results")).to_have_text(again, use_inner_text=True)
    page.get_by_role("button", name="Larger type").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save figure").click()
    assert Image.open(download.value.path()).size[0] > 200
    assert not page.noted


def test_one_picture_stands_beside_itself_in_another_network(page, path, books, photos):
    """Breaks if the two sides are of one network, or the choice is lost in the link."""
    opened(page, path, "pic=1")
    page.get_by_text("Change what is shown").click()
    lists = page.get_by_label("Beside it")
    alone = page.locator("#results .verdict").inner_text()
    lists.select_option(label="the same, world/vit · encoder.layers.encoder_layer_1")
    link = page.evaluate("location.href")
    page.goto("about:blank")
    page.goto(link)
    sides = page.locator("#results .explained")
    expect(sides).to_have_count(2)
    assert sides.nth(0).locator(".verdict").inner_text() == alone
    for i, book in enumerate(books.values()):
        found, tracks = book.explain(photos.image(1)), sides.nth(i).get_attribute("data-tracks")
        assert json.loads(tracks)[1] == [n.index for n in found.sample.neurons]
        answer = f"Answer: {found.predicted_name}, with"
        assert answer in sides.nth(i).inner_text()
        assert f"{found.predicted_name}, " in page.locator("#results table").first.inner_text()
    page.evaluate("shown.rival = state(1).top[1][0]; redraw();")
    assert sides.count() == 2 and page.evaluate("shown.view") == 0
    page.get_by_label("Beside it").select_option(index=0)
    assert sides.count() == 1 and not page.noted


def test_a_printed_page_has_the_classes_of_every_neuron(page, path):
    """Breaks if print hides the buttons that are words of a sentence, or what is left out."""
    opened(page, path)
    page.emulate_media(media="print")
    card, count = page.locator(".card").first, page.locator("#count").inner_text()
    assert card.locator("button").first.is_visible() and "\u00a0%)" in card.inner_text()
    assert not page.get_by_role("button", name="Larger type").is_visible()
    assert "the first 24 are listed" in count


def test_neurons_are_found_by_name_number_and_class(page, path, books):
    opened(page, path)
    find = page.get_by_label("Find a concept, a class")
    record = books["world/conv"].layer()
    find.fill("neuron 12")
    assert "Neuron 12" in page.locator("#cards").inner_text() and page.locator(".card").count() == 1
    word = next(names[0] for names in record.major.names if names)
    expected = sum(any(word in one for one in names[:12]) for names in record.major.names)
    find.fill(word)
    assert page.locator(".card").count() >= min(24, expected) > 0
    page.locator("#atlas select").select_option("boat")
    best = record.class_w[world.CLASSES.index("boat")].argmax().item()
    assert f"Neuron {best}\n" in page.locator(".card").first.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_narrow_and_without_script(browser, path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    opened(page, path)
    found = Axe().run(page, options={"rules": {"color-contrast": {"enabled": True}}})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(path.as_uri())
    assert "need JavaScript" in plain.locator("noscript").inner_text()
    assert "AUROC" in plain.locator("table").first.inner_text()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_answer_is_on_the_first_screen_and_nothing_is_cut(browser, path, width, scheme):
    page = opened(
        browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme), path
    )
    verdict = page.locator(".verdict").first.bounding_box()
    assert verdict["y"] + verdict["height"] < 800, "the answer is below the first screen"
    assert "[object" not in page.locator("body").inner_text()
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        "[...document.querySelectorAll('body *')].filter((one) => !one.closest('.scroll, .strip, "
        ".skip') && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML)"
    )
    assert not cut, cut[0][:200]
    ink, paper = page.evaluate(
        "['color', 'backgroundColor'].map((key) => getComputedStyle(document.body)[key])"
    )
    light = [sum(map(int, re.findall(r"\d+", one)[:3])) for one in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")
    page.close()


def test_the_keyboard_reaches_and_operates_every_control(page, path):
    """Breaks if a control cannot be reached, shows no focus, or loses it when it is used."""
    opened(page, path)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached, closed = set(), page.get_by_text("Change what is shown")
    closed.focus()
    page.keyboard.press("Enter")
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.getAttribute('aria-label') || document.activeElement.id, "
            "getComputedStyle(document.activeElement).outlineWidth]"
        )
        assert outline == "3px", f"no focus is seen on {name!r}"
        reached.add(name)
        if name == "Neurons":
            page.keyboard.press("ArrowLeft")
            assert page.evaluate("shown.k") == 4
        if name == "choice Rather than":
            page.keyboard.press("ArrowDown")
            assert page.evaluate("shown.rival") >= 0
            assert page.evaluate("document.activeElement.id") == name, "the focus is lost"
    sliders = {"Neurons", "Percentile of regions", "Alpha of names"}
    lists = {f"choice {one}" for one in ("Network and layer", "Class side", "Rather than")}
    assert reached >= {*sliders, *lists, "choice Beside it"}
    page.locator("#pictures button").nth(2).focus()
    page.keyboard.press("Space")
    assert page.evaluate("[shown.pic, document.activeElement.id]") == [2, "picture 2"]
    assert not page.noted


def test_a_screen_reader_hears_what_every_control_and_picture_is(page, path):
    opened(page, path)
    page.get_by_text("Change what is shown").click()
    tree = page.locator("body").aria_snapshot()
    for part in ("heading \"Why these decisions?\"", "slider \"Neurons\"", "main:",
                 "combobox \"Rather than\"", "searchbox \"Find a concept", "status",
                 "img \"where neuron", "img \"heatmap of the sample", "table"):  # fmt: skip
        assert part in tree, part
    assert not re.search(r"- (button|combobox|slider|link|searchbox)(:| \[|$)", tree, re.M)


def test_controls_are_quick_and_drawings_follow(page, path):
    """Breaks if a control waits for drawings, or if these are not made, or made again."""
    opened(page, path)
    assert page.evaluate(DRAWN)
    took = page.evaluate(
        "[3, 6, 3, 6].map((k) => { const start = performance.now(); shown.k = k; results();"
        "return performance.now() - start; })"
    )
    assert min(took) < 100, took
    assert page.evaluate(DRAWN)
    first = page.evaluate("window.kept_one = document.querySelector('#results .neuron canvas'), 0")
    page.evaluate("shown.alpha = 0.6; results();")
    again = "document.querySelector('#results .neuron canvas') === window.kept_one"
    assert first == 0 and page.evaluate(again), "a region is drawn again for another alpha"


def test_hostile_names_are_text(page, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    target = targets.wrap(
        net, lambda i: pil_to_tensor(i.resize((16, 16))).float() / 255, EVIL, EVIL[0]
    )
    for i in range(6):
        folder = tmp_path / "pictures" / f"<img src=x onerror=hit>{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(folder / f"<script>{i}.png")
    probe, words = (
        images.folder(tmp_path / "pictures"),
        language.ConceptSet([*EVIL, r"$\frac{a}{b}$ </script>"]),
    )
    book = atlas.build(target, probe, language.encoder("world"), words, ["1"], k=2, progress=False)
    path = report({ODD: book}, tmp_path / "evil.html", probe, probe, f"wwwlib {EVIL[0]}")
    opened(page, path)
    for tag, count in {"script": 2, "meta": 3, "style": 1}.items():
        assert page.locator(tag).count() == count
    assert page.locator("img:not([src^='data:image/webp'])").count() == 0
    text = page.locator("body").inner_text()
    assert page.title() != "hit" and "onerror" in text and "\u202e" not in page.title() + text
    assert "\ufffd" + "x" * 10_000 in text and page.evaluate(DRAWN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert not page.noted


def test_the_policy_allows_only_what_the_page_contains(path):
    text = path.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?:https?:)?//', text)


def test_the_provenance_beside_the_page_has_its_digest(path):
    made = json.loads(path.with_name("atlas-provenance.json").read_text())
    assert made["page"] == "atlas.html" and made["command"] == "wwwlib report ..."
    assert made["sha256"] == file_digest(path)
    assert "weights" in made["networks"]["world/conv"]["network"]


def test_calibration_counts_right_predictions_by_probability(books):
    book, probe = books["world/conv"], world.image_set(30)
    found, expected = calibration(book, probe), {}
    for i in range(30):
        x = book.target.preprocess(probe.image(i))[None]
        p, cls = book.target.probabilities(book.target.model(x).double())[0].max(0)
        low = max(level for level in (0.0, 0.5, 0.7, 0.9, 0.97) if p >= level)
        count, right = expected.get(low, (0, 0))
        expected[low] = count + 1, right + (cls.item() == probe.label(i))
    assert {low: (n, k) for low, _, n, k in found if n} == expected
    assert calibration(book, None) == []


def test_groups_rank_names_by_what_they_carry_beyond_other_pictures():
    w = torch.tensor([[6.0, 1.0, 3.0], [5.0, 2.0, 3.0], [0.0, 0.7, 0.3]])
    names, none = [["snow", "ice"], ["fur"], []], torch.zeros(3)
    table = ConceptTable(names, [[2.0, 1.0], [1.0], []], none, torch.tensor([False, False, True]))
    first, second = groups(w, table, torch.tensor([4, 4, 2]))
    assert first["class"] == 4 and first["pictures"] == [0, 1]
    name, here, everywhere = first["names"][0]
    assert name == "snow" and here == pytest.approx(0.55) and everywhere == pytest.approx(1.1 / 3)
    assert second["names"][0][0] == "fur" and groups(w[:0], table, torch.tensor([])) == []


def test_groups_show_scenery_for_a_biased_network_and_not_for_another(books):
    """Breaks if a group's first names do not show what decides: here the scenery, or the object."""
    photos, words = world.image_set(240, 41, 0.8), books["world/conv"].words
    biased, how = targets.load("world/conv-biased"), {"boxes": images.FIVE_CROPS[4:], "k": 6}
    how |= {"test": world.truth(144, 900, boxes=()), "progress": False}
    probe, clip = world.image_set(144), language.encoder("world")
    built = atlas.build(biased, probe, clip, language.ConceptSet(words), ["layer4"], **how)
    shown = []
    for book in (built, books["world/conv"]):
        x = torch.stack([book.target.preprocess(photos.image(i)) for i in range(len(photos))])
        one = contribute(book.target, x, "layer4")
        found = groups(one.w, book.layer().verified, one.classes)
        homes = [
            (world.HOME[world.CLASSES[g["class"]]], [n for n, *_ in g["names"]]) for g in found
        ]
        shown += [sum(home in names[:k] for home, names in homes) for k in (1, 3)]
        assert len(found) == 24
    assert shown[0] >= 12 and shown[1] >= 16 and shown[2] <= 1 and shown[3] <= 3, shown


def test_pictures_that_two_networks_decide_differently_are_listed(page, path, books, photos):
    """Breaks if the page's list differs from explanations of both networks."""
    expected = []
    for i, name in enumerate(photos.names):
        found = [book.explain(photos.image(i)) for book in books.values()]
        own = [{n.names[0] for n in one.sample.neurons if n.names} for one in found]
        if found[0].predicted_name != found[1].predicted_name or not own[0] & own[1]:
            expected.append(name)
    opened(page, path)
    titles = json.dumps([f"{name} · {book.layer().name}" for name, book in books.items()])
    assert page.evaluate(f"differing({titles}).map((row) => row[0])") == expected
    page.evaluate("DATA.views[1].rows[2].top[0][0] = 99 % DATA.networks[0].classes.length")
    assert photos.names[2] in page.evaluate(f"differing({titles}).map((row) => row[0])")


def test_matching_neurons_are_each_others_nearest(books):
    book = books["world/conv"]
    found = compare({"one": book, "two": book}, world.image_set(48), progress=False)
    assert found["concepts"]["first"] == []
    assert all(i == j and r == pytest.approx(1) for i, j, r, *_ in found["matches"])
    with pytest.raises(ValueError, match="give two"):
        compare({"one": book}, world.image_set(4))
