"""What is wrong is refused, with a message that says what to do, before a program is compiled."""

from __future__ import annotations

import re
from typing import Any

import pytest

import fdl
from fdl.training import executables
from tests.bad_input import test_answered
from tests.bad_input.cases import NEWCOMER, REFUSED, RESTORED, experiment


def message_of(error: pytest.ExceptionInfo) -> str:
    return "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])


@pytest.mark.parametrize("case", [*REFUSED, *NEWCOMER])
def test_is_refused_before_anything_is_compiled(case, monkeypatch):
    def compiled(name: str, *arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"{name} was compiled")

    monkeypatch.setattr(executables, "compiled", compiled)
    act, message = (REFUSED | NEWCOMER)[case]
    with pytest.raises(fdl.InputError) as error:
        act()
    assert re.search(message, message_of(error), re.DOTALL), message_of(error)
    assert len(message_of(error).splitlines()) <= 15


@pytest.mark.parametrize("case", RESTORED)
def test_is_refused_when_a_checkpoint_is_restored(case, tmp_path):
    before, now, message = RESTORED[case]

    def unplugged(event: fdl.Event) -> None:
        if event.step == 2:
            raise KeyboardInterrupt

    common: Any = {"num_steps": 3, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        fdl.run(experiment(**common, **before), folder=tmp_path / "run", chunk=1, hooks=[unplugged])
    kept = {path: path.read_bytes() for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file()}
    with pytest.raises(fdl.InputError) as error:
        fdl.run(experiment(**common, **now), folder=tmp_path / "run", resume=True)
    assert re.search(message, message_of(error), re.DOTALL), message_of(error)
    assert len(message_of(error).splitlines()) <= 15
    assert kept
    assert all(path.read_bytes() == data for path, data in kept.items())  # and it is still there
    assert fdl.run(experiment(**common, **before), folder=tmp_path / "run", resume=True).info["steps"] == 3


def test_every_number_of_the_catalogue_is_here():
    tests = " ".join(name for name in vars(test_answered) if name.startswith("test_"))
    numbers = [int(case.split()[0]) for case in (*REFUSED, *RESTORED)] + [int(n) for n in re.findall(r"_(\d\d)", tests)]
    assert set(numbers) == set(range(1, 51))
