"""Network Dissection against literal loops, on masks that were planted, and on Broden's layout."""

import csv
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from wwwlib import images, store, targets, world
from wwwlib.baselines import common, network_dissection
from wwwlib.baselines.common import visible_box
from wwwlib.images.image_set import crop_mask
from wwwlib.studies import datasets

SIDE, CELLS, COUNT = 12, 4, 5  # masks and images of 12 x 12 pixels, maps of 4 x 4 cells
CATEGORIES = {"cat": "object", "dog": "object", "night": "scene", "red": "colour", "never": "part"}


class Random:
    """Random masks; category "colour" is unlabelled on some images, "never" on all."""

    categories = CATEGORIES
    fingerprint = "random"

    def __call__(self, i):
        rng = np.random.RandomState(i)
        drawn = {word: rng.rand(SIDE, SIDE) < 0.3 for word in ("cat", "night", "red")}
        if i % 2:
            del drawn["red"]
            drawn["dog"] = rng.rand(SIDE, SIDE) < 0.1
        return drawn


def noise(i):
    pixels = np.random.RandomState(100 + i).randint(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(pixels)


def pictures(reader=noise, count=COUNT):
    names = tuple(map(str, range(count)))
    return images.ImageSet("test", reader.__name__, names, (None,) * count, (), reader)


def to_tensor(image, side=SIDE):
    return pixels(image.resize((side, side)))


def pixels(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255


def network(neurons=3):
    torch.manual_seed(5)
    parts = (
        nn.Conv2d(3, neurons, 3, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(neurons, 2),
    )
    return targets.wrap(nn.Sequential(*parts), to_tensor, ("a", "b"), "test")


def dissect(target=None, layers=("0",), probe=None, of=None, **options):
    options = {"share": 0.1, "progress": False, **options}
    probe = probe or pictures()
    probe = replace(probe, masks=of or probe.masks or Random())
    return network_dissection.dissect(target or network(), probe, list(layers), **options)


# The literal version


def maps(target, layer):
    """(N, h, w) lists for each image, from the module itself."""
    kept = []
    handle = target.module(layer).register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        target.model(torch.stack([to_tensor(noise(i)) for i in range(COUNT)]))
    handle.remove()
    return [a.tolist() if a.ndim == 3 else a[:, None, None].tolist() for a in kept[0]]


def literal_threshold(values, share):
    return min(t for t in values if sum(u > t for u in values) <= share * len(values))


def enlarged(a, row, column):
    """Read a map where the centre of a pixel of the larger image falls, between four cells."""

    def between(position, cells):
        x = min(max((position + 0.5) * cells / SIDE - 0.5, 0), cells - 1)
        low = int(x)
        return low, min(low + 1, cells - 1), x - low

    top, bottom, down = between(row, len(a))
    left, right, along = between(column, len(a[0]))
    upper = a[top][left] * (1 - along) + a[top][right] * along
    lower = a[bottom][left] * (1 - along) + a[bottom][right] * along
    return upper * (1 - down) + lower * down


def literal_iou(all_maps, share):
    """Sum over the images that have any label of the concept's category."""
    rows, thresholds = [], []
    for n in range(len(all_maps[0])):
        t = literal_threshold([v for a in all_maps for line in a[n] for v in line], share)
        counts = {word: [0, 0] for word in CATEGORIES}
        for i, a in enumerate(all_maps):
            shown = Random()(i)
            for word, category in CATEGORIES.items():
                if category not in {CATEGORIES[other] for other in shown}:
                    continue
                for r in range(SIDE):
                    for c in range(SIDE):
                        on = enlarged(a[n], r, c) > t
                        there = word in shown and bool(shown[word][r, c])
                        counts[word][0] += on and there
                        counts[word][1] += on or there
        rows.append([both / either if either else 0 for both, either in counts.values()])
        thresholds.append(t)
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(thresholds)


def centre(image):
    """Twice as large, and of that the middle third of the width and half of the height."""
    large = image.resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
    return pixels(large.crop((8, 6, 16, 18)))


def cropping():
    """A network whose only neuron is the brightness of its input."""
    bright = nn.Conv2d(3, 1, 1, bias=False)
    bright.weight = nn.Parameter(torch.ones_like(bright.weight))
    model = nn.Sequential(bright, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    return targets.wrap(model, centre, ("a", "b"), "centre")


def test_masks_are_cut_to_what_the_network_sees():
    """Pixel by pixel: an image painted with its mask, both seen through the middle of the image."""

    def painted(i):
        return Image.fromarray(np.uint8(Random()(i)["cat"])[..., None].repeat(3, -1) * 255)

    seen = [Random()(i)["cat"][3:9, 4:8] for i in range(COUNT)]
    share = sum(map(np.sum, seen)) / sum(map(np.size, seen))
    made = dissect(cropping(), probe=pictures(painted), share=share)["0"]
    assert made.iou[0, made.concepts.index("cat")] > 0.8, "blurred by enlarging, but in its place"
    exact = [centre(painted(i))[0, ::2, ::2].bool().numpy() for i in range(COUNT)]
    assert all((a == b).all() for a, b in zip(exact, seen, strict=True))
    part = visible_box(cropping(), (SIDE, SIDE))
    assert all((crop_mask(Random()(i)["cat"], part) == seen[i]).all() for i in range(COUNT))


def test_a_concept_outside_of_what_the_network_sees_is_not_there():
    class Corner(Random):
        def __call__(self, i):
            corner = np.zeros((SIDE, SIDE), bool)
            corner[0, 0] = True
            return {"cat": corner, "night": ~corner}

    made = dissect(cropping(), of=Corner())["0"]
    assert made.iou[0, made.concepts.index("cat")] == 0
    assert made.iou[0, made.concepts.index("night")] > 0


def shift(image):
    return to_tensor(image).roll(3, dims=2)


def mirror(image):
    return to_tensor(image).flip(2)


def framed(image):
    return nn.functional.pad(to_tensor(image), (4, 4))


@pytest.mark.parametrize("preprocess", [shift, mirror, framed])
def test_what_moves_pixels_otherwise_is_refused(preprocess):
    target = targets.wrap(network().model, preprocess, ("a", "b"), "odd")
    with pytest.raises(ValueError, match="odd does more to an image of 12 x 12 pixels than to"):
        dissect(target)


@pytest.mark.parametrize("layer", ["0", "logits"])
def test_equals_the_literal_loops(layer):
    target = network()
    made = dissect(target, [layer])[layer]
    iou, threshold = literal_iou(maps(target, layer), 0.1)
    torch.testing.assert_close(made.iou, iou, rtol=1e-12, atol=0)
    torch.testing.assert_close(made.threshold, threshold, rtol=1e-6, atol=0)
    assert made.concepts == tuple(CATEGORIES)
    assert made.iou[:, made.concepts.index("never")].eq(0).all()


def test_maps_that_nowhere_exceed_their_threshold_are_not_resized(monkeypatch):
    """Breaks if the cost is that of all maps again, of which few exceed at a small share."""
    original, resized = common.above, []

    def above(a, threshold, size):
        resized.extend((a > threshold[:, None, None]).flatten(1).any(1).tolist())
        return original(a, threshold, size)

    monkeypatch.setattr(common, "above", above)
    dissect(share=0.02)
    assert resized and all(resized) and len(resized) < 3 * COUNT


def test_what_rounding_alone_lifts_above_the_threshold_is_not_counted():
    """Maps of one value, of which interpolation lifts some pixels above it."""
    value = torch.tensor([0.1, 0.2, 0.7])
    assert common.above(value[:, None, None].expand(-1, 7, 7), value, (SIDE, SIDE)).any()
    flat = network()
    nn.init.zeros_(flat.network[0].weight)
    flat.network[0].bias.data.copy_(value)
    made = dissect(targets.wrap(flat.network, partial(to_tensor, side=21), ("a", "b"), "flat"))
    assert torch.equal(made["0"].threshold, value) and not made["0"].iou.any()


def test_the_layout_in_memory_does_not_matter():
    a = torch.randn(5, CELLS, CELLS)
    last = a.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    one, other = (common.above(x, torch.zeros(5), (SIDE, SIDE)) for x in (a, last))
    assert torch.equal(one, other)


def test_batches_layers_and_their_order_do_not_matter():
    both = dissect(layers=["logits", "0"], batch_size=2)
    for layer in ("0", "logits"):
        alone = dissect(layers=[layer], batch_size=COUNT)[layer]
        torch.testing.assert_close(both[layer].iou, alone.iou, rtol=1e-12, atol=0)


def test_a_store_answers_the_second_time_and_an_interrupt_counts_nothing_twice(tmp_path):
    """The interrupt falls in the middle of a batch, after some of its images were counted."""
    kept, expected = store.Store(tmp_path), dissect()["0"]

    class Interrupted(Random):
        def __call__(self, i):
            if i == 3:
                raise KeyboardInterrupt
            return super().__call__(i)

    with pytest.raises(KeyboardInterrupt):
        dissect(of=Interrupted(), store=kept, batch_size=2)
    for of in (Random(), Interrupted()):
        made = dissect(of=of, store=kept, batch_size=2)["0"]
        assert made.iou.tolist() == expected.iou.tolist()
    with pytest.raises(KeyboardInterrupt):
        dissect(of=Interrupted(), store=kept, share=0.2)


# Planted concepts


class Square:
    """Image i is white in one square, the label "window" of every second image."""

    def __init__(self):
        self.categories = {"window": "object", "roof": "object", "white": "colour"}
        self.fingerprint = "square"

    def __call__(self, i):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[i : i + 3, 4:8] = True
        return {"white": mask} if i % 2 else {"white": mask, "window": mask, "roof": ~mask}


def square(i):
    return Image.fromarray(np.uint8(Square()(i)["white"])[..., None].repeat(3, -1) * 255)


def test_images_without_labels_of_the_category_do_not_count_against_a_detector():
    """Neuron 0 is the brightness, neuron 1 its opposite, neuron 2 constant."""
    three = nn.Conv2d(3, 3, 1, bias=False)
    three.weight = nn.Parameter(
        torch.tensor([1.0, -1.0, 0.0])[:, None, None, None].repeat(1, 3, 1, 1)
    )
    model = nn.Sequential(three, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    target = targets.wrap(model, to_tensor, ("a", "b", "c"), "test")
    made = dissect(target, probe=pictures(square), of=Square(), share=12 / 144)["0"]
    assert made.iou[0].tolist() == [1, 0, 1]
    assert made.table().names == [["window"], [], []]
    made = dissect(target, probe=pictures(square), of=Square(), share=1 - 12 / 144)["0"]
    assert made.table().names[1] == ["roof"]


def test_tables_keep_the_best_above_the_minimum():
    iou = torch.tensor([[0.03, 0.2, 0.2], [0.04, 0.01, 0.0]], dtype=torch.float64)
    made = network_dissection.Dissection(("a", "b", "c"), iou, torch.zeros(2))
    table = made.table()
    assert (table.names, table.scores) == ([["b"], []], [[0.2], []])
    assert table.threshold.tolist() == [0.2, 0]
    assert table.abstained.tolist() == [False, True]
    assert made.table(minimum=0).names == [["b"], ["a"]]


class Mixed(Random):
    def __call__(self, i):
        return {"cat": np.ones((2, 2), bool), "mouse": np.ones((3, 3), bool)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"share": 0.0}, "share is 0.0"),
        ({"layers": "0"}, "give a list"),
        ({"of": Mixed()}, "image 0 have the sizes .* without a category \\['mouse'\\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence):
    options = {"layers": ["0"]} | change
    probe = replace(pictures(), masks=options.pop("of", Random()))
    with pytest.raises(ValueError, match=sentence):
        network_dissection.dissect(network(), probe, progress=False, **options)


def test_images_without_masks_are_refused():
    with pytest.raises(ValueError, match="has no pixel masks; open a set with"):
        network_dissection.dissect(network(), pictures(), ["0"], progress=False)


# The concept world


def test_the_worlds_images_and_masks_are_of_the_same_scenes():
    probe = world.image_set(3, seed=4, context_bias=0.5, swap=True)
    of = probe.masks
    for i in range(3):
        picture = world.render(world.sample(i, 4, 0.5, swap=True))
        assert probe.image(i).tobytes() == picture.image.tobytes()
        assert of(i).keys() == picture.masks.keys() <= of.categories.keys()
        assert all((of(i)[word] == mask).all() for word, mask in picture.masks.items())
    assert of.categories["boat"] == "object"
    assert of.fingerprint != world.WorldMasks(5).fingerprint
    assert world.WorldMasks(5) == world.WorldMasks(5)


def test_a_neuron_that_sees_red_is_called_red():
    probe = world.image_set(24)
    weight = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]])[:, :, None, None]
    colours = nn.Conv2d(3, 2, 1, bias=False)
    colours.weight = nn.Parameter(weight)
    model = nn.Sequential(colours, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    target = targets.wrap(model, partial(to_tensor, side=64), ("a", "b"), "test")
    made = dissect(target, probe=probe, share=0.02)["0"]
    colours = [made.concepts.index(name) for name in ("red", "green")]
    assert made.iou[:, colours].argmax(1).tolist() == [0, 1]
    assert made.iou[:, colours].argmax(0).tolist() == [0, 1]


# Broden


LABELS = [
    (1, "red-c", "color(40)"),
    (2, "car", "object(30)"),
    (3, "wheel", "part(12);object(3)"),
    (4, "door", "object(2);part(9)"),
    (7, "street-s", "scene(5)"),
    (8, "striped", "texture(5)"),
    (300, "truck", "object(5)"),
]
SIZE = (3, 4)


def plane(**places):
    """Encode {label: [(row, column), ...]} as red + 256 green."""
    pixels = np.zeros((*SIZE, 3), np.uint8)
    for label, cells in places.items():
        number = int(label.removeprefix("n"))
        for row, column in cells:
            pixels[row, column] = number % 256, number // 256, 99
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    shown = tmp_path / "images" / "ade"
    shown.mkdir(parents=True)
    for i, name in enumerate(("a", "bad", "b")):
        noise(i).save(shown / f"{name}.png")
    (shown / "bad.png").write_bytes(b"no image")
    plane(n2=[(0, 0), (0, 1)], n300=[(2, 3)]).save(shown / "a_object.png")
    plane(n3=[(0, 0)]).save(shown / "a_part1.png")
    plane(n3=[(1, 1)], n4=[(0, 1)]).save(shown / "a_part2.png")
    columns = ["image", "split", "ih", "iw", "sh", "sw"]
    columns += ["color", "object", "part", "material", "scene", "texture"]
    size = (12, 12, *SIZE)
    parts = "ade/a_part1.png;ade/a_part2.png"
    rows = [
        ("ade/a.png", "train", *size, "", "ade/a_object.png", parts, "", "", ""),
        ("ade/bad.png", "train", *size, "", "ade/a_object.png", "", "", "", ""),
        ("ade/b.png", "val", *size, "1", "", "", "", "7", "8;1"),
    ]
    table(tmp_path / "index.csv", columns, rows)
    table(tmp_path / "label.csv", ["number", "name", "category"], LABELS)
    return tmp_path


def table(path, columns, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def places(mask):
    return [tuple(cell) for cell in np.argwhere(mask).tolist()]


def test_broden_masks_by_hand(folder):
    """Planes of a category are joined; labels above 255 use green; a bad image shifts nothing."""
    with pytest.warns(UserWarning, match="1 of 3"):
        probe = network_dissection.broden(folder, tolerate=0.5)
    of = probe.masks
    assert probe.names == ("ade/a.png", "ade/b.png")
    assert {word: places(mask) for word, mask in of(0).items()} == {
        "car": [(0, 0), (0, 1)],
        "truck": [(2, 3)],
        "wheel": [(0, 0), (1, 1)],
        "door": [(0, 1)],
    }
    assert {word: (mask.shape, mask.all()) for word, mask in of(1).items()} == {
        "red-c": (SIZE, True),
        "street-s": (SIZE, True),
        "striped": (SIZE, True),
    }
    assert of.categories["wheel"] == "part" and of.categories["door"] == "part"


@pytest.mark.filterwarnings("ignore:1 of 2 files")
def test_brodens_images_are_those_of_its_index_and_none_of_its_masks(folder):
    """Breaks if mask files, which lie beside the images, are probed as photographs."""
    with pytest.warns(UserWarning, match="1 of 3"):
        probe = datasets.FOLDERS["broden"](folder, tolerate=0.5)
    assert len(list((folder / "images").rglob("*.png"))) == 6
    assert probe.names == ("ade/a.png", "ade/b.png") and probe.labels == (None, None)


def test_broden_can_be_dissected_and_split(folder):
    probe = network_dissection.broden(folder, "val")
    of = probe.masks
    assert (probe.names, len(of.rows)) == (("ade/b.png",), 1)
    made = dissect(probe=probe)["0"]
    assert made.iou.shape == (3, len(LABELS))
    assert of.fingerprint == network_dissection.broden(folder, "val").masks.fingerprint
    assert (
        of.fingerprint != network_dissection.broden(folder, "train", tolerate=0.9).masks.fingerprint
    )


def test_a_broken_broden_says_what_is_wrong(folder):
    with pytest.raises(ValueError, match="splits are train, val"):
        network_dissection.broden(folder, "test")
    table(folder / "label.csv", ["number", "name", "category"], LABELS[1:])
    with pytest.raises(ValueError, match="label 1, which label"):
        network_dissection.broden(folder, "val").masks(0)
    table(folder / "label.csv", ["number", "name", "category"], [(1, "red-c", "color")])
    with pytest.raises(ValueError, match="category 'color' in"):
        network_dissection.broden(folder, "val")
    table(folder / "label.csv", ["number", "name"], [])
    with pytest.raises(ValueError, match="no column 'category'"):
        network_dissection.broden(folder, "val")
    (folder / "label.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"label\.csv.; give the folder"):
        network_dissection.broden(folder, "val")


@pytest.mark.parametrize("size", [(224, 224), (500, 375), (256, 341), (640, 96)])
def test_the_visible_box_is_that_of_the_resize_and_crop(size):
    """By hand: the short side becomes 256 pixels, and 224 of each side are kept."""
    crop = v2.Compose([v2.PILToTensor(), v2.Resize(256), v2.CenterCrop(224),
                       v2.ToDtype(torch.float32, scale=True)])  # fmt: skip
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224**2, 2))
    found = visible_box(targets.wrap(model, crop, ("a", "b"), "crop"), size)
    for side, (start, stop) in zip(size, (found[::2], found[1::2]), strict=True):
        length = int(side * 256 / min(size))
        assert start == pytest.approx(round((length - 224) / 2) / length, abs=0.003)
        assert stop - start == pytest.approx(224 / length, abs=0.005)


def test_preprocessing_that_mirrors_has_no_visible_box():
    mirrored = v2.Compose([v2.PILToTensor(), v2.Resize((30, 40)), v2.RandomHorizontalFlip(1.0),
                           v2.ToDtype(torch.float32, scale=True)])  # fmt: skip
    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"of small does more to an image of 40 x 30 pixels than"):
        visible_box(targets.wrap(mean, mirrored, ["a", "b", "c"], "small"), (40, 30))


def test_a_mask_is_cropped_to_a_box_of_at_least_one_pixel():
    mask = np.arange(20).reshape(4, 5)
    assert crop_mask(mask, (0.2, 0.25, 0.6, 1.0)).tolist() == [[6, 7], [11, 12], [16, 17]]
    assert crop_mask(mask, (0.0, 0.0, 1.0, 1.0)).tolist() == mask.tolist()
    assert crop_mask(mask, (0.99, 0.99, 1.0, 1.0)).tolist() == [[19]]
