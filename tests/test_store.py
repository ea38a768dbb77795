"""An artifact comes back bit for bit or not at all, whatever is asked, broken, or killed."""

import ast
import errno
import hashlib
import json
import math
import os
import pickle
import pwd
import random
import resource
import signal
import struct
import threading
import time
import warnings
from dataclasses import FrozenInstanceError
from importlib import metadata
from pathlib import Path

import pytest
import torch

import wwwlib.store
from wwwlib.store import Slot, Store, digest, file_digest, tensor_digest, versions

KEY = {"layer": "layer4", "k": 40, "alpha": 0.95, "crops": None, "path": ["a", {"b": True}]}
TENSORS = {"index": torch.arange(6).reshape(2, 3), "value": torch.tensor([0.5, math.nan, -0.0])}
RECORD = {"words": ["ré", "<b>$x$</b>", ""], "scores": [1.5, 2], "note": {"seed": 0}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def tree(root):
    """Every file under a folder with its bytes; locks hold nothing and are left out."""
    files = (path for path in Path(root).rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def files(store, kind, key):
    path = Path(store.root) / kind / store.load(kind, key).digest
    return path.with_suffix(".json"), path.with_suffix(".safetensors")


def never(checkpoint):
    raise AssertionError("made again although it was there")


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].numpy().tobytes() == other[name].numpy().tobytes()
        for name in one
    )


# --- what goes in comes out ---


def test_round_trip(store):
    saved = store.save("exemplars", KEY, TENSORS, RECORD)
    loaded = Store(str(store.root)).load("exemplars", dict(reversed(KEY.items())))
    assert same(loaded.tensors, TENSORS) and same(saved.tensors, TENSORS)
    assert loaded.record == saved.record == RECORD
    assert loaded.digest == saved.digest == digest(saved.key) and loaded.key == saved.key
    assert {name: saved.key[name] for name in KEY} == KEY
    assert saved.key["versions"].items() > versions().items()
    assert store.fetch("exemplars", KEY, never).record == RECORD


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_types_and_shapes(store, dtype):
    wanted = {"empty": torch.zeros(0, 3, dtype=dtype), "scalar": torch.ones((), dtype=dtype)}
    store.save("t", KEY, wanted)
    found = store.load("t", KEY).tensors
    assert all(torch.equal(found[n], wanted[n]) and found[n].dtype == dtype for n in wanted)


def test_views_shared_memory_and_gradients_are_copied(store):
    base = torch.arange(12.0).reshape(3, 4).requires_grad_()
    saved = store.save(
        "t", KEY, {"a": base, "b": base.T, "c": base[:, 1], "d": base[0].expand(2, 4)}
    )
    with torch.no_grad():
        base.zero_()
    found = store.load("t", KEY).tensors
    assert same(found, saved.tensors) and not found["a"].requires_grad
    assert found["b"].tolist() == torch.arange(12.0).reshape(3, 4).T.tolist()
    found["a"][0] = 7  # a loaded tensor is the reader's own
    assert same(store.load("t", KEY).tensors, saved.tensors)


def test_equal_content_gives_equal_bytes(tmp_path):
    """The order of insertion must leave no trace, in either file."""
    for name, turn in (("a", list), ("b", lambda items: list(items)[::-1])):
        tensors = {f"t{i}": torch.full((i,), i) for i in range(9)} | TENSORS
        Store(tmp_path / name).save(
            "t", dict(turn(KEY.items())), dict(turn(tensors.items())), dict(turn(RECORD.items()))
        )
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_nan_and_infinities_round_trip_in_strict_json(store):
    record = {"a": [math.nan, math.inf, -math.inf, -0.0, 1e-320], "b": 2**70}
    store.save("t", KEY | {"top": math.inf}, {}, record)
    found = store.load("t", KEY | {"top": math.inf})
    assert repr(found.record) == repr(record)
    sidecar = files(store, "t", KEY | {"top": math.inf})[0]
    json.loads(sidecar.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


BY_HAND = """{
 "checksum": "CHECKSUM",
 "key": {
  "k": 40,
  "versions": {
   "artifact format": 1,
   "wwwlib": "0.1.0"
  }
 },
 "kind": "t",
 "record": {
  "top": {
   "$float": "inf"
  },
  "words": [
   "r\\u00e9",
   null,
   true
  ]
 },
 "tensors": "TENSORS"
}
"""


def test_the_files_of_format_1_stay_as_they_are(store, monkeypatch):
    """Files written by hand: a change to their layout needs another format, or all are lost."""
    monkeypatch.setattr(wwwlib.store, "versions", lambda: {"wwwlib": "0.1.0"})
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(56)
    blob = struct.pack("<Q", len(header)) + header + struct.pack("<2f", 0.5, -2)
    sha = hashlib.sha256(blob).hexdigest()
    key = '{"k": 40, "versions": {"artifact format": 1, "wwwlib": "0.1.0"}}'
    record = '{"top": {"$float": "inf"}, "words": ["r\\u00e9", null, true]}'
    content = f'{{"key": {key}, "kind": "t", "record": {record}, "tensors": "{sha}"}}'
    sidecar = BY_HAND.replace("TENSORS", sha)
    sidecar = sidecar.replace("CHECKSUM", hashlib.sha256(content.encode()).hexdigest())
    path = Path(store.root) / "t" / hashlib.sha256(key.encode()).hexdigest()
    path.parent.mkdir(parents=True)
    path.with_suffix(".safetensors").write_bytes(blob)
    path.with_suffix(".json").write_text(sidecar)
    with warnings.catch_warnings(action="error"):
        found = store.load("t", {"k": 40})
    assert found.tensors["a"].tolist() == [0.5, -2]
    assert found.record == {"words": ["ré", None, True], "top": math.inf}
    before = tree(store.root)
    store.save("t", {"k": 40}, found.tensors, found.record)
    assert tree(store.root) == before


def test_sparse_and_rearranged_tensors_are_kept_dense_and_in_order(store):
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    given = {"sparse": torch.eye(3).to_sparse(), "last": x.to(memory_format=torch.channels_last)}
    saved = store.save("t", KEY, given)
    for found in (saved.tensors, store.load("t", KEY).tensors):
        assert same(found, {"last": x, "sparse": torch.eye(3)})
        assert all(tensor.is_contiguous() for tensor in found.values())


def test_without_a_root_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store, made = Store(None), []

    def make(checkpoint):
        checkpoint.save({}, {"done": 1})
        made.append(checkpoint.load())
        return TENSORS, {"grid": (7, 7)}

    for _ in range(2):
        found = store.fetch("t", KEY, make)
        assert same(found.tensors, TENSORS) and found.record == {"grid": [7, 7]}
    assert made == [None, None] and store.load("t", KEY) is None
    assert store.save("t", KEY, TENSORS).digest == found.digest
    assert list(tmp_path.iterdir()) == []


def test_first_and_later_fetches_return_the_same(store):
    """A tuple that is a tuple only in the first run makes the first run differ from the rest."""
    make = lambda checkpoint: (dict(reversed(TENSORS.items())), {"grid": (7, 7)})  # noqa: E731
    first, later = store.fetch("t", KEY, make), store.fetch("t", KEY, never)
    assert first.record == later.record == {"grid": [7, 7]}
    assert list(first.tensors) == list(later.tensors) and same(first.tensors, later.tensors)


def test_nothing_is_pickled(store, monkeypatch):
    """The tensor file is a length, a JSON header and raw numbers; no pickler ever runs."""
    for module, names in ((pickle, ("dump", "dumps", "load", "loads")), (torch, ("save", "load"))):
        for name in names:
            monkeypatch.setattr(module, name, never)
    store.fetch("t", KEY, lambda checkpoint: (TENSORS, RECORD))
    sidecar, tensors = files(store, "t", KEY)
    assert json.loads(sidecar.read_bytes())["record"] == RECORD
    blob = tensors.read_bytes()
    start = 8 + struct.unpack("<Q", blob[:8])[0]
    for name, entry in json.loads(blob[8:start]).items():
        first, last = entry["data_offsets"]
        assert blob[start + first : start + last] == TENSORS[name].numpy().tobytes()
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(Path(wwwlib.store.__file__).read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not imported & {"pickle", "shelve", "joblib", "marshal"}


# --- digests and keys ---


def test_digest_is_canonical():
    assert digest({"a": 1, "b": (1, 2)}) == digest({"b": [1, 2], "a": 1})
    plain = '{"a": [1, null, true], "b": "\\u00e9"}'
    assert digest({"b": "é", "a": [1, None, True]}) == hashlib.sha256(plain.encode()).hexdigest()
    different = [1, 1.0, True, "1", [1], {"1": 1}, None, "", [], {}, math.nan, math.inf, "nan"]
    assert len({digest(value) for value in different}) == len(different)


def test_file_and_tensor_digests(store):
    store.save("t", KEY, TENSORS)
    assert tensor_digest(TENSORS) == file_digest(files(store, "t", KEY)[1])
    assert tensor_digest(dict(reversed(TENSORS.items()))) == tensor_digest(TENSORS)
    x = torch.arange(4.0)
    changed = [{"x": x}, {"y": x}, {"x": x.half()}, {"x": x.view(2, 2)}, {"x": x + 1e-6}, {}]
    assert len({tensor_digest(tensors) for tensors in changed}) == len(changed)


@pytest.mark.parametrize(
    "change",
    [{"k": 41}, {"k": 40.0}, {"alpha": 0.9500000001}, {"crops": False}, {"path": []}, {"more": 1}],
)
def test_another_key_never_gets_it(store, change):
    store.save("t", KEY, TENSORS)
    assert store.load("t", KEY | change) is None
    assert store.load("u", KEY) is None
    assert store.load("t", {name: KEY[name] for name in list(KEY)[1:]}) is None


def test_another_library_version_never_gets_it(store, monkeypatch):
    store.save("t", KEY, TENSORS)
    monkeypatch.setattr(wwwlib.store, "versions", lambda: versions() | {"torch": "0.1"})
    assert store.load("t", KEY) is None


def test_versions_name_what_is_installed(monkeypatch):
    assert versions()["wwwlib"] == wwwlib.__version__ and "torch" in versions()
    monkeypatch.setattr(wwwlib.store, "LIBRARIES", "no-such-library torch")
    assert versions() == {"wwwlib": wwwlib.__version__, "torch": metadata.version("torch")}


def test_another_format_lives_beside_this_one(store, monkeypatch):
    """Old code must not read, complain about, or overwrite what newer code wrote."""
    with monkeypatch.context() as newer:
        newer.setattr(wwwlib.store, "FORMAT", wwwlib.store.FORMAT + 1)
        store.save("t", KEY, TENSORS, {"by": "newer"})
    before = tree(store.root)
    with warnings.catch_warnings(action="error"):
        assert store.fetch("t", KEY, lambda checkpoint: (TENSORS, {"by": "this"}))
    assert before.items() < tree(store.root).items()


WRONG = {
    "an earlier key": ("t", KEY | {"k": 1}), "a later key": ("t", KEY | {"k": 50}),
    "an earlier kind": ("s", KEY), "a later kind": ("u", KEY),
    "a checkpoint": ("t.checkpoint", KEY),
}  # fmt: skip


@pytest.mark.parametrize("other", WRONG)
def test_files_under_a_wrong_name_are_refused(store, other):
    """The key that is stored counts, not the name of the file."""
    asked = store.save("t", KEY, TENSORS).digest
    kind, key = WRONG[other]
    slot = Slot(Path(store.root), kind, store.slot("t", key).key)
    made = slot.save(TENSORS, {"by": other})
    for suffix in (".json", ".safetensors"):
        os.replace(f"{store.root}/{kind}/{made.digest}{suffix}", f"{store.root}/t/{asked}{suffix}")
    with pytest.warns(match="another key"):
        assert store.load("t", KEY) is None


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ({"root": [Path("/data")]}, ["key['root'][0]", "PosixPath", "digest"]),
        ({"x": {"y": {1, 2}}}, ["key['x']['y']", "set"]),
        ({"x": {1: 2}}, ["key['x']", "{1: 2}"]),
        ({"t": torch.ones(1)}, ["key['t']", "Tensor"]),
        ({"t": b"bytes"}, ["key['t']", "bytes"]),
        ({"t": {"$float": "nan"}}, ["key['t']", "$float"]),
    ],
)
def test_what_no_key_can_hold_is_named(store, key, names):
    with pytest.raises(TypeError) as raised:
        store.load("t", key)
    assert all(name in str(raised.value) for name in names)
    assert ("give the digest" in str(raised.value)) == ("digest" in names)


def test_what_no_key_can_hold_is_quoted_in_part():
    with pytest.raises(TypeError) as raised:
        digest({"x": {"y" * 5000}})
    assert "y" * 150 in str(raised.value) and "y" * 250 not in str(raised.value)


def test_misuse_is_refused_before_anything_is_written(store):
    for kind in ("../t", "t/u", "", ".", "t.checkpoint", "t\n"):
        with pytest.raises(ValueError, match="kind"):
            store.save(kind, KEY, TENSORS)
    with pytest.raises(ValueError, match="versions"):
        store.save("t", {"versions": {}}, TENSORS)
    with pytest.raises(TypeError, match=r"record\['p'\]"):
        store.save("t", KEY, TENSORS, {"p": Path(".")})
    with pytest.raises(TypeError, match=r"tensors\['a'\] is a list"):
        store.save("t", KEY, {"a": [1]})
    assert tree(store.root) == {}


@pytest.mark.parametrize("field", ["root", "key", "record"])
def test_a_store_a_slot_and_an_artifact_cannot_be_changed(store, field):
    """A changed key would belong to another file."""
    made = {"root": store, "key": store.slot("t", KEY), "record": store.save("t", KEY, TENSORS)}
    with pytest.raises(FrozenInstanceError):
        setattr(made[field], field, {})
    assert hash(store) == hash(Store(store.root))


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    assert Store.default() == Store(tmp_path)
    monkeypatch.delenv("WWW_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.default() == Store(tmp_path / ".cache" / "wwwlib")
    monkeypatch.setenv("WWW_STORE", "")
    assert Store.default() == Store(tmp_path / ".cache" / "wwwlib")


# --- damage ---


@pytest.fixture
def few_versions(monkeypatch):
    """Spare thousands of loads the look-up of every library's version."""
    monkeypatch.setattr(wwwlib.store, "versions", lambda: {"wwwlib": "0.1.0", "torch": "2.14.1"})


@pytest.mark.parametrize("which", [0, 1], ids=["sidecar", "tensors"])
def test_every_flipped_byte_is_noticed(store, which, few_versions):
    """A random bit of every byte in turn, layout and white space included."""
    store.save("t", KEY, TENSORS, RECORD)
    path, rng = files(store, "t", KEY)[which], random.Random(0)
    whole = path.read_bytes()
    for position in range(len(whole)):
        bit, broken = rng.randrange(8), bytearray(whole)
        broken[position] ^= 1 << bit
        path.write_bytes(broken)
        with pytest.warns(match=f"{store.root}.*damaged"):
            assert store.load("t", KEY) is None, f"bit {bit} of byte {position}"
    path.write_bytes(whole)
    assert store.load("t", KEY).record == RECORD


@pytest.mark.parametrize("which", [0, 1], ids=["sidecar", "tensors"])
def test_truncation_and_additions_are_noticed(store, which, few_versions):
    store.save("t", KEY, TENSORS, RECORD)
    path = files(store, "t", KEY)[which]
    whole = path.read_bytes()
    for broken in [whole[:length] for length in range(len(whole))] + [whole + b"\n", b"1", b"{}"]:
        path.write_bytes(broken)
        with pytest.warns(match="damaged"):
            assert store.load("t", KEY) is None


def test_a_rewritten_sidecar_is_noticed(store):
    """The same JSON in another layout is not what was written."""
    store.save("t", KEY, TENSORS, RECORD)
    sidecar = files(store, "t", KEY)[0]
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text())))
    with pytest.warns(match="sidecar does not agree"):
        assert store.load("t", KEY) is None


@pytest.mark.parametrize("damage", ["flip", "no tensors", "no sidecar"])
def test_what_is_damaged_is_made_again(store, damage):
    make = lambda checkpoint: (TENSORS, RECORD)  # noqa: E731
    store.fetch("t", KEY, make)
    before, (sidecar, tensors) = tree(store.root), files(store, "t", KEY)
    if damage == "flip":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"?")
    else:
        (tensors if damage == "no tensors" else sidecar).unlink()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert same(store.fetch("t", KEY, make).tensors, TENSORS)
    assert len(caught) == (damage != "no sidecar")  # without a sidecar it was never there
    assert tree(store.root) == before


def test_a_damaged_checkpoint_is_ignored(store):
    def stopped(checkpoint):
        checkpoint.save({"a": torch.ones(3)}, {"done": 1})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch("t", KEY, stopped)
    (path,) = (Path(store.root) / "t.checkpoint").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    found = []
    with pytest.warns(match="checkpoint.*damaged"):
        store.fetch("t", KEY, lambda checkpoint: (found.append(checkpoint.load()) or TENSORS, {}))
    assert found == [None]
    assert not any("checkpoint" in name for name in tree(store.root))


# --- folders that are full or closed ---


class Failing:
    """A function that does its work but for the n-th call, which raises (or kills)."""

    def __init__(self, real, fail, at=0):
        self.real, self.fail, self.at = real, fail, at

    def __call__(self, *args, **kwargs):
        self.at -= 1
        return self.fail() if self.at == -1 else self.real(*args, **kwargs)


def full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(("name", "at"), [("fsync", 0), ("fsync", 1), ("replace", 0)])
def test_a_full_disk_spoils_nothing(store, monkeypatch, name, at):
    store.save("t", KEY, TENSORS, RECORD)
    before = tree(store.root)
    for key in (KEY, KEY | {"k": 1}):
        with monkeypatch.context() as patch, pytest.raises(OSError) as raised:
            patch.setattr(os, name, Failing(getattr(os, name), full, at))
            store.save("t", key, {"x": torch.ones(999)})
        assert raised.value.errno == errno.ENOSPC
        assert "No space left" in str(raised.value) and str(store.root) in str(raised.value)
        assert tree(store.root) == before
        assert same(store.load("t", KEY).tensors, TENSORS)


def test_files_are_synced_before_they_appear_and_folders_after(store, monkeypatch):
    """A power cut may lose what was not synced, and keep a rename that came later."""
    path, events = store.slot("t", KEY).path, []

    def synced(handle, real=os.fsync):
        file = Path(os.readlink(f"/proc/self/fd/{handle}"))
        events.append(("sync", "folder" if file.is_dir() else file.name.removeprefix(path.name)))
        real(handle)

    def renamed(source, to, real=os.replace):
        events.append(("rename", str(to).removeprefix(str(path))))
        real(source, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    store.save("t", KEY, TENSORS, RECORD)
    assert events == [
        ("sync", ".safetensors.tmp"), ("sync", ".json.tmp"),
        ("rename", ".safetensors"), ("sync", "folder"), ("rename", ".json"), ("sync", "folder"),
    ]  # fmt: skip


def test_a_slot_makes_its_folders_and_clears_its_files(store):
    slot = store.slot("t", KEY)
    slot.save(TENSORS, RECORD)
    assert same(slot.load().tensors, TENSORS)
    for suffix in (".json.tmp", ".safetensors.tmp"):
        slot.path.with_suffix(suffix).write_text("left behind")
    slot.clear()
    slot.clear()
    assert tree(store.root) == {} and slot.load() is None


def test_a_file_that_cannot_grow_spoils_nothing(store):
    """A real failed write: the kernel stops it after 4 kB."""
    store.save("t", KEY, TENSORS, RECORD)
    before, limits = tree(store.root), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.save("t", KEY, {"x": torch.ones(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(store.root) == before
    assert same(store.load("t", KEY).tensors, TENSORS)


def test_a_read_only_folder_still_answers(store, monkeypatch):
    """Reading takes no lock; making fails before the work, not after it."""
    store.save("t", KEY, TENSORS, RECORD)
    real = os.open

    def closed(path, flags, *args, **kwargs):
        if flags & (os.O_CREAT | os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", closed)
    assert store.load("t", KEY).record == store.fetch("t", KEY, never).record == RECORD
    with pytest.raises(PermissionError, match=r"Cannot write the artifact .*WWW_STORE"):
        store.fetch("t", KEY | {"k": 1}, never)


def test_a_root_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    assert store.load("t", KEY) is None
    with pytest.raises(OSError, match="Cannot write the artifact"):
        store.fetch("t", KEY, never)


def test_an_error_in_the_making_is_left_as_it_is(store):
    """A missing photograph is not a full disk, and must neither be renamed nor leave a lock."""
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="no-such-photograph"):
            store.fetch("t", KEY, lambda checkpoint: os.stat("no-such-photograph"))
    assert tree(store.root) == {}


# --- kills and companions ---


def run_pass(root, steps, ready=None):
    """Fetch a pass over made-up images, a running sum that is checkpointed after each batch."""

    def make(checkpoint):
        saved = checkpoint.load()
        done, total = (saved.record["done"], saved.tensors["x"]) if saved else (0, torch.zeros(64))
        for step in range(done, steps):
            time.sleep(0.002)
            total = total + torch.rand(64, generator=torch.Generator().manual_seed(step))
            checkpoint.save({"x": total}, {"done": step + 1})
        return {"x": total}, {"steps": steps}

    if ready:
        ready.send(None)
    Store(root).fetch("pass", KEY, make)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run_pass_and_die(root, steps, at):
    """Kill this process just before the n-th call that changes or secures the disk."""
    calls = iter(range(at))

    def patched(real):
        def call(*args, **kwargs):
            return real(*args, **kwargs) if next(calls, None) is not None else die()

        return call

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, patched(getattr(os, name)))
    run_pass(root, steps)


def fetch_logged(root, connection):
    def make(checkpoint):
        with open(Path(root) / "log", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.2)
        return TENSORS, RECORD

    connection.send(tensor_digest(Store(root).fetch("t", KEY, make).tensors))


def test_killed_at_random_moments_it_resumes_to_the_same_bytes(tmp_path, processes):
    start = time.perf_counter()
    run_pass(tmp_path / "undisturbed", steps=5)
    seconds, wanted = time.perf_counter() - start, tree(tmp_path / "undisturbed")
    rng = random.Random(0)
    for trial in range(20):
        root = tmp_path / str(trial)
        ours, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=run_pass, args=(root, 5, theirs))
        process.start()
        ours.recv()
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.join()
        with warnings.catch_warnings(action="error"):
            run_pass(root, steps=5)
        assert tree(root) == wanted


def test_killed_at_every_step_on_the_disk_it_resumes_to_the_same_bytes(tmp_path, processes):
    """Stop before each sync, rename and removal in turn; no finished batch is computed again."""
    run_pass(tmp_path / "undisturbed", steps=2)
    wanted, progress, code = tree(tmp_path / "undisturbed"), [], None
    while code != 0:
        root = tmp_path / str(len(progress))
        process = processes.Process(target=run_pass_and_die, args=(root, 2, len(progress)))
        process.start()
        process.join()
        code = process.exitcode
        assert code in (0, -signal.SIGKILL)
        with warnings.catch_warnings(action="error"):
            slot = Store(root).slot("pass", KEY)
            saved = Slot(root, "pass.checkpoint", slot.key).load()
            progress.append(3 if slot.load() else saved.record["done"] if saved else 0)
            run_pass(root, steps=2)
        assert tree(root) == wanted
    assert progress == sorted(progress) and set(progress) == {0, 1, 2, 3}


def test_of_two_processes_one_makes_it_and_the_other_waits(tmp_path, processes):
    pipes, running = [], []
    for _ in range(2):
        ours, theirs = processes.Pipe(duplex=False)
        running.append(processes.Process(target=fetch_logged, args=(tmp_path, theirs)))
        pipes.append(ours)
        running[-1].start()
    assert [pipe.recv() for pipe in pipes] == [tensor_digest(TENSORS)] * 2
    for process in running:
        process.join()
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_of_two_threads_one_makes_it_and_the_other_waits(store):
    made, found = [], []

    def make(checkpoint):
        made.append(1)
        time.sleep(0.1)
        return TENSORS, RECORD

    threads = [
        threading.Thread(target=lambda: found.append(store.fetch("t", KEY, make))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and all(same(artifact.tensors, TENSORS) for artifact in found)


def test_a_making_that_asks_for_itself_fails_instead_of_waiting_for_ever(store):
    with pytest.raises(RuntimeError, match=r"(?i)deadlock"):
        store.fetch("t", KEY, lambda checkpoint: store.fetch("t", KEY, never))


def test_a_making_may_ask_for_another(store):
    inner = lambda checkpoint: (TENSORS, {})  # noqa: E731
    store.fetch("t", KEY, lambda c: (store.fetch("u", KEY, inner).tensors, {}))
    assert same(store.load("t", KEY).tensors, store.load("u", KEY).tensors)


def test_without_a_home_folder_a_sentence_names_the_variable(monkeypatch):
    """Breaks if a container that runs as an unlisted user ends in a RuntimeError."""

    def unlisted(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("WWW_STORE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unlisted)
    with pytest.raises(ValueError, match=r"'~/\.cache/wwwlib' .* set HOME, .*WWW_STORE"):
        Store.default()


# --- what others put into the folder ---


def test_a_planted_link_is_replaced_and_not_written_through(store, tmp_path):
    """Breaks if a link in place of a temporary file overwrites a file elsewhere."""
    (victim := tmp_path / "victim").write_text("mine")
    path = store.slot("t", KEY).path
    path.parent.mkdir(parents=True)
    for suffix in (".json.tmp", ".safetensors.tmp"):
        path.with_name(path.name + suffix).symlink_to(victim)
    store.save("t", KEY, TENSORS, RECORD)
    assert victim.read_text() == "mine"
    assert same(store.load("t", KEY).tensors, TENSORS)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("thing", ["pipe", "deep"])
def test_a_pipe_or_deeply_nested_json_is_damage(store, suffix, thing):
    """Breaks if reading waits for ever, or ends in a RecursionError."""
    store.save("t", KEY, TENSORS, RECORD)
    (path,) = (Path(store.root) / "t").glob(f"*.{suffix}")
    path.unlink()
    os.mkfifo(path) if thing == "pipe" else path.write_text("[" * 200_000)
    with pytest.warns(match=r"is damaged \(.*made again"):
        assert store.load("t", KEY) is None
    store.save("t", KEY, TENSORS, RECORD)
    assert same(store.load("t", KEY).tensors, TENSORS)


def test_a_read_between_the_renames_of_a_save_finds_the_new_artifact(store, monkeypatch):
    """Breaks if an artifact that is saved again while it is read counts as damaged."""
    store.save("t", KEY, TENSORS, RECORD)
    real = wwwlib.store._read

    def saved_meanwhile(path):
        data = real(path)
        if path.endswith(".json"):
            monkeypatch.setattr(wwwlib.store, "_read", real)
            store.save("t", KEY, {"x": torch.ones(3)}, {})
        return data

    monkeypatch.setattr(wwwlib.store, "_read", saved_meanwhile)
    with warnings.catch_warnings(action="error"):
        assert same(store.load("t", KEY).tensors, {"x": torch.ones(3)})


def test_waiting_for_another_is_said_once(store, monkeypatch):
    slot = store.slot("t", KEY)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with slot.locked():
            monkeypatch.setattr(wwwlib.store, "_SILENT", 0.01)
            waiting = threading.Thread(target=store.fetch, args=("t", KEY, lambda _: (TENSORS, {})))
            waiting.start()
            for _ in range(1000):
                if said:
                    break
                time.sleep(0.01)
        waiting.join()
    (warning,) = said
    assert "Waiting for another process or thread" in str(warning.message)
