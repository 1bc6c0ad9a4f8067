"""Another rate compiles nothing: executables are found again by their program, and by nothing else."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.training import executable_cache
from fdl.training.executable_cache import compile_once, forget, lower

COMPILED = "/jax/core/compile/backend_compile_duration"
X = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
DATA = fdl.data.Arrays(x=X, y=X[:, :1] * 2)


@dataclass(frozen=True)
class Optim:
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Config:
    optim: Optim = field(default_factory=Optim)
    width: int = 4
    scale: float = 1.0


def build(config: Config) -> fdl.Experiment:
    model = fdl.nn.Serial(fdl.nn.Linear(3, config.width), jax.nn.relu, fdl.nn.Linear(config.width, 1))
    task = fdl.supervised(model, fdl.losses.squared_error)
    optimizer = optax.adam(config.optim.learning_rate)
    more = {"evaluate": {"test": DATA}, "select": "test/loss", "eval_every": 4, "patience": 3}
    more |= {"eval_params": lambda params, opt_state: jax.tree.map(lambda p: p * 1.0, params)}
    return fdl.Experiment(task, optimizer, DATA, batch_size=8, num_steps=8, **more)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Grows by one for every program that XLA compiles."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            seen.append(str(kwargs.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    forget()
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_a_loop_over_rates_compiles_once_and_changes_no_bit(compilations):
    runs = []
    for rate in (0.1, 0.01, 0.03):
        runs.append(fdl.run(build, Config(Optim(rate))))
        compilations.append(f"end of {rate}")
    later = compilations[compilations.index("end of 0.1") + 1 :]
    assert later == ["end of 0.01", "end of 0.03"]
    assert all(program.reused for program in runs[-1].programs)
    forget()
    fresh = fdl.run(build, Config(Optim(0.03)))
    assert not any(program.reused for program in fresh.programs)
    jax.tree.map(np.testing.assert_array_equal, fresh.params, runs[-1].params)
    assert fresh.history.keys() == runs[-1].history.keys()
    for name, values in fresh.history.items():
        np.testing.assert_array_equal(values, runs[-1].history[name])
    assert not np.array_equal(runs[0].history["train/loss"], runs[1].history["train/loss"])


def test_an_int_that_makes_another_shape_compiles_another_program(compilations):
    fdl.run(build, Config(width=4))
    done = len(compilations)
    result = fdl.run(build, Config(width=5))
    assert len(compilations) > done
    assert result.params["0"]["kernel"].shape == (3, 5)


FACTOR = 1.0


def test_a_global_that_changed_between_two_runs_is_never_stale(monkeypatch):
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(FACTOR * fdl.losses.squared_error(params * batch["x"][:, 0], batch["y"][:, 0]))

    def build(config):
        task = fdl.Task(lambda key: (jnp.float32(0.0), {}), objective)
        return fdl.Experiment(task, optax.sgd(config.scale), DATA, num_steps=1)

    first = fdl.run(build, Config()).metrics["train/loss"]
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert fdl.run(build, Config()).metrics["train/loss"] == pytest.approx(3 * first)


def test_programs_that_differ_in_which_argument_they_use_are_told_apart():
    one, two = jnp.float32(1.0), jnp.float32(2.0)
    for place in (0, 1):
        executable, _ = compile_once(lower(lambda *xs, place=place: xs[place] + 0.0, one, two))
        assert executable.call(one, two) == (one, two)[place]


def test_programs_that_call_python_are_not_shared():
    seen = []
    for name in ("a", "b"):

        def call(x, name=name):
            jax.debug.callback(lambda x, name=name: seen.append(name), x)
            return x

        executable, known = compile_once(lower(call, jnp.float32(1.0)))
        executable.call(jnp.float32(1.0))
        jax.effects_barrier()
        assert not known
    assert seen == ["a", "b"]


def test_what_is_kept_is_bounded_and_holds_no_data(monkeypatch):
    forget()
    monkeypatch.setattr(executable_cache, "MOST", 3)
    constant = np.arange(1000.0, dtype=np.float32)
    gone = weakref.ref(constant)

    def run(i: int, constant: np.ndarray = constant) -> None:
        compile_once(lower(lambda x: x * i + constant.sum(), jnp.float32(1.0)))

    for i in range(5):
        run(i)
    assert len(executable_cache._kept) == 3
    del constant, run
    jax.clear_caches()  # JAX's own hold it until then
    gc.collect()
    assert gone() is None


PRINT_KEYS = """
import hashlib
import fdl
from fdl.training import executable_cache
from tests.training.test_compiled_once import Config, build

def compile_once(lowered, *options, compile_once=executable_cache.compile_once, **more):
    print(hashlib.sha256(lowered.as_text().encode()).hexdigest())
    return compile_once(lowered, *options, **more)

import fdl.training.compiling, fdl.training.executables
for module in (fdl.training.compiling, fdl.training.executables):
    module.compile_once = compile_once
fdl.run(build, Config())
"""


@pytest.mark.slow
def test_a_program_is_the_same_text_in_another_process():
    """So the persistent cache of JAX finds it: no address, no number and no order by hash is in it."""
    keys = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", PRINT_KEYS], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        keys.append(sorted(done.stdout.split()))
    assert len(keys[0]) >= 4
    assert keys[0] == keys[1]
