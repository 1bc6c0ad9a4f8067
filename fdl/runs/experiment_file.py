"""An experiment file: a Python file with a frozen dataclass `Config` and `build(config) -> fdl.Experiment`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

from fdl.errors import InputError, did_you_mean
from fdl.paths import user_path


@contextmanager
def opened(file: str) -> Iterator[ModuleType]:
    """The file's module; while it is open, the files beside it can be imported.

    Raises:
      InputError: no such file; no Python; a missing module; no `Config` or `build` in it.
    """
    path = _existing(file).resolve()
    sys.path.insert(0, str(path.parent))
    try:
        with explained(path):
            module = _load(path)
        _require_parts(module, file)
        yield module
    finally:
        sys.path.remove(str(path.parent))


def sources(file: str) -> dict[str, str]:
    """Name -> SHA-256 of the file and of the modules beside it that were imported, by their paths from its folder."""
    path = user_path(file).resolve()
    found = {path.name: path}
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if not place or name.partition(".")[0] == "fdl" or "site-packages" in place:
            continue
        if not os.path.isabs(place):  # torch.ops has "_ops.py", a file that is nowhere
            continue
        place = Path(place).resolve()
        if place.suffix == ".py" and place.is_relative_to(path.parent):
            found[place.relative_to(path.parent).as_posix()] = place
    return {name: digest(found[name]) for name in sorted(found)}


def digest(path: Path) -> str:
    """The SHA-256 of a file; "" of one that is gone."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


@contextmanager
def explained(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what a file gets wrong before anything runs into an `InputError` with the line."""
    try:
        yield
    except InputError as error:
        error.add_note(f"at {_where(error, path)}")
        raise
    except SyntaxError as error:
        text = f"\n    {error.text.strip()}" if error.text else ""
        where = f"{error.filename}:{error.lineno}" if error.filename else path  # null bytes have no line
        raise InputError(f"{where}: {error.msg}{text}") from None
    except ModuleNotFoundError as error:
        raise InputError(f"{_where(error, path)}: {_missing(error.name or str(error))}") from None
    except ImportError as error:
        raise InputError(f"{_where(error, path)}: {error}") from None
    except SystemExit as error:
        raise InputError(
            f"{_where(error, path)}: the file ended the program (SystemExit: {error.code}); an experiment file only "
            'defines Config and build: put what is for running it as a script under if __name__ == "__main__"'
        ) from None


def _existing(file: str) -> Path:
    path = user_path(file)
    if path.is_file() and os.access(path, os.R_OK):
        return path
    if path.is_dir():
        raise InputError(f"{file} is a folder; expected an experiment file in it")
    if path.exists():
        raise InputError(f"{file} cannot be read: is it a file of yours?")
    beside = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
    raise InputError(f"there is no file {file}{did_you_mean(file, beside) if beside else ''}")


class _Source(importlib.machinery.SourceFileLoader):
    """Always compiles the source: a cached .pyc is compared by size and second, and would hide a quick edit."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load(path: Path) -> ModuleType:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses and tyro look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module_name(path: Path) -> str:
    """A name that no import can mean: an experiment in `random.py` must not become the module `random`."""
    name = base = f"fdl_experiment_{path.stem}"
    number = 1
    while name in sys.modules and sys.modules[name].__file__ != str(path):
        number += 1
        name = f"{base}_{number}"
    return name


def _require_parts(module: ModuleType, file: str) -> None:
    for name in ("Config", "build"):
        if not hasattr(module, name):
            raise InputError(
                f"{file} has no {name}: an experiment file defines a frozen dataclass Config and "
                f"build(config) -> fdl.Experiment{_similar(name, vars(module))}"
            )
    config = module.Config
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise InputError(f"{file}: Config must be a dataclass: put @dataclass(frozen=True) above class Config")
    if not config.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(f"{file}: Config must be frozen, so that it is the same before and after the run: "
                         "@dataclass(frozen=True)")  # fmt: skip
    if not callable(module.build):
        raise InputError(f"{file}: build must be a function build(config) -> fdl.Experiment, got {module.build!r}")


def _similar(name: str, defined: dict[str, object]) -> str:
    hint = did_you_mean(name, [other for other in defined if not other.startswith("_")])
    return hint if "did you mean" in hint else ""


def _where(error: BaseException, path: str | os.PathLike[str]) -> str:
    """file:line of the last frame in the file itself."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


PACKAGES = {"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python", "yaml": "pyyaml"}


def _missing(name: str) -> str:
    top = name.partition(".")[0]
    if top != name and importlib.util.find_spec(top) is not None:
        return f"the package {top} has no module {name}; is it another version?"
    return (
        f"there is no module {top}: install it (most likely: pip install {PACKAGES.get(top, top)}), "
        f"or put {top}.py beside the experiment"
    )
