"""Where files come from: the own folder, the cache, a checked download; without network."""

from __future__ import annotations

import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fdl.data import fetch, files
from fdl.errors import InputError

NAME = "planets/moons.txt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("FDL_DATA", raising=False)
    monkeypatch.setenv("FDL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def know(monkeypatch: pytest.MonkeyPatch, content: bytes, url: str | None) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(files.FILES, NAME, (sha256, url))
    return sha256


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An address on this machine that serves the folder `served`."""
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def test_the_own_folder_comes_first_and_is_trusted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    know(monkeypatch, b"the right bytes", None)
    (tmp_path / "own" / "planets").mkdir(parents=True)
    (tmp_path / "own" / NAME).write_bytes(b"others")
    monkeypatch.setenv("FDL_DATA", str(tmp_path / "own"))
    assert fetch.locate(NAME) == tmp_path / "own" / NAME
    assert fetch.folder("planets", "") == tmp_path / "own" / "planets"


def test_the_cache_is_checked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = know(monkeypatch, b"the right bytes", None)
    with pytest.raises(InputError, match=rf"{NAME}: .* as .*cache/data/{NAME} with sha256 {sha256}, got no such file"):
        fetch.locate(NAME)
    (cache / "planets").mkdir(parents=True)
    (cache / NAME).write_bytes(b"the right bytes")
    assert fetch.locate(NAME) == cache / NAME
    (cache / NAME).write_bytes(b"others")
    with pytest.raises(InputError, match="got one with another sha256"):
        fetch.locate(NAME)


def test_the_first_form_that_is_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, b"content", None)
    (cache / "planets").mkdir(parents=True)
    (cache / NAME).write_bytes(b"content")
    assert fetch.locate("planets/moons", NAME) == cache / NAME


def test_a_download_is_kept_and_a_damaged_one_replaced(
    tmp_path: Path, cache: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pooch")
    (tmp_path / "served" / "moons.txt").write_bytes(b"content")
    know(monkeypatch, b"content", server + "moons.txt")
    assert fetch.locate(NAME).read_bytes() == b"content"
    (cache / NAME).write_bytes(b"cont")
    assert fetch.locate(NAME).read_bytes() == b"content"
    (tmp_path / "served" / "moons.txt").unlink()
    assert fetch.locate(NAME).read_bytes() == b"content"


@pytest.mark.parametrize("served", [b"something else", None])
def test_a_download_that_fails_leaves_nothing(
    tmp_path: Path, cache: Path, server: str, monkeypatch: pytest.MonkeyPatch, served: bytes | None
) -> None:
    pytest.importorskip("pooch")
    if served:
        (tmp_path / "served" / "moons.txt").write_bytes(served)
    know(monkeypatch, b"content", server + "moons.txt")
    with pytest.raises(InputError, match=rf"{NAME}: .* got from http://127.0.0.1.*put the file there yourself"):
        fetch.locate(NAME)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_without_pooch_the_error_says_what_to_install(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, b"content", "http://127.0.0.1:9/")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"pip install 'fdl\[data\]'"):
        fetch.locate(NAME)


def test_the_cache_follows_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FDL_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert fetch.cache_folder() == tmp_path / "xdg/fdl/data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder() == tmp_path / ".cache/fdl/data"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fetch.cache_folder() == tmp_path / "Library/Caches/fdl/data"


def test_no_entry_leaves_its_folder() -> None:
    for name, (sha256, url) in files.FILES.items():
        assert not Path(name).is_absolute(), name
        assert ".." not in Path(name).parts, name
        assert len(bytes.fromhex(sha256)) == 32, name
        assert url is None or url.endswith("/" + name.rsplit("/", 1)[1]), name
