"""What `--check` reports of files, folders and the cache of the hub."""

import hashlib
import json
from pathlib import Path

import check
import huggingface_hub
import pytest
import run
from check import Need
from profiles import Project

from wwwlib.images import imagenet_synsets

ROOT = Path(__file__).resolve().parents[1]
WHO = {"name": "thing", "what": "a thing", "licence": "MIT"}


def need(path, **entries):
    return Need(**WHO, path=path, **entries)


def fault(one):
    return check.examine(one).fault


def photographs(root, count=4, wnids=2):
    """Write empty-looking files as ImageNet's are called, so many a class."""
    for i in range(count):
        path = root / list(imagenet_synsets())[i % wnids] / f"ILSVRC2012_val_{i + 1:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    entries = {"folder": True, "folders": wnids, "files": count, "each": count // wnids}
    return need(root, **entries, pattern="ILSVRC2012_val_{:08d}.JPEG")


def test_a_folder_of_photographs_that_is_whole_is_right(tmp_path):
    found = check.examine(photographs(tmp_path))
    paths = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.JPEG"))
    digest = hashlib.sha256("\n".join(paths).encode()).hexdigest()
    assert found.fault is None
    assert found.verified_by == f"2 folders, 4 files, listing {digest[:16]}"


BROKEN = {
    "a file lost": (lambda files: files[0].unlink(), "3 files, expected 4"),
    "a file too many": (lambda files: (files[0].parent / "a.jpg").write_bytes(b"x"), "5 files"),
    "a file of another name": (lambda f: f[0].rename(f[0].parent / "a.jpg"), "does not belong"),
    "a file in the wrong class": (
        lambda f: f[0].rename(f[-1].parent / f[0].name),
        "holds 3 files, expected 2|holds 1 files, expected 2",
    ),
    "an empty file": (lambda files: files[0].write_bytes(b""), "empty"),
    "a folder by another name": (
        lambda f: f[0].parent.rename(f[0].parent.parent / "n0"),
        "ImageNet's wnids",
    ),
    "a folder too many": (lambda f: (f[0].parent.parent / "n1").mkdir(), "3 folders, expected 2"),
}


@pytest.mark.parametrize("harm, said", BROKEN.values(), ids=BROKEN)
def test_a_folder_of_photographs_with_a_fault(tmp_path, harm, said):
    """Breaks if an incomplete or mixed-up copy of ImageNet passes for the real one."""
    one = photographs(tmp_path)
    harm(sorted(tmp_path.rglob("*.JPEG")))
    found = fault(one)
    assert found and any(part in found for part in said.split("|")), found


def swap(root):
    """Let two photographs change places, as when a folder was sorted by a wrong list."""
    a, b = next(root.glob("*/*1.JPEG")), next(root.glob("*/*2.JPEG"))
    assert a.parent != b.parent
    a.rename(b.parent / a.name)
    b.rename(a.parent / b.name)


def test_what_was_found_right_is_noted_and_a_later_change_is_told(tmp_path, capsys):
    """Breaks if swapped photographs pass because nobody publishes their listing."""
    (tmp_path / "val").mkdir()
    one = photographs(tmp_path / "val")
    look = lambda: check.compare([check.examine(one)], tmp_path)[0]  # noqa: E731
    assert look().verified_by.endswith("recorded for later checks")
    day = json.loads((tmp_path / "seen.json").read_text())["thing"]["on"]
    assert look().verified_by.endswith(f"as on {day}")
    swap(tmp_path / "val")
    for _ in range(2):
        assert look().fault.startswith(
            f"it differs from what was here on {day} (2 folders, 4 files"
        )
    said = check.table([look()], tmp_path)
    assert "CHANGED  thing" in said and "1 of 1 are missing or wrong" in said
    swap(tmp_path / "val")
    assert look().fault is None
    swap(tmp_path / "val")
    (tmp_path / "seen.json").write_text("{}")
    assert look().fault is None
    (tmp_path / "seen.json").write_text('{"thing": 1}')
    with pytest.raises(ValueError, match=r"seen\.json is damaged .*; delete it"):
        look()


def test_a_data_folder_that_cannot_be_written_is_checked_all_the_same(tmp_path, capsys):
    one = photographs(tmp_path / "val")
    (tmp_path / "seen.tmp").mkdir()  # stands in the way of the notes
    assert check.compare([check.examine(one)], tmp_path)[0].fault is None
    assert "seen.json cannot be written" in capsys.readouterr().err


def test_nothing_is_noted_that_a_published_checksum_vouches_for(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    found = [check.examine(need(path, md5=hashlib.md5(b"weights").hexdigest()))]
    assert check.compare(found, tmp_path) == found and not (tmp_path / "seen.json").exists()


def broden(root, index="image,split\na/1.jpg,val\n", labels="number,name\n1,sky\n"):
    (root / "images" / "a").mkdir(parents=True, exist_ok=True)
    (root / "images" / "a" / "1.jpg").write_bytes(b"x")
    (root / "index.csv").write_text(index)
    (root / "label.csv").write_text(labels, errors="surrogateescape")
    holds = ("index.csv", "label.csv", "images")
    return need(root, folder=True, holds=holds, indexed="images")


HOLLOW = {
    "no index": ({"index": ""}, "its index.csv has no rows"),
    "only a heading": ({"index": "image,split\n"}, "its index.csv has no rows"),
    "another table": ({"index": "picture\na/1.jpg\n"}, "no rows with a column 'image'"),
    "no labels": ({"labels": ""}, "its label.csv has no rows"),
    "lost images": (
        {"index": "image\na/1.jpg\na/2.jpg\na/3.jpg\n"},
        "2 images of its index.csv are not there, 'a/2.jpg'",
    ),
    "no text": ({"labels": "number,name\n1,\udcff\n"}, "is damaged, or another file"),
}


@pytest.mark.parametrize("entries, said", HOLLOW.values(), ids=HOLLOW)
def test_broden_without_its_content_is_not_right(tmp_path, entries, said):
    """Breaks if three names, with nothing behind them, pass for a data set."""
    assert "1 images in its index" in check.examine(broden(tmp_path)).verified_by
    assert said in fault(broden(tmp_path, **entries))


def test_a_hidden_file_of_the_system_does_not_count(tmp_path):
    one = photographs(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert fault(one) is None


def test_absence_is_said(tmp_path):
    assert "no folder" in fault(need(tmp_path / "a", folder=True))
    assert "no file" in fault(need(tmp_path / "a"))
    assert "holds no images" in fault(need(tmp_path, folder=True, holds=("images",)))


def test_a_file_by_its_checksum_whole_or_begun(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"weights")
    whole = hashlib.sha256(b"weights").hexdigest()
    md5 = hashlib.md5(b"weights").hexdigest()
    assert "SHA-256" in check.examine(need(path, sha256=whole)).verified_by
    assert "all that is published" in check.examine(need(path, sha256=whole[:8])).verified_by
    assert md5[:16] in check.examine(need(path, md5=md5)).verified_by
    path.write_bytes(b"weighty")
    for other in (whole, whole[:8]):
        assert "is another file" in fault(need(path, sha256=other))
    assert "MD5" in fault(need(path, md5=md5))


@pytest.mark.parametrize("text, right", [("a\nb\n", True), ("a\nb", True), ("a\n", False)])
def test_lines_are_counted_with_or_without_the_last_newline(tmp_path, text, right):
    path = tmp_path / "words.txt"
    path.write_text(text)
    assert (fault(need(path, lines=2)) is None) == right


def test_wordnet_is_counted_without_its_licence(tmp_path):
    (tmp_path / "data.noun").write_text("  1 licence\n0001 03 n\n0002 03 n\n")
    assert fault(need(tmp_path, folder=True, synsets=2)) is None
    assert "2 synsets, expected 3" in fault(need(tmp_path, folder=True, synsets=3))


def test_a_checkpoint_without_a_checksum_is_put_into_its_network(tmp_path):
    import torch
    from torchvision import models

    path = tmp_path / "resnet18_places365.pth.tar"
    state = models.resnet18(num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{name}": v for name, v in state.items()}}, path)
    found = check.examine(need(path, weights=("torchvision/resnet18", 5)))
    assert "fits" in found.verified_by and found.digest[:16] in found.verified_by
    assert "do not fit" in fault(need(path, weights=("torchvision/resnet18", 6)))
    path.write_bytes(b"no checkpoint")
    assert "damaged" in fault(need(path, weights=("torchvision/resnet18", 5)))


def test_the_hubs_cache_is_hashed(tmp_path, monkeypatch):
    """Breaks if a flipped byte in a cached file of the hub goes unnoticed."""
    blob = tmp_path / hashlib.sha256(b"good").hexdigest()
    blob.write_bytes(b"good")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(link))
    one = Need(**WHO, hub="a/b", holds=("model.safetensors",))
    assert "1 checked by their SHA-256" in check.examine(one).verified_by
    blob.write_bytes(b"bad!")
    assert "is another file" in fault(one)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert "holds no model.safetensors of a/b" in fault(one)


def test_what_is_missing_is_told_with_size_source_terms_and_place(tmp_path):
    one = need(tmp_path / "x", size="6 GB", source="https://example.org")
    said = check.table([check.examine(one)], tmp_path)
    for part in ("MISSING  thing", "6 GB", "https://example.org", "MIT", str(tmp_path / "x")):
        assert part in said
    assert "by yourself" in said and "1 of 1 are missing" in said
    assert "by --fetch" in check.table(
        [check.examine(need(tmp_path / "x", url="http://a"))], tmp_path
    )
    assert check.table([], tmp_path) == "It needs nothing beside this repository."


TORCHVISION = {
    "resnet50-v1": "ResNet50_Weights.IMAGENET1K_V1",
    "resnet50-v2": "ResNet50_Weights.IMAGENET1K_V2",
    "vit-b16-torchvision": "ViT_B_16_Weights.IMAGENET1K_V1",
}


def test_every_declared_need_is_complete_and_agrees_with_its_library(tmp_path):
    """Breaks if an entry of needs.yaml is misspelt, or a library has another address or digest."""
    import open_clip
    import timm
    import yaml
    from torchvision import models
    from torchvision.datasets import Imagenette, Places365

    found = check.load(yaml.safe_load(check.PATH.read_text("utf-8")), tmp_path)
    for one in found:
        assert one.source.startswith(("http://", "https://")), one.name
        assert one.path or one.hub, one.name
        assert one.size != "size unknown", one.name
        assert one.folder or one.sha256 or one.md5 or one.lines or one.weights or one.hub
    by = {one.name: one for one in found}
    for name, weights in TORCHVISION.items():
        url = models.get_weight(weights).url
        assert by[name].url == url and f"-{by[name].sha256}." in url
        assert by[name].path.name == Path(url).name
    for name, spec in {"clip-b32": "ViT-B-32", "clip-b16": "ViT-B-16"}.items():
        config = open_clip.get_pretrained_cfg(f"{spec}-quickgelu", "openai")
        assert by[name].hub == config["hf_hub"].rstrip("/")
    net = by["vit-b16-timm"].hub.removeprefix("timm/")
    assert timm.get_pretrained_cfg(net).hf_hub_id == by["vit-b16-timm"].hub
    assert (by["imagenette"].url, by["imagenette"].md5) == Imagenette._ARCHIVES["320px"]
    assert by["places365-scenes"].md5 == Places365._CATEGORIES_META[1]
    assert by["places365-lists"].md5 == Places365._FILE_LIST_META["val"][1]


@pytest.mark.real
def test_published_lists_have_the_declared_checksums(real, tmp_path):
    """Breaks if the checksums in needs.yaml are not those of the published files."""
    places = {
        "places365-scenes": "labels/categories_places365.txt",
        "broden-words": "labels/broden_labels_clean.txt",
        "netdissect-labels": "published/netdissect_resnet50_imagenet_fc.csv",
        "clip-dissect-labels": "published/clip_dissect_resnet50_imagenet_broden.csv",
    }
    for one in check.load(places, tmp_path):
        one.path.parent.mkdir(parents=True, exist_ok=True)
        one.path.write_bytes((Path(real) / places[one.name]).read_bytes())
        assert fault(one) is None


def test_unknown_needs_and_fields_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no need 'imagenet-vall'.*imagenet-val"):
        check.load(["imagenet-vall"], tmp_path)
    path = tmp_path / "needs.yaml"
    path.write_text("a: {what: a, licence: b, wait: c}")
    with pytest.raises(ValueError, match="unknown field 'wait'"):
        check.load(["a"], tmp_path, path)


@pytest.mark.parametrize("profile", ["paper", "classroom"])
def test_on_a_machine_without_anything_everything_is_listed(profile, tmp_path, monkeypatch, capsys):
    """Breaks if a need is forgotten, found where it is not, or if the exit code hides it."""
    import torch

    monkeypatch.setenv("WWW_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    assert run.main(["--check", profile], Project(ROOT)) == 1
    said = capsys.readouterr().out
    wanted = run.profiles.load(Project(ROOT), profile).needs
    assert [line.split()[1][:-1] for line in said.splitlines() if "MISSING" in line] == wanted
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("profile", ["world", "photos"])
def test_a_profile_that_needs_nothing_is_told_to(profile, capsys):
    given = ["--set", f"probe_root={ROOT}", "--set", "weights=x", "--set", "encoder=x"]
    assert run.main(["--check", profile, *given * (profile == "photos")], Project(ROOT)) == 0
    assert "needs nothing beside this repository" in capsys.readouterr().out
