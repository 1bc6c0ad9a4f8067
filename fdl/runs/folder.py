"""The run folder: config, manifest, metrics and result of one run, written while it goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

from fdl.errors import InputError
from fdl.paths import user_path
from fdl.runs.checkpoints import Checkpoints
from fdl.runs.crash import CRASH, Latest, write_crash
from fdl.runs.files import plain, write_json
from fdl.runs.manifest import describe, now
from fdl.runs.recorded import flat

REMARKS = 100  # warnings in a manifest
LOOKS = 20  # at a lock that is held
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
BEGINNING = ("metrics.jsonl", "config.json", ".config.json.tmp", ".manifest.json.tmp")  # before there is a manifest


class RunFolderError(OSError):
    """The folder of a run in progress can no longer be written: the disk is full, say."""


def new_folder(runs: str | os.PathLike[str], experiment: str) -> Path:
    """A path for a new run, `runs/<experiment>/<id>`; ids sort by time (UTC). Nothing is created.

    Of the experiment's name, that of a file, letters, digits and " _.-" stay: `...py` must not lead out of `runs`.
    """
    experiment = re.sub(r"[^\w .-]", "_", experiment).strip(". ") or "experiment"
    time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    return Path(runs) / experiment / f"{time}-{secrets.token_hex(4)}"


class RunFolder:
    """What a run leaves behind, as a context manager around the run.

    - config.json: the config; manifest.json: status and origin. Both appear whole or not at all.
    - metrics.jsonl: an object a step, `{"step": 1, "train/loss": 2.3}`, and one an evaluation; whole lines only.
    - result.json: the final metrics, written last: where it is, the run finished and everything else is complete.
    - crash.json: of a run that ended as it should not have: the step, the last metrics, the traceback, all the manifest
      says. repro.npz and repro.py beside it where a loss was no longer finite, see `fdl.runs.repro`.
    - checkpoints/: see `fdl.runs.checkpoints`.

    Only one process writes a folder at a time: metrics.jsonl is locked while it does.

    Args:
      folder: a new or empty folder; never one that holds anything, unless `resume`.
      config: the experiment's `Config`, any dataclass; None = null.
      seed: of the run, or whatever else beside the config tells what it computes.
      resume: go on in the folder of a run that did not finish, with the same config and seed.
      longer: also in that of one that did.
      source: name -> hash of the files that the run is written in, asked for when it starts and for its checkpoints.

    Raises:
      InputError: on entering, where the folder has content or cannot be written, another process writes it, or there is
        nothing to resume.
      RunFolderError: later, where it can no longer be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Any = None,
        seed: Any = 0,
        resume: bool = False,
        longer: bool = False,
        source: Callable[[], dict[str, str]] = dict,
    ) -> None:
        self.path, self.config, self.seed, self.resume = user_path(folder, "folder"), config, seed, resume
        self.longer, self.source = longer, source
        self.latest = Latest()
        self._before: dict[str, Any] = {}  # the manifest of the run that is resumed
        self._files: dict[str, tuple[int, int]] = {}  # device and inode of each file, once the run has begun
        self._unlocked = ""  # why there is no lock
        self._goes_on = False  # that run has been taken up

    def __enter__(self) -> RunFolder:
        config, self._origin = plain(self.config), describe(self.config, self.seed)  # slow, so before the claim
        self._origin["source"] = self.source()
        self._started, self._entered, self._before_seconds = now(), time.monotonic(), 0.0
        if self.resume:
            self._reopen()
            self._say_unlocked()
            return self
        try:
            self._claim()
            with self._withdrawn_on_error():
                write_json(self.path / "config.json", config)
                self._set_status("running")
                self._watch()
                self._say_unlocked()
        except OSError as error:
            raise InputError(
                f"cannot write the run folder {self.path}: {error.strerror} ({error.filename}); "
                "choose another place: --runs on the command line, folder= in Python"
            ) from None
        return self

    def checkpoints(self, *names: str) -> Checkpoints:
        """Those of the run, or of a part of it; metrics.jsonl is on the disk before a checkpoint is."""
        origin = {name: self._origin[name] for name in ("config_hash", "seed")}
        folder = self.path.joinpath("checkpoints", *names)
        return Checkpoints(folder, self._synced, origin, self.source())

    def forget_after(self, step: int) -> None:
        """Drops the lines of metrics.jsonl after a step: the run goes on from there."""
        self.go_on()
        with self._explained():
            kept, self._whole = self._whole, 0
            self._metrics.seek(0)
            for line in self._metrics.read(kept).splitlines(keepends=True):
                if not line.endswith(b"\n") or _step(line) > step:
                    break
                self._whole += len(line)
            self._metrics.truncate(self._whole)
            self._metrics.seek(self._whole)

    def go_on(self) -> None:
        """Nothing stands against resuming any more: what tells how the run ended before is dropped."""
        self._goes_on = True
        with self._explained():
            for name in (CRASH, "repro.npz", "repro.py", "result.json"):
                (self.path / name).unlink(missing_ok=True)

    def append(self, steps: Any, columns: Mapping[str, Any]) -> None:
        """One line for each of `steps`, the values of all `columns` beside it."""
        self.latest(steps, columns)
        data = _lines({"step": steps, **columns}).encode()
        with self._explained():
            self._in_place()
            try:
                written = 0
                while written < len(data):
                    written += self._metrics.write(data[written:])
                self._whole += written
            except BaseException:
                self._metrics.truncate(self._whole)  # a line is there in full or not at all
                self._metrics.seek(self._whole)
                raise

    def note(self, **facts: Any) -> None:
        """Adds facts to the manifest."""
        self._origin |= plain(facts)
        with self._explained():
            self._set_status("running")

    def adapted(self, lines: Sequence[str]) -> None:
        """Adds to what the manifest tells of this session in what it did not take a checkpoint as it was."""
        *before, session = self._origin["resumed"]
        self.note(resumed=[*before, {**session, "changes": [*session.get("changes", []), *lines]}])

    def changes(self) -> list[str]:
        """What the sessions of this run did not take as it was."""
        return [str(line) for session in self._origin.get("resumed", []) for line in session.get("changes", [])]

    def share(self, **facts: Any) -> None:
        """Adds facts to the manifest that a run has to share with the one that it resumes.

        Raises:
          InputError: it had others.
        """
        for name, value in plain(facts).items():
            before = self._before.get(name, value)
            if before != value:
                both = flat({"": before}), flat({"": value})
                names = [each for each in {**both[0], **both[1]} if both[0].get(each) != both[1].get(each)]
                shown = [f"{n.strip('/')} was {both[0].get(n)}, is {both[1].get(n)}" for n in names[:4]]
                raise InputError(
                    f"{self.path}: the {name} of the run that is resumed were other ones: {'; '.join(shown)}"
                    f"{', and more' if len(names) > 4 else ''}; bring them back, or start a new run"
                )
        self.note(**facts)

    def remark(self, line: str) -> None:
        """Adds a warning to the manifest, which keeps the first `REMARKS`."""
        before = self._origin.get("warnings", [])
        if len(before) < REMARKS:
            self.note(warnings=[*before, line])

    def finish(self, metrics: Mapping[str, float], stopped: str | None = None) -> None:
        """Records the end of a run that went well, or that a hook `stopped` for this reason: it can be resumed."""
        if stopped is not None:
            self._origin["stopped"] = stopped
        changes = {"changes": self.changes()} if self.changes() else {}
        with self._explained():
            self._set_status("finished" if stopped is None else "stopped")
            write_json(self.path / "result.json", {**plain(metrics), **changes})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            begun = self._goes_on if self.resume else self._whole or (self.path / "checkpoints").exists()
            if isinstance(error, InputError) and not begun:
                self._withdraw()  # what could be known to be wrong before it started was never a run
            elif not (self.path / "result.json").exists():
                interrupted = isinstance(error, KeyboardInterrupt)
                if not begun:
                    self.go_on()  # so that only this end is told
                if error is not None and not interrupted:
                    write_crash(self.path, error, **self._known())
                self._set_status("interrupted" if interrupted else "failed", error)
        except OSError as problem:
            if error is None:
                raise
            error.add_note(f"and {self.path} could not be brought up to date: {problem}")
        finally:
            self._metrics.close()

    def _in_place(self) -> None:
        """The files of the run are still those that it began with, in the folder of that name.

        Raises:
          OSError: they were deleted, renamed or replaced.
        """
        for name, mine in self._files.items():
            try:
                there = (self.path / name).lstat()
            except OSError as error:
                raise OSError(error.errno, f"{name} is no longer there: was it deleted or renamed?") from None
            if (there.st_dev, there.st_ino) != mine:
                raise OSError(errno.ESTALE, f"{name} was replaced by another file")

    def _watch(self) -> None:
        """Takes the files as they are now for those of the run."""
        metrics = os.fstat(self._metrics.fileno())
        self._files = {"metrics.jsonl": (metrics.st_dev, metrics.st_ino)}
        for name in ("manifest.json", "config.json"):
            with contextlib.suppress(FileNotFoundError):
                there = (self.path / name).lstat()
                self._files[name] = (there.st_dev, there.st_ino)

    def _synced(self) -> None:
        self._in_place()
        os.fsync(self._metrics.fileno())

    def _known(self) -> dict[str, Any]:
        return {"step": self.latest.step, "metrics": self.latest.metrics, "config": self.config, **self._origin}

    def _reopen(self) -> None:
        """Takes over the folder of a run that did not finish."""
        try:
            manifest = json.loads((self.path / "manifest.json").read_text())
            self._metrics = _opened(self.path / "metrics.jsonl")
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: there is no run to resume: {error}") from None
        sessions = manifest.get("resumed", []) if isinstance(manifest, dict) else None
        if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
            self._metrics.close()
            raise InputError(f"{self.path}: there is no run to resume: its manifest.json is damaged")
        self._lock(manifest.get("pid"))
        self._before = manifest
        self._whole = os.fstat(self._metrics.fileno()).st_size
        try:
            if (self.path / "result.json").exists() and manifest.get("status") != "stopped" and not self.longer:
                raise InputError(
                    f"{self.path}: the run is finished; its result is in result.json. To train it longer: "
                    "fdl resume RUN --num-steps N, in Python fdl.Resume(num_steps=N)"
                )
            for name, now_ in (("config_hash", self._origin["config_hash"]), ("seed", self._origin["seed"])):
                if manifest.get(name) != now_:
                    raise InputError(
                        f"{self.path}: the run has {name} {manifest.get(name)}, not {now_}: {self._differs(name)}"
                    )
        except BaseException:
            self._metrics.close()
            raise
        again = [*sessions, {"time": now(), "command": self._origin["command"]}]
        self._started = manifest.get("started", self._started)
        spent = manifest.get("seconds")
        self._before_seconds = float(spent) if isinstance(spent, int | float) else 0.0
        self._origin = {**self._origin, "command": manifest.get("command", self._origin["command"]), "resumed": again}
        self._origin |= {name: manifest[name] for name in ("warnings",) if isinstance(manifest.get(name), list)}
        self._origin |= {name: manifest[name] for name in ("num_steps",) if name in manifest}
        with self._explained():
            self._set_status("running")
            self._watch()

    def _differs(self, name: str) -> str:
        if name != "config_hash":
            return "give the same"
        try:
            before = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError, RecursionError):
            return "its config.json cannot be read"
        mine = plain(self.config)
        both = (before if isinstance(before, dict) else {}), (mine if isinstance(mine, dict) else {})
        fields = [f for f in {**both[0], **both[1]} if both[0].get(f) != both[1].get(f)]
        return "the config differs in " + ", ".join(f"{f} ({both[0].get(f)!r}, now {both[1].get(f)!r})" for f in fields)

    def _lock(self, holder: Any = None) -> None:
        """One writer at a time; the system drops the lock with the process, however it ends."""
        if fcntl is None:
            return
        for attempt in range(LOOKS):
            try:
                fcntl.flock(self._metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in HELD:
                    self._unlocked = (
                        f"{self.path}: this file system has no locks ({error.strerror}): nothing keeps a "
                        "second process from writing this run"
                    )
                    warnings.warn(self._unlocked, stacklevel=4)
                    return
            if attempt < LOOKS - 1:  # `fdl runs list` holds it for a moment, to see whether a run goes on
                time.sleep(0.01)
        self._metrics.close()
        who = "another process" if holder is None else f"process {holder}"
        raise InputError(f"{self.path}: {who} is writing this run; wait for it or stop it")

    def _say_unlocked(self) -> None:
        if self._unlocked:
            self.remark(self._unlocked)

    def _claim(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._whole = 0
        metrics, begun = self.path / "metrics.jsonl", _begun(self.path)
        if begun is None:
            raise InputError(f"the run folder {self.path} is not empty: a run overwrites nothing; choose a new folder")
        # Exclusive, so that of two runs that want the same folder one fails here.
        self._metrics = _opened(metrics) if metrics in begun else metrics.open("x+b", buffering=0)
        self._lock()
        mine = os.fstat(self._metrics.fileno())
        if _begun(self.path) is None or not os.path.samestat(mine, metrics.stat()):
            self._metrics.close()
            raise InputError(f"the run folder {self.path} was taken by another process just now; choose a new folder")
        for path in begun:  # what a run left that was killed before it had a manifest
            if path != metrics:
                path.unlink()

    @contextmanager
    def _withdrawn_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        """Leaves the folder as it was: what another run left in it, or nothing."""
        self._metrics.close()
        if self.resume:
            write_json(self.path / "manifest.json", self._before)
            return
        with contextlib.suppress(OSError):
            for name in ("metrics.jsonl", "config.json", "manifest.json"):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(f"cannot write the run folder {self.path} any longer: {error.strerror}") from None

    def _set_status(self, status: str, error: BaseException | None = None) -> None:
        os.fsync(self._metrics.fileno())
        finished = None if status == "running" else now()
        happened = {"status": status, "error": _one_line(error), "started": self._started, "finished": finished}
        happened["seconds"] = round(self._before_seconds + time.monotonic() - self._entered, 3)
        manifest = self.path / "manifest.json"
        write_json(manifest, {**happened, **self._origin})
        if "manifest.json" in self._files:
            self._files["manifest.json"] = (manifest.lstat().st_dev, manifest.lstat().st_ino)


def _begun(folder: Path) -> list[Path] | None:
    """What a folder holds, where that is nothing, or the first files of a run that was killed while it began."""
    found = list(folder.iterdir())
    unused = all(path.name in BEGINNING and path.is_file() and not path.is_symlink() for path in found)
    metrics = folder / "metrics.jsonl"
    return found if unused and (not found or (metrics in found and metrics.stat().st_size == 0)) else None


def _opened(path: Path) -> Any:
    """An existing file, to read and to write; a link in its place is not followed."""
    return open(
        os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)), "r+b", buffering=0
    )


def _step(line: bytes) -> float:
    """The step of a line; one that is damaged is after every step."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int | float) else math.inf


def _lines(columns: Mapping[str, Any]) -> str:
    """A JSON object a row. One template for all rows: `json` takes longer than the step of a small model."""
    template = "{" + ", ".join(json.dumps(name).replace("%", "%%") + ": %s" for name in columns) + "}\n"
    values = (map(_number, column.tolist()) for column in columns.values())
    return "".join(template % row for row in zip(*values, strict=True))


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else "null"


def _one_line(error: BaseException | None) -> str | None:
    return None if error is None else " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
