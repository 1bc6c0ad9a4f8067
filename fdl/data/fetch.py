"""Where the files of a dataset come from: `$FDL_DATA`, else the user's cache, else a download that is checked."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from fdl.data.files import FILES
from fdl.errors import InputError
from fdl.paths import user_path


def locate(*relatives: str) -> Path:
    """The file with this path in `FILES`, such as "mnist/train-labels-idx1-ubyte.gz"; the first of several forms of it.

    Looked for in `$FDL_DATA`, whose files are trusted, then in `cache_folder()`, where it must have its known sha256,
    and then downloaded there: under another name until it is complete and has that sha256.

    Raises:
      InputError: not there and not to be had; the error says which file, with which sha256, goes where.
    """
    own = os.environ.get("FDL_DATA")
    for relative in relatives:
        if own and (user_path(own) / relative).is_file():
            return user_path(own) / relative
    for relative in relatives:
        path = cache_folder() / relative
        if relative in FILES and path.is_file() and _sha256(path) == FILES[relative][0]:
            return path
    relative = relatives[0]
    if relative not in FILES:
        raise InputError(f"{relative}: expected it in $FDL_DATA ({own or 'not set'}), got no such file")
    sha256, url = FILES[relative]
    path = cache_folder() / relative
    if url is None:
        got = "one with another sha256" if path.is_file() else "no such file, and no address to download it from"
        raise _missing(relative, path, sha256, got)
    return _download(relative, path, sha256, url)


def folder(relative: str, why: str) -> Path:
    """A folder of many files, which only `$FDL_DATA` or the cache can hold; `why` says where to get it."""
    own = os.environ.get("FDL_DATA")
    places = ([user_path(own)] if own else []) + [cache_folder()]
    for place in places:
        if (place / relative).is_dir():
            return place / relative
    listed = " or ".join(str(place / relative) for place in places)
    raise InputError(f"expected the folder {listed}, got nothing there; {why}")


def cache_folder() -> Path:
    """`$FDL_CACHE`/data, or else the folder `fdl/data` of the user's caches on this platform."""
    if os.environ.get("FDL_CACHE"):
        return user_path(os.environ["FDL_CACHE"]) / "data"
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local")
    elif os.environ.get("XDG_CACHE_HOME"):
        caches = user_path(os.environ["XDG_CACHE_HOME"])
    else:
        caches = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return caches / "fdl" / "data"


def _download(relative: str, path: Path, sha256: str, url: str) -> Path:
    try:
        import pooch
    except ImportError:
        raise _missing(relative, path, sha256, "no pooch to download it: pip install 'fdl[data]'") from None
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(url, f"sha256:{sha256}", fname=path.name, path=path.parent)
    except (OSError, ValueError) as error:  # requests' exceptions are OSErrors; ValueError: another sha256
        raise _missing(relative, path, sha256, f"from {url}: {' '.join(str(error).split())[:300]}") from None
    return path


def _missing(relative: str, path: Path, sha256: str, got: str) -> InputError:
    return InputError(
        f"{relative}: expected it in $FDL_DATA ({os.environ.get('FDL_DATA') or 'not set'}) or as {path} with sha256 "
        f"{sha256}, got {got}; put the file there yourself"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
