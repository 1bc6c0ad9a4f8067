"""What an introduction to deep learning teaches, checked on this library: worked numbers and the laws of descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import losses, nn

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 3))
Y = X @ np.array([1.0, -2.0, 0.5]) + RANDOM.normal(size=24)
W = np.array([0.3, 0.2, -0.1])


def descend(optimizer: Any, num_steps: int, *, x: Any = X, y: Any = Y, w: Any = W, **settings: Any) -> Any:
    """The weights after steps on the mean squared error of x @ w, in the dtype of `w`; x and y follow."""

    def objective(w: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        return fdl.Outcome(losses.squared_error(batch["x"] @ w, batch["y"]))

    task = fdl.Task(lambda key: (jnp.asarray(w), {}), objective)
    data = fdl.data.Arrays(x=np.asarray(x, w.dtype), y=np.asarray(y, w.dtype))
    return np.asarray(fdl.run(fdl.Experiment(task, optimizer, data, num_steps=num_steps, **settings)).params)


def gradient(w: np.ndarray, x: np.ndarray = X, y: np.ndarray = Y) -> np.ndarray:
    """The derivative by w of the mean of (x @ w - y)^2, by hand."""
    return 2 * x.T @ (x @ w - y) / len(x)


def test_the_sigmoid_saturates():
    np.testing.assert_allclose(jax.nn.sigmoid(jnp.array([-5.0, 0.0, 5.0])), [0.0067, 0.5, 0.9933], atol=5e-5)


def test_softmax_sums_to_one_keeps_the_order_and_favours_the_largest():
    logits = jnp.array([1.3, 5.1, 2.2, 0.7, 1.1])
    probabilities = jax.nn.softmax(logits)
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-6)
    assert jnp.argsort(probabilities).tolist() == jnp.argsort(logits).tolist() == [3, 4, 0, 2, 1]
    assert round(float(probabilities[1]), 2) == 0.90


def test_cross_entropy_takes_the_natural_logarithm():
    logits = jnp.log(jnp.array([0.3, 0.4, 0.3]))
    assert float(losses.softmax_cross_entropy(logits, jnp.array(1))) == pytest.approx(-np.log(0.4), abs=1e-6)
    assert round(float(losses.softmax_cross_entropy(logits, jnp.array(1))), 3) == 0.916


@pytest.mark.parametrize(
    ("probability", "label", "nats"), [(0.001, 0, 0.001), (0.001, 1, 6.908), (0.999, 0, 6.908), (0.999, 1, 0.001)]
)
def test_binary_cross_entropy_of_confidence_right_and_wrong(probability, label, nats):
    logit = jnp.float32(np.log(probability / (1 - probability)))
    assert float(losses.sigmoid_binary_cross_entropy(logit, jnp.array(label))) == pytest.approx(nats, abs=5e-4)


def test_the_documentation_explains_a_printed_three():
    """-log10(0.001) is 3: texts that print it took the other logarithm, and the docstring says so."""
    assert "3 took log10" in (losses.sigmoid_binary_cross_entropy.__doc__ or "")


def test_two_linear_layers_without_activation_are_one():
    model = nn.Serial(nn.Linear(4, 8), nn.Linear(8, 3))
    params = jax.tree.map(lambda p: p + 0.1, fdl.init(model, jax.random.key(0))[0])  # biases that are not 0
    first, second = params["0"], params["1"]
    one = {
        "kernel": first["kernel"] @ second["kernel"],
        "bias": first["bias"] @ second["kernel"] + second["bias"],
    }
    x = jax.random.normal(jax.random.key(1), (16, 4))
    np.testing.assert_allclose(model(params, x), nn.Linear(4, 3)(one, x), atol=1e-5)


def test_an_activation_between_them_is_what_makes_depth():
    """A straight line satisfies f(x) + f(-x) = 2 f(0); with a ReLU inside it no longer does."""
    model = nn.Serial(nn.Linear(4, 8), jax.nn.relu, nn.Linear(8, 3))
    params, _ = fdl.init(model, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (16, 4))
    assert float(jnp.abs(model(params, x) + model(params, -x) - 2 * model(params, 0 * x)).max()) > 0.1


def gradients_of_a_run(num_steps: int, batch_size: int | None) -> np.ndarray:
    """The mean over the engine's own batches of the gradient at W: an optimizer that adds up and never moves."""

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        return fdl.Outcome(losses.squared_error(batch["x"] @ params["w"], batch["y"]))

    def add_up(grads: Any, params: Any) -> Any:
        return {"w": jnp.zeros_like(grads["w"]), "sum": grads["w"]}

    task = fdl.Task(lambda key: ({"w": jnp.asarray(W), "sum": jnp.zeros_like(W)}, {}), objective)
    data = fdl.data.Arrays(x=X, y=Y)
    experiment = fdl.Experiment(task, optax.stateless(add_up), data, batch_size=batch_size, num_steps=num_steps)
    return np.asarray(fdl.run(experiment).params["sum"]) / num_steps


@pytest.mark.parametrize("batch_size", [None, 24, 4, 1], ids=["batch", "all shuffled", "mini-batch", "stochastic"])
def test_the_mean_gradient_over_an_epoch_is_that_of_the_full_batch(batch_size):
    with jax.enable_x64(True):
        mean = gradients_of_a_run(len(X) // (batch_size or len(X)), batch_size)
    np.testing.assert_allclose(mean, gradient(W), rtol=1e-12)


def test_one_mini_batch_is_not_the_full_batch():
    """Otherwise the law above would say nothing: a single batch of 4 is off by more than a tenth."""
    with jax.enable_x64(True):
        one = gradients_of_a_run(1, batch_size=4)
    assert np.abs(one / gradient(W) - 1).max() > 0.1


def test_batches_that_do_not_divide_the_data_are_right_in_expectation():
    """24 examples in batches of 5 leave 4 out of each epoch, others every time: no bias, whatever the size."""
    num_epochs = 1000
    with jax.enable_x64(True):
        mean = gradients_of_a_run(num_epochs * 4, batch_size=5)
    each = 2 * X * (X @ W - Y)[:, None]
    standard_error = each.std(0) / np.sqrt(num_epochs * 20)  # if drawn with replacement; without it is smaller
    assert (np.abs(mean - gradient(W)) < 4 * standard_error).all()


def test_a_step_is_exactly_minus_learning_rate_times_gradient():
    """On halves and quarters floats round nothing, so three steps must agree to the bit."""
    x = np.array([[1, 2], [-1, 1], [0, 2], [2, -1]], np.float32)
    y, w = np.array([1, 0, -2, 3], np.float32), np.array([0.5, -0.25], np.float32)
    expected = w
    for _ in range(3):
        expected = expected - np.float32(0.125) * gradient(expected, x, y)
    np.testing.assert_array_equal(descend(optax.sgd(0.125), 3, x=x, y=y, w=w), expected)


Rule = Callable[[np.ndarray], np.ndarray]


def sgd(rate: float) -> Rule:
    return lambda g: -rate * g


def momentum(rate: float, mu: float = 0.9) -> Rule:
    """Sutskever et al., On the importance of initialization and momentum, 2013, equations 1 and 2."""
    v = np.zeros(3)

    def update(g: np.ndarray) -> np.ndarray:
        v[:] = mu * v - rate * g
        return v

    return update


def rmsprop(rate: float, decay: float = 0.9) -> Rule:
    """Tieleman & Hinton, lecture 6.5 of Neural networks for machine learning, 2012."""
    mean_square = np.zeros(3)

    def update(g: np.ndarray) -> np.ndarray:
        mean_square[:] = decay * mean_square + (1 - decay) * g**2
        return -rate * g / np.sqrt(mean_square)

    return update


def adam(rate: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Rule:
    """Kingma & Ba, Adam, 2015, algorithm 1."""
    m, v, t = np.zeros(3), np.zeros(3), np.zeros(())

    def update(g: np.ndarray) -> np.ndarray:
        t[...] += 1
        m[:] = beta1 * m + (1 - beta1) * g
        v[:] = beta2 * v + (1 - beta2) * g**2
        return -rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)

    return update


RULES = {
    "sgd": (optax.sgd(0.01), sgd(0.01)),
    "momentum": (optax.sgd(0.01, momentum=0.9), momentum(0.01)),
    "rmsprop": (optax.rmsprop(0.01, eps=0.0), rmsprop(0.01)),  # the lecture has no epsilon
    "adam": (optax.adam(0.01), adam(0.01)),
}


@pytest.mark.parametrize("name", RULES)
def test_an_optimizer_follows_its_paper_for_100_steps(name):
    optimizer, rule = RULES[name]
    expected = W.copy()
    for _ in range(100):
        expected = expected + rule(gradient(expected))
    with jax.enable_x64(True):
        got = descend(optimizer, 100)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert np.abs(got - W).max() > 0.5  # it went somewhere
