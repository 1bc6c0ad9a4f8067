"""Folders of images with a folder for every class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fdl.data.formats.image import read_image
from fdl.errors import InputError
from fdl.paths import user_path

__all__ = ["Images", "read_image", "read_image_folder"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp")
_UNREAD = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dcm", ".tga", ".ppm", ".pgm", ".pbm")
_UNREAD += (".pnm", ".psd", ".svg", ".exr", ".hdr", ".raw", ".dng", ".nef", ".cr2", ".nii", ".ico")
_OF_SYSTEMS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_MOST_BYTES = 2**31


class Images(NamedTuple):
    x: np.ndarray
    """uint8 [n, h, w, c]; uint16 in mode "I;16"."""
    y: np.ndarray
    """int32 [n]: the class."""
    classes: tuple[str, ...]
    """Names of the folders, sorted."""
    files: tuple[str, ...]
    """Where each image came from, relative to the folder."""


def read_image_folder(
    folder: str | PathLike[str],
    mode: str = "RGB",
    size: tuple[int, int] | None = None,
    background: int | tuple[int, int, int] = 255,
    classes: Sequence[str] | None = None,
) -> Images:
    """A folder with a folder of images for every class, in the order of classes and then of names.

    Hidden folders and files (`.ipynb_checkpoints`, `._1.png`) and those of systems (`__MACOSX`) are left out, and so
    are files that are no images. Links are followed. A folder without images is no class, and a warning says so.

    Args:
      folder: as `cats/1.png`, `dogs/1.png`; `~` is the home folder.
      mode, size, background: see `read_image`; without a size all images must have the same.
      classes: the names of the classes in their order, such as those of the training set, so that y means the same;
        None = the folders, sorted.

    Raises:
      InputError: no classes, no images, folders within a class, links to nothing, formats that are not read; an image
        that is damaged or of another size; more than 2 GiB of pixels.

    torchvision: `datasets.ImageFolder`, which reads lazily, takes images of any size and folders within classes.

    >>> import tempfile
    >>> import PIL.Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cats", "dogs"):
    ...     (folder / name).mkdir()
    ...     PIL.Image.new("L", (3, 2)).save(folder / name / "1.png")
    >>> images = read_image_folder(folder, mode="L")
    >>> images.x.shape, images.y.tolist(), images.classes
    ((2, 2, 3, 1), [0, 1], ('cats', 'dogs'))
    """
    top = user_path(folder)
    if not top.is_dir():
        raise InputError(
            f"{top}: expected a folder with a folder for every class, got {'a file' if top.exists() else 'nothing'}"
        )
    found = {entry.name: _images(entry) for entry in _visible(top) if entry.is_dir()}
    names = _classes(top, found, classes)
    files = [(path, code) for code, name in enumerate(names) for path in found.get(name, ())]
    if not files:
        beside = sum(entry.suffix.lower() in _SUFFIXES for entry in _visible(top))
        got = f"{beside} images without a folder" if beside else f"{len(found)} folders and no image"
        raise InputError(f"{top}: expected images in a folder for every class, got {got}")
    images: list[np.ndarray] = []
    for path, _ in files:
        image = read_image(path, mode, size, background)
        images.append(image)
        if image.shape != images[0].shape:
            expected = f"an image {list(images[0].shape)} as {files[0][0].name}"
            raise InputError(f"{path}: expected {expected}, got {list(image.shape)}; give a size to resize to")
        if image.nbytes * len(files) > _MOST_BYTES:
            raise InputError(f"{top}: expected at most {_MOST_BYTES} bytes of pixels, got {image.nbytes * len(files)}")
    listed = tuple(path.relative_to(top).as_posix() for path, _ in files)
    return Images(np.stack(images), np.asarray([code for _, code in files], np.int32), names, listed)


def _visible(folder: Path) -> list[Path]:
    """What a user put into a folder, by name; a link to nothing is refused."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not _hidden(entry.name))
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be read, got {error}") from None
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            target = entry.readlink()
            hint = "; `git annex get` fetches what it stands for" if ".git/annex" in target.as_posix() else ""
            raise InputError(f"{entry}: expected a file or a folder, got a link to nothing ({target}){hint}")
    return entries


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _OF_SYSTEMS


def _images(folder: Path) -> list[Path]:
    """The images of one class."""
    entries = _visible(folder)
    for entry in entries:
        if entry.suffix.lower() in _UNREAD and entry.is_file():
            raise InputError(f"{entry}: images of this format are not read; convert them to PNG, or move them away")
        if entry.is_dir() and any(inner.suffix.lower() in (*_SUFFIXES, *_UNREAD) for inner in _visible(entry)):
            raise InputError(
                f"{entry}: expected images in the folder of their class, got a folder of images within it; "
                f"is {folder} the folder of the classes?"
            )
    return [entry for entry in entries if entry.suffix.lower() in _SUFFIXES and entry.is_file()]


def _classes(top: Path, found: dict[str, list[Path]], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        unknown = [name for name, files in found.items() if files and name not in given]
        if unknown or isinstance(given, str) or len(set(given)) < len(given):
            got = f"a folder {unknown[0]!r}" if unknown else f"classes={given!r}"
            raise InputError(f"{top}: expected folders of the classes {', '.join(given)}, each once, got {got}")
        return tuple(given)
    empty = [name for name, files in found.items() if not files]
    if empty and len(empty) < len(found):
        listed = ", ".join(map(repr, empty[:8]))
        warnings.warn(f"{top}: no images in {listed}: no class; give classes=... to keep its number", stacklevel=3)
    return tuple(name for name, files in found.items() if files)
