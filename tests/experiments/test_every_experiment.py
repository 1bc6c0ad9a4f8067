"""What holds for each file of experiments/: it documents itself, it is cheap to build, and a few steps of it run."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
from pathlib import Path

import jax
import pytest

import fdl

FOLDER = Path(__file__).parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*.py"))
PUBLISHED = sorted((FOLDER / "published").glob("*.py"))
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
published = pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)


def module_of(file: Path):
    return importlib.import_module(".".join(file.relative_to(FOLDER.parent).with_suffix("").parts))


@published
def test_published_figures_stand_beside_ours_with_command_and_machine(file):
    text = module_of(file).__doc__ or ""
    missing = [p for p in (f"fdl sweep experiments/published/{file.name}", "--save", "2 x86-64 cores") if p not in text]
    assert not missing
    assert "Measured" in text
    assert "so far" not in text


@each
def test_the_docstring_holds_the_command_what_was_measured_and_the_machine(file):
    text = module_of(file).__doc__ or ""
    missing = [p for p in (f"fdl run experiments/{file.name}", "Measured, ", " s ", "2 x86-64 cores") if p not in text]
    assert not missing


@pytest.mark.parametrize("file", FILES + PUBLISHED, ids=lambda file: file.stem)
def test_every_field_of_the_config_has_a_help_text(file):
    """A string under each field: what `fdl run FILE --help` shows."""
    tree = ast.parse(file.read_text())
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config")
    fields = [i for i, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
    described = [i for i in fields if i + 1 < len(body) and isinstance(body[i + 1], ast.Expr)]
    assert len(fields) == len(dataclasses.fields(module_of(file).Config)) > 0
    assert described == fields


@each
def test_build_is_pure_and_computes_nothing(file):
    """Twice the same experiment, and no array on a device."""
    module = module_of(file)
    before = jax.live_arrays()  # held, or those of other tests might be collected meanwhile
    one, two = (module.build(module.Config()) for _ in range(2))
    assert len(jax.live_arrays()) == len(before)
    assert one.total_steps() == two.total_steps()
    assert jax.eval_shape(one.task.init, jax.random.key(0)) == jax.eval_shape(two.task.init, jax.random.key(0))


@each
def test_a_batch_larger_than_the_set_is_refused_in_our_words(file):
    """And not in those of a schedule that was given 0 steps."""
    module = module_of(file)
    if (
        "batch_size" in {field.name for field in dataclasses.fields(module.Config)}
        and module.build(module.Config()).train
    ):
        with pytest.raises(fdl.InputError, match="batch_size 99999 is larger"):
            module.build(dataclasses.replace(module.Config(), batch_size=99999))


@pytest.mark.slow
@each
def test_a_few_steps_of_it_run(file):
    module = module_of(file)
    result = fdl.run(module.build(module.Config()).smoke())
    assert result.info["steps"] == 8
    assert all(math.isfinite(value) for value in result.metrics.values())
