"""repro.npz and repro.py: the step that went wrong, and the script that takes it again, alone."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.inspect.nonfinite import Report, examine
from fdl.paths import user_path
from fdl.records import source
from fdl.runs.files import replacing, write_text
from fdl.training.experiment import Experiment
from fdl.training.rewind import Moment, batch_of
from fdl.training.snapshot import flat, put

NPZ, SCRIPT = "repro.npz", "repro.py"
FACTS = "facts"  # JSON beside the arrays

SOURCE = '''\
"""Takes step {step} of this run again, alone, and says where its first value that is not finite comes from.

    python repro.py [FILE of the experiment]
"""

import sys
from pathlib import Path

from fdl.runs.experiment_file import opened
from fdl.runs.repro import replay

FILE = {file!r}

with opened(sys.argv[1] if len(sys.argv) > 1 else FILE) as module:
    config = {config}
    print(replay(module.build(config), Path(__file__).with_name("{npz}")))
'''


def explain(moment: Moment | Exception | None, folder: Path | None, config: Any, member: str = "") -> list[str]:
    """What is known of a failed step, as lines for a person; with a folder, repro.npz and repro.py are written there.

    What goes wrong in doing so is one of the lines, and no error.

    Args:
      moment: what the sentinel found.
      config: that the run, or the member, was built from; None = there was none, and no script can build it again.
      member: of a sweep, as a person knows it.
    """
    if not isinstance(moment, Moment):
        return [] if moment is None else [f"the step could not be taken again: {_one_line(moment)}"]
    lines = []
    try:
        lines.append(str(examine(moment, member)))
        if folder is not None and not (folder / NPZ).exists():
            save(moment, folder / NPZ, member)
            file = _experiment_file(config)
            if file is None:
                lines.append(f"the step is in {folder / NPZ}: fdl.runs.repro.replay(experiment, that file)")
            else:
                spelled = SOURCE.format(step=moment.step, file=file, config=_spelled(config), npz=NPZ)
                write_text(folder / SCRIPT, spelled)
                lines.append(f"the step alone: python {folder / SCRIPT}")
    except Exception as error:
        lines.append(f"the step could not be {'kept' if lines else 'examined'}: {_one_line(error)}")
    return lines


def save(moment: Moment, path: Path, member: str = "") -> None:
    """Writes all that the step is a function of, but the code: params, state, batch, key."""
    arrays = flat({"now": moment.now, "batch": moment.batch, "key": moment.key})
    facts = {"step": moment.step, "member": member, "dtypes": {name: a.dtype.name for name, a in arrays.items()}}
    if moment.examples is not None:
        facts["examples"] = moment.examples.tolist()
    # numpy knows no bfloat16 when it reads
    plain = {name: a if a.dtype.isbuiltin == 1 else a.view(f"u{a.dtype.itemsize}") for name, a in arrays.items()}
    with replacing(path) as file:
        np.savez(file, **{FACTS: np.array(json.dumps(facts)), **plain})  # pyright: ignore[reportArgumentType]


def replay(experiment: Experiment, path: str | os.PathLike[str]) -> Report:
    """Takes the step in a repro.npz again, and says where its first value that is not finite comes from.

    Args:
      experiment: as it was; its model and batches must have the shapes of the file.

    Raises:
      InputError: no such file, or one that does not fit the experiment.
    """
    try:
        with user_path(path).open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        facts = json.loads(str(arrays.pop(FACTS)))
        arrays = {name: array.view(jnp.dtype(facts["dtypes"][name])) for name, array in arrays.items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected a repro.npz of fdl: {_one_line(error)}") from None
    key = jax.random.key(0)
    batch = jax.tree.map(jnp.asarray, batch_of(experiment, experiment.dataset.arrays, key, 0)[0])
    tree = {"now": jax.jit(experiment.update().init)(key), "batch": batch, "key": key}
    tree, _ = put(tree, arrays, str(path))
    examples = None if "examples" not in facts else np.array(facts["examples"])
    return examine(
        Moment(facts["step"], tree["now"], tree["batch"], tree["key"], examples, experiment), facts["member"]
    )


def _experiment_file(config: Any) -> str | None:
    """Where Config and build are, if they are in one file."""
    module = sys.modules.get(type(config).__module__)
    parts = {"Config", "build"} <= vars(module).keys() if module else False
    return os.path.abspath(str(module.__file__)) if module and parts and getattr(module, "__file__", None) else None


def _spelled(value: Any) -> str:
    """A config as source, its records those of the module."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f"{f.name}={_spelled(getattr(value, f.name))}" for f in dataclasses.fields(value) if f.init]
        return f"module.{type(value).__qualname__}({', '.join(fields)})"
    return source(value)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
