"""Downloads from a server on this machine that breaks off, ignores ranges, or lies."""

import hashlib
import http.server
import io
import tarfile
import tempfile
import threading
import zipfile
from pathlib import Path

import fetch
import pytest
from check import Need

BODY = bytes(range(256)) * 400
SHA = {"sha256": hashlib.sha256(BODY).hexdigest()}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.refuse:
            self.send_error(server.refuse.pop(0) if len(server.refuse) > 1 else server.refuse[0])
            return
        on = bool(asked) and server.ranges
        start = int(asked.removeprefix("bytes=").rstrip("-")) if on else 0
        if start >= len(server.body) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = server.body[start:]
        self.send_response(206 if on else 200)
        if on:
            end = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(server.body)}")
        stop = server.breaks.pop(0) if server.breaks else len(part)
        self.send(part[:stop], len(part))

    def send(self, sent, length):
        """Send what the connection lets through, and tell the length as this server does."""
        how = self.server.how
        if how == "length":
            self.send_header("Content-Length", str(length))
        elif how == "chunks":
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if how != "chunks":
            self.wfile.write(sent)
            return
        for i in range(0, len(sent), 700):
            piece = sent[i : i + 700]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n" if len(sent) == length else b"")

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    served.body, served.ranges, served.how = BODY, True, "length"
    served.asked, served.breaks, served.refuse = [], [], []
    served.url = f"http://127.0.0.1:{served.server_port}/file.bin"
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def left(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def file(server, path, **entries):
    return Need("thing", "a thing", "MIT", path=path, url=server.url, **entries)


def test_a_whole_file_arrives_under_its_own_name_only(server, tmp_path):
    assert fetch.fetch([file(server, tmp_path / "deep" / "file.bin", **SHA)]) == 0
    assert (tmp_path / "deep" / "file.bin").read_bytes() == BODY
    assert left(tmp_path / "deep") == ["file.bin"]


@pytest.mark.parametrize("how", ["length", "chunks", "until it ends"])
def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(server, tmp_path, how):
    """Breaks if bytes are asked for twice, pieces do not join, or a stump passes for the whole."""
    server.breaks, server.how = [1000, 5000], how
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_an_interrupted_download_goes_on_the_next_time(server, tmp_path):
    server.breaks = [1000]
    with pytest.raises(OSError, match="1,000 bytes are kept"):
        fetch.download(server.url, tmp_path / "f", SHA, attempts=1)
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY and server.asked[1] == "bytes=1000-"


def test_a_whole_part_is_not_loaded_again(server, tmp_path):
    """Breaks if a kill between the last byte and the renaming costs the file."""
    (tmp_path / "f").write_bytes(BODY)
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_begun_again(server, tmp_path):
    (tmp_path / "f").write_bytes(BODY + b"more")
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_server_that_ignores_ranges_is_begun_again(server, tmp_path):
    """Breaks if what it sends is appended to what is there."""
    (tmp_path / "f").write_bytes(BODY[:1000])
    server.ranges = False
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY and server.asked == ["bytes=1000-"]


def test_without_a_checksum_nothing_is_resumed(server, tmp_path):
    """Breaks if the end of a new version is put behind the beginning of the old one."""
    (tmp_path / "f").write_bytes(BODY[:1000])
    server.body = BODY[::-1]
    fetch.download(server.url, tmp_path / "f", {})
    assert (tmp_path / "f").read_bytes() == BODY[::-1] and server.asked == [None]


def test_parts_of_two_versions_are_deleted(server, tmp_path):
    (tmp_path / "f").write_bytes(BODY[::-1][:1000])
    with pytest.raises(ValueError, match="is another file"):
        fetch.download(server.url, tmp_path / "f", SHA)
    assert server.asked == ["bytes=1000-"] and left(tmp_path) == []


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_file_is_deleted(server, tmp_path, kind):
    with pytest.raises(ValueError, match=f"is another file: its {kind}"):
        fetch.download(server.url, tmp_path / "f", {kind: "0" * 8})
    assert left(tmp_path) == []


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    server.refuse = [404]
    with pytest.raises(OSError, match="404"):
        fetch.download(server.url, tmp_path / "f", SHA)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, code):
    """Breaks if what passes by itself ends a download for good."""
    server.refuse = [code]
    with pytest.raises(OSError, match=str(code)):
        fetch.download(server.url, tmp_path / "f", SHA, attempts=3)
    assert len(server.asked) == 3


def test_a_broken_connection_of_any_kind_stops_only_its_own_need(server, tmp_path, capsys):
    """Breaks if an error that is no OSError escapes, so that later needs are not tried."""
    server.how, server.breaks = "chunks", [1000] * fetch.ATTEMPTS
    needed = [file(server, tmp_path / name, **SHA) for name in ("a", "b")]
    assert fetch.fetch(needed) == 1
    assert (tmp_path / "b").read_bytes() == BODY
    assert "5,000 bytes are kept" in capsys.readouterr().err


def test_only_http_is_spoken(tmp_path):
    with pytest.raises(ValueError, match="not an http address"):
        fetch.download("file:///etc/passwd", tmp_path / "f", {})


def packed(kind, name="set/a.txt"):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(name, "a")
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"a"))
    return buffer.getvalue()


@pytest.fixture(params=["this Python", "without filters"])
def python(request, monkeypatch):
    """This Python, and one whose tarfile has no filters, as 3.11.2."""
    if request.param == "without filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked_into_its_place_and_goes(server, tmp_path, kind, python):
    server.body = packed(kind)
    needed = Need(
        "set", "a set", "MIT", path=tmp_path / "set", folder=True, holds=("a.txt",),
        url=server.url, archive=tmp_path / "set.bin",
        md5=hashlib.md5(server.body).hexdigest(),
    )  # fmt: skip
    assert fetch.fetch([needed]) == 0
    assert (tmp_path / "set" / "a.txt").read_text() == "a" and left(tmp_path) == ["set"]
    asked = len(server.asked)
    assert fetch.fetch([needed]) == 0 and len(server.asked) == asked, "it is there already"


def test_an_archive_that_leads_out_of_its_folder_or_is_none_is_refused(tmp_path, python):
    linked = io.BytesIO()
    with tarfile.open(fileobj=linked, mode="w:gz") as archive:
        entry = tarfile.TarInfo("set/a.txt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)
    bad = packed("tar", "../../../escaped"), linked.getvalue(), b"no archive", packed("tar")[:50]
    for bytes_ in bad:
        (tmp_path / "bad.tar").write_bytes(bytes_)
        with (
            tempfile.TemporaryDirectory(dir=tmp_path) as room,
            pytest.raises(ValueError, match="cannot be unpacked"),
        ):
            fetch.unpack(tmp_path / "bad.tar", Path(room), "set")
    assert not list(tmp_path.rglob("escaped"))


# What somebody put there --------------------------------------------------------------------------


def archive(server, path, **entries):
    return file(server, path, folder=True, archive=path.with_name("set.zip"), **entries)


def test_a_folder_that_is_not_right_is_kept_under_another_name(server, tmp_path, capsys):
    """Breaks if a user's own files are deleted with it."""
    server.body = packed("zip")
    for i in (1, 2):
        (tmp_path / "set" / "a.txt").unlink(missing_ok=True)
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / "private.txt").write_text(f"mine {i}")
        (tmp_path / "set.zip").write_text("mine as well")
        assert fetch.fetch([archive(server, tmp_path / "set", holds=("a.txt",))]) == 0
        aside = tmp_path / f"set.replaced-{i}"
        assert (aside / "private.txt").read_text() == f"mine {i}"
        assert f"is kept as {aside}" in capsys.readouterr().out
        assert [p.name for p in (tmp_path / "set").iterdir()] == ["a.txt"]
    assert (tmp_path / "set.zip").read_text() == "mine as well"


OTHERS = {
    "another": packed("zip", "set/other.txt"),
    "torn": packed("tar")[:50],
    "none": b"no archive",
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_an_archive_that_is_not_right_either_changes_nothing(server, tmp_path, capsys, body):
    """Breaks if it is looked at only after what was there has gone."""
    server.body = body
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "private.txt").write_text("mine")
    assert fetch.fetch([archive(server, tmp_path / "set", holds=("a.txt",))]) == 1
    assert left(tmp_path) == ["set"] and (tmp_path / "set" / "private.txt").exists()
    said = capsys.readouterr().err
    assert "holds no a.txt" in said or "cannot be unpacked" in said


def test_a_file_that_is_not_right_is_kept_under_another_name(server, tmp_path, capsys):
    """Breaks if a download writes over what somebody put in its place, or a link to it."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "f").symlink_to(tmp_path / "mine")
    (tmp_path / "f.replaced-1").symlink_to(tmp_path / "nowhere")
    assert fetch.fetch([file(server, tmp_path / "f", **SHA)]) == 0
    assert (tmp_path / "f").read_bytes() == BODY and (tmp_path / "mine").read_text() == "mine"
    assert left(tmp_path) == ["f", "f.replaced-1", "f.replaced-2", "mine"]
    assert f"is kept as {tmp_path / 'f.replaced-2'}" in capsys.readouterr().out


def test_a_file_without_a_checksum_is_looked_at_before_it_takes_its_place(server, tmp_path, capsys):
    """Breaks if an error page takes the place of a list of words."""
    (tmp_path / "f").write_text("one line")
    server.body = b"<html>\n</html>\n<!-- -->"
    assert fetch.fetch([file(server, tmp_path / "f", lines=2)]) == 1
    assert (tmp_path / "f").read_text() == "one line" and left(tmp_path) == ["f"]
    assert "it has 3 lines, expected 2" in capsys.readouterr().err


def test_one_failure_stops_nobody_and_what_needs_terms_is_left_to_the_user(
    server, tmp_path, capsys
):
    good = Need("good", "a", "MIT", path=tmp_path / "a", url=server.url, **SHA)
    bad = Need("bad", "b", "MIT", path=tmp_path / "b", url=server.url, sha256="0" * 64)
    bound = Need("bound", "c", "registration", path=tmp_path / "c")
    assert fetch.fetch([bound, bad, good]) == 2
    said = capsys.readouterr()
    assert "good: fetched" in said.out
    assert "bound: not for --fetch: registration" in said.err and "bad: what came" in said.err


def test_the_hub_is_asked_for_the_named_files(monkeypatch, capsys):
    import huggingface_hub

    asked = []

    def snapshot(repo, allow_patterns):
        asked.append((repo, allow_patterns))
        raise RuntimeError("offline")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    needed = Need("net", "a", "MIT", source="https://hub", hub="a/b", holds=("m.safetensors",))
    assert fetch.fetch([needed]) == 1
    assert asked == [("a/b", ["m.safetensors"])]
    assert "https://hub cannot be downloaded (RuntimeError)" in capsys.readouterr().err
