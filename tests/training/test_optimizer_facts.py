"""Two optimizers that compute something else are told apart, also where their states have the same shapes."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import fdl
from fdl.runs.fitting import changes
from fdl.training.optimizer_facts import facts_of


class Schedule:
    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, count: Any) -> float:
        return self.rate


def mine(rate: float) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda g: -rate * g, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


KINDS: dict[str, Any] = {
    "adam": lambda: optax.adam(1e-3),
    "adam b1": lambda: optax.adam(1e-3, b1=0.8),
    "adam rate": lambda: optax.adam(2e-3),
    "adam rate of an array": lambda: optax.adam(jnp.float32(0.5)),
    "nadam": lambda: optax.nadam(1e-3),
    "radam": lambda: optax.radam(1e-3),
    "adabelief": lambda: optax.adabelief(1e-3),
    "adamw": lambda: optax.adamw(1e-3),
    "adamw decay": lambda: optax.adamw(1e-3, weight_decay=0.1),
    "adamw mask": lambda: optax.adamw(1e-3, mask={"kernel": True, "bias": False}),
    "scheduled": lambda: optax.adam(optax.cosine_decay_schedule(1e-3, 10)),
    "scheduled longer": lambda: optax.adam(optax.cosine_decay_schedule(1e-3, 20)),
    "scheduled by fdl": lambda: optax.adam(fdl.schedules.cosine(1e-3, 10)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(1e-3),
    "injected nadam": lambda: optax.inject_hyperparams(optax.nadam)(1e-3),
    "injected schedule": lambda: optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-3, 0.0, 10)),
    "injected schedule longer": lambda: optax.inject_hyperparams(optax.adam)(optax.linear_schedule(1e-3, 0.0, 20)),
    "clipped": lambda: optax.chain(optax.clip(1.0), optax.adam(1e-3)),
    "clipped wider": lambda: optax.chain(optax.clip(2.0), optax.adam(1e-3)),
    "several steps": lambda: optax.MultiSteps(optax.adam(1e-3), 2),
    "more steps": lambda: optax.MultiSteps(optax.adam(1e-3), 4),
    "averaged": lambda: fdl.with_ema(optax.adam(1e-3)),
    "averaged longer": lambda: fdl.with_ema(optax.adam(1e-3), 0.99),
    "by path": lambda: fdl.by_path([("kernel", optax.adam(1e-3)), ("", optax.sgd(0.1))]),
    "by another path": lambda: fdl.by_path([("bias", optax.adam(1e-3)), ("", optax.sgd(0.1))]),
    "an object": lambda: optax.sgd(Schedule(0.1)),
    "another object": lambda: optax.sgd(Schedule(0.2)),
    "partial": lambda: optax.sgd(functools.partial(lambda rate, count: rate, 0.1)),
    "other partial": lambda: optax.sgd(functools.partial(lambda rate, count: rate, 0.2)),
    "one's own": lambda: mine(0.1),
    "one's own, faster": lambda: mine(0.2),
    "muon": lambda: optax.contrib.muon(1e-3),
    "muon longer": lambda: optax.contrib.muon(1e-3, ns_steps=7),
    "lbfgs": lambda: optax.lbfgs(),
    "lbfgs longer": lambda: optax.lbfgs(memory_size=20),
    "infinite": lambda: optax.sgd(float("inf")),
}


def test_every_kind_differs_from_every_other():
    facts = {name: facts_of(make()) for name, make in KINDS.items()}
    for one, other in itertools.combinations(facts, 2):
        assert changes(facts[one], facts[other]), (one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_the_same_also_from_a_file(kind):
    facts = json.loads(json.dumps(facts_of(KINDS[kind]()), allow_nan=False))
    assert facts
    assert changes(facts, facts_of(KINDS[kind]())) == []


def test_a_traced_rate_is_no_fault():
    seen = []

    def step(rate: jax.Array) -> jax.Array:
        seen.append(facts_of(optax.adam(rate)))
        return rate

    jax.jit(step)(jnp.float32(0.1))
    assert seen[0]["chain/0/scale_by_adam/b1"] == 0.9
    assert isinstance(seen[0]["chain/1/scale/step_size"], str)  # the name of a type: there is no number


def test_functions_that_close_over_each_other_end():
    def one(count: Any) -> Any:
        return other(count)

    def other(count: Any) -> Any:
        return one(count)

    assert "chain/1/scale_by_schedule/step_size_fn/scale_by_learning_rate/m" in facts_of(optax.sgd(one))
