"""The persistent compilation cache of runs, sweeps and commands: a program compiled once is read from disk later.

It lies in the folder `fdl/compiled` of the user's caches (`$FDL_CACHE/compiled` where that is set).
FDL_COMPILATION_CACHE=off turns it off; where JAX's own variables say anything about its cache, they alone count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from fdl.errors import InputError
from fdl.runs.progress import say

SIZE = 2**31  # bytes; programs unused for longest go first
ANSWERS = {"": True, "on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


def enable() -> None:
    """Turns the cache on, unless the environment says otherwise; a folder that cannot be used is no reason to stop.

    Raises:
      InputError: FDL_COMPILATION_CACHE is neither on nor off.
    """
    answer = os.environ.get("FDL_COMPILATION_CACHE", "")
    if answer.lower() not in ANSWERS:
        raise InputError(f"FDL_COMPILATION_CACHE: expected on or off, got {answer!r}")
    import jax

    config: Any = jax.config  # its options are attributes that no type checker sees
    theirs = config.jax_compilation_cache_dir or not config.jax_enable_compilation_cache
    if theirs or not ANSWERS[answer.lower()]:
        return
    try:
        folder = _folder()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        note = f"note: compiled programs are not kept: {error} (FDL_COMPILATION_CACHE=off: no note)"
        if note not in _notes:
            _notes.add(note)
            say(sys.stderr, note)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs add up
    _heal(folder)


_notes = set[str]()  # each is said once in a process, however many runs it has


def _folder() -> Path:
    """The folder of this machine, made and pruned."""
    from fdl.data.fetch import cache_folder

    everything = cache_folder().parent / "compiled"
    folder = everything / _processor()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} cannot be written")
    for each in (everything, folder):  # programs in it are run: nobody else may put them there
        status = each.stat()
        others = hasattr(os, "getuid") and (status.st_uid not in (os.getuid(), 0) or status.st_mode & 0o002)
        if others:
            raise PermissionError(f"{each} can be written by others: chmod o-w {each}, or another FDL_CACHE")
    _prune(everything)
    return folder


def _processor() -> str:
    """Programs hold code for one processor, and a home folder may be shared by machines with several."""
    text = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        text += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _heal(folder: Path) -> None:
    """JAX warns of an entry that cannot be read, compiles anew and never replaces it: it has to go before that."""
    show = warnings.showwarning

    def shown(message: Any, *details: Any, **more: Any) -> None:
        found = re.match(r"Error reading persistent compilation cache entry for '(\w+)'", str(message))
        if found is None:
            show(message, *details, **more)
            return
        for path in folder.glob(f"{found[1]}-*-cache"):
            with contextlib.suppress(OSError):
                path.unlink()

    warnings.showwarning = shown


def _prune(folder: Path) -> None:
    """Deletes what was not used for longest, where all of it is more than `SIZE`."""
    files = []
    for path in folder.glob("*/*-cache"):
        with contextlib.suppress(OSError):  # another process prunes as well
            status = path.stat()
            files.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= SIZE:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
