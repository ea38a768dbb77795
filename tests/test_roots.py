"""Images behind a URL: the same set, with the same fingerprint, as its copy in a folder."""

import io

import pytest
import torch
from PIL import Image
from upath import UPath

from wwwlib import images
from wwwlib.studies import datasets

PICTURES = {
    "n01440764/b.png": 3,
    "n01440764/a.png": 2,
    "n01443537/deep/er/c.png": 1,
    "n01443537.png": 5,  # beside the class folders: no label
    ".hidden/d.png": 4,
    "n01443537/.e.png": 6,
}


def png(grey):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, 2 * grey, 0)).save(file, "PNG")
    return file.getvalue()


def fill(root):
    for name, grey in PICTURES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(grey))
    return root


@pytest.fixture
def remote():
    root = fill(UPath("memory://probe/val"))
    yield root
    root.fs.rm("/probe", recursive=True)


@pytest.mark.parametrize("kind", ["folder", "imagenet"])
def test_a_copy_behind_a_url_is_the_same_set(tmp_path, remote, kind):
    """Breaks if order, labels or content depend on where the files lie."""
    here, there = datasets.load(kind, fill(tmp_path / "val")), datasets.load(kind, str(remote))
    assert there.names == here.names and len(there) == 4
    assert there.labels == here.labels and None in there.labels
    assert (there.fingerprint, there.name) == (here.fingerprint, here.name)
    assert [there.image(i).tobytes() for i in range(4)] == [
        here.image(i).tobytes() for i in range(4)
    ]
    by_file = datasets.load(kind, (tmp_path / "val").as_uri())
    assert by_file.fingerprint == here.fingerprint


def test_worker_processes_open_the_url_themselves(tmp_path):
    """A connection does not survive a fork: breaks if the reader carries one along."""
    found = images.folder(fill(tmp_path / "val").as_uri())
    read = list(images.batches(found, lambda _: torch.ones(3, 1, 1), 2, workers=2))
    assert [i for indices, _ in read for i in indices.tolist()] == [0, 1, 2, 3]


def test_places_by_folder_behind_a_url(remote):
    root = UPath("memory://probe")
    (root / "categories_places365.txt").write_text("/n/n01443537 0\n/n/n01440764 1\n")
    found = datasets.places365(str(root))
    assert found.labels == (1, 1, 0, None)


def test_what_changed_behind_a_url_is_noticed(remote):
    found = images.folder(str(remote))
    (remote / "n01440764/a.png").write_bytes(png(9))
    with pytest.raises(ValueError, match=r"memory://.*a\.png.*changed since the image set"):
        found.image(0)
    (remote / "n01440764/a.png").unlink()
    with pytest.raises(ValueError, match="missing or no regular file"):
        found.image(0)


def test_a_url_that_cannot_be_read_is_an_error(remote):
    with pytest.raises(ValueError, match=r"'nono://x' cannot be read; install its package"):
        images.folder("nono://x")
    with pytest.raises(NotADirectoryError, match="There is no folder 'memory://probe/vale'"):
        images.folder("memory://probe/vale")
