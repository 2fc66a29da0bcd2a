import gzip
import hashlib
import http.server
import io
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmoe_lib.tasks import download
from mmoe_lib.tasks.census.files import UCI_117
from mmoe_lib.tasks.download import DownloadError, OfficialFile, Release, fetch, text_sha256

TEXT = b"one, two\n" * 1000
SUM = hashlib.sha256(TEXT).hexdigest()
OTHER = b"three\n" * 100
OTHER_SUM = hashlib.sha256(OTHER).hexdigest()

Serve = Callable[[dict[str, bytes]], "Server"]


class Server:
    """A web server on this machine that offers some pages and remembers what was asked for."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                if self.path not in pages:
                    self.send_error(404)
                    return
                if "slow" in self.path:
                    time.sleep(1.2)
                self.send_response(200)
                announced = len(pages[self.path]) + (100 if "half" in self.path else 0)
                self.send_header("Content-Length", str(announced))
                self.end_headers()
                self.wfile.write(pages[self.path])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(pages: dict[str, bytes]) -> Server:
        servers.append(Server(pages))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def silent() -> Iterator[Callable[[], str]]:
    """Addresses that accept a connection and never send a byte."""
    sockets: list[socket.socket] = []

    def listen() -> str:
        sockets.append(socket.create_server(("127.0.0.1", 0)))
        return f"http://127.0.0.1:{sockets[-1].getsockname()[1]}"

    yield listen
    for each in sockets:
        each.close()


def tar_gz(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def assert_holds_only(folder: Path, *names: str) -> None:
    assert sorted(file.name for file in folder.iterdir()) == sorted(names)


def test_the_third_address_serves_when_the_first_is_missing_and_the_second_wrong(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve({"/wrong": gzip.compress(b"something else"), "/good": gzip.compress(TEXT)})
    sources = [{"a.csv": f"{server.address}/{page}"} for page in ("missing", "wrong", "good")]
    found = fetch({"a.csv": SUM}, sources, tmp_path / "new" / "folder", by_hand="pass path=", progress=False)
    assert server.asked == ["/missing", "/wrong", "/good"]
    assert found == {"a.csv": tmp_path / "new" / "folder" / "a.csv.gz"}
    assert gzip.decompress(found["a.csv"].read_bytes()) == TEXT
    assert_holds_only(tmp_path / "new" / "folder", "a.csv.gz")


@pytest.mark.parametrize(
    "offered",
    [
        TEXT,
        gzip.compress(TEXT),
        zipped({"readme": b"", "deep/a.csv": TEXT}),
        zipped({"a.csv.gz": gzip.compress(TEXT)}),
        zipped({"set.tar.gz": tar_gz({"./a.names": b"", "./a.csv": TEXT})}),
        tar_gz({"set/a.csv": TEXT}),
    ],
    ids=["plain", "gz", "zip", "gz in zip", "tar.gz in zip", "tar.gz"],
)
def test_the_text_is_found_in_any_wrapping(serve: Serve, tmp_path: Path, offered: bytes) -> None:
    server = serve({"/x": offered})
    found = fetch({"a.csv": SUM}, [{"a.csv": f"{server.address}/x"}], tmp_path, by_hand="", progress=False)
    assert gzip.decompress(found["a.csv"].read_bytes()) == TEXT
    assert_holds_only(tmp_path, "a.csv.gz")


def test_an_archive_of_two_files_is_downloaded_once(serve: Serve, tmp_path: Path) -> None:
    server = serve({"/set.zip": zipped({"set.tar.gz": tar_gz({"a.csv": TEXT, "b.csv": OTHER})})})
    sources = [dict.fromkeys(("a.csv", "b.csv"), f"{server.address}/set.zip")]
    found = fetch({"a.csv": SUM, "b.csv": OTHER_SUM}, sources, tmp_path, by_hand="", progress=False)
    assert server.asked == ["/set.zip"]
    assert gzip.decompress(found["b.csv"].read_bytes()) == OTHER


def test_a_file_that_is_there_is_kept_and_a_wrong_one_replaced(serve: Serve, tmp_path: Path) -> None:
    server = serve({"/b": OTHER})
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(OTHER)[:30])
    sources = [{"a.csv": f"{server.address}/a", "b.csv": f"{server.address}/b"}]
    fetch({"a.csv": SUM, "b.csv": OTHER_SUM}, sources, tmp_path, by_hand="", progress=False)
    assert server.asked == ["/b"]
    assert text_sha256(tmp_path / "b.csv.gz") == OTHER_SUM


def test_a_silent_address_is_given_up_and_not_asked_for_the_second_file(serve: Serve, tmp_path: Path) -> None:
    listening, server = socket.create_server(("127.0.0.1", 0)), serve({"/a": TEXT, "/b": OTHER})
    dead = f"http://127.0.0.1:{listening.getsockname()[1]}"
    sources = [{"a": f"{dead}/a", "b": f"{dead}/b"}, {"a": f"{server.address}/a", "b": f"{server.address}/b"}]
    start = time.monotonic()
    fetch({"a": SUM, "b": OTHER_SUM}, sources, tmp_path, by_hand="", answer_within=0.4, progress=False)
    assert 0.4 <= time.monotonic() - start < 3
    assert server.asked == ["/a", "/b"]
    listening.setblocking(False)
    listening.accept()[0].close()
    with pytest.raises(BlockingIOError):
        listening.accept()  # nobody came a second time
    listening.close()


def test_when_all_are_dead_the_error_comes_in_time_and_names_each(
    serve: Serve, silent: Callable[[], str], tmp_path: Path
) -> None:
    server = serve({"/half": TEXT[:100], "/cut": gzip.compress(TEXT)[:40], "/zip": zipped({"other": TEXT})})
    closed = socket.create_server(("127.0.0.1", 0))
    refused = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
    closed.close()
    addresses = {
        f"{server.address}/missing": "HTTP 404",
        f"{server.address}/half": "the download broke off",
        f"{server.address}/cut": "cut short or damaged",
        f"{server.address}/zip": "holds no a.csv",
        refused: "no connection",
        f"{silent()}/1": "no answer for 0.4 s",
        f"{silent()}/2": "no answer for 0.",
        f"{silent()}/3": "0.6 s of waiting were used up",
    }
    start = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        fetch(
            {"a.csv": SUM, "b.csv": OTHER_SUM},
            [{"a.csv": address, "b.csv": address} for address in addresses],
            tmp_path,
            by_hand="pass path=",
            answer_within=0.4,
            all_within=0.6,
            progress=False,
        )
    assert time.monotonic() - start < 3
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("a.csv could not be fetched; tried ")
    assert message.endswith("by hand: pass path=")
    for address, reason in addresses.items():
        told = message.split(f"{address} (")[1].split(")")[0]
        assert reason in told
    assert_holds_only(tmp_path)


def test_waiting_for_an_address_that_answers_counts_too(serve: Serve, tmp_path: Path) -> None:
    """Two addresses that take 1.2 s to answer, with 2 s of waiting for both: no more than 0.8 s are left to the second."""
    slow = [serve({"/slow": OTHER}) for _ in range(2)]
    addresses = [f"{server.address}/slow" for server in slow]
    with pytest.raises(DownloadError) as caught:
        fetch(
            {"a": SUM},
            [{"a": address} for address in addresses],
            tmp_path,
            by_hand="",
            answer_within=5,
            all_within=2,
            progress=False,
        )
    first, second = (str(caught.value).split(f"{address} (")[1] for address in addresses)
    assert first.startswith("its text has the sha256")
    assert second.startswith(("no answer for 0.", "not tried"))


def test_a_server_that_stops_half_way_is_given_up(tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + TEXT[:4096])
        time.sleep(2)
        connection.close()

    threading.Thread(target=answer, daemon=True).start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/a"
    with pytest.raises(DownloadError, match=r"silence after 4,096 bytes for 0\.4 s"):
        fetch({"a": SUM}, [{"a": address}], tmp_path, by_hand="", answer_within=0.4, progress=False)
    assert_holds_only(tmp_path)
    listening.close()


def test_a_hanging_name_resolution_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken = threading.Event()

    def hang(*_: object, **__: object) -> None:
        woken.wait(20)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer for 0\.3 s"):
        fetch({"a": SUM}, [{"a": "http://nowhere.invalid/a"}], tmp_path, by_hand="", answer_within=0.3)
    assert time.monotonic() - start < 3
    woken.set()


def test_the_limits_are_5_and_20_seconds() -> None:
    assert (download.ANSWER_WITHIN, download.ALL_WITHIN) == (5, 20)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    with pytest.raises(OSError, match=r"cannot write to the cache folder .*or pass path=$"):
        fetch({"a": SUM}, [{"a": "http://127.0.0.1:9/a"}], blocked / "x", by_hand="pass path=")


def test_the_census_sources_offer_both_files_from_two_hosts() -> None:
    hosts: set[str] = set()
    for source in UCI_117.sources:
        assert set(source) == {"census-income.data", "census-income.test"}
        hosts.update(address.split("/")[2] for address in source.values())
    assert hosts == {"archive.ics.uci.edu", "raw.githubusercontent.com"}


def test_the_real_files_pass_through(real_files: dict[str, Path], serve: Serve, tmp_path: Path) -> None:
    inside = {path.name: path.read_bytes() for path in real_files.values()}
    server = serve({"/census.zip": zipped({"census.tar.gz": tar_gz(inside)})})
    wanted = {file.name: file.sha256 for file in UCI_117.files}
    sources = [dict.fromkeys(wanted, f"{server.address}/{page}") for page in ("404", "census.zip")]
    found = fetch(wanted, sources, tmp_path, by_hand="", progress=False)
    assert {name: text_sha256(path) for name, path in found.items()} == wanted
    assert_holds_only(tmp_path, "census-income.data.gz", "census-income.test.gz")


def test_files_are_found_where_they_may_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Release(
        "a set",
        "own",
        (OfficialFile("a"), OfficialFile("b")),
        "do it by hand",
        places=("own", "."),
        optional=("c",),
        mistaken={"x*": "another set"},
    )
    monkeypatch.delenv("MMOE_DATA", raising=False)
    cache, given = tmp_path / "cache", tmp_path / "given"
    given.mkdir()
    assert files.find(cache=cache) is None
    (cache / "own").mkdir(parents=True)
    (cache / "own" / "a.gz").touch()
    assert files.find(cache=cache) is None  # a download that was broken off: fetched anew, no error
    (cache / "own" / "b").touch()
    assert files.find(cache=cache) == {"a": cache / "own" / "a.gz", "b": cache / "own" / "b"}
    (given / "xyz").touch()
    with pytest.raises(
        FileNotFoundError, match=r"no a\(\.gz\) in .* below it in own \(xyz there is another set\): do it"
    ):
        files.find(given, cache=cache)
    for name in "abc":
        if name == "b":
            with pytest.raises(
                FileNotFoundError, match=r"\(path\) holds a part of the files, b\(\.gz\) missing"
            ):
                files.find(given, cache=cache)
        (given / name).touch()
    assert files.find(given, cache=cache) == {name: given / name for name in "abc"}
    monkeypatch.setenv("MMOE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match=r"MMOE_DATA is .*nowhere, which is not a folder: do it by hand"
    ):
        files.find(cache=cache)
