"""Pixel masks in files, against masks that were drawn by hand."""

import json
import pickle
import warnings

import numpy as np
import pytest
from PIL import Image
from upath import UPath

from wwwlib import evaluation, images

NAMES = {0: "sky", 1: "road", 7: "traffic light"}
NUMBERS = np.array([[0, 0, 1, 1, 1, 1], [0, 7, 7, 1, 1, 1], [255, 7, 7, 1, 1, 255]])
# Of Pascal VOC's map: 0 black, 1 maroon, 7 grey, 255 (void) cream.
VOC = {0: (0, 0, 0), 1: (128, 0, 0), 7: (128, 128, 128), 255: (224, 224, 192)}


def picture(size=(6, 3), seed=0):
    pixels = np.random.RandomState(seed).randint(0, 255, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


def coloured(numbers, colours=VOC):
    pixels = np.zeros((*numbers.shape, 3), np.uint8)
    for number, colour in colours.items():
        pixels[numbers == number] = colour
    return Image.fromarray(pixels)


def palette(numbers):
    image = Image.fromarray(np.uint8(numbers)).convert("P")
    image.putdata(np.uint8(numbers).ravel().tolist())
    image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    return image


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a folder of images, masks and labels, and opens it."""

    def write(drawn, labels="0 sky\n1 road\n7 traffic light\n", size=(6, 3), **options):
        for i, (stem, mask) in enumerate(drawn.items()):
            for kind in ("images", "masks"):
                (tmp_path / kind / stem).parent.mkdir(parents=True, exist_ok=True)
            picture(size, i).save(tmp_path / "images" / f"{stem}.jpg")
            if mask is not None:
                mask.save(tmp_path / "masks" / f"{stem}.png")
        if labels is not None:
            (tmp_path / "labels.txt").write_text(labels, encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return images.load("masks", tmp_path, progress=False, **options)

    return write


@pytest.mark.parametrize(
    "drawn",
    [
        Image.fromarray(np.uint8(NUMBERS)),
        palette(NUMBERS),
        Image.fromarray(np.uint16(NUMBERS)),
        coloured(NUMBERS),
        coloured(NUMBERS).convert("RGBA"),
    ],
    ids=["grey", "palette", "16 bits", "Pascal VOC's colours", "with alpha"],
)
def test_pixels_are_numbers_in_every_kind_of_file(make, drawn):
    probe = make({"a": drawn, "deep/er/b": drawn})
    assert probe.names == ("a.jpg", "deep/er/b.jpg") and probe.labels == (None, None)
    for i in range(2):
        found = probe.masks(i)
        assert found.keys() == {*NAMES.values()}
        for number, name in NAMES.items():
            assert found[name].dtype == bool and np.array_equal(found[name], number == NUMBERS)


def test_numbers_above_255_fit_into_16_bits(make):
    numbers = NUMBERS.copy()
    numbers[numbers == 7] = 1007
    found = make({"a": Image.fromarray(np.uint16(numbers))}, "0 sky\n1 road\n1007 sign\n").masks(0)
    assert np.array_equal(found["sign"], NUMBERS == 7)


def test_labels_may_be_colours_with_categories_and_names_may_repeat(make):
    colours = {0: (1, 2, 3), 1: (128, 64, 128), 7: (0, 255, 9), 255: (9, 9, 9)}
    labels = (
        "\ufeff1 2 3 sky\tscene\n\n128,64,128 road\r\n0 255 9 traffic light\tobject\n9 9 9 road\n"
    )
    probe = make({"a": coloured(NUMBERS, colours)}, labels)
    assert probe.masks.categories == {
        "sky": "scene", "road": "object", "traffic light": "object"
    }  # fmt: skip
    found = probe.masks(0)
    assert np.array_equal(found["road"], (NUMBERS == 1) | (NUMBERS == 255))
    assert np.array_equal(found["sky"], NUMBERS == 0)


def test_masks_may_be_of_another_size_in_the_proportions_of_the_image(make):
    probe = make({"a": Image.fromarray(np.uint8(NUMBERS))}, size=(600, 299))
    assert probe.image(0).size == (600, 299) and probe.masks(0)["sky"].shape == (3, 6)


def test_numbers_without_a_name_are_counted_and_show_nothing(make, tmp_path):
    drawn = {stem: Image.fromarray(np.uint8(NUMBERS)) for stem in "ab"}
    with pytest.raises(UserWarning, match=r"The number 7 .* in 2 of 2 masks count as unlabelled"):
        make(drawn, "0 sky\n1 road\n")
    for ignore, number in (((7, 255), None), ((7,), 255)):
        try:
            found = make(drawn, "0 sky\n1 road\n", ignore=ignore).masks(1)
        except UserWarning as warned:
            assert number and f"The number {number} has no name" in str(warned)
        else:
            assert number is None and found.keys() == {"sky", "road"}


def test_numbers_that_are_ignored_are_no_concepts_though_they_have_a_name(make):
    labels = "0 sky\n1 road\n7 traffic light\n255 void\n"
    probe = make({"a": Image.fromarray(np.uint8(NUMBERS))}, labels, ignore=(0, 255))
    assert [*probe.masks.categories] == ["road", "traffic light"] == [*probe.masks(0)]


def test_files_of_one_name_are_refused(make, tmp_path):
    """Breaks if one of two images of a name takes the other's place, or a suffix is guessed."""
    good = Image.fromarray(np.uint8(NUMBERS))
    assert make({"a.b/img": good, "a.b/two.three": good}).names == (
        "a.b/img.jpg",
        "a.b/two.three.jpg",
    )
    picture().save(tmp_path / "images" / "a.b" / "img.png")
    with pytest.raises(ValueError, match=r"'a.b/img.jpg' and 'a.b/img.png' have one name"):
        images.masks(tmp_path, progress=False)


def test_masks_with_losses_are_refused(make, tmp_path):
    make({"a": Image.fromarray(np.uint8(NUMBERS))})
    (tmp_path / "masks" / "a.png").unlink()
    Image.fromarray(np.uint8(NUMBERS)).save(tmp_path / "masks" / "a.jpg")
    with pytest.raises(ValueError, match="it is a JPEG, which changes numbers; save masks as PNG"):
        images.masks(tmp_path, progress=False)


def test_folders_behind_a_url_are_opened(make, tmp_path):
    probe = make({"a": Image.fromarray(np.uint8(NUMBERS)), "b/c": palette(NUMBERS)})
    for path in (one for one in tmp_path.rglob("*") if one.is_file()):
        copy = UPath("memory://masked") / path.relative_to(tmp_path).as_posix()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    found = images.load("masks", "memory://masked", progress=False)
    assert found.names == probe.names and found.masks.fingerprint == probe.masks.fingerprint
    assert np.array_equal(found.masks(1)["road"], NUMBERS == 1)


def test_what_has_no_partner_is_left_out_counted_and_listed(make, tmp_path):
    good = Image.fromarray(np.uint8(NUMBERS))
    make({"a": good, "b": good})
    picture().save(tmp_path / "images" / "c.jpg")
    good.save(tmp_path / "masks" / "d.png")
    with pytest.warns(UserWarning, match="1 of 3 images .* have no mask and 1 of 3 masks no image"):
        probe = images.masks(tmp_path, progress=False)
    assert probe.names == ("a.jpg", "b.jpg")
    listed = [(one.path, one.reason) for one in probe.skipped]
    assert listed == [("images/c.jpg", "it has no mask"), ("mask of d", "it has no image")]


def test_a_damaged_mask_leaves_its_image_out_and_moves_no_other(make, tmp_path):
    """Breaks if the masks of later images are those of earlier ones."""
    numbers = {"a": 0, "b": 1, "c": 7}
    drawn = {s: Image.fromarray(np.full((3, 6), n, np.uint8)) for s, n in numbers.items()}
    make(drawn)
    (tmp_path / "masks" / "b.png").write_bytes(b"no PNG")
    (tmp_path / "images" / "a.jpg").write_bytes(b"no JPEG")
    with pytest.warns(UserWarning, match="cannot be used and were skipped"):
        probe = images.masks(tmp_path, tolerate=0.5, progress=False)
    assert probe.names == ("c.jpg",) and probe.masks(0).keys() == {"traffic light"}
    assert [one.path for one in probe.skipped] == ["mask of b.jpg", "a.jpg"]


@pytest.mark.parametrize(
    ("drawn", "labels", "sentence"),
    [
        ({"a": coloured(NUMBERS, {1: (1, 2, 3)})}, "0 sky\n1 road\n",
         r"'mask of a.jpg': its pixels have the colour \(1, 2, 3\), which is none of Pascal VOC's"),
        ({"a": Image.fromarray(np.uint8(NUMBERS))}, "1 2 3 sky\n",
         r"the colour \(0, 0, 0\), which is none of the colours in labels.txt"),
        ({"a": Image.fromarray(np.uint8(NUMBERS.T))}, "0 sky\n1 road\n7 x\n",
         "its 3 x 6 pixels are not in the proportions of its image, 6 x 3"),
        ({"a": None}, "0 sky\n", "No image .* has a mask: 1 images and 0 masks have no name"),
        ({"a": Image.fromarray(np.uint8(NUMBERS))}, "sky\n",
         "Line 1 of .* is 'sky'; expected '7 traffic light'"),
        ({"a": Image.fromarray(np.uint8(NUMBERS))}, "0 sky\n0 road\n",
         "Line 2 of .* repeats another's pixels: '0 road'"),
        ({"a": Image.fromarray(np.uint8(NUMBERS))}, "0 sky\n1 2 3 road\n",
         "has lines with numbers and with colours"),
        ({"a": Image.fromarray(np.uint8(NUMBERS))}, "\n", "has no lines"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_rightly_is_refused_in_a_sentence(make, drawn, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(drawn, labels)


def test_missing_parts_are_named(make, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No 'labels\.txt' in .*; give the names"):
        make({"a": Image.fromarray(np.uint8(NUMBERS))}, labels=None)
    with pytest.raises(NotADirectoryError, match="masks'"):
        (tmp_path / "labels.txt").write_text("0 sky")
        (tmp_path / "masks" / "a.png").unlink()
        (tmp_path / "masks").rmdir()
        images.masks(tmp_path)
    with pytest.raises(ValueError, match="'masks' needs a folder: give root"):
        images.load("masks")
    with pytest.raises(ValueError, match="'world' needs no folder: leave root out"):
        images.load("world", tmp_path)
    assert len(images.load("world", count=30)) == 30
    with pytest.raises(ValueError, match="is 'mask'; use one of folder, masks, world"):
        images.load("mask", tmp_path)


def test_masks_that_changed_are_refused(make, tmp_path):
    probe = make({"a": Image.fromarray(np.uint8(NUMBERS))})
    Image.fromarray(np.uint8(NUMBERS * 0)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(ValueError, match="it changed since the image set was opened"):
        probe.masks(0)
    assert images.masks(tmp_path).masks.fingerprint != probe.masks.fingerprint


def test_subsets_and_crops_have_the_masks_of_their_images(make):
    drawn = {s: Image.fromarray(np.uint8((NUMBERS + n) % 2)) for n, s in enumerate("abc")}
    probe = make(drawn, "0 sky\n1 road\n", size=(12, 6))
    part = images.subset(probe, [2, 0])
    assert np.array_equal(part.masks(0)["sky"], probe.masks(2)["sky"])
    assert part.masks.fingerprint not in (
        probe.masks.fingerprint,
        images.subset(probe, [2, 1]).masks.fingerprint,
    )
    cropped = images.crops(part, [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)])
    for i in range(4):
        whole, left = part.masks(i // 2), 3 * (i % 2)
        expected = {name: mask[:, left : left + 3] for name, mask in whole.items()}
        expected = {name: mask for name, mask in expected.items() if mask.any()}
        found = pickle.loads(pickle.dumps(cropped)).masks(i)  # as worker processes get it
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], mask) for name, mask in expected.items())
    assert cropped.masks.categories == {"sky": "object", "road": "object"}


def test_the_truth_of_names_comes_from_masks(make):
    drawn = {
        s: Image.fromarray(np.uint8(np.where(NUMBERS == 7, n, 0))) for n, s in enumerate("abc")
    }
    probe = make(drawn, "0 sky\n1 car\n2 bus\n")
    truth = evaluation.from_masks(probe, {"car": ("automobile",)}, progress=False)
    assert truth.words == ("sky", "car", "bus", "automobile")
    assert truth.present.tolist() == [[True, False, False, False], [True, True, False, True],
                                      [True, False, True, False]]  # fmt: skip


# COCO -----------------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    """Return a folder of two images: a polygon, a run-length encoding, and nothing."""
    (tmp_path / "images" / "val").mkdir(parents=True)
    for name, seed in (("b", 1), ("a", 2), ("c", 3)):
        picture((8, 6), seed).save(tmp_path / "images" / "val" / f"{name}.jpg")
    mask = np.zeros((6, 8), np.uint8)
    mask[2:5, 1:4] = 1
    flat, counts, value = mask.T.ravel().tolist(), [0], 0  # column by column
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    record = {
        "images": [{"id": n, "file_name": f"val/{s}.jpg", "height": 6, "width": 8}
                   for n, s in ((7, "a"), (3, "b"), (1, "c"))],
        "categories": [{"id": 5, "name": "cat", "supercategory": "animal"},
                       {"id": 9, "name": "bus"}],
        "annotations": [
            {"image_id": 7, "category_id": 5, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]},
            {"image_id": 3, "category_id": 9, "segmentation": {"counts": counts, "size": [6, 8]}},
            {"image_id": 3, "category_id": 9,
             "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [5, 0, 8, 0, 8, 1, 5, 1]]},
        ],
    }  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(record))
    return tmp_path, mask.astype(bool)


def test_annotations_of_coco_are_masks(coco):
    root, run_length = coco
    probe = images.load("masks", root, progress=False)
    assert probe.names == ("val/a.jpg", "val/b.jpg", "val/c.jpg")
    assert probe.masks.categories == {"cat": "animal", "bus": "object"}
    cat = np.zeros((6, 8), bool)
    cat[1:4, 2:6] = True
    assert probe.masks(0).keys() == {"cat"} and np.array_equal(probe.masks(0)["cat"], cat)
    bus = run_length.copy()
    bus[0:2, 0:2] = bus[0, 5:8] = True
    assert np.array_equal(probe.masks(1)["bus"], bus) and probe.masks(2) == {}


def test_compressed_run_lengths_are_decoded(coco):
    from pycocotools import mask as tool

    root, expected = coco
    record = json.loads((root / "instances.json").read_text())
    packed = tool.encode(np.asfortranarray(expected.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    record["annotations"] = [{"image_id": 1, "category_id": 5, "segmentation": packed}]
    (root / "instances.json").write_text(json.dumps(record))
    assert np.array_equal(images.masks(root, progress=False).masks(2)["cat"], expected)


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("annotations", [{"image_id": 8, "category_id": 5, "segmentation": []}], "8"),
        ("annotations", [{"image_id": 7, "category_id": 6, "segmentation": []}], "6"),
        ("annotations", [{"image_id": 7, "category_id": 5}], "segmentation"),
        ("categories", None, "NoneType"),
    ],
)
def test_annotations_that_refer_to_nothing_are_refused(coco, part, change, sentence):
    root, _ = coco
    record = json.loads((root / "instances.json").read_text())
    (root / "instances.json").write_text(json.dumps({**record, part: change}))
    with pytest.raises(ValueError, match=f"are no annotations of COCO.*{sentence}"):
        images.masks(root)


@pytest.mark.parametrize(
    "shape",
    [{"counts": [0, 48], "size": [8, 6]}, {"counts": [4, 4], "size": [6, 8]}, [[1, 1, 4, 4]], [[3]],
     {"size": [6, 8]}],
)  # fmt: skip
def test_annotations_that_do_not_fit_leave_their_image_out(coco, shape):
    """Breaks if four numbers are read as a box, or a mask of another size fails in a pass."""
    root, _ = coco
    record = json.loads((root / "instances.json").read_text())
    record["annotations"][1]["segmentation"] = shape
    (root / "instances.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="1 of 3 masks"):
        probe = images.masks(root, tolerate=0.5, progress=False)
    assert probe.names == ("val/a.jpg", "val/c.jpg") and probe.masks(0).keys() == {"cat"}
    assert "'bus' has another size or too few points" in probe.skipped[0].reason


def test_annotations_without_a_shape_show_nothing(coco):
    root, _ = coco
    record = json.loads((root / "instances.json").read_text())
    record["annotations"][0]["segmentation"] = []
    (root / "instances.json").write_text(json.dumps(record))
    assert images.masks(root, progress=False).masks(0) == {}


def test_annotations_of_turned_photographs_are_not_used(coco):
    root, _ = coco
    record = json.loads((root / "instances.json").read_text())
    record["images"][2] |= {"height": 8, "width": 6}
    (root / "instances.json").write_text(json.dumps(record))
    with pytest.warns(UserWarning, match="1 of 3 masks"):
        probe = images.masks(root, tolerate=0.5, progress=False)
    assert "6 x 8 pixels are not in the proportions of its image, 8 x 6" in str(probe.skipped[0])


def test_several_files_of_annotations_are_refused(coco):
    root, _ = coco
    (root / "._instances.json").write_bytes(b"\xff")  # beside files of other systems
    assert len(images.masks(root, progress=False)) == 3
    (root / "captions.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds 'captions\.json', 'instances\.json'; keep the"):
        images.masks(root)
    (root / "instances.json").unlink()
    with pytest.raises(ValueError, match=r"captions\.json' are no annotations of COCO"):
        images.masks(root)


def test_images_without_an_entry_are_left_out(coco):
    root, _ = coco
    picture((8, 6)).save(root / "images" / "more.jpg")
    with pytest.warns(UserWarning, match="1 of 4 images .* have no mask and 0 of 3 masks no image"):
        assert len(images.masks(root, progress=False)) == 3


# Real photographs -----------------------------------------------------------------------------


@pytest.mark.real
def test_street_scenes_have_the_masks_of_their_files(real):
    with pytest.warns(UserWarning, match="The number 11 has no name .* in 92 of 92 masks"):
        probe = images.load("masks", real / "camvid", progress=False)
    assert (len(probe), len(probe.masks.categories)) == (92, 11)
    lines = (real / "camvid" / "labels.txt").read_text().splitlines()
    names = {int(line.split()[0]): line.split(maxsplit=1)[1] for line in lines}
    for i in (0, 40, 91):
        stem = probe.names[i].removesuffix(".jpg")
        numbers = np.asarray(Image.open(real / "camvid" / "masks" / f"{stem}.png"))
        expected = {names[n] for n in np.unique(numbers).tolist() if n in names}
        found = probe.masks(i)
        assert found.keys() == expected
        assert all((found[names[n]] == (numbers == n)).all() for n in names if names[n] in found)
