"""One image as an array. Pillow decodes it; here it is turned upright and put on a ground."""

from __future__ import annotations

import io
import warnings
from os import PathLike
from typing import Any

import numpy as np

from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import InputError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MODES = {"RGB": 3, "L": 1, "I;16": 1}
_MOST_PIXELS = 2**26
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def read_image(
    source: str | PathLike[str] | bytes | Source,
    mode: str = "RGB",
    size: tuple[int, int] | None = None,
    background: int | tuple[int, int, int] = 255,
) -> np.ndarray:
    """One image (the first, where a file holds several) as uint8 [h, w, c], turned as its EXIF orientation says.

    Args:
      source: a file of one of `FORMATS`, in which `~` is the home folder.
      mode: "RGB"; or "L" for grey; or "I;16" for the values of a 16-bit grey image, as uint16. In "RGB" and "L" what
        the file holds is converted, from palettes and CMYK as well, and of 16 bits the upper 8 are taken.
      size: (h, w) to resize to by bilinear interpolation; None = as it is.
      background: a transparent image lies on this grey or colour.

    Raises:
      InputError: Pillow not installed, a damaged or other file, more than 2^26 pixels, 16 bits whose upper 8 are all
        zero, a drawing that has the colour of its background.

    torchvision: `io.decode_image`, which drops transparency by default and does not turn the image.

    >>> import PIL.Image
    >>> file = io.BytesIO()
    >>> PIL.Image.new("RGB", (2, 1), (255, 0, 0)).save(file, "PNG")
    >>> read_image(file.getvalue()).tolist()
    [[[255, 0, 0], [255, 0, 0]]]
    """
    pillow = _pillow()
    if mode not in MODES:
        raise InputError(f"read_image: expected mode 'RGB', 'L' or 'I;16', got {mode!r}")
    _check_size(size)
    colour = _colour(background)
    source = open_source(source, "an image")
    with warnings.catch_warnings(), damage(source.name, "an image"):
        warnings.simplefilter("ignore")  # of odd metadata; the number of pixels is checked here
        try:
            with pillow.Image.open(io.BytesIO(source.packed), formats=FORMATS) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise source.error(f"at most {_MOST_PIXELS} pixels", f"{image.width} x {image.height}")
                if image.format == "PNG":
                    _check_sums(pillow, source)
                upright = pillow.ImageOps.exif_transpose(image)
                convert = _deep if upright.mode in _DEEP or mode == "I;16" else _plain
                image = convert(source, upright, mode, colour)
                if size is not None:
                    image = image.resize((int(size[1]), int(size[0])), pillow.Image.Resampling.BILINEAR)
                dtype = np.uint16 if mode == "I;16" else np.uint8
                return np.asarray(image).astype(dtype).reshape(image.height, image.width, MODES[mode])
        except pillow.UnidentifiedImageError:
            raise source.other(f"an image ({', '.join(FORMATS)})") from None
        except (OSError, SyntaxError, pillow.Image.DecompressionBombError) as error:
            raise ValueError(str(error)) from None


def _check_sums(pillow: Any, source: Source) -> None:
    """Those of a PNG, which Pillow leaves alone when it decodes; an image that was checked cannot be decoded."""
    with pillow.Image.open(io.BytesIO(source.packed), formats=("PNG",)) as image:
        image.verify()


def _plain(source: Source, image: Any, mode: str, colour: tuple[int, ...]) -> Any:
    """An image of 8 bits in another mode, on a ground where it is transparent."""
    if image.mode not in _TRANSPARENT and "transparency" not in image.info:
        return image.convert(mode)
    image = image.convert("RGBA")
    ground = image.copy()
    ground.paste((*colour, 255), (0, 0, *image.size))
    ground.alpha_composite(image)
    shown = ground.convert(mode)
    least, most = image.getextrema()[3]
    if least < most and all(low == high for low, high in _extrema(shown)):
        raise source.error(
            "a transparent image that can be seen on its ground",
            f"one that is the colour of the ground throughout; give another background than {colour}",
        )
    return shown


def _extrema(image: Any) -> Any:
    return image.getextrema() if len(image.getbands()) > 1 else [image.getextrema()]


def _deep(source: Source, image: Any, mode: str, colour: tuple[int, ...]) -> Any:
    """A grey image of 16 bits: as it is, or its upper 8."""
    if image.mode not in _DEEP:
        raise source.error("a grey image of 16 bits for mode 'I;16'", f"one of mode {image.mode!r}")
    if "transparency" in image.info:
        raise source.error("16 bits without transparency", "a grey value that is transparent")
    values = np.asarray(image.convert("I"), np.int64)
    if values.min() < 0 or values.max() >= 2**16:
        raise source.error("grey values of 16 bits", f"{values.min()}..{values.max()}")
    if mode == "I;16":
        return image.convert("I")
    if 0 < values.max() < 2**8:
        raise source.error(
            "grey values that use their 16 bits", f"0..{values.max()}, all black in 8; read them by mode='I;16'"
        )
    return _pillow().Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)


def _check_size(size: Any) -> None:
    if size is None:
        return
    whole = isinstance(size, tuple | list) and len(size) == 2 and all(_whole(n) and n > 0 for n in size)
    if not whole or size[0] * size[1] > _MOST_PIXELS:
        raise InputError(f"size: expected (height, width), at most {_MOST_PIXELS} pixels, got {size!r}")


def _colour(background: Any) -> tuple[int, ...]:
    colour = (background,) * 3 if _whole(background) else background
    three = isinstance(colour, tuple | list) and len(colour) == 3
    if not three or not all(_whole(n) and 0 <= n < 256 for n in colour):
        raise InputError(f"background: expected a grey of 0..255, or three of them, got {background!r}")
    return tuple(map(int, colour))


def _whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise InputError("images are decoded by Pillow: pip install 'fdl[data]'") from None
    return PIL
