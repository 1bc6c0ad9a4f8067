"""Images as cameras, scanners and drawing programs make them: read to known pixels, or refused by name."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fdl.data.formats.images import read_image, read_image_folder
from fdl.errors import InputError

Image: Any = pytest.importorskip("PIL.Image")

RED, BLUE = (200, 0, 0), (0, 0, 200)
RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
GLYPH = np.zeros((8, 8, 4), np.uint8)
GLYPH[2:6, 2:6, 3] = 255  # a black square on nothing
HALF = np.array([[RED, BLUE]], np.uint8)  # 1 x 2


def saved(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str = "PNG") -> bytes:
    """HALF as a camera stores it that was held in one of the eight ways of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(HALF), kind, exif=exif)


def png(depth: int, colour: int, row: bytes, size: tuple[int, int] = (2, 1)) -> bytes:
    """A PNG by its standard: of kinds that Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    data = zlib.compress((b"\0" + row) * size[1])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def palette(**options: Any) -> bytes:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    image.putpalette([*RED, *BLUE])
    return saved(image, **options)


GREY = {RED: 60, BLUE: 23}  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", (2, 1), BLUE)]}

# name -> file, mode, pixels
READ: dict[str, tuple[bytes, str, Any]] = {
    "16 bits": (saved(Image.fromarray(RAMP)), "L", (RAMP >> 8)[..., None]),
    "16 bits as colours": (saved(Image.fromarray(RAMP)), "RGB", np.repeat((RAMP >> 8)[..., None], 3, 2)),
    "16 bits as they are": (saved(Image.fromarray(RAMP)), "I;16", RAMP[..., None]),
    "12 bits as they are": (saved(Image.fromarray(RAMP >> 4)), "I;16", (RAMP >> 4)[..., None]),
    "16 bits of colour": (png(16, 2, struct.pack(">6H", 51200, 0, 255, 0, 0, 51455)), "RGB", HALF),
    "16 bits of grey and alpha": (png(16, 4, struct.pack(">4H", 25600, 65535, 51200, 65535)), "L", [[[100], [200]]]),
    "2 bits": (png(2, 0, b"\x10"), "L", [[[0], [85]]]),
    "1 bit": (png(1, 0, b"\x40"), "L", [[[0], [255]]]),
    "a palette": (palette(), "RGB", HALF),
    "a palette in grey": (palette(), "L", [[[GREY[RED]], [GREY[BLUE]]]]),
    "a palette with a transparent colour": (palette(transparency=0), "RGB", [[[255, 255, 255], BLUE]]),
    "a transparent grey": (
        saved(Image.fromarray(np.array([[0, 9]], np.uint8)), transparency=0), "L", [[[255], [9]]]),
    "a black drawing on nothing": (saved(Image.fromarray(GLYPH)), "L", 255 - GLYPH[..., 3:]),
    "and as WebP": (saved(Image.fromarray(GLYPH), "WEBP", lossless=True), "L", 255 - GLYPH[..., 3:]),
    "half transparent": (
        saved(Image.fromarray(np.array([[[0, 0, 0, 51], [0, 0, 0, 255]]], np.uint8))), "L", [[[204], [0]]]),
    "opaque alpha": (saved(Image.fromarray(np.dstack([HALF, np.full((1, 2), 255, np.uint8)]))), "RGB", HALF),
    "an animated GIF": (saved(Image.fromarray(HALF), "GIF", **ANIMATED), "RGB", HALF),
    "an animated PNG": (saved(Image.fromarray(HALF), **ANIMATED), "RGB", HALF),
    **{
        f"turned by EXIF {n}": (turned(n), "RGB", pixels)
        for n, pixels in enumerate(
            # the 0th row of the stored image is at the top, top, bottom, bottom, left, right, right, left
            [HALF, HALF[:, ::-1], HALF[::-1, ::-1], HALF[::-1], HALF.swapaxes(0, 1), HALF.swapaxes(0, 1),
             HALF.swapaxes(0, 1)[::-1], HALF.swapaxes(0, 1)[::-1]],
            1,
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_an_image_is_read(name: str) -> None:
    file, mode, pixels = READ[name]
    got = read_image(file, mode)
    assert got.dtype == (np.uint16 if mode == "I;16" else np.uint8)
    np.testing.assert_array_equal(got, pixels)


def test_colours_of_print_and_photographs() -> None:
    """JPEG rounds: CMYK from Pillow's own conversion, and a photo that is turned."""
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(read_image(saved(red, "JPEG"))[4, 4].astype(int) - [255, 0, 0]).max() < 8
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(saved(Image.new("RGB", (16, 8), RED), "JPEG", exif=exif)).shape == (16, 8, 3)


def test_sizes_and_grounds_of_numpy() -> None:
    size = np.array([4, 6])
    assert read_image(saved(Image.fromarray(HALF)), size=tuple(size), background=np.uint8(9)).shape == (4, 6, 3)  # pyright: ignore[reportArgumentType]


def test_another_ground() -> None:
    glyph = saved(Image.fromarray(GLYPH))
    white = saved(Image.fromarray(np.where([1, 1, 1, 0], 255, GLYPH).astype(np.uint8)))
    np.testing.assert_array_equal(read_image(white, "L", background=0), GLYPH[..., 3:])
    assert read_image(glyph, background=(9, 8, 7))[0, 0].tolist() == [9, 8, 7]
    for file, ground in ((white, 255), (glyph, 0)):
        with pytest.raises(InputError, match="<bytes>: .*the colour of the ground throughout; give another background"):
            read_image(file, background=ground)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        (saved(Image.fromarray(RAMP >> 9)), {"mode": "L"}, r"0\.\.127, all black in 8; read them by mode='I;16'"),
        (saved(Image.fromarray(HALF)), {"mode": "I;16"}, "16 bits for mode 'I;16', got one of mode 'RGB'"),
        (saved(Image.fromarray(RAMP), transparency=0), {}, "16 bits without transparency"),
        (b"II*\0" + bytes(99), {}, r"an image \(PNG, .*\), got a TIFF image"),
        (b"\0\0\0\x18ftypheic" + bytes(99), {}, "got an MP4 or HEIC file"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99), {}, "<bytes>: expected an image"),
        (b"version https://git-lfs.github.com/spec/v1\n", {}, "Git LFS pointer"),
        (b"", {}, "got an empty file"),
        (saved(Image.fromarray(HALF)), {"mode": "RGBA"}, "mode 'RGB', 'L' or 'I;16', got 'RGBA'"),
        (saved(Image.fromarray(HALF)), {"size": 64}, r"size: expected \(height, width\).*got 64"),
        (saved(Image.fromarray(HALF)), {"size": (0, 4)}, "size: "),
        (saved(Image.fromarray(HALF)), {"size": (2**20, 2**20)}, "size: .*at most"),
        (saved(Image.fromarray(HALF)), {"background": "white"}, r"background: expected a grey of 0\.\.255"),
    ],
)  # fmt: skip
def test_an_image_is_refused(file: bytes, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(file, **options)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_an_image_that_is_cut_off_is_refused_or_whole(kind: str) -> None:
    file = saved(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), kind)
    whole = read_image(file)
    for size in range(0, len(file), 3):
        with suppress(InputError):
            np.testing.assert_array_equal(read_image(file[:size]), whole)


def test_a_changed_bit_in_a_png_is_never_another_image() -> None:
    file = saved(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)), compress_level=0)
    whole = read_image(file)
    for place in range(len(file)):
        changed = file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]
        with suppress(InputError):
            np.testing.assert_array_equal(read_image(changed), whole)


def folder_of(top: Path, *files: str) -> Path:
    for file in files:
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".png"):
            (top / file).write_bytes(saved(Image.fromarray(HALF)))
        else:
            (top / file).write_bytes(b"\0\5\x16\7")
    return top


CLASSES = ("cats/1.png", "cats/2.png", "dogs/1.png")
LEFT_BEHIND = (
    "cats/._1.png", "cats/Thumbs.db", "dogs/desktop.ini", "cats/.DS_Store", ".git/HEAD", ".ipynb_checkpoints/1.png",
    "__MACOSX/._cats", "__MACOSX/cats/1.png", "@eaDir/1.png", "README.txt", "cats/.thumbs/1.png", "dogs/notes/a.txt",
)  # fmt: skip


@pytest.mark.parametrize("file", LEFT_BEHIND)
def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path: Path, file: str) -> None:
    images = read_image_folder(folder_of(tmp_path, *CLASSES, file))
    assert (images.classes, images.files, images.y.tolist()) == (("cats", "dogs"), CLASSES, [0, 0, 1])


def test_an_empty_folder_is_no_class_and_that_is_said(tmp_path: Path) -> None:
    folder_of(tmp_path, *CLASSES, "birds/notes.txt")
    with pytest.warns(UserWarning, match=r"no images in 'birds': no class; give classes=\.\.\. to keep its number"):
        images = read_image_folder(tmp_path)
    assert images.classes == ("cats", "dogs")
    images = read_image_folder(tmp_path, classes=("birds", "cats", "dogs"))
    assert (images.classes, images.y.tolist()) == (("birds", "cats", "dogs"), [1, 1, 2])
    with pytest.raises(InputError, match="classes cats, each once, got a folder 'dogs'"):
        read_image_folder(tmp_path, classes=["cats"])
    with pytest.raises(InputError, match="got 1 folders and no image"):
        read_image_folder(folder_of(tmp_path / "other", "birds/notes.txt"))
    with pytest.raises(InputError, match="got 2 images without a folder"):
        read_image_folder(folder_of(tmp_path / "flat", "1.png", "2.png"))


def test_links_are_followed_and_those_to_nothing_refused(tmp_path: Path) -> None:
    store, top = folder_of(tmp_path / "store", *CLASSES), tmp_path / "top"
    (top / "pairs").mkdir(parents=True)
    (top / "cats").symlink_to(store / "cats")
    (top / "pairs" / "1.png").symlink_to(store / "dogs" / "1.png")
    assert read_image_folder(top).files == ("cats/1.png", "cats/2.png", "pairs/1.png")
    (top / "pairs" / "loop").symlink_to(top / "pairs")
    with pytest.raises(InputError, match="loop: .*a folder of images within it"):
        read_image_folder(top)
    (top / "pairs" / "loop").unlink()
    for place in ("pairs/2.png", "dogs"):
        (top / place).symlink_to("../.git/annex/objects/x")
        with pytest.raises(InputError, match=f"{place}: .*got a link to nothing .*git annex get"):
            read_image_folder(top)
        (top / place).unlink()
    (top / "self").symlink_to("self")
    with pytest.raises(InputError, match="self: .*a link to nothing"):
        read_image_folder(top)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("cats/3.tif", r"3\.tif: images of this format are not read; convert them to PNG"),
        ("cats/more/3.png", r"more: .*a folder of images within it; is .*cats the folder of the classes\?"),
    ],
)
def test_images_that_would_be_left_out_are_refused(tmp_path: Path, file: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image_folder(folder_of(tmp_path, *CLASSES, file))


def test_the_home_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder_of(tmp_path, *(f"animals/{file}" for file in CLASSES))))
    assert len(read_image_folder("~/animals").x) == 3
    assert read_image(os.path.join("~", "animals", "cats", "1.png")).shape == (1, 2, 3)
    with pytest.raises(InputError, match="got nothing"):
        read_image_folder("~/plants")
