"""Downloads against a server that breaks off, lies, refuses and has too much; archives that point elsewhere."""

from __future__ import annotations

import errno
import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import make
import numpy as np
import pytest

from attentus.data.fetch import Entry, catalogue, entry, get
from attentus.data.fetch import download as module
from attentus.data.fetch.download import checksum, download
from attentus.data.fetch.unpack import unpack
from attentus.errors import BadFile, BadInput, UnknownName

QUICK = (0.0, 0.0)


class Server(ThreadingHTTPServer):
    """Serves `content` at any path but /gone; breaks off after each of `breaks` bytes, then not any more."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.asked, self.tag, self.ranges, self.status = b"", [], [], '"1"', True, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/data.tar"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if self.path == "/gone" or server.status:
            self.send_error(server.status or 404)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header("ETag", server.tag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        rest = server.content[start:]
        self.wfile.write(rest[: server.breaks.pop(0)] if server.breaks else rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    made = Server()
    made.content = np.random.default_rng(0).bytes(3_500_000)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def md5(content):
    return hashlib.md5(content).hexdigest()


def test_a_file_comes_whole_and_is_not_fetched_twice(server, tmp_path):
    file = download(server.url, tmp_path / "a" / "data.tar", md5=md5(server.content))
    assert file.read_bytes() == server.content
    assert list(file.parent.iterdir()) == [file]
    download(server.url, file, md5=md5(server.content))
    assert server.asked == [None]


def test_a_broken_connection_is_continued(server, tmp_path):
    server.breaks = [1_000_000, 1_200_000]
    watcher = make.Watcher()
    file = download(server.url, tmp_path / "x", md5=md5(server.content), progress=watcher, pauses=QUICK)
    assert file.read_bytes() == server.content
    assert server.asked == [None, "bytes=1000000-", "bytes=2200000-"]
    assert "1 MB are here, trying again" in watcher.said[0]


def test_another_day_it_goes_on_where_it_was(server, tmp_path):
    server.breaks = [2_000_000, 0, 0, 0]
    with pytest.raises(BadFile, match="goes on after 2 MB"):
        download(server.url, tmp_path / "x", pauses=QUICK)
    assert not (tmp_path / "x").exists()
    server.asked.clear()
    assert download(server.url, tmp_path / "x", md5=md5(server.content)).read_bytes() == server.content
    assert server.asked == ["bytes=2000000-"]


@pytest.mark.parametrize("change", ["tag", "ranges"])
def test_a_changed_file_or_a_server_without_ranges_starts_again(server, tmp_path, change):
    server.breaks = [2_000_000, 0, 0, 0]
    with pytest.raises(BadFile):
        download(server.url, tmp_path / "x", pauses=QUICK)
    if change == "tag":
        server.tag, server.content = '"2"', server.content[::-1]
    else:
        server.ranges = False
    assert download(server.url, tmp_path / "x").read_bytes() == server.content


def test_what_was_complete_when_it_was_killed_is_only_checked(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(module, "checksum", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(server.url, tmp_path / "x", md5=md5(server.content))
    assert download(server.url, tmp_path / "x", md5=md5(server.content)).read_bytes() == server.content
    assert server.asked == [None, "bytes=3500000-"]


def test_a_wrong_sum_leaves_nothing(server, tmp_path):
    with pytest.raises(BadFile, match=f"has the MD5 sum {md5(server.content)} where {'0' * 32} is published"):
        download(server.url, tmp_path / "x", md5="0" * 32)
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").write_bytes(b"half")
    with pytest.raises(BadFile, match="remove the file"):
        download(server.url, tmp_path / "x", md5=md5(server.content))


def test_refusals_are_told_at_once(server, tmp_path):
    gone = server.url.replace("data.tar", "gone")
    with pytest.raises(BadFile, match=r"is not there \(HTTP 404\)"):
        download(gone, tmp_path / "x")
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(BadFile, match=r"cannot be downloaded \(HTTP 503\)"):
        download(server.url, tmp_path / "x", pauses=QUICK)
    assert len(server.asked) == 1 + 1 + len(QUICK)
    with pytest.raises(BadFile, match="no http"):
        download("file:///etc/passwd", tmp_path / "x")


def test_nobody_answers(tmp_path):
    quiet = Server()
    quiet.server_close()
    with pytest.raises(BadFile, match=r"cannot be downloaded .*refused"):
        download(quiet.url, tmp_path / "x", pauses=())


def test_a_full_disk_is_seen_before_and_survived_in_between(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda place: usage(0, 0, 10**6))
        with pytest.raises(BadFile, match=r"needs 0\.0 GB, and 0\.0 GB are free"):
            download(server.url, tmp_path / "x")
        assert not (tmp_path / "x.part").exists()

    class Full:
        def __init__(self, task):
            pass

        def add(self, count):
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_Megabytes", Full)
        with pytest.raises(BadFile, match="the disk is full; what has come is kept"):
            download(server.url, tmp_path / "x")
    server.asked.clear()
    assert download(server.url, tmp_path / "x").read_bytes() == server.content
    assert server.asked == ["bytes=1048576-"]


def packed(folder, name):
    stream = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(stream, "w") as archive:
            for file in folder.rglob("*"):
                archive.write(file, f"Task/{file.relative_to(folder)}")
    else:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            archive.add(folder, "Task")
            archive.addfile(tarfile.TarInfo("Task/imagesTr/._case_00.nii.gz"))
    return stream.getvalue()


@pytest.mark.parametrize("name", ["data.tar", "data.zip"])
def test_from_a_name_to_a_dataset(server, tmp_path, name):
    server.content = packed(make.dataset(tmp_path / "made", cases=2), name)
    url = server.url.replace("data.tar", name)
    facts = {"title": "t", "about": "a", "licence": "l", "home": "h", "size_gb": 0.001, "opens": ["Task"]}
    wanted = Entry(name="made", **facts, download=[{"url": url, "md5": md5(server.content)}])
    (dataset,) = get(wanted, tmp_path / "data")
    assert [case.id for case in dataset] == ["case_00", "case_01"]
    assert dataset.root == tmp_path / "data" / "made" / "Task"
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["made"]
    assert not list(dataset.root.rglob("._*"))
    assert len(get(wanted, tmp_path / "data")[0]) == 2
    assert len(server.asked) == 1
    get(wanted, tmp_path / "kept", keep=True)
    assert (tmp_path / "kept" / "made.downloads" / name).is_file()
    with pytest.raises(BadInput, match="without a person"):
        get(Entry(name="walled", **facts, steps=["ask"]), tmp_path / "data")


def tarred(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../evil", tarfile.REGTYPE), "points outside"),
        (("/evil", tarfile.REGTYPE), "points outside"),
        (("a/../../evil", tarfile.REGTYPE), "points outside"),
        (("..\\evil", tarfile.REGTYPE), "points outside"),
        (("C:\\evil", tarfile.REGTYPE), "points outside"),
        (("evil", tarfile.SYMTYPE), "a link or device"),
        (("evil", tarfile.LNKTYPE), "a link or device"),
        (("evil", tarfile.FIFOTYPE), "a link or device"),
    ],
)
def test_archives_that_point_elsewhere_are_refused(tmp_path, member, message):
    (tmp_path / "x.tar").write_bytes(tarred(member))
    with pytest.raises(BadFile, match=message):
        unpack(tmp_path / "x.tar", tmp_path / "in")
    assert not list(tmp_path.rglob("*evil*"))
    if member[1] == tarfile.REGTYPE:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(member[0], "x")
        with pytest.raises(BadFile, match=message):
            unpack(tmp_path / "x.zip", tmp_path / "in")


def test_damaged_archives_are_told(tmp_path):
    content = packed(make.dataset(tmp_path / "made", cases=1), "data.tar")
    for name, damaged in (("a", content[: len(content) // 2]), ("b", b"<html>busy</html>")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(BadFile, match="is a damaged archive"):
            unpack(tmp_path / name, tmp_path / "in")


def test_the_catalogue_is_complete_and_safe():
    assert {f"msd-{part}" for part in ("liver", "pancreas", "brain-tumour", "spleen")} <= set(catalogue())
    for name, wanted in catalogue().items():
        assert wanted.licence, name
        assert wanted.home.startswith("http"), name
        for archive in wanted.download:
            assert archive.url.startswith("https://"), name
            assert archive.md5, name
            assert len(archive.md5) == 32, name
            assert wanted.opens, name
    sums = [archive.md5 for wanted in catalogue().values() for archive in wanted.download]
    assert len(set(sums)) == len(sums) == 11
    with pytest.raises(UnknownName, match="Did you mean 'msd-liver'"):
        entry("msd-livr")


def test_the_sum_is_that_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert checksum(tmp_path / "x") == "900150983cd24fb0d6963f7d28e17f72"
