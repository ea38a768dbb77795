"""Downloads from a server on this machine that breaks off, ignores ranges, or lies."""

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import fetch
import pytest
from needs import Need

BODY = bytes(range(256)) * 400
SHA = {"sha256": hashlib.sha256(BODY).hexdigest()}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if server.refuse:
            self.send_error(server.refuse)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and server.ranges else 0
        if start >= len(server.body) and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        part = server.body[start:]
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            told = server.lie if server.lie is not None else start
            end = len(server.body) - 1
            self.send_header("Content-Range", f"bytes {told}-{end}/{len(server.body)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(part)
        self.wfile.write(part[:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    served.body, served.ranges, served.refuse, served.lie = BODY, True, None, None
    served.asked, served.breaks = [], []
    served.url = f"http://127.0.0.1:{served.server_port}/file.bin"
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()


def left(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_whole_file_arrives_under_its_own_name_only(server, tmp_path):
    fetch.download(server.url, tmp_path / "deep" / "file.bin", SHA)
    assert (tmp_path / "deep" / "file.bin").read_bytes() == BODY
    assert left(tmp_path / "deep") == ["file.bin"]


def test_a_connection_that_breaks_off_is_taken_up_where_it_broke(server, tmp_path):
    """Breaks if bytes are asked for twice, or pieces do not join."""
    server.breaks = [1000, 5000]
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.asked == [None, "bytes=1000-", "bytes=6000-"]


def test_an_interrupted_download_goes_on_the_next_time(server, tmp_path):
    server.breaks = [1000]
    with pytest.raises(OSError, match="1,000 bytes are kept"):
        fetch.download(server.url, tmp_path / "f", SHA, attempts=1)
    assert left(tmp_path) == ["f.part"]
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY and server.asked[1] == "bytes=1000-"


def test_a_whole_part_is_not_loaded_again(server, tmp_path):
    """Breaks if a kill between the last byte and the renaming costs the file."""
    (tmp_path / "f.part").write_bytes(BODY)
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_part_longer_than_the_file_is_begun_again(server, tmp_path):
    (tmp_path / "f.part").write_bytes(BODY + b"more")
    fetch.download(server.url, tmp_path / "f", SHA)
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("how", ["ignores ranges", "sends another range"])
def test_a_server_that_does_not_go_on_is_begun_again(server, tmp_path, how):
    """Breaks if the whole file is appended to the part."""
    (tmp_path / "f.part").write_bytes(BODY[:1000])
    server.ranges = how != "ignores ranges"
    if server.ranges:
        server.lie = 5
        with pytest.raises((OSError, ValueError)):
            fetch.download(server.url, tmp_path / "f", SHA)
        assert not (tmp_path / "f").exists()
    else:
        fetch.download(server.url, tmp_path / "f", SHA)
        assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_another_file_is_thrown_away(server, tmp_path, kind):
    with pytest.raises(ValueError, match=f"is another file: its {kind}"):
        fetch.download(server.url, tmp_path / "f", {kind: "0" * 8})
    assert left(tmp_path) == []


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
    server.refuse = 404
    with pytest.raises(OSError, match="404"):
        fetch.download(server.url, tmp_path / "f", SHA)
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
    server.refuse = 503
    with pytest.raises(OSError, match="503"):
        fetch.download(server.url, tmp_path / "f", SHA, attempts=3)
    assert len(server.asked) == 3


def test_only_http_is_spoken(tmp_path):
    with pytest.raises(ValueError, match="no http address"):
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


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_unpacked_into_its_place_and_goes(server, tmp_path, kind, capsys):
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


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "bad.tar").write_bytes(packed("tar", "../../escaped"))
    with pytest.raises(ValueError, match="cannot be unpacked"):
        fetch.unpack(tmp_path / "bad.tar", tmp_path / "inner" / "set")
    assert not list(tmp_path.rglob("escaped"))
    (tmp_path / "no.tar").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        fetch.unpack(tmp_path / "no.tar", tmp_path / "set")


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
    needed = Need("net", "a", "MIT", source="https://hub", repo="a/b", holds=("m.safetensors",))
    assert fetch.fetch([needed]) == 1
    assert asked == [("a/b", ["m.safetensors"])]
    assert "https://hub cannot be had (RuntimeError)" in capsys.readouterr().err
