"""Initial values keep signals alive: Xavier through tanh, He through ReLU; sigmoids let gradients vanish."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import initializers, nn

DEPTH, WIDTH, BATCH = 20, 1024, 128


def second_moments(activation, kernel_init, scale: float) -> np.ndarray:
    """E[x^2] of the input of each of the 20 layers, and of the last output, averaged over three draws."""
    model = nn.Linear(WIDTH, WIDTH, kernel_init=kernel_init)

    @jax.jit
    def propagate(key):
        def through(x, i):
            x = activation(model(fdl.init(model, fdl.fold(key, i))[0], x))
            return x, jnp.square(x).mean()

        x = scale * jax.random.normal(fdl.fold(key, "x"), (BATCH, WIDTH))
        return jnp.append(jax.lax.scan(through, x, jnp.arange(DEPTH))[1], jnp.square(x).mean())

    moments = np.mean([propagate(jax.random.key(seed)) for seed in range(3)], axis=0)
    return np.roll(moments, 1)  # the input's first


@pytest.mark.parametrize("kernel_init", [initializers.XavierNormal(), initializers.XavierUniform()])
def test_xavier_keeps_the_variance_through_twenty_tanh_layers(kernel_init):
    """In the linear regime of Glorot & Bengio (2010): of a variance v tanh takes 2 v^2, which is 2 % at 0.01."""
    moments = second_moments(jnp.tanh, kernel_init, scale=0.1)
    ratios = moments[1:] / moments[:-1]
    assert ((ratios > 0.9) & (ratios < 1.1)).all()


@pytest.mark.parametrize("kernel_init", [initializers.HeNormal(), initializers.HeUniform()])
def test_he_keeps_the_second_moment_through_twenty_relu_layers(kernel_init):
    """The first layer's input has both signs and loses nothing; every later E[x^2] is that of the one before."""
    moments = second_moments(jax.nn.relu, kernel_init, scale=1.0)
    ratios = moments[1:] / moments[:-1]
    assert ((ratios > 0.9) & (ratios < 1.1)).all()


def test_xavier_through_relu_halves_it_each_time():
    """Which is why He has the factor 2."""
    moments = second_moments(jax.nn.relu, initializers.XavierNormal(), scale=1.0)
    np.testing.assert_allclose(moments[1:] / moments[:-1], 0.5, rtol=0.1)


@pytest.mark.slow
def test_gradients_vanish_in_a_deep_sigmoid_stack_and_not_with_relu_and_he():
    """A sigmoid's slope is at most 1/4; over 19 layers that is 4^-19 = 4e-12 of the gradient at the top."""
    from experiments.vanishing_gradients import Config, gradient_norms

    sigmoid, relu = (gradient_norms(Config(activation)) for activation in ("sigmoid", "relu"))
    assert sigmoid[0] / sigmoid[-1] < 1e-9
    assert 0.1 < relu[0] / relu[-1] < 10
