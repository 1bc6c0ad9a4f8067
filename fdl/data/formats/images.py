"""Images, and folders of them with a folder for every class. Pillow decodes them."""

from __future__ import annotations

import io
import warnings
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
_MOST_PIXELS = 2**26
_MOST_BYTES = 2**31
_MODES = {"RGB": 3, "L": 1}


class Images(NamedTuple):
    x: np.ndarray
    """uint8 [n, h, w, c]."""
    y: np.ndarray
    """int32 [n]: the class."""
    classes: tuple[str, ...]
    """Names of the folders, sorted."""
    files: tuple[str, ...]
    """Where each image came from, relative to the folder."""


def read_image(source: str | PathLike[str] | bytes | Source, mode: str = "RGB", size: Any = None) -> np.ndarray:
    """One image (the first, where a file holds several) as uint8 [h, w, c].

    Args:
      source: a file of one of `FORMATS`.
      mode: "RGB", or "L" for grey; what the file holds is converted, transparency is dropped.
      size: (h, w) to resize to by bilinear interpolation; None = as it is.

    Raises:
      InputError: Pillow not installed, a damaged or other file, more than 2^26 pixels.
    """
    pillow = _pillow()
    if mode not in _MODES:
        raise InputError(f"read_image: expected mode 'RGB' or 'L', got {mode!r}")
    source = open_source(source, "an image")
    with warnings.catch_warnings(), damage(source.name, "an image"):
        warnings.simplefilter("ignore")  # of odd metadata; the number of pixels is checked here
        try:
            with pillow.Image.open(io.BytesIO(source.packed), formats=FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise source.error(f"at most {_MOST_PIXELS} pixels", f"{image.width} x {image.height}")
                image = image.convert(mode)
                if size is not None:
                    image = image.resize((size[1], size[0]), pillow.Image.Resampling.BILINEAR)
                return np.asarray(image, np.uint8).reshape(image.height, image.width, _MODES[mode])
        except pillow.UnidentifiedImageError:
            got = f"one that starts with {source.packed[:12]!r}"
            raise source.error(f"an image ({', '.join(FORMATS)})", got) from None
        except (OSError, SyntaxError, pillow.Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from None


def read_image_folder(folder: str | PathLike[str], mode: str = "RGB", size: tuple[int, int] | None = None) -> Images:
    """A folder with a folder of images for every class, in the order of classes and then of names.

    Args:
      folder: as `cats/1.png`, `dogs/1.png`; other files are left out, and so are links.
      mode, size: see `read_image`; without a size all images must have the same.

    Raises:
      InputError: no classes, no images, one that is damaged or of another size, more than 2 GiB of pixels.

    torchvision: `datasets.ImageFolder`, which reads lazily and takes images of any size.
    """
    top = Path(folder)
    if not top.is_dir():
        raise InputError(
            f"{top}: expected a folder with a folder for every class, got {'a file' if top.exists() else 'nothing'}"
        )
    classes = tuple(sorted(entry.name for entry in top.iterdir() if entry.is_dir() and not entry.is_symlink()))
    found = [(path, code) for code, name in enumerate(classes) for path in sorted((top / name).iterdir())]
    found = [(path, code) for path, code in found if path.suffix.lower() in _SUFFIXES and not path.is_symlink()]
    if not found:
        raise InputError(f"{top}: expected images in a folder for every class, got {len(classes)} folders and no image")
    images: list[np.ndarray] = []
    for path, _ in found:
        image = read_image(path, mode, size)
        images.append(image)
        if image.shape != images[0].shape:
            expected = f"an image {list(images[0].shape)} as {found[0][0].name}"
            raise InputError(f"{path}: expected {expected}, got {list(image.shape)}; give a size to resize to")
        if image.nbytes * len(found) > _MOST_BYTES:
            raise InputError(f"{top}: expected at most {_MOST_BYTES} bytes of pixels, got {image.nbytes * len(found)}")
    files = tuple(path.relative_to(top).as_posix() for path, _ in found)
    return Images(np.stack(images), np.asarray([code for _, code in found], np.int32), classes, files)


def _pillow() -> Any:
    try:
        import PIL.Image
    except ImportError:
        raise InputError("images are decoded by Pillow: pip install 'fdl[data]'") from None
    return PIL
