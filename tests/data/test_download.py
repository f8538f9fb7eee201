"""Downloads against a real HTTP server that cuts off, ignores Range and serves wrong bytes."""

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ealinformer.data import download as download_module
from ealinformer.data.download import download
from ealinformer.data.spec import Source
from ealinformer.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_001)


class Server:
    """Serves one file; `cut_after` ends a body early, as often as `cuts` says."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.honours_range = True
        self.status: int | None = None
        self.cut_after, self.cuts = 0, 0
        self.ranges: list[str | None] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/files/series.npz?download=1"

    def source(self, **changes: object) -> Source:
        known = {
            "url": self.url,
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "md5": hashlib.md5(CONTENT).hexdigest(),
            "size": len(CONTENT),
        }
        return Source.model_validate({**known, **changes})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers["Range"]
        self.ranges.append(asked)
        if self.status is not None:
            request.send_error(self.status)
            return
        total, first = len(self.content), 0
        if asked and self.honours_range:
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            assert found
            first = int(found[1])
            if first >= total:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{total}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(total - first))
        request.end_headers()
        body = self.content[first:]
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut_after]
        # A client that has enough hangs up.
        with contextlib.suppress(ConnectionError):
            request.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.0)
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "PEMS08" / "PEMS08.npz"


def part_of(target: Path) -> Path:
    return target.with_name("PEMS08.npz.part")


def refused(source: Source, target: Path) -> str:
    with pytest.raises(InputError) as caught:
        download(source, target)
    assert not target.exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_arrives_whole_and_leaves_no_part(
    server: Server, target: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download(server.source(), target)

    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert capfd.readouterr() == ("", "")  # no bar where there is no terminal


def test_a_connection_that_is_cut_off_goes_on_where_it_ended(server: Server, target: Path) -> None:
    server.cut_after, server.cuts = 100_000, 2
    download(server.source(), target)

    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


def test_a_connection_that_brings_nothing_is_given_up_and_the_part_kept(server: Server, target: Path) -> None:
    part_of(target).parent.mkdir(parents=True)
    part_of(target).write_bytes(CONTENT[:70_000])
    server.cut_after, server.cuts = 0, 99
    message = refused(server.source(), target)

    assert server.url in message
    assert "70,000 bytes are kept" in message
    assert f"put PEMS08.npz into {target.parent}/ by hand" in message
    assert part_of(target).read_bytes() == CONTENT[:70_000]

    server.cuts = 0
    download(server.source(), target)
    assert target.read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=70000-"


def test_a_server_that_ignores_range_is_read_from_the_start(server: Server, target: Path) -> None:
    server.honours_range = False
    part_of(target).parent.mkdir(parents=True)
    part_of(target).write_bytes(b"x" * 50_000)
    download(server.source(), target)

    assert server.ranges == ["bytes=50000-"]
    assert target.read_bytes() == CONTENT


def test_a_part_that_is_complete_is_only_verified(server: Server, target: Path) -> None:
    part_of(target).parent.mkdir(parents=True)
    part_of(target).write_bytes(CONTENT)
    download(server.source(), target)
    assert server.ranges == []

    part_of(target).write_bytes(CONTENT)
    download(server.source(size=None), target)
    assert server.ranges == [f"bytes={len(CONTENT)}-"]
    assert target.read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_started_again(server: Server, target: Path) -> None:
    part_of(target).parent.mkdir(parents=True)
    part_of(target).write_bytes(CONTENT + b"more")
    download(server.source(size=None), target)
    assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("known", ["sha256", "md5"])
def test_wrong_bytes_are_deleted_and_the_checksums_named(server: Server, target: Path, known: str) -> None:
    server.content = b"?" * len(CONTENT)
    wrong = getattr(hashlib, known)(server.content).hexdigest()
    other = {"sha256": "md5", "md5": "sha256"}[known]
    message = refused(server.source(**{other: None}), target)

    expected = getattr(hashlib, known)(CONTENT).hexdigest()
    assert f"{known} is {wrong}, expected {expected}" in message
    assert server.url in message
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 5, len(CONTENT) + 5])
def test_another_size_than_published_is_refused(server: Server, target: Path, size: int) -> None:
    message = refused(server.source(size=size), target)
    assert f"expected {size}" in message
    assert list(target.parent.iterdir()) == []


def test_an_endless_body_is_not_read_to_its_end(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 1000)
    server.content = CONTENT * 20
    message = refused(server.source(size=2500), target)
    assert "size is 3000, expected 2500" in message


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_status_is_named_with_the_file_to_place(server: Server, target: Path, status: int) -> None:
    server.status = status
    message = refused(server.source(), target)
    assert server.url in message
    assert f"answers {status}" in message
    assert f"put PEMS08.npz into {target.parent}/ by hand" in message


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("address", [lambda: f"127.0.0.1:{closed_port()}", lambda: "no-such-host.invalid"])
def test_without_a_network_one_line_says_what_to_do(
    target: Path, address: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    url = f"http://{address()}/PEMS08.npz"
    message = refused(Source(url=url), target)
    assert url in message
    assert f"put PEMS08.npz into {target.parent}/ by hand" in message
    assert not target.parent.exists()


def test_a_silent_server_times_out(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = refused(Source(url=f"http://127.0.0.1:{silent.getsockname()[1]}/a.npz"), target)
    assert "timed out" in message


def test_a_file_without_address_is_placed_by_hand(target: Path) -> None:
    assert f"put PEMS08.npz into {target.parent}/ by hand" in refused(Source(), target)


def test_a_local_address_is_refused(target: Path) -> None:
    assert "is not an http or https address" in refused(Source(url="file:///etc/hostname"), target)


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(InputError, match=f"{tmp_path}/raw/PEMS08/PEMS08.npz cannot be written"):
        download(server.source(), tmp_path / "raw" / "PEMS08" / "PEMS08.npz")


def test_ctrl_c_leaves_a_part_to_go_on_with_and_no_file(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bar:
        def __init__(self, **kwargs: object) -> None:
            pass

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def update(self, count: int) -> None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_module, "tqdm", Bar)
        patch.setattr(download_module, "CHUNK_BYTES", 4096)
        with pytest.raises(KeyboardInterrupt):
            download(server.source(), target)
    assert not target.exists()
    arrived = part_of(target).stat().st_size
    assert 0 < arrived <= 4096

    download(server.source(), target)
    assert server.ranges[-1] == f"bytes={arrived}-"
    assert target.read_bytes() == CONTENT
