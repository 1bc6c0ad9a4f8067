"""Proximal policy optimisation balances a pole: the environment is JAX, and lives in the task's `state`.

    fdl run experiments/ppo.py
    fdl run experiments/ppo.py --num-envs 16 --seed 1

One step of the engine is one iteration of PPO (Schulman et al., 2017, algorithm 1): all environments play `horizon`
moves, advantages are estimated (GAE; Schulman et al., 2016), and epochs of minibatches descend on the clipped
surrogate. There is no data (`train=None`). The environment is CartPole (Barto, Sutton & Anderson, 1983, with the
constants of Gymnasium's CartPole-v1): a reward of 1 a move, until the pole leans by 12 degrees, the cart is 2.4 away
from the middle, or 500 moves are over. It counts as solved at a mean return of 475.

Measured, seeds 0 to 119 in one sweep, after 307 200 moves: each has a mean return of 500.0 in 100 test episodes, and of
500 in training, where actions are drawn from the policy. With a discount of 0.99 two of seeds 0 to 39 end below 475
(238 and 472): the values are larger, and their errors as well. In the sweep a seed takes 3 s of
processor time (2 x86-64 cores, CPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import fdl
from fdl import nn
from fdl.initializers import Orthogonal

LIMIT = 500
"""Moves after which an episode is cut off."""


@dataclass(frozen=True)
class Config:
    num_envs: int = 32
    """Environments played side by side."""
    horizon: int = 64
    """Moves in each of them a step."""
    num_epochs: int = 10
    """Passes over the moves of a step."""
    num_minibatches: int = 4
    """Updates a pass."""
    discount: float = 0.98
    """What a reward one move later is worth."""
    trace: float = 0.95
    """GAE's lambda: 0 trusts the values, 1 the returns."""
    clip: float = 0.2
    """How far from 1 the ratio of new to old probability counts."""
    learning_rate: float = 1e-3
    """Adam's, at the start; it falls to 0 along a line."""
    num_steps: int = 150
    """Iterations."""


def build(config: Config) -> fdl.Experiment:
    updates = config.num_steps * config.num_epochs * config.num_minibatches
    adam = optax.adam(optax.linear_schedule(config.learning_rate, 0.0, updates), eps=1e-5)
    return fdl.Experiment(
        task=ppo(config),
        optimizer=optax.chain(optax.clip_by_global_norm(0.5), adam),
        evaluate={"test": fdl.data.Full()},
        num_steps=config.num_steps,
    )


def ppo(config: Config) -> fdl.Task:
    actor, critic = mlp(2, 0.01), mlp(1, 1.0)
    both = nn.Serial(actor=actor, critic=critic)  # never called: it names the parameters of the two

    def init(key: jax.Array) -> tuple[Any, Any]:
        x, time = reset(fdl.fold(key, "env"), config.num_envs), jnp.zeros(config.num_envs, jnp.int32)
        return fdl.init(both, key)[0], {"x": x, "time": time, "return": jnp.zeros(config.num_envs)}

    def value(params: Any, x: jax.Array) -> jax.Array:
        return critic(params["critic"], x)[..., 0]

    def play(params: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        """One move in every environment; those that are over start anew. state["return"]: of the last episode."""
        logits = actor(params["actor"], state["x"])
        action = jax.random.categorical(fdl.fold(key, "action"), logits)
        x, terminated = move(state["x"], action)
        time = state["time"] + 1
        done = terminated | (time == LIMIT)
        made = {"x": state["x"], "action": action, "nll": fdl.losses.softmax_cross_entropy(logits, action)}
        made |= {"value": value(params, state["x"]), "done": done}
        # An episode cut off at the limit is not over for the critic: the value of what would follow counts.
        made["next_value"] = jnp.where(terminated, 0.0, value(params, x))
        x = jnp.where(done[:, None], reset(fdl.fold(key, "reset"), len(x)), x)
        returns = jnp.where(done, time.astype(jnp.float32), state["return"])
        return {"x": x, "time": jnp.where(done, 0, time), "return": returns}, made

    def surrogate(params: Any, moves: Any) -> jax.Array:
        nll = fdl.losses.softmax_cross_entropy(actor(params["actor"], moves["x"]), moves["action"])
        ratio, advantage = jnp.exp(moves["nll"] - nll), moves["advantage"]
        normal = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        gain = jnp.minimum(ratio * normal, clipped * normal)  # equation 7
        misfit = fdl.losses.squared_error(value(params, moves["x"]), moves["value"] + advantage)
        return (misfit / 2 - gain).mean()

    def step(params: Any, state: Any, opt_state: Any, batch: Any, *, key: jax.Array, optimizer: Any) -> Any:
        keys = jax.random.split(fdl.fold(key, "play"), config.horizon)
        state, moves = lax.scan(lambda state, key: play(params, state, key), state, keys)
        moves["advantage"] = advantages(moves["value"], moves["next_value"], moves["done"], config)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), moves)

        def descend(carry: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
            params, opt_state = carry
            loss, grads = jax.value_and_grad(surrogate)(params, jax.tree.map(lambda x: x[rows], flat))
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        keys = jax.random.split(fdl.fold(key, "order"), config.num_epochs)
        order = jax.vmap(lambda key: jax.random.permutation(key, config.num_envs * config.horizon))(keys)
        rows = order.reshape(config.num_epochs * config.num_minibatches, -1)
        (params, opt_state), losses = lax.scan(descend, (params, opt_state), rows)
        return params, state, opt_state, {"loss": losses.mean(), "return": state["return"]}

    def test(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        """The returns of 100 episodes of the better action each time."""
        del state, batch, train

        def go(carry: Any, _: Any) -> tuple[Any, jax.Array]:
            x, alive = carry
            x, terminated = move(x, actor(params["actor"], x).argmax(-1))
            return (x, alive & ~terminated), alive

        start = reset(key, 100), jnp.ones(100, bool)
        returns = lax.scan(go, start, None, LIMIT)[1].sum(0).astype(jnp.float32)
        return fdl.Outcome(-returns, metrics={"return": returns})

    return fdl.Task(init, test, step, specs=both.specs())


def mlp(size: int, scale: float) -> fdl.Layer:
    hidden = Orthogonal(2**0.5)
    return nn.Serial(
        nn.Linear(4, 64, kernel_init=hidden), jnp.tanh, nn.Linear(64, 64, kernel_init=hidden), jnp.tanh,
        nn.Linear(64, size, kernel_init=Orthogonal(scale)),
    )  # fmt: skip


def advantages(value: jax.Array, next_value: jax.Array, done: jax.Array, config: Config) -> jax.Array:
    """GAE, A_t = d_t + discount * trace * A_t+1 within an episode, d_t = 1 + discount * v_t+1 - v_t: all [T, envs]."""

    def back(later: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        error, done = now
        advantage = error + config.discount * config.trace * jnp.where(done, 0.0, later)
        return advantage, advantage

    errors = 1 + config.discount * next_value - value
    return lax.scan(back, jnp.zeros_like(errors[0]), (errors, done), reverse=True)[1]


def reset(key: jax.Array, count: int) -> jax.Array:
    """Position, velocity, angle and angular velocity of `count` new episodes, [count, 4]."""
    return jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05)


def move(x: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Euler's step of 0.02 s under a force of 10 N to the left (0) or right (1); and whether that ends the episode."""
    gravity, cart, pole, half_length, dt = 9.8, 1.0, 0.1, 0.5, 0.02
    _, velocity, angle, spin = jnp.moveaxis(x, -1, 0)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    push = (jnp.where(action == 1, 10.0, -10.0) + pole * half_length * spin**2 * sin) / (cart + pole)
    turn = (gravity * sin - cos * push) / (half_length * (4 / 3 - pole * cos**2 / (cart + pole)))
    pull = push - pole * half_length * turn * cos / (cart + pole)
    rates = jnp.stack([velocity, pull, spin, turn], -1)
    x = x + dt * rates
    return x, (jnp.abs(x[..., 0]) > 2.4) | (jnp.abs(x[..., 2]) > 12 * 2 * jnp.pi / 360)
