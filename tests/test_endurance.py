"""Endurance: kills, full disks, foreign hands and no network; nothing that was computed is lost.

The builds run in children of one stage process that has imported the library and nothing more, so
that each starts at once and can be killed without harm to the tests.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from manifest import input_fingerprints
from PIL import Image
from profiles import Project

import wwwlib.atlas.atlas
import wwwlib.store
from wwwlib import atlas, images, language, targets, world
from wwwlib.store import Store

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["boat", "house", "tree", "wheel", "sand", "red", "striped", "night"]
LAYERS, BATCH = ["layer2", "layer4"], 10  # every batch of the probe set is full, no other one is

STAGE = """
import itertools, os, sys, types
import torch
torch.set_num_threads(1)
import wwwlib.distributed.passes as passes
from test_endurance import language, small_atlas, world
language.encoder("world"), world.image_set(40, seed=21)  # slow the first time
passes.time = types.SimpleNamespace(monotonic=itertools.count(0, 30).__next__)  # save often
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        calls = small_atlas(line.rstrip())[1]
        print("seen", len(calls), flush=True)
        os._exit(0)
    print("child", child, flush=True)
"""


def small_atlas(store, probe=None):
    """Build an atlas of two layers, one of which needs gradients; returns the batches seen."""
    network, calls = targets.load("world/conv"), []
    network.model.register_forward_pre_hook(
        lambda _, x: calls.append(1) if len(x[0]) == BATCH else None  # not a try with one image
    )
    book = atlas.build(
        network,
        probe or world.image_set(40, seed=21),
        language.encoder("world"),
        language.ConceptSet(WORDS),
        LAYERS,
        k=5,
        rounds=2,
        batch_size=BATCH,
        store=Store(store),
        progress=False,
    )
    return book, calls


def contents(store):
    """Return the digest of every file of a store, but for locks, which are empty."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(store).rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


class Stage:
    """A process whose children build atlases."""

    def __init__(self):
        paths = os.pathsep.join(str(ROOT / part) for part in ("tests", "papermill_runs", "."))
        self.process = subprocess.Popen(
            [sys.executable, "-c", STAGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline().strip() == "ready"

    def hear(self, what):
        """Return the next number of this kind; one of another came from a build killed too late."""
        while True:
            kind, number = self.process.stdout.readline().split()
            if kind == what:
                return int(number)

    def begin(self, store):
        """Begin a build and return its process."""
        print(store, file=self.process.stdin, flush=True)
        return self.hear("child")

    def build(self, store):
        """Build to the end and return how many batches went through the network."""
        self.begin(store)
        return self.hear("seen")

    def kill(self, store, after):
        """Begin a build and kill it some seconds later."""
        child = self.begin(store)
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
        status = Path(f"/proc/{child}/stat")
        while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)


@pytest.fixture(scope="module")
def stage():
    started = Stage()
    yield started
    started.process.kill()
    started.process.communicate()  # closes its pipes, too


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    """The store of a build that nobody disturbed, how long it took, and the batches it saw."""
    store, began = tmp_path_factory.mktemp("whole"), time.monotonic()
    calls = stage.build(store)
    return store, time.monotonic() - began, calls


# Kills ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_killed_again_and_again_a_build_ends_with_the_same_bytes(stage, whole, tmp_path):
    """Six kills of one build, which goes on each time and is killed again."""
    store, seconds, calls = whole
    moments = [random.uniform(0.1, 0.7) * seconds for _ in range(6)]
    for moment in moments:
        stage.kill(tmp_path, moment)
    left = stage.build(tmp_path)
    assert contents(tmp_path) == contents(store)
    assert left < calls, "the resumed build began at the beginning"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("part", range(50))
def test_killed_at_any_moment_a_build_ends_with_the_same_bytes(stage, whole, tmp_path, part):
    """Fifty builds, each killed once, the fiftieths of the whole time one after the other."""
    store, seconds, _ = whole
    moment = (part + random.random()) / 50 * seconds
    stage.kill(tmp_path, moment)
    stage.build(tmp_path)
    assert contents(tmp_path) == contents(store)


def test_two_builds_at_once_make_everything_once(stage, whole, tmp_path):
    """Breaks if two processes write one artifact, or do the same work side by side."""
    store, _, calls = whole
    stage.begin(tmp_path)
    stage.begin(tmp_path)  # the answers of both come in the order in which they end
    seen = [stage.hear("seen") for _ in range(2)]
    assert contents(tmp_path) == contents(store)
    assert sum(seen) == calls


# Disks ----------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_loses_nothing(whole, tmp_path, monkeypatch):
    """The build ends in a sentence; with room again it goes on, and ends with the same bytes."""
    store, _, calls = whole
    torch.set_num_threads(1)
    real, writes = os.fsync, []

    def full(file):
        writes.append(file)
        if len(writes) > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left") as raised:
        patch.setattr(os, "fsync", full)
        small_atlas(tmp_path)
    assert "make room there, or set WWW_STORE to another folder" in str(raised.value)
    kept = contents(tmp_path)
    assert len(small_atlas(tmp_path)[1]) < calls
    assert contents(tmp_path) == contents(store)
    assert kept.items() <= contents(store).items() and kept


DISKS = """
mount -t tmpfs -o size=200k none "$1" || exit 77
mount --bind "$2" "$2" && mount -o remount,ro,bind "$2" || exit 77
exec "$0" -c "
import json, os, sys
from test_endurance import small_atlas, world
small, read_only, said = *sys.argv[1:], []
for store, seed in ((small, 21), (read_only, 22)):
    try:
        small_atlas(store, world.image_set(40, seed=seed))
    except OSError as error:
        said.append(str(error))
kept = [name for *_, names in os.walk(small) for name in names if name.endswith('.json')]
print(json.dumps([*said, kept, len(small_atlas(read_only)[1])]))
" "$1" "$2"
"""


@pytest.fixture(scope="module")
def disks(whole, tmp_path_factory):
    """Build on a small disk, and on a read-only one with and without the artifacts.

    Returns the two errors, the records on the small disk, and the batches seen on the read-only
    one. Both are mounted in a namespace of their own, and used by one process.
    """
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare to mount with")
    stores = tmp_path_factory.mktemp("small"), whole[0]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", DISKS, sys.executable, *stores],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "tests")])},
        capture_output=True,
        text=True,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"nothing may be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_disk_that_is_really_full_gets_the_sentence(disks):
    said, _, kept, _ = disks
    assert "No space left on device; earlier artifacts are untouched" in said
    assert kept, "what fitted is kept"


def test_a_read_only_store_answers_and_says_that_it_takes_nothing_new(disks):
    """Breaks if what is there already is locked, or written, only to be read."""
    _, said, _, batches = disks
    assert batches == 0
    assert "Read-only file system; earlier artifacts are untouched" in said


# Foreign hands --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures that take the same room whatever they show."""
    (tmp_path / "probe").mkdir()
    for i in range(12):
        world.image_set(12, seed=5).image(i).save(tmp_path / "probe" / f"{i:02}.bmp")
    return tmp_path / "probe"


def change(path):
    """Show something else, with the same size and time."""
    before = path.stat()
    Image.open(path).rotate(180).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_picture_changed_with_the_same_size_and_time_is_noticed(folder, tmp_path):
    """Breaks if anything is known of a file by its size and time."""
    opened = images.folder(folder)
    old, _ = small_atlas(tmp_path / "store", opened)
    change(folder / "03.bmp")
    with pytest.raises(ValueError, match=r"03\.bmp.*changed since the image set was opened"):
        opened.image(3)
    new, calls = small_atlas(tmp_path / "store", images.folder(folder))
    assert calls, "the changed picture was never shown to the network"
    assert new.settings["probe"]["fingerprint"] != old.settings["probe"]["fingerprint"]


def test_a_notebook_runs_again_when_a_picture_changed_with_the_same_size_and_time(folder):
    """Breaks if the runner calls it done already."""
    project = Project(folder.parent / "project")
    (project.root / "notebooks").mkdir(parents=True)
    before = input_fingerprints(project, str(folder))
    assert input_fingerprints(project, str(folder)) == before
    change(folder / "03.bmp")
    assert input_fingerprints(project, str(folder)) != before


def test_what_a_newer_version_wrote_is_neither_read_nor_touched(tmp_path, monkeypatch):
    """Versions share a store: each finds its own, and none spoils the other's."""
    book, calls = small_atlas(tmp_path)
    with monkeypatch.context() as newer:
        newer.setattr(wwwlib.store, "FORMAT", wwwlib.store.FORMAT + 1)
        newer.setattr(wwwlib.store, "versions", lambda: {"wwwlib": "99.0"})
        newer.setattr(wwwlib.atlas.atlas, "FORMAT", wwwlib.atlas.atlas.FORMAT + 1)
        assert len(small_atlas(tmp_path)[1]) == len(calls)
        book.save(tmp_path / "book")
    both = contents(tmp_path)
    assert not small_atlas(tmp_path)[1]
    with pytest.raises(ValueError, match=r"has format \d+, but this wwwlib reads (format )?\d+"):
        atlas.Atlas.load(tmp_path / "book", book.target)
    assert contents(tmp_path) == both


# No network -----------------------------------------------------------------------------------

GUARD = """
import os, socket
def refuse(address):
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(address, tuple) and not str(host).startswith(("127.", "::1", "localhost")):
        with open(os.environ["WWW_GUARD"], "a") as log:
            print(address, file=log)
        raise OSError(101, f"no network here, for {address}")
def guarded(real):
    def call(self, address, *rest):
        refuse(address)
        return real(self, address, *rest)
    return call
for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
look_up = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    refuse((host or "localhost",))
    return look_up(host, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def offline(tmp_path):
    """Run a profile in processes that reach nothing but this machine; returns what they tried."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    paths = os.pathsep.join([str(tmp_path / "guard"), str(ROOT)])
    out = f"offline-{os.getpid()}"
    more = {
        "PYTHONPATH": paths, "WWW_GUARD": str(tmp_path / "tried"), "WWW_STORE": str(tmp_path / "s"),
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
    }  # fmt: skip

    def run(*words):
        command = [sys.executable, ROOT / "papermill_runs" / "run.py", *words, "--out", out]
        done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        tried = tmp_path / "tried"
        return tried.read_text() if tried.exists() else ""

    yield run
    shutil.rmtree(ROOT / "papermill_runs" / "runs" / out, ignore_errors=True)


def test_the_guard_stops_what_leaves_this_machine(tmp_path):
    """Breaks if the tests below would pass with the network open."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    named = "import socket; socket.getaddrinfo('example.org', 80)"
    for tried in (code, named):
        done = subprocess.run(
            [sys.executable, "-c", tried],
            env={**os.environ, "PYTHONPATH": str(tmp_path), "WWW_GUARD": str(tmp_path / "log")},
            capture_output=True,
            text=True,
        )
        assert "no network here" in done.stderr
    assert (tmp_path / "log").read_text().count("\n") == 2


def test_a_notebook_of_the_world_needs_no_network(offline):
    assert offline("world", "--only", "00") == ""


@pytest.mark.slow
def test_the_world_needs_no_network(offline):
    assert offline("world", "--jobs", "2") == ""


@pytest.mark.slow
@pytest.mark.real
def test_photos_need_no_network(offline, real, real_weights):
    weights = real_weights / "efficientnet_lite0.safetensors"
    given = [
        "probe_count=160", f"probe_root={real / 'photos'}", f"weights={weights}",
        f"encoder={real / 'standin_encoder.py'}:load",
    ]  # fmt: skip
    assert offline("photos", "--only", "01", *(w for one in given for w in ("--set", one))) == ""
