"""A download is complete and has the right hash, or there is no file and one sentence says why."""

import hashlib
import os
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labcore.core import fetch
from labcore.core.errors import FetchError, InputError

CONTENT = random.Random(0).randbytes(600_000)  # the same in every test process
GOOD = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/whole, /short (connection closed after half the promised bytes), /chunked and /stream (no length), /stall."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.hits.append(self.path)
        if self.path == "/missing":
            return self.send_error(404)
        self.send_response(200)
        if self.path == "/stream":
            self.send_header("Connection", "close")
        elif self.path in ("/chunked", "/chunked-short"):
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self._send_body()

    def _send_body(self):
        self.close_connection = True
        if self.path == "/stall":
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            self.server.release.wait(10)
        elif self.path.startswith("/chunked"):
            self.wfile.write(b"%x\r\n%b\r\n" % (300_000, CONTENT[:300_000]))
            if self.path == "/chunked":
                self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (300_000, CONTENT[300_000:]))
        else:
            self.wfile.write(CONTENT[:300_000] if self.path == "/short" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hits, server.release = [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/whole", "/chunked", "/stream"])
def test_a_download_arrives_whole(server, tmp_path, path):
    dest = tmp_path / "new" / "folder" / "a.bin"
    assert fetch.fetch_url(server.url + path, dest, GOOD) == dest
    assert dest.read_bytes() == CONTENT and os.listdir(dest.parent) == ["a.bin"]


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    dest = tmp_path / "a.bin"
    dest.write_bytes(CONTENT)
    fetch.fetch_url(server.url + "/whole", dest, GOOD)
    assert server.hits == []
    dest.write_bytes(CONTENT[:-1])  # a damaged one is
    fetch.fetch_url(server.url + "/whole", dest, GOOD)
    assert server.hits == ["/whole"] and dest.read_bytes() == CONTENT


FAILURES = [
    ("/missing", GOOD, "answered 404"),
    ("/whole", "0" * 64, f"SHA-256 {GOOD}, expected {'0' * 64}"),
    ("/short", GOOD, "sent 300000 of 600000 bytes"),
    ("/chunked-short", GOOD, "broke off"),
]


@pytest.mark.parametrize(("path", "expected_hash", "message"), FAILURES, ids=[f[0] for f in FAILURES])
def test_a_failed_download_keeps_what_was_there(server, tmp_path, path, expected_hash, message):
    dest = tmp_path / "a.bin"
    dest.write_bytes(b"before")
    with pytest.raises(FetchError, match=message) as caught:
        fetch.fetch_url(server.url + path, dest, expected_hash)
    assert "\n" not in str(caught.value) and server.url + path in str(caught.value)
    assert dest.read_bytes() == b"before" and os.listdir(tmp_path) == ["a.bin"]


def test_a_stalled_download_gives_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.2)
    with pytest.raises(FetchError, match="broke off"):
        fetch.fetch_url(server.url + "/stall", tmp_path / "a.bin", GOOD)
    assert os.listdir(tmp_path) == []


def test_no_network_is_one_sentence(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match=r"cannot reach http://127\.0\.0\.1.*check the network"):
        fetch.fetch_url(server.url + "/whole", tmp_path / "a.bin", GOOD)
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupted(url):
        yield CONTENT[:1000], len(CONTENT)
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch_url(server.url + "/whole", tmp_path / "a.bin", GOOD)
    assert os.listdir(tmp_path) == []


def test_a_read_only_folder_is_reported_before_anything_is_asked_for(server, read_only_folder):
    with pytest.raises(FetchError, match=r"cannot store .*Permission denied"):
        fetch.fetch_url(server.url + "/whole", read_only_folder / "a.bin", GOOD)
    assert server.hits == [] and os.listdir(read_only_folder) == ["kept.txt"]


def test_a_folder_that_is_a_file_is_one_sentence(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match="cannot store"):
        fetch.fetch_url(server.url + "/whole", tmp_path / "file" / "a.bin", GOOD)


@pytest.mark.parametrize(
    ("url", "digest", "message"),
    [("https://x", "abc", "sha256='abc' is not a SHA-256"), ("file:///etc/hosts", GOOD, "give an http or https")],
)
def test_bad_arguments_are_named(tmp_path, url, digest, message):
    with pytest.raises(InputError, match=message):
        fetch.fetch_url(url, tmp_path / "a.bin", digest)


def test_progress_is_drawn_on_a_terminal_only(server, tmp_path, capsys, monkeypatch):
    fetch.fetch_url(server.url + "/whole", tmp_path / "a.bin", GOOD)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fetch.sys.stderr, "isatty", lambda: True)
    fetch.fetch_url(server.url + "/whole", tmp_path / "b.bin", GOOD)
    assert "fetching b.bin: 0.6 of 0.6 MB" in capsys.readouterr().err
