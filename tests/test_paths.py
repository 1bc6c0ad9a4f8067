# pyright: reportArgumentType=false
"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fdl.errors import InputError
from fdl.paths import user_path


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~") == user_path(Path("~")) == tmp_path
    assert user_path("~/a/b.csv") == tmp_path / "a" / "b.csv"
    assert user_path("a/~/b") == Path("a/~/b")  # only at the start, as in a shell


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("~nobody-of-this-name/x", "home folder .* not known"),
        ("a\0b", "zero byte"),
        (b"bytes", "got bytes"),
        (None, "got NoneType"),
        (3, "got int"),
    ],
)
def test_other_paths_are_refused(path: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        user_path(path)
