"""`fdl ckpt show`, `fdl ckpt diff` and `fdl ckpt export`: what is in checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fdl.commands.words import parsed, whole_numbers
from fdl.errors import InputError, did_you_mean
from fdl.paths import user_path
from fdl.runs.checkpoints import MANIFEST, CheckpointError, Checkpoints, Saved, is_checkpoint, step_of, verify
from fdl.runs.fitting import LINES, changes
from fdl.runs.progress import label, say
from fdl.runs.recorded import resolve
from fdl.runs.stored import differing, kind, opened, stores, weights
from fdl.runs.tables import aligned

HELP = """\
usage: fdl ckpt show RUN [--step N]
       fdl ckpt diff A B [--all]
       fdl ckpt export RUN -o FILE [--step N] [--best | --last] [--member N] [--force]

show: every checkpoint with its size, each byte of it read again and verified; then what is in
the newest that is whole: the optimizer, the seed and config it belongs to, arrays by path.
diff: the arrays that are not the same in A and B, to the bit, and how far they are apart: ten
of them and how many there are, or --all. The exit code is 0 where there are none, 1 where there
are any.
export: parameters and state in one safetensors file, by their paths in the model. In Python,
tensors = fdl.pretrained.read(FILE) and fdl.pretrained.load(model, tensors) read it.

RUN, A and B are a run, or the beginning of its id, or a folder of checkpoints or one of these.

  --step N    the checkpoint of that step (default: the newest that is whole)
  -o FILE     where to; --force overwrites it
  --best      parameters of the best evaluation (default where the experiment selects)
  --last      parameters after the last step; those that were trained, not averages of them
  --member N  of a sweep, from 0
  --runs DIR  where ids are looked for (default: runs)"""

Given = Mapping[str, list[str]]


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        say(sys.stdout, HELP)
        return 0
    if not arguments:
        raise InputError("fdl ckpt: show, diff or export? fdl ckpt show RUN")
    action, *rest = arguments
    if action not in ACTIONS:
        raise InputError(f"fdl ckpt: there is no {action!r}{did_you_mean(action, tuple(ACTIONS))}")
    do, count, options = ACTIONS[action]
    names, given = parsed(f"fdl ckpt {action}", rest, {"--runs": True, **options})
    if len(names) != count:
        raise InputError(f"fdl ckpt {action}: expected {'RUN' if count == 1 else 'A and B'}, got {len(names)} names")
    folder = user_path(given.get("--runs", ["runs"])[-1])
    paths = [user_path(name) if user_path(name).is_dir() else resolve(name, folder) for name in names]
    return do(paths, given)


def _show(paths: list[Path], given: Given) -> int:
    one, damaged = paths[0], 0
    single = is_checkpoint(one) and (one / MANIFEST).exists()
    for store in [one.parent] if single else stores(one):
        lines = [("step", "state", "bytes")]
        for path in [one] if single else Checkpoints(store).all():
            remark = _remark(path)
            damaged += remark != "verified"
            lines.append((str(step_of(path)), remark, f"{_size(path):,}"))
        _print(f"{store}\n{aligned(lines, left=2)}\n")
    if len(stores(one)) < 2:
        _contents(opened(one, _step(given)))
    return 1 if damaged else 0


def _contents(saved: Saved) -> None:
    facts = saved.facts
    about = {"config hash": facts.get("config_hash"), "seed": facts.get("seed"), "ended at": facts.get("stopped_at")}
    about |= facts.get("selected", {})
    about |= {f"optimizer {name}": value for name, value in facts.get("optimizer", {"": "not known"}).items()}
    shown = [("step", str(saved.step)), *((name, str(value)) for name, value in about.items() if value is not None)]
    _print("\n".join(f"{name}  {value}".rstrip() for name, value in shown))
    rows = [(path, str(x.dtype), str(list(x.shape)), f"{x.nbytes:,}") for path, x in saved.arrays.items()]
    total = ("all", "", "", f"{sum(x.nbytes for x in saved.arrays.values()):,}")
    _print("\n" + aligned([("array", "type", "shape", "bytes"), *rows, total], left=2, total=True))


def _remark(path: Path) -> str:
    try:
        verify(path)
    except (CheckpointError, InputError) as error:
        return str(error).removeprefix(f"{path}/")
    return "verified"


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def _diff(paths: list[Path], given: Given) -> int:
    one, other = (opened(path) for path in paths)
    _print(f"A  {one.path}, step {one.step}\nB  {other.path}, step {other.step}\n")
    for name in ("config_hash", "seed"):
        if one.facts.get(name) != other.facts.get(name):
            _print(f"{name}: {one.facts.get(name)} and {other.facts.get(name)}")
    for line in changes(one.facts.get("optimizer", {}), other.facts.get("optimizer", {})):
        _print(f"optimizer {line}")
    for line in changes(one.facts.get("decides", {}), other.facts.get("decides", {})):
        _print(line)
    rows = differing(one, other)
    if not rows:
        _print(f"{len(one.arrays)} arrays, same bits")
        return 0
    shown = rows if "--all" in given else rows[:LINES]
    _print(aligned([("array", "A", "B", ""), *((p, _kind(one, p), _kind(other, p), how) for p, how in shown)], left=4))
    if len(shown) < len(rows):
        _print(f"and {len(rows) - len(shown)} more (--all shows them)")
    _print(f"\n{len(rows)} of {len({**one.arrays, **other.arrays})} arrays differ")
    return 1


def _kind(saved: Saved, path: str) -> str:
    return kind(saved.arrays[path]) if path in saved.arrays else "-"


def _export(paths: list[Path], given: Given) -> int:
    if "-o" not in given:
        raise InputError("fdl ckpt export: where to? -o FILE, such as: -o model.safetensors")
    if {"--best", "--last"} <= set(given):
        raise InputError("fdl ckpt export: --best or --last: choose one")
    file = user_path(given["-o"][-1])
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"fdl ckpt export: -o {file}: expected a file in a folder that exists")
    if file.exists() and "--force" not in given:
        raise InputError(f"fdl ckpt export: {file} exists; --force overwrites it")
    saved = opened(paths[0], _step(given))
    best = True if "--best" in given else False if "--last" in given else None
    members = whole_numbers("fdl ckpt export", "--member", given.get("--member", []), least=0)
    arrays = weights(saved, best, members[-1] if members else None)
    from fdl.pretrained.files import write_safetensors

    try:
        write_safetensors(file, arrays, {"step": str(saved.step)})
    except OSError as error:
        raise InputError(f"fdl ckpt export: {file} cannot be written: {error.strerror or error}") from None
    _print(f"{len(arrays)} arrays, {sum(x.nbytes for x in arrays.values()):,} bytes, of {saved.path}: {file}")
    return 0


def _step(given: Given) -> int | None:
    steps = whole_numbers("fdl ckpt", "--step", given.get("--step", []), least=0)
    return steps[-1] if steps else None


def _print(text: str) -> None:
    say(sys.stdout, "\n".join(label(line) for line in text.split("\n")))


ACTIONS: dict[str, tuple[Callable[[list[Path], Given], int], int, dict[str, bool]]] = {
    "show": (_show, 1, {"--step": True}),
    "diff": (_diff, 2, {"--all": False}),
    "export": (
        _export,
        1,
        {"-o": True, "--step": True, "--best": False, "--last": False, "--member": True, "--force": False},
    ),
}
"""What it does, with how many names and which options."""
