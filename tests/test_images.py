"""Probe sets: what a folder may hold, and that order, labels and fingerprints can be trusted."""

import io
import multiprocessing
import os
import pickle
import re
import shutil
import struct
import unicodedata
import warnings
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.datasets.folder import default_loader
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import images, world
from wwwlib.studies import datasets

pytestmark = pytest.mark.filterwarnings("ignore:.*were skipped:UserWarning")


def noise(seed=0, size=(40, 30), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (noise(zlib.crc32(path.name.encode())) if image is None else image).save(path, **options)
    return path


def to_tensor(image):
    """Unlike a lambda, it can be pickled for a worker."""
    return pil_to_tensor(image).float()


def huge_png(width=40_000, height=40_000):
    """Only a header, but a valid one."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def tree(tmp_path):
    """Two classes of five images, a file beside them, and hidden files."""
    for name in "ba":
        for i in (3, 1, 0, 2, 4):
            write(tmp_path / name / f"{i}.png", noise(10 * ord(name) + i))
    write(tmp_path / ".thumbnails" / "0.png")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    return tmp_path


def test_folder_is_sorted_and_labelled_by_subfolder(tree):
    write(tree / "b" / "deeper" / "9.png")
    found = images.folder(tree)
    assert found.names[:2] == ("a/0.png", "a/1.png")
    assert found.names[-1] == "b/deeper/9.png"
    assert found.labels == (0,) * 5 + (1,) * 6
    assert found.classes == ("a", "b")
    assert len(found) == 11 and found.label(10) == 1 and not found.skipped


def test_flat_folder_has_no_labels(tree):
    found = images.folder(tree / "a")
    assert found.labels == (None,) * 5 and found.classes == ()


def test_image_beside_the_class_folders_is_kept_without_label(tree):
    write(tree / "stray.png")
    found = images.folder(tree)
    assert found.labels[found.names.index("stray.png")] is None


def test_order_does_not_follow_the_file_system(tree, monkeypatch):
    expected = images.folder(tree)
    listed = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listed(path))[::-1])
    found = images.folder(tree)
    assert (found.names, found.fingerprint) == (expected.names, expected.fingerprint)


def test_links_to_a_parent_folder_are_not_followed(tree):
    (tree / "a" / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "a" / "self").symlink_to("self")
    (tree / "a" / "gone.png").symlink_to("nowhere.png")
    found = images.folder(tree, tolerate=0.5)
    assert len(found) == 10
    assert {s.path for s in found.skipped} == {"a/self", "a/gone.png"}


def test_linked_folders_count_once(tmp_path):
    """Breaks if n folders, each linked twice from the one before, count for 2**n."""
    root = tmp_path / "root"
    for i in range(12):
        write(root / f"{i:02d}" / "x.png")
    for i in range(11):
        for name in "ab":
            (root / f"{i:02d}" / name).symlink_to(root / f"{i + 1:02d}", target_is_directory=True)
    write(tmp_path / "elsewhere" / "y.png")
    for name in ("0-first", "0-second"):
        (root / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = images.folder(root)
    assert found.names == ("0-first/y.png", *(f"{i:02d}/x.png" for i in range(12)))


def test_folders_of_any_depth_are_listed(tmp_path):
    where = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        noise().save("x.png")
    finally:
        os.chdir(where)
    assert images.folder(tmp_path).names == ("d/" * 1200 + "x.png",)
    os.remove(tmp_path / ("d/" * 1200 + "x.png"))
    os.removedirs(tmp_path / ("d/" * 1200))  # shutil.rmtree calls itself for each level


def test_a_folder_that_cannot_be_listed_is_named(tree, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(ValueError, match="cannot be listed: Permission denied"):
        images.folder(tree)


def test_folders_without_images_are_no_classes(tree):
    """Breaks if what operating systems and Jupyter leave behind counts as a class."""
    expected = images.folder(tree)
    for name in ("__MACOSX", "lost+found", ".ipynb_checkpoints", "empty/er"):
        (tree / name).mkdir(parents=True)
    write(tree / "__MACOSX" / "a" / "x.png")
    for name in ("Thumbs.db", "a/desktop.ini", "b/Thumbs.db"):
        (tree / name).write_text("of Windows")
    found = images.folder(tree)
    assert found.classes == ("a", "b") and found.fingerprint == expected.fingerprint


def test_decomposed_names_are_those_of_composed_ones(tmp_path):
    """Breaks if a folder copied from macOS has other classes, or another order."""
    names = ("caf\xe9", "cafz")
    sets = []
    for form in ("NFC", "NFD"):
        for name in names:
            write(tmp_path / form / unicodedata.normalize(form, name) / "\xe9.png", noise(1))
        sets.append(images.folder(tmp_path / form))
    assert sets[0].classes == sets[1].classes == (names[1], names[0])
    assert sets[0].fingerprint == sets[1].fingerprint
    assert sets[1].image(0).size == (40, 30)


def test_the_fingerprint_depends_on_content_names_and_labels(tree, tmp_path_factory):
    first = images.folder(tree).fingerprint
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(tree, copy, dirs_exist_ok=True)
    assert images.folder(copy).fingerprint == first, "the place does not matter"
    write(copy / "a" / "0.png", noise(777))
    changed = images.folder(copy).fingerprint
    (copy / "a" / "1.png").rename(copy / "b" / "1b.png")
    moved = images.folder(copy).fingerprint
    assert len({first, changed, moved}) == 3


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.jpg", b"", "empty"),
        ("words.jpg", b"this is no image", "no intact"),
        ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no intact"),
        ("huge.png", huge_png(), "more"),
        ("large.png", huge_png(9_000, 9_000), "9000 x 9000"),
    ],
)
def test_bad_bytes_are_skipped_with_a_reason(tree, name, content, reason):
    (tree / "a" / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = images.folder(tree, tolerate=0.1)
    assert [str(w.message).split(" in ")[0] for w in caught] == ["1 of 11 files"]
    (skipped,) = found.skipped
    assert skipped.path == f"a/{name}" and reason in skipped.reason
    assert len(found) == 10
    with pytest.raises(ValueError, match=name):
        images.decode(tree / "a" / name)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "CMYK", "LAB"])
def test_modes_that_lose_colours_are_skipped(tree, mode):
    if mode == "I;16":
        image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    elif mode == "LAB":
        image = Image.new("LAB", (40, 30))
    else:
        image = noise().convert("L" if mode in "IF" else "RGB").convert(mode)
    write(tree / "a" / "odd.tif", image)
    found = images.folder(tree, tolerate=0.1)
    assert mode in found.skipped[0].reason


@pytest.mark.parametrize("format", ["jpg", "png", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_found_when_the_folder_opens(tree, format, share):
    """The fast check agrees with full decoding."""
    data = write(tree / f"whole.{format}", noise(3, (300, 200))).read_bytes()
    (tree / "a" / f"cut.{format}").write_bytes(data[: int(len(data) * share)])
    found = images.folder(tree, tolerate=0.1)
    assert [s.path for s in found.skipped] == [f"a/cut.{format}"]
    with pytest.raises(ValueError, match=r"truncated or damaged|no intact"):
        images.decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_pixels_are_those_of_torchvision(tmp_path, mode):
    path = write(tmp_path / f"x.{'tif' if mode == 'CMYK' else 'png'}", noise(5, mode=mode))
    expected = default_loader(str(path))
    decoded = images.decode(path, convert=("CMYK",))
    assert decoded.mode == "RGB"
    assert np.array_equal(decoded, expected)
    assert np.array_equal(images.decode(path.read_bytes(), convert=("CMYK",)), expected)
    assert np.array_equal(images.folder(tmp_path, convert=("CMYK",)).image(0), expected)


def test_decode_counts_pixels_before_decoding():
    buffer = io.BytesIO()
    noise(size=(50, 50)).save(buffer, "PNG")
    assert images.decode(buffer.getvalue(), max_pixels=2500).size == (50, 50)
    with pytest.raises(ValueError, match=r"upload.*50 x 50 pixels exceed 2,499"):
        images.decode(buffer.getvalue(), max_pixels=2499)


@pytest.mark.parametrize("progressive", [False, True])
def test_the_fast_check_agrees_with_full_decoding(tmp_path, progressive):
    """Wherever a JPEG is cut, opening the folder and reading the image agree."""
    image = noise(2, (64, 48)).resize((256, 192))
    data = write(tmp_path / "x.jpg", image, progressive=progressive).read_bytes()
    for cut in (*range(1, 40), *range(40, len(data), 61)):
        (tmp_path / "x.jpg").write_bytes(data[:-cut])
        with pytest.raises(ValueError) if not _decodes(data[:-cut]) else nullcontext():
            images.folder(tmp_path)


def _decodes(data):
    try:
        images.decode(data)
    except ValueError:
        return False
    return True


def test_too_many_bad_files_or_no_good_ones_are_an_error(tree):
    (tree / "a" / "bad.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 11 files .*tolerated 5%.*'a/bad.jpg'.*empty"):
        images.folder(tree)
    shutil.rmtree(tree / "b")
    for path in (tree / "a").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="6 of 6 files"):
        images.folder(tree, tolerate=1.0)
    with pytest.raises(ValueError, match="tolerate is 5"):
        images.folder(tree, tolerate=5)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere"):
        images.folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="There are no files in"):
        images.folder(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has names that are no text")
def test_names_that_are_not_valid_unicode_can_be_displayed(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    with open(path, "wb") as file:
        noise().save(file, "PNG")
    found = images.folder(tmp_path)
    found.names[0].encode("utf-8")
    assert found.image(0).size == (40, 30)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", ["deleted", "changed", "emptied"])
def test_a_file_that_changes_after_opening_is_named(tree, workers, harm):
    found = images.folder(tree)
    path = tree / "b" / "1.png"
    if harm == "deleted":
        path.unlink()
    else:
        path.write_bytes((tree / "a" / "0.png").read_bytes() if harm == "changed" else b"")
    with pytest.raises(ValueError, match=r"b/1\.png' cannot be used: it [^\n]*$") as caught:
        list(images.batches(found, to_tensor, 4, workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3, 10])
def test_batches_come_in_order_for_any_worker_count_and_start(tree, workers, start):
    found = images.folder(tree)
    taken = list(images.batches(found, to_tensor, 4, workers, start))
    assert [i.tolist() for i, _ in taken] == [
        list(range(a, min(a + 4, 10))) for a in range(start, 10, 4)
    ]
    for indices, x in taken:
        assert indices.dtype == torch.int64
        for i, one in zip(indices.tolist(), x, strict=True):
            assert torch.equal(one, to_tensor(found.image(i)))


def test_batches_work_in_spawned_workers(tree):
    """macOS and Windows start workers afresh: everything must survive pickling."""
    cut = images.crops(images.subset(images.folder(tree), [3, 1]))
    usual = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        taken = list(images.batches(cut, to_tensor, 10, workers=1))
    finally:
        multiprocessing.set_start_method(usual, force=True)
    assert torch.equal(taken[0][1], torch.stack([to_tensor(cut.image(i)) for i in range(10)]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "num_workers option should be non-negative"),
        ({"start": 11}, "start is 11"),
        ({"start": -1}, "start is -1"),
    ],
)
def test_batches_refuse_bad_arguments_at_once(tree, arguments, text):
    with pytest.raises(ValueError, match=text):
        images.batches(images.folder(tree), to_tensor, **arguments)


def test_preprocessing_to_different_shapes_is_an_error(tree):
    write(tree / "b" / "5.png", noise(1, (50, 30)))
    found = images.folder(tree)
    with pytest.raises(ValueError, match="different shapes"):
        list(images.batches(found, to_tensor, 12))
    with pytest.raises(ValueError, match=r"'a/0\.png' gave Image"):
        list(images.batches(found, lambda image: image))


def fails(image):
    raise MemoryError("no room") if image.size == (41, 30) else OSError("no such\nprofile")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [(40, 30), (41, 30)])
def test_preprocessing_that_fails_names_the_image(tmp_path, workers, size):
    write(tmp_path / "a.png", noise(size=size))
    reason = {40: "OSError: no such$", 41: "MemoryError: no room$"}[size[0]]
    with pytest.raises(ValueError, match=f"Preprocessing 'a.png' failed with {reason}"):
        list(images.batches(images.folder(tmp_path), fails, 1, workers=workers))


def test_workers_end_with_an_error(tree):
    """Breaks if they outlive it, and are waited for when garbage is collected."""

    def fails(image):
        raise OSError("no such")

    before, found = {*multiprocessing.active_children()}, images.folder(tree)
    with pytest.raises(ValueError, match=r"failed with OSError: no such$") as caught:
        list(images.batches(found, fails, 1, workers=2))
    assert {*multiprocessing.active_children()} <= before and caught.value.__cause__


@pytest.mark.parametrize("size", [(1, 51), (20_000, 2)])
def test_images_that_resizing_would_blow_up_are_skipped(tree, size):
    """Breaks if 196 bytes of 1 x 60,000 pixels become gigabytes when resized."""
    write(tree / "a" / "long.png", Image.new("L", size))
    write(tree / "a" / "wide.png", Image.new("L", (100, 2)))
    found = images.folder(tree, tolerate=0.1)
    (skipped,) = found.skipped
    assert skipped.path == "a/long.png" and "a/wide.png" in found.names
    assert re.search(f"sides, {size[0]} x {size[1]}, have a ratio over 50; .*crop", str(skipped))
    with pytest.raises(ValueError, match="have a ratio over"):
        images.decode(Image.new("RGB", size))


@pytest.mark.parametrize("size", [(0, 0), (0, 3), (3, 0)])
def test_images_without_pixels_are_refused(size):
    with pytest.raises(ValueError, match=f"sides, {size[0]} x {size[1]}, have a ratio"):
        images.decode(Image.new("RGB", size))


def test_an_image_that_does_not_fit_into_memory_is_named(tree, monkeypatch):
    found = images.folder(tree)

    def no_room(image):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", no_room)
    with pytest.raises(ValueError, match=r"a.0\.png' cannot be used: it does not fit into memory"):
        found.image(0)


def test_subset_keeps_what_belongs_to_each_image(tree):
    found = images.folder(tree)
    few = images.subset(found, [7, 2, 2])
    assert few.names == (found.names[7], found.names[2], found.names[2])
    assert few.labels == (1, 0, 0)
    assert np.array_equal(few.image(0), found.image(7))
    prints = {found.fingerprint, few.fingerprint, images.subset(found, [2, 7, 2]).fingerprint}
    assert len(prints) == 3
    assert images.subset(found, np.array([7, 2, 2])).fingerprint == few.fingerprint
    with pytest.raises(IndexError, match="no image 10 in"):
        images.subset(found, [10])
    with pytest.raises(IndexError, match="no image -1 in"):
        found.image(-1)


def test_crops_are_four_corners_and_the_centre(tree):
    found = images.folder(tree)
    cut = images.crops(found)
    assert len(cut) == 50 and cut.label(49) == 1 and cut.classes == found.classes
    whole = np.asarray(found.image(6))  # 30 rows, 40 columns
    expected = [whole[:15, :20], whole[:15, 20:], whole[15:, :20], whole[15:, 20:]]
    expected.append(whole[8:23, 10:30])
    for j, pixels in enumerate(expected):
        assert np.array_equal(cut.image(6 * 5 + j), pixels)


def test_crops_of_other_boxes_are_another_set(tree):
    found = images.folder(tree)
    half = images.crops(found, [(0, 0, 1, 0.5)])
    assert len(half) == 10 and half.image(0).size == (40, 15)
    prints = {found.fingerprint, images.crops(found).fingerprint, half.fingerprint}
    assert len(prints) == 3
    for box in [(0.5, 0, 0.5, 1), (0, 0, 1.5, 1), (0, 0, 1), (0, 0, float("nan"), 1)]:
        with pytest.raises(ValueError, match="crop box"):
            images.crops(found, [box])
    with pytest.raises(ValueError, match="no crop box"):
        images.crops(found, [])


def test_crops_of_tiny_images_have_a_pixel(tmp_path):
    write(tmp_path / "dot.png", noise(size=(1, 1)))
    assert [images.crops(images.folder(tmp_path)).image(j).size for j in range(5)] == [(1, 1)] * 5


def test_imagenet_keeps_the_true_class_index(tmp_path):
    for wnid in ("n02979186", "n01440764"):
        write(tmp_path / wnid / "x.JPEG", noise(), format="JPEG")
    write(tmp_path / "n01440764" / "y.JPEG", noise(mode="CMYK"), format="JPEG")
    found = datasets.imagenet(tmp_path)
    assert found.names == ("n01440764/x.JPEG", "n01440764/y.JPEG", "n02979186/x.JPEG")
    assert found.labels == (0, 0, 482)
    assert len(found.classes) == 1000 and found.classes[482] == "cassette player"
    write(tmp_path / "val" / "x.JPEG", format="JPEG")
    with pytest.raises(ValueError, match=r"The subfolder 'val' of .* is no class; .*n01440764"):
        datasets.imagenet(tmp_path)
    with pytest.raises(ValueError, match="There is no subfolder with images in"):
        datasets.imagenet(tmp_path / "val")


def test_imagenette_is_imagenet_with_ten_classes(tmp_path):
    for wnid in ("n03888257", "n01440764"):
        write(tmp_path / "imagenette2-320" / "val" / wnid / "x.JPEG", noise(), format="JPEG")
    found = datasets.imagenette(tmp_path)
    assert [found.classes[i] for i in found.labels] == ["tench", "parachute"]
    with pytest.raises(FileNotFoundError, match=r"imagenette2-160.*download=True"):
        datasets.imagenette(tmp_path, size="160px")
    with pytest.raises(ValueError, match="split is 'test'"):
        datasets.imagenette(tmp_path, "test")


PLACES = "/a/airfield 0\n/a/arena/hockey 1\n/z/zen_garden 2\n"


def test_places365_folders_are_numbered_by_the_class_list(tmp_path):
    (tmp_path / "categories_places365.txt").write_text(PLACES)
    for name in ("zen_garden", "arena-hockey"):
        write(tmp_path / "val" / name / "x.jpg")
    found = datasets.places365(tmp_path)
    assert found.classes == ("airfield", "arena/hockey", "zen_garden")
    assert found.labels == (1, 2)
    write(tmp_path / "val" / "atlantis" / "x.jpg")
    with pytest.raises(ValueError, match="'atlantis'"):
        datasets.places365(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"categories_places365\.txt"):
        datasets.places365(tmp_path / "val")


def test_places365_as_torchvision_stores_it(tmp_path, monkeypatch):
    from torchvision.datasets import Places365

    # torchvision wants the real lists, byte for byte; these are shorter ones
    with pytest.raises(FileNotFoundError, match="incomplete"):
        (tmp_path / "places365_val.txt").write_text("b.jpg 2\na.jpg 1\n")
        datasets.places365(tmp_path)
    monkeypatch.setattr(Places365, "_check_integrity", lambda *_: True)
    (tmp_path / "categories_places365.txt").write_text(PLACES)
    for name in "ab":
        write(tmp_path / "val_256" / f"{name}.jpg")
    found = datasets.places365(tmp_path)
    assert found.names == ("b.jpg", "a.jpg")
    assert [found.classes[i] for i in found.labels] == ["zen_garden", "arena/hockey"]


def test_world_images_are_those_that_sample_describes():
    from wwwlib import world

    found = world.image_set(30, seed=3, context_bias=0.5)
    for i in (0, 29):
        scene = world.sample(i, 3, 0.5)
        assert found.classes[found.label(i)] == scene.subject
        assert np.array_equal(found.image(i), world.render(scene).image)
    assert pickle.loads(pickle.dumps(found)).fingerprint == found.fingerprint
    others = [world.image_set(29, 3, 0.5), world.image_set(30, 4, 0.5), world.image_set(30, 3)]
    others.append(world.image_set(30, 3, 0.5, swap=True))
    assert len({found.fingerprint, *(other.fingerprint for other in others)}) == 5
    with pytest.raises(ValueError, match="count is 0"):
        world.image_set(0)


class Pairs(torch.utils.data.Dataset):
    """A map-style data set of the given items."""

    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        item = self.items[i]
        if isinstance(item, Exception):
            raise item
        return item() if callable(item) else item


def test_a_torch_data_set_is_a_probe_set():
    """PIL images, bytes and floats of the same pixels are the same images."""
    x = pil_to_tensor(noise(1))
    items = [
        (noise(1), 0),
        (x, torch.tensor(1)),
        (x / 255, np.int64(1)),
        (noise(2, mode="L"), None),
    ]
    found = images.dataset(Pairs(*items), "mine", ["cat", "dog"])
    assert (found.name, len(found), found.labels) == ("mine", 4, (0, 1, 1, None))
    assert found.classes == ("cat", "dog") and not found.skipped
    assert all(np.array_equal(found.image(i), noise(1)) for i in range(3))
    assert found.sha256(0) == found.sha256(1) == found.sha256(2) != found.sha256(3)
    (_, taken), *_ = images.batches(images.crops(found), to_tensor, 20, workers=1)
    assert taken.shape == (20, 3, 15, 20)
    assert images.dataset(Pairs(*items), "other", ["cat", "dog"]).fingerprint == found.fingerprint
    changes = [[(noise(5), 0), *items[1:]], [(items[0][0], 1), *items[1:]], items[::-1]]
    others = [images.dataset(Pairs(*changed), "x", ["cat", "dog"]) for changed in changes]
    others.append(images.dataset(Pairs(*items), "mine", ["cat", "cow"]))
    assert len({found.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_classes_of_a_torch_data_set_are_its_own_or_numbers():
    pairs = Pairs((noise(1), 0), (noise(2), 2))
    assert (
        images.dataset(pairs).classes == ("0", "1", "2") and images.dataset(pairs).name == "Pairs"
    )
    pairs.classes = ["a", "b", "c", "d"]
    assert images.dataset(pairs).classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (OSError("disk gone"), r"no pair of image and label: OSError\('disk gone'\)"),
        (noise(), "no pair of"),
        (("path.png", 0), "its image is a str"),
        ((noise(mode="CMYK"), 0), "mode is CMYK"),
        ((torch.zeros(1, 8, 8), 0), r"float32 \(1, 8, 8\); give \(3, H, W\)"),
        ((torch.full((3, 8, 8), -0.5), 0), r"values are -0\.5 to -0\.5; give them in \[0, 1\]"),
        ((torch.full((3, 8, 8), torch.nan), 0), "values are nan"),
        ((noise(), 3), "label is 3, but there are 3 classes"),
    ],
)
def test_bad_items_of_a_torch_data_set_are_skipped_with_a_reason(item, reason):
    pairs = Pairs((noise(1), 0), item, (noise(2), 1))
    found = images.dataset(pairs, classes=["a", "b", "c"], tolerate=0.5)
    assert found.names == ("000000", "000002") and found.labels == (0, 1)
    assert [s.path for s in found.skipped] == ["000001"] and re.search(
        reason, str(found.skipped[0])
    )
    assert np.array_equal(found.image(1), noise(2))
    with pytest.raises(ValueError, match="1 of 3 items of Pairs cannot be used, more than the tol"):
        images.dataset(pairs, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ({1: "b", 0: "a"}, ("a", "b")),
        ([("a", "first"), ("b",)], ("a", "b")),
        ([0, "b"], ("0", "b")),
        ({"a", "b"}, r"contains or is \{'.', '.'\}; give a list"),
        ("ab", "is 'ab'; give a list"),
        (2, "is 2; give a list"),
        ({1: "a", 2: "b"}, r"is \{1: 'a', 2: 'b'\}; .* dictionary from 0"),
        ({"a": 0, "b": 1}, r"is \{'a': 0, 'b': 1\}; give"),
        (["a", None], "is None; give"),
        ([("b", 1), ("a", 0)], r"is \('b', 1\); give"),
    ],
)
def test_class_names_have_an_order_or_are_refused(classes, expected):
    pairs = Pairs((noise(1), 0), (noise(2), 1))
    with (
        nullcontext() if isinstance(expected, tuple) else pytest.raises(ValueError, match=expected)
    ):
        assert images.dataset(pairs, classes=classes).classes == expected


def test_a_torch_data_set_that_changes_or_has_no_length_is_refused():
    """Breaks if random augmentation gives each pass other images under one fingerprint."""
    seeds = iter(range(100))
    found = images.dataset(Pairs(lambda: (noise(next(seeds)), 0)))
    with pytest.raises(ValueError, match=r"item 0 of Pairs' .* changed .* remove random augment"):
        found.image(0)
    with pytest.raises(TypeError, match="generator has no length"):
        images.dataset(i for i in ())
    with pytest.raises(ValueError, match="There are no items of Pairs"):
        images.dataset(Pairs())


@pytest.mark.real
def test_real_photographs_open_as_imagenet(real):
    found = datasets.imagenet(real / "photos")
    assert len(found) == 640 == len(set(found.labels)) and not found.skipped
    assert found.label(0) == 0 and found.image(0).mode == "RGB"


def test_drawing_on_an_image_of_the_world_does_not_change_the_next_copy():
    """Breaks if the cached image itself is returned."""
    probe = world.image_set(1, seed=11)
    clean = probe.image(0).tobytes()
    probe.image(0).paste("red", (0, 0, 8, 8))
    assert probe.image(0).tobytes() == clean
