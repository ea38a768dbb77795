"""Two faster ways through JPEG files, held to the pixels of decoding whole with Pillow."""

import hashlib
import io
import multiprocessing
import pickle
import sys

import numpy as np
import pytest
import torch
from collect import main
from PIL import Image
from timm.data import create_transform
from torchvision import io as torchvision_io
from torchvision.models import ResNet50_Weights
from torchvision.transforms import InterpolationMode, v2

from wwwlib import exemplars, images, targets, world
from wwwlib.store import Store, digest
from wwwlib.studies import datasets

ASIS = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32)])  # levels 0..255, nothing resized
BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC


def photograph(seed=0, size=(512, 384)):
    """Noise with the spectrum of a photograph, 1/f, in three colours that go together."""
    width, height = size
    fy, fx = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width
    falling = 1 / np.maximum(np.hypot(fy, fx), 1)
    drawn = np.random.default_rng(seed).standard_normal((4, height, width))
    layers = np.fft.irfft2(np.fft.rfft2(drawn) * falling, s=(height, width))
    values = layers[0] + 0.3 * layers[1:]
    values = 128 + 50 * (values - values.mean()) / values.std()
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


def folder_of(path, *files):
    path.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(files):
        (path / f"{i:02}.jpg").write_bytes(data)
    return path


# At a fraction of the size --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((512, 384), None, (512, 384)),
        ((512, 384), 193, (512, 384)),
        ((512, 384), 192, (256, 192)),
        ((512, 384), 97, (256, 192)),
        ((512, 384), 96, (128, 96)),
        ((384, 512), 48, (48, 64)),
        ((512, 384), 1, (64, 48)),
        ((508, 384), 1, (127, 96)),
        ((510, 384), 1, (255, 192)),
        ((511, 384), 1, (511, 384)),
        ((512, 383), 1, (512, 383)),
    ],
)
def test_a_jpeg_is_decoded_as_small_as_its_shorter_side_and_its_shape_allow(
    tmp_path, size, least_side, expected
):
    """Breaks if a side may fall below the least, or if one is divided with a remainder."""
    data = jpeg(photograph(1, size))
    found = images.folder(folder_of(tmp_path, data), least_side=least_side).image(0)
    oracle = Image.open(io.BytesIO(data))
    oracle.draft(None, expected)
    assert found.size == expected
    assert np.array_equal(found, oracle.convert("RGB"))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_whole(tmp_path, format):
    photograph(2).save(tmp_path / f"x.{format.lower()}", format)
    whole, small = images.folder(tmp_path), images.folder(tmp_path, least_side=8)
    assert np.array_equal(whole.image(0), small.image(0))


def test_the_fingerprint_depends_on_the_least_side_only_if_it_is_given(tmp_path):
    """Breaks if sets that decode differently share results, or if all old ones are lost."""
    data = jpeg(photograph(3))
    folder_of(tmp_path, data)
    sha256 = (hashlib.sha256(data).hexdigest(),)
    old = {"names": ("00.jpg",), "sha256": sha256, "labels": (None,), "classes": ()}
    assert images.folder(tmp_path).fingerprint == digest(old)
    assert images.folder(tmp_path, least_side=None).fingerprint == digest(old)
    small = images.folder(tmp_path, least_side=96)
    assert small.fingerprint == digest({**old, "least_side": 96})
    again = pickle.loads(pickle.dumps(images.subset(small, [0])))
    assert again.image(0).size == (128, 96)


def test_crops_are_cut_from_the_smaller_image(tmp_path):
    small = images.folder(folder_of(tmp_path, jpeg(photograph(4))), least_side=96)
    crop = images.crops(small).image(1)
    assert np.array_equal(crop, small.image(0).crop((64, 0, 128, 48)))


def test_a_file_that_changed_is_refused_at_any_size(tmp_path):
    folder_of(tmp_path, jpeg(photograph(5)))
    small = images.folder(tmp_path, least_side=8)
    folder_of(tmp_path, jpeg(photograph(6)))
    with pytest.raises(ValueError, match=r"00\.jpg' cannot be used: it changed since"):
        small.image(0)


def test_pixels_are_counted_before_anything_is_made_smaller(tmp_path):
    folder_of(tmp_path, jpeg(photograph(7)))
    with pytest.raises(ValueError, match="512 x 384 pixels exceed 1,000"):
        images.folder(tmp_path, least_side=8, max_pixels=1000)


def test_least_side_passes_through_load_but_not_into_the_world(tmp_path):
    folder_of(tmp_path, jpeg(photograph(8)), jpeg(photograph(9)))
    assert datasets.load("folder", tmp_path, 1, least_side=96).image(0).size == (128, 96)
    with pytest.raises(ValueError, match="world has no files; leave least_side=96 out"):
        datasets.load("world", least_side=96)
    with pytest.raises(ValueError, match="least_side is 0; give a whole number, at least 1"):
        datasets.load("folder", tmp_path, least_side=0)


def moved(whole, small, side):
    """Return mean, 99.9th centile and maximum of how far resized and cropped pixels lie apart."""
    counts = np.zeros(256, np.int64)
    for how in (BILINEAR, BICUBIC):
        resize = v2.Compose([v2.Resize(side, how, antialias=True), v2.CenterCrop(side)])
        for u, v in zip(whole, small, strict=True):
            gap = np.abs(np.asarray(resize(u), np.int64) - np.asarray(resize(v), np.int64))
            counts += np.bincount(gap.ravel(), minlength=256)
    shares = counts.cumsum() / counts.sum()
    mean = float(counts @ np.arange(256) / counts.sum())
    return mean, int(np.searchsorted(shares, 0.999)), int(counts.nonzero()[0].max())


@pytest.mark.parametrize(("gap", "mean", "centile", "maximum"), [(3, 1.0, 4, 11), (2, 1.5, 10, 19)])
@pytest.mark.parametrize("least_side", [192, 96, 48])
def test_generated_photographs_keep_to_the_stated_bound(
    tmp_path, least_side, gap, mean, centile, maximum
):
    """Breaks if the image is made smaller than asked: with no gap the bound does not hold."""
    folder_of(tmp_path, *(jpeg(photograph(seed)) for seed in range(6)))
    whole, small = images.folder(tmp_path), images.folder(tmp_path, least_side=least_side)
    pairs = [[one.image(i) for i in range(6)] for one in (whole, small)]
    assert min(pairs[1][0].size) == least_side
    found = moved(*pairs, least_side // gap)
    assert all(f <= b for f, b in zip(found, (mean, centile, maximum), strict=True)), found
    assert moved(*pairs, least_side)[0] > mean


def test_a_shape_that_is_rounded_would_break_the_bound():
    """Why both sides must divide: 333 / 2 becomes 167, and 64 x 96 pixels become 64 x 95."""
    data = jpeg(photograph(10, (500, 333)))
    half = Image.open(io.BytesIO(data))
    half.draft(None, (250, 166))
    assert half.size == (250, 167)
    assert moved([images.decode(data)], [half.convert("RGB")], 64)[0] > 1.5


@pytest.mark.real
@pytest.mark.parametrize("least_side", [128, 64, 32])
def test_real_photographs_keep_to_the_stated_bound(real, least_side):
    """Three times the side: a mean below one level at every fraction; none at all breaks it."""
    whole, small = (datasets.imagenet(real / "photos", least_side=n) for n in (None, least_side))
    pairs = [(whole.image(i), small.image(i)) for i in range(len(whole))]
    pairs = [(u, v) for u, v in pairs if u.size != v.size and min(v.size) == least_side]
    assert len(pairs) > 100
    three, two, one = (moved(*zip(*pairs, strict=True), least_side // n) for n in (3, 2, 1))
    assert three[0] <= 0.55 and three[1] <= 4 and three[2] <= 11, three
    assert two[0] <= (1.0 if least_side == 128 else 1.5) and two[1] <= 10 and two[2] <= 19, two
    assert one[0] > 1.5 and one[1] > 10, one


# By torchvision, where the network computes ---------------------------------------------------


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # lie on your side
    return exif


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def all_sorts():
    """Return files by kind: those that torchvision decodes, and others."""
    image = photograph(20, (90, 61))
    plain = {f"subsampling {n}": jpeg(image, subsampling=n) for n in (0, 1, 2)}
    plain |= {"progressive": jpeg(image, progressive=True), "grey": jpeg(image.convert("L"))}
    plain |= {"rotated": jpeg(image, exif=rotated()), "tables": jpeg(image, optimize=True)}
    other = {"as RGB": jpeg(image, keep_rgb=True), "CMYK": jpeg(image.convert("CMYK"))}
    other |= {"PNG": encoded(image.convert("RGBA"), "PNG"), "WebP": encoded(image, "WEBP")}
    return plain, other


@pytest.fixture
def sorts(tmp_path):
    plain, other = all_sorts()
    return images.folder(folder_of(tmp_path, *plain.values(), *other.values()), convert=("CMYK",))


@pytest.fixture
def decoded(monkeypatch):
    """A list with the number of files in each call of torchvision's decoder."""
    seen, decode = [], torchvision_io.decode_jpeg

    def noted(files, *options):
        seen.append(len(files))
        return decode(files, *options)

    monkeypatch.setattr(torchvision_io, "decode_jpeg", noted)
    return seen


def read(found, decoder, preprocess=ASIS, **options):
    taken = list(images.batches(found, preprocess, decoder=decoder, **options))
    return torch.cat([i for i, _ in taken]), torch.cat([x for _, x in taken])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3])
def test_all_kinds_of_files_have_the_pixels_of_pillow(sorts, workers, start):
    """Breaks if files are mixed up, rotated by EXIF, or one kind is read as another."""
    options = {"batch_size": 4, "workers": workers, "start": start}
    expected, found = (read(sorts, decoder, **options) for decoder in images.DECODERS)
    assert found[0].tolist() == list(range(start, 11))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_torchvision_decodes_plain_files_a_batch_at_a_time_and_no_other(sorts, decoded):
    """Breaks if all files go through Pillow, or files that decoders read differently do not."""
    plain, other = all_sorts()
    read(sorts, "torchvision", batch_size=len(plain) + 1)
    assert decoded == [1, len(plain)]  # the test card, then the first batch; the second has none
    last = [isinstance(sorts.undecoded(i), bytes) for i in range(len(sorts))]
    assert last == [True] * len(plain) + [False] * len(other)


def test_files_that_torchvision_rejects_go_through_pillow(sorts, monkeypatch):
    """Breaks if one such file ends the pass, or takes the rest of its batch with it."""
    decode, refused = torchvision_io.decode_jpeg, sorts.undecoded(1)

    def choosy(files, *options):
        if any(file.numpy().tobytes() == refused for file in files):
            raise RuntimeError("unknown format")
        return decode(files, *options)

    monkeypatch.setattr(torchvision_io, "decode_jpeg", choosy)
    expected, asked, image = read(sorts, "pillow")[1], [], images.ImageSet.image
    monkeypatch.setattr(images.ImageSet, "image", lambda own, i: asked.append(i) or image(own, i))
    assert torch.equal(read(sorts, "torchvision", batch_size=5)[1], expected)
    assert asked == [1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("harm", ["deleted", "changed", "damaged"])
def test_a_bad_file_gives_the_same_error_with_both_decoders(tmp_path, monkeypatch, workers, harm):
    whole = jpeg(photograph(21))
    folder_of(tmp_path, whole, whole[:2000] if harm == "damaged" else whole)
    with monkeypatch.context() as patched:  # else opening would find the damage
        patched.setattr(sys.modules["wwwlib.images.files"], "check", lambda *_: None)
        found = images.folder(tmp_path)
    if harm == "deleted":
        (tmp_path / "01.jpg").unlink()
    elif harm == "changed":
        (tmp_path / "01.jpg").write_bytes(jpeg(photograph(22)))
    messages = []
    for decoder in images.DECODERS:
        with pytest.raises(ValueError, match=r"01\.jpg' cannot be used: it[^\n]+$") as caught:
            read(found, decoder, workers=workers)
        messages.append(str(caught.value))
        assert not multiprocessing.active_children(), "workers end with the error"
    assert messages[0] == messages[1]


def bare(i):
    return photograph(30 + i, (40, 30))


def test_sets_without_files_have_the_pixels_of_pillow(tmp_path):
    """Breaks if a set whose reader is any function, a crop or the world cannot be read."""
    few = images.folder(folder_of(tmp_path, jpeg(photograph(23)), jpeg(photograph(24))))
    own = images.ImageSet("own", "own", ("a", "b"), (None,) * 2, (), bare)
    for found in (world.image_set(3, 5), images.crops(few), own, images.subset(own, [1])):
        expected, x = (read(found, decoder, batch_size=2)[1] for decoder in images.DECODERS)
        assert torch.equal(x, expected), found.name


def test_files_decoded_smaller_are_left_to_pillow(tmp_path, decoded):
    """Breaks if pixels are not those that the fingerprint describes."""
    files = [jpeg(photograph(25)), jpeg(photograph(26, (128, 96)))]
    small = images.folder(folder_of(tmp_path, *files), least_side=96)
    expected, x = (read(small, decoder)[1] for decoder in images.DECODERS)
    assert torch.equal(x, expected) and x.shape == (2, 3, 96, 128)
    assert decoded == [1, 1]  # the test card, and the file that is small already


TIMM = create_transform((3, 112, 112), interpolation="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3)
WEIGHTS = ResNet50_Weights.IMAGENET1K_V1.transforms(resize_size=128, crop_size=112)


@pytest.mark.parametrize("preprocess", [WEIGHTS, TIMM], ids=["torchvision", "timm"])
def test_preprocessing_of_tensors_differs_by_the_rounding_of_a_resize(tmp_path, preprocess):
    """Breaks if ToTensor leaves a tensor at 0..255, or scales it before a cubic resize."""
    files = [jpeg(photograph(seed, (300, 200))) for seed in range(40, 46)]
    found = images.folder(folder_of(tmp_path, *files))
    expected, x = (read(found, decoder, preprocess)[1] for decoder in images.DECODERS)
    std = torch.tensor((0.25,) * 3 if preprocess is TIMM else WEIGHTS.std)
    levels = (x - expected).abs() * std[:, None, None] * 255
    assert 0 < levels.mean() < 0.25
    assert levels.quantile(0.999) < 1.1


def of_images_only(image):
    return ASIS(image.convert("RGB"))


UNFILTERED = v2.Compose([v2.Resize(64, antialias=False), ASIS])


@pytest.mark.filterwarnings("ignore:Anti-alias option is always applied:UserWarning")
@pytest.mark.parametrize(
    ("preprocess", "why"),
    [(of_images_only, "AttributeError: 'Tensor' object"), (UNFILTERED, "the result differs")],
)
def test_preprocessing_that_treats_tensors_differently_is_refused_at_once(sorts, preprocess, why):
    """Breaks if a pass of hours begins with other pixels, or ends in a traceback."""
    with pytest.raises(ValueError, match=rf"it does to a PIL image \({why}.*decoder='pillow'\.$"):
        images.batches(sorts, preprocess, decoder="torchvision")
    images.batches(sorts, preprocess)


def test_a_device_that_decodes_no_jpeg_is_named_at_once(sorts, monkeypatch):
    def absent(*_):
        raise RuntimeError("not compiled with nvJPEG\nException raised from ...")

    monkeypatch.setattr(torchvision_io, "decode_jpeg", absent)
    with pytest.raises(ValueError, match=r"JPEG files on cpu \(not compiled with nvJPEG\); use"):
        images.batches(sorts, ASIS, decoder="torchvision")


def test_images_of_different_sizes_are_the_same_error(tmp_path):
    folder_of(tmp_path, jpeg(photograph(27)), jpeg(photograph(28, (90, 61))))
    with pytest.raises(ValueError, match="different shapes"):
        read(images.folder(tmp_path), "torchvision")


# Through a whole pass -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Seventeen files for `world/conv`, whose preprocessing turns images into tensors first."""
    drawn = [jpeg(photograph(seed, (80, 80))) for seed in range(60, 75)]
    drawn += [jpeg(photograph(75, (80, 80)).convert("L")), encoded(bare(76), "PNG")]
    return folder_of(tmp_path_factory.mktemp("files"), *drawn)


LAYERS = ["layer4", "logits"]


def equal(one, two):
    names = ("index", "value", "status", "class_sum", "class_abs", "class_count")
    return all(
        torch.equal(getattr(one[layer], name), getattr(two[layer], name))
        for layer in LAYERS
        for name in names
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_exemplars_are_those_of_pillow_where_pixels_are(files, tmp_path, workers, decoded):
    """Breaks if an image is lost, or the decoder does not reach the pass."""
    network, probe = targets.load("world/conv"), images.folder(files)
    options = {"k": 9, "batch_size": 4, "workers": workers, "progress": False}
    pillow = exemplars.collect(network, probe, LAYERS, **options)
    assert not decoded
    options |= {"store": Store(tmp_path), "decoder": "torchvision"}
    assert equal(pillow, exemplars.collect(network, probe, LAYERS, **options))
    assert sum(decoded) == 16 + 1  # every JPEG once, and the test card


def test_keys_name_the_decoder_only_where_it_is_not_pillow(files, tmp_path, decoded):
    """Breaks if one decoder is answered with another's exemplars, or old results are lost."""
    network, probe, store = targets.load("world/conv"), images.folder(files), Store(tmp_path)
    options = {"k": 5, "store": store, "progress": False}
    exemplars.collect(network, probe, ["layer4"], **options)
    assert not decoded
    exemplars.collect(network, probe, ["layer4"], **options, decoder="torchvision")
    assert sum(decoded) == 17
    exemplars.collect(network, probe, ["layer4"], **options, decoder="torchvision")
    assert sum(decoded) == 17
    old = {"target": network.key(), "images": probe.fingerprint, "layer": "layer4", "k": 5}
    for key in (old, {**old, "decoder": "torchvision"}):
        assert store.load("exemplars", key) is not None


@pytest.mark.parametrize("other", images.DECODERS)
def test_a_stopped_pass_goes_on_but_not_with_another_decoder(files, tmp_path, other, decoded):
    """Breaks if images are decoded again, or a checkpoint of other pixels is continued."""
    network, probe = targets.load("world/conv"), images.folder(files)
    options = {"k": 5, "batch_size": 4, "progress": False, "checkpoint_seconds": 0}
    seen = []

    def stop_late(*_):
        seen.append(1)
        if len(seen) == 3 + 4:  # after those of the fingerprint
            raise KeyboardInterrupt

    hook = network.model.register_forward_hook(stop_late)
    with pytest.raises(KeyboardInterrupt):
        exemplars.collect(
            network, probe, LAYERS, store=Store(tmp_path), decoder="torchvision", **options
        )
    hook.remove()
    before = sum(decoded)
    found = exemplars.collect(
        network, probe, LAYERS, store=Store(tmp_path), decoder=other, **options
    )
    assert sum(decoded) - before == (0 if other == "pillow" else 1 + 4)  # files 12 to 15
    assert equal(found, exemplars.collect(network, probe, LAYERS, **options))


def test_a_decoder_that_does_not_exist_is_named_with_those_that_do(sorts):
    expected = "decoder is 'nvjpeg'; use one of pillow, torchvision"
    with pytest.raises(ValueError, match=expected):
        images.batches(sorts, ASIS, decoder="nvjpeg")
    with pytest.raises(ValueError, match=expected):
        exemplars.collect(targets.load("world/conv"), sorts, LAYERS, 3, decoder="nvjpeg")


def test_the_command_line_takes_both(files, tmp_path, monkeypatch, capsys, decoded):
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    command = ["world/conv", "folder", str(files), "--k", "3", "--device", "cpu"]
    assert main(command) == 0 and not decoded
    assert main([*command, "--decoder", "torchvision"]) == 0 and sum(decoded) == 17
    assert main([*command, "--least-side", "40"]) == 0
    pillow, torchvision, smaller = capsys.readouterr().out.splitlines()
    assert pillow == torchvision != smaller
    assert main([*command, "--decoder", "torchvision", "--ray", "1"]) == 2
    assert "actors is 1, which needs" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_pixels_are_near_those_of_pillow_and_never_leave_the_device(sorts, files):
    """Breaks if nvJPEG reads a kind of file as another, or x lies on the CPU."""
    expected, x = (
        read(sorts, decoder, device="cuda", batch_size=4)[1] for decoder in images.DECODERS
    )
    assert x.is_cuda
    # Another rounding, and colour at half the resolution filtered otherwise: levels, not tens.
    assert (x.cpu() - expected).abs().mean(dim=(1, 2, 3)).max() < 4
    network = targets.load("world/conv").to("cuda")
    options = {"k": 9, "batch_size": 4, "progress": False}
    found = exemplars.collect(
        network, images.folder(files), LAYERS, decoder="torchvision", **options
    )
    pillow = exemplars.collect(network, images.folder(files), LAYERS, **options)
    for layer in LAYERS:
        gap = (found[layer].value - pillow[layer].value).abs().max()
        assert gap < 0.2 * pillow[layer].value.std()
