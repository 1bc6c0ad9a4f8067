"""The checkpoints in a run folder, for people: which there are, where two differ, and the weights of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fdl.errors import InputError
from fdl.runs.checkpoints import MANIFEST, CheckpointError, Checkpoints, Saved, is_checkpoint, read, step_of

TRAINED, BEST = "run/carry/train", "run/best"


def stores(folder: Path) -> list[Path]:
    """The folders in which a run keeps checkpoints: one; of a sweep, one for each block of members."""
    top = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    return sorted({path.parent for path in top.rglob("*") if is_checkpoint(path)}, key=_by_number)


def _by_number(folder: Path) -> list[tuple[int, str]]:
    """Sorts program-10 after program-2."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(folder))]


def opened(folder: Path, step: int | None = None) -> Saved:
    """A checkpoint: `folder` is one, or a folder of them, or a run with them.

    Args:
      step: which; None = the newest that is whole.

    Raises:
      InputError: none, no such step, or the choice of several blocks of a sweep.
      CheckpointError: it is damaged.
    """
    if is_checkpoint(folder) and (folder / MANIFEST).exists():
        return read(folder)
    found = stores(folder)
    if not found:
        raise InputError(f"{folder}: there is no checkpoint; the first is written after ten minutes, or at the end")
    if len(found) > 1:
        shown = ", ".join(map(str, found[:4])) + (", ..." if len(found) > 4 else "")
        raise InputError(f"{folder}: a sweep has checkpoints for each block of members; name one: {shown}")
    store = Checkpoints(found[0])
    if step is None:
        newest, skipped = store.newest()
        if newest is None:
            raise CheckpointError("; ".join(skipped))
        return newest
    steps = {step_of(path): path for path in store.all()}
    if step not in steps:
        raise InputError(f"{found[0]}: there is no checkpoint of step {step}; there are {sorted(steps)}")
    return read(steps[step])


def weights(saved: Saved, best: bool | None = None, member: int | None = None) -> dict[str, np.ndarray]:
    """Parameters and state by their paths in the model, such as "blocks/0/kernel".

    Args:
      best: those of the best evaluation, or the last ones; None = the best where there are any.
      member: of a sweep.

    What is in both, parameters and state, has "params/" and "state/" before all names. The last parameters are those
    that were trained, without the averages of `eval_params`; the best are those that were evaluated.

    Raises:
      InputError: there is no best, no such member.
    """
    arrays, count = saved.arrays, saved.arrays.get("run/ended", np.zeros(())).shape
    if (member is not None) != bool(count) or (member is not None and not 0 <= member < count[0]):
        expected = f"a member, 0 .. {count[0] - 1}" if count else "no member, for this is no sweep"
        raise InputError(f"{saved.path}: expected {expected}, got {member}")
    at = () if member is None else (member,)
    chosen = bool(arrays.get(f"{BEST}/step", np.zeros(count))[at])
    if best and not chosen:
        raise InputError(f"{saved.path}: there is no best yet: no evaluation, or an experiment without select=...")
    part = BEST if (chosen if best is None else best) else TRAINED
    params, state = ({n: x[at] for n, x in _below(arrays, f"{part}/{kind}").items()} for kind in ("params", "state"))
    if not params.keys() & state.keys():
        return params | state
    return {f"params/{name}": x for name, x in params.items()} | {f"state/{name}": x for name, x in state.items()}


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Those at or below a path, by the rest of theirs; params that are one array have none, and are called array."""
    found = {name: array for name, array in arrays.items() if name == prefix or name.startswith(f"{prefix}/")}
    return {name.removeprefix(prefix).removeprefix("/") or "array": array for name, array in found.items()}


def differing(one: Saved, other: Saved) -> list[tuple[str, str]]:
    """(path, how) for each array that is not the same in both, to the bit."""
    rows = []
    for path in [*one.arrays, *(path for path in other.arrays if path not in one.arrays)]:
        pair = [saved.arrays.get(path) for saved in (one, other)]
        if pair[0] is None or pair[1] is None:
            rows.append((path, "only in B" if pair[0] is None else "only in A"))
        elif not same_bits(pair[0], pair[1]):
            rows.append((path, apart(pair[0], pair[1])))
    return rows


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


def apart(one: np.ndarray, other: np.ndarray) -> str:
    """How two arrays with other bits differ."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{kind(one)} and {kind(other)}"
    if one.size == 1:
        return f"{one.item()!r} and {other.item()!r}"
    wide: Any = np.complex128 if one.dtype.kind == "c" else np.float64
    with np.errstate(invalid="ignore"):
        distance = np.abs(one.astype(wide) - other.astype(wide))
    return f"apart by up to {np.nanmax(distance) if not np.isnan(distance).all() else np.nan:.3g}"


def kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"
