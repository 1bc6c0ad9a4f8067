"""A Wasserstein GAN with gradient penalty: five updates of the critic to one of the generator, inside one `step=`.

    fdl run experiments/gan.py
    fdl run experiments/gan.py --critic-updates 1

Two players, two losses, no common gradient: the task gives the whole update instead of an objective (Gulrajani et al.,
2017, algorithm 1), and its objective only judges samples. The engine has one optimizer; `players` makes one out of two,
whose update moves those parts alone that it is handed gradients of. A masked optimizer (`optax.partition`) given zeros
would not do: Adam's averages of the player that waits would decay, and its steps go on. The task makes its own data
(`train=None`): points around eight centres on a circle, which a generator that collapses would not all visit.

Measured, seeds 0 to 4, of 10 000 samples each: all 8 modes covered, and 94.6 % +- 1.1 % of the samples good (mean and
standard deviation), within 3 standard deviations of a centre, where 98.9 % of the data are. With one critic update the
modes are covered as well, and 91.1 % +- 2.6 % good. A seed takes 17 s of processor time (2 x86-64 cores, CPU). The
weight of the penalty was chosen among 0.1, 1 and 10 on seeds 0 and 1; 10, the paper's for images, is too slow here.
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

MODES, RADIUS, SPREAD = 8, 2.0, 0.1


@dataclass(frozen=True)
class Config:
    critic_updates: int = 5
    """Updates of the critic to one of the generator."""
    penalty: float = 0.1
    """How much the squared distance of the critic's slope from 1 counts."""
    learning_rate: float = 1e-3
    """Of both players' Adam, at the start; it falls to 0 along a line."""
    batch_size: int = 128
    """Points an update."""
    width: int = 64
    """Units of the two hidden layers of each player."""
    num_steps: int = 10_000
    """Updates of the generator."""


def build(config: Config) -> fdl.Experiment:
    def adam(updates: int) -> optax.GradientTransformation:
        return optax.adam(optax.linear_schedule(config.learning_rate, 0.0, updates), b1=0.0, b2=0.9)

    return fdl.Experiment(
        task=wgan(config),
        optimizer=players(generator=adam(config.num_steps), critic=adam(config.num_steps * config.critic_updates)),
        evaluate={"samples": fdl.data.Full()},
        num_steps=config.num_steps,
    )


def players(**optimizers: optax.GradientTransformation) -> optax.GradientTransformation:
    """One optimizer for several parts of the parameters: a part without gradients in an update keeps its state."""

    def init(params: Any) -> Any:
        return {name: optimizer.init(params[name]) for name, optimizer in optimizers.items()}

    def update(grads: Any, states: Any, params: Any) -> tuple[Any, Any]:
        moved = {name: optimizers[name].update(grads[name], states[name], params[name]) for name in grads}
        return {name: pair[0] for name, pair in moved.items()}, states | {name: pair[1] for name, pair in moved.items()}

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def wgan(config: Config) -> fdl.Task:
    width = config.width
    generator, critic = (
        nn.Serial(nn.Linear(2, width), jax.nn.relu, nn.Linear(width, width), jax.nn.relu, nn.Linear(width, size))
        for size in (2, 1)
    )
    both = nn.Serial(generator=generator, critic=critic)  # never called: it names the parameters of the two

    def generate(params: Any, key: jax.Array, count: int) -> jax.Array:
        return generator(params["generator"], jax.random.normal(key, (count, 2)))

    def critic_loss(part: Any, params: Any, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Algorithm 1, lines 4 to 7; also the estimate of the Wasserstein distance."""
        real = points(fdl.fold(key, "real"), config.batch_size)
        fake = generate(params, fdl.fold(key, "fake"), config.batch_size)
        slope = gradient_penalty(lambda x: critic(part, x)[..., 0], real, fake, fdl.fold(key, "between"))
        distance = critic(part, real).mean() - critic(part, fake).mean()
        return config.penalty * slope.mean() - distance, distance

    def generator_loss(part: Any, params: Any, key: jax.Array) -> jax.Array:
        return -critic(params["critic"], generate({"generator": part}, key, config.batch_size)).mean()

    def step(params: Any, state: Any, opt_state: Any, batch: Any, *, key: jax.Array, optimizer: Any) -> Any:
        def move(name: str, params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
            updates, opt_state = optimizer.update({name: grads}, opt_state, params)
            return params | {name: optax.apply_updates(params[name], updates[name])}, opt_state

        def teach(carry: Any, number: jax.Array) -> tuple[Any, jax.Array]:
            params, opt_state = carry
            draw = fdl.fold(key, "critic", number)
            grads, distance = jax.grad(critic_loss, has_aux=True)(params["critic"], params, draw)
            return move("critic", params, opt_state, grads), distance

        (params, opt_state), distances = lax.scan(teach, (params, opt_state), jnp.arange(config.critic_updates))
        grads = jax.grad(generator_loss)(params["generator"], params, fdl.fold(key, "generator"))
        params, opt_state = move("generator", params, opt_state, grads)
        return params, state, opt_state, {"distance": distances[-1]}

    def judge(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        """Distance to the nearest centre; samples within 3 standard deviations are good, modes they reach covered."""
        del state, batch, train
        samples = generate(params, key, 10_000)
        distances = jnp.linalg.norm(samples[:, None] - centres(), axis=-1)
        good = distances < 3 * SPREAD
        covered = (good.mean(0) > 0.25 / MODES).sum().astype(jnp.float32)
        return fdl.Outcome(distances.min(-1), metrics={"good": good.any(-1).astype(jnp.float32), "modes": covered})

    return fdl.Task(lambda key: fdl.init(both, key), judge, step, specs=both.specs())


def gradient_penalty(critic: Any, real: jax.Array, fake: jax.Array, key: jax.Array) -> jax.Array:
    """(|gradient of the critic| - 1)^2 at a random point between each real and fake one: [B] (equation 3)."""
    share = jax.random.uniform(key, (len(real), 1))
    slopes = jax.vmap(jax.grad(critic))(share * real + (1 - share) * fake)
    return jnp.square(jnp.linalg.norm(slopes, axis=-1) - 1)


def centres() -> jax.Array:
    angles = jnp.arange(MODES) * (2 * jnp.pi / MODES)
    return RADIUS * jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)


def points(key: jax.Array, count: int) -> jax.Array:
    """Draws from the mixture of Gaussians, [count, 2]."""
    mode = jax.random.randint(fdl.fold(key, "mode"), (count,), 0, MODES)
    return centres()[mode] + SPREAD * jax.random.normal(fdl.fold(key, "noise"), (count, 2))
