"""Laws of `lengths`: whatever its layers, a model gives a padded sequence what it gives the sequence alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models, nn
from fdl.core import Layer
from fdl.models.vit import ClassToken
from fdl.nn.containers import accepted
from tests.laws.case import assert_close, key
from tests.laws.table import ROWS, floats, ints

B, T, V = 4, 5, 7
LENGTHS = np.array([5, 3, 3, 5], np.int32)
REAL = np.arange(T) < LENGTHS[:, None]
WIDTHS = {3: floats(B, T, 3), 4: floats(B, T, 4)}
IDS = ints(B, T, below=V)

BLOCK = models.Block(nn.Attention(4, 2), nn.LayerNorm(4), nn.Conv1d(4, 4, 3), nn.GroupNorm(2, 4))
SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "features": 4}
MIXED: dict[str, Callable[[], Layer]] = {
    "attention among layers": lambda: nn.Serial(nn.Linear(3, 4), nn.Residual(nn.Attention(4, 2)), head=nn.Linear(4, 2)),
    "a Transformer for an LSTM": lambda: fdl.edit(
        models.recurrent_classifier(4, 3, hidden_features=4, vocab_size=V, pool="mean"), "rnn0", nn.Stack(BLOCK, 2)
    ),
    "the same with a maximum": lambda: fdl.edit(
        models.recurrent_classifier(4, 3, hidden_features=4, vocab_size=V, pool="max"), "rnn0", nn.Remat(BLOCK)
    ),
    # Here XLA for CPU rounds a maximum and the step that has it differently: the gradient of `jnp.max` was lost.
    "a convolutional classifier": lambda: nn.Serial(
        nn.Conv1d(3, 4, 3),
        nn.BatchNorm(4),
        jax.nn.tanh,
        nn.WeightNorm(nn.Conv1d(4, 4, 3)),
        nn.InstanceNorm(4),
        nn.Parallel(nn.GlobalMaxPool(), nn.GlobalAvgPool()),
        nn.BatchNorm(4),
        nn.Linear(4, 2),
    ),
    "a classifier": lambda: models.recurrent_classifier(3, 2, hidden_features=4, bidirectional=True),
    "bert": lambda: models.bert(V, 8, **SIZES),
    "gpt2": lambda: models.gpt2(V, 8, **SIZES),
    "llama": lambda: models.llama(V, hidden_features=4, **SIZES),
    "scanned": lambda: models.scanned(models.llama(V, hidden_features=4, **SIZES))[0],
    "post-norm": lambda: models.Block(
        nn.Attention(3, 1), nn.InstanceNorm(3), nn.Linear(3, 3), nn.LayerNorm(3), norm_first=False
    ),
    "class token": lambda: ClassToken(3),
    **{f"TimePool({reduce!r})": lambda reduce=reduce: models.TimePool(reduce) for reduce in ("last", "mean", "max")},
    "TimePool('ends')": lambda: models.TimePool("ends"),
    "conv by hand": lambda: nn.Conv1d(3, 2, 3, padding=((2, 0),)),
    "conv, dilated": lambda: nn.Conv1d(3, 2, 3, dilation=2, padding=2),
    "conv, strided": lambda: nn.Conv1d(3, 2, 3, stride=2),
    "conv, valid": lambda: nn.Conv1d(3, 2, 3, padding="VALID"),
    "conv, even": lambda: nn.Conv1d(3, 2, 4),
}
LAYERS = {**{repr(row.layer): (lambda row=row: row.layer) for row in ROWS if row.batched}, **MIXED}
ACROSS = (nn.Flatten,)  # one vector of all steps, padding too: its size does not depend on a length


@cache
def layer_and_x(name: str) -> tuple[Any, Any, Any, Any]:
    """A layer, its params and state, and a sequence that it takes, None where it takes no sequence."""
    layer = LAYERS[name]()
    params, state = jax.tree.map(np.asarray, fdl.init(layer, key(0)))
    for x in (*WIDTHS.values(), IDS):
        try:
            jax.eval_shape(lambda x=x: layer.apply(params, state, x, key=key(1)))
        except (fdl.InputError, TypeError):
            continue
        return layer, params, state, x
    return layer, params, state, None


def refuses(layer: Any, params: Any, state: Any, x: Any) -> bool:
    try:
        jax.eval_shape(lambda: layer.apply(params, state, x, lengths=LENGTHS))
    except fdl.InputError as error:
        return "changes the number of steps" in str(error)
    return False


def real_part(y: Any, length: int) -> Any:
    """The first steps of y [..., T, F]; y itself where it has no time."""
    return y[..., :length, :] if y.ndim > 2 else y


def padded(x: np.ndarray, fill: float) -> np.ndarray:
    return np.where(REAL[..., None], x, np.float32(fill)) if x.ndim == 3 else np.where(REAL, x, int(min(fill, V - 1)))


@pytest.mark.parametrize("name", LAYERS)
def test_a_padded_sequence_gives_what_it_gives_alone(name: str):
    """Forward and backward; a layer that takes no lengths treats every step alone."""
    layer, params, state, x = layer_and_x(name)
    if x is None:
        pytest.skip("takes no sequence")
    if "Projection(" in name:
        pytest.skip("its input or its output has more axes than steps and features")
    if "lengths" not in accepted(layer):
        whole, _ = layer.apply(params, state, x, key=key(1))
        first, _ = layer.apply(params, state, x[:, :3], key=key(1))
        assert isinstance(layer, ACROSS) or np.allclose(real_part(whole, 3), first, atol=1e-6)
        return
    if refuses(layer, params, state, x):
        y = jax.eval_shape(lambda: layer.apply(params, state, x)[0])
        assert y.shape[:2] != (B, T) or isinstance(layer, nn.MaxPool | nn.AvgPool)
        return
    weights = np.random.default_rng(1).normal(size=(B, T, 8)).astype(np.float32)

    @jax.jit
    def run(params: Any, x: Any, weights: Any, lengths: Any) -> Any:
        def loss(params: Any, x: Any) -> Any:
            y, _ = layer.apply(params, state, x, **({} if lengths is None else {"lengths": lengths}))
            weighed = y * (weights[..., : y.shape[-1]] if y.ndim > 2 else weights[:, 0, : y.shape[-1]])
            if y.ndim > 2 and lengths is not None:
                weighed = jnp.where(REAL[..., None], weighed, 0.0)
            return weighed.sum(), y

        return jax.grad(loss, (0, 1) if x.ndim == 3 else 0, has_aux=True)(params, x)

    gradients, y = run(params, padded(x, 1e3), weights, LENGTHS)
    total = None
    for length in (3, 5):
        rows = length == LENGTHS
        alone, want = run(params, x[rows, :length], weights[rows, :length], None)
        assert_close(real_part(y[..., rows, :, :] if y.ndim > 2 else y[rows], length), want, 1e-4)
        if x.ndim == 3:
            (alone, of_x), within = alone, np.asarray(gradients[1])
            assert_close(within[rows, :length], of_x, 1e-4)
        total = alone if total is None else jax.tree.map(np.add, total, alone)
    if x.ndim == 3:
        assert not np.asarray(gradients[1])[~REAL].any()
        _, unseen = run(params, padded(x, np.nan), weights, LENGTHS)
        assert np.array_equal(real_part(y[1:2], 3), real_part(unseen[1:2], 3))
    assert_close(gradients[0] if x.ndim == 3 else gradients, total, 1e-4)
    if "lengths" in inspect.signature(type(layer).__call__).parameters and not isinstance(layer, models.Decoder):
        assert y.ndim == 2 or not np.asarray(y)[~REAL].any()


def test_statistics_of_a_batch_are_those_of_its_real_steps():
    layer: Any = nn.BatchNorm(3)
    x = WIDTHS[3]
    params, state = fdl.init(layer, key(0))
    want, after = layer.apply(params, state, x[REAL], train=True)
    for fill in (1e3, np.nan):
        y, new = layer.apply(params, state, padded(x, fill), train=True, lengths=LENGTHS)
        assert_close(y[REAL], want, 1e-5)
        assert_close(new, after, 1e-5)
        assert not y[~REAL].any()
    mask = np.arange(B) != 1
    want, after = layer.apply(params, state, x[REAL & mask[:, None]], train=True)
    y, new = layer.apply(params, state, padded(x, 1e3), train=True, lengths=LENGTHS, mask=mask)
    assert_close(y[REAL & mask[:, None]], want, 1e-5)
    assert_close(new, after, 1e-5)


@pytest.mark.parametrize(
    "model", [models.seq2seq(V, V, features=3, hidden_features=4), models.transformer(V, dropout=0.1, **SIZES)]
)
def test_a_padded_source_is_read_as_it_is_alone(model: Any):
    params, _ = fdl.init(model, key(0))
    target = IDS[:, ::-1].copy()
    y = model(params, (padded(IDS, 0), target), source_lengths=LENGTHS)
    rows = LENGTHS == 3
    assert_close(y[rows], model(params, (IDS[rows, :3], target[rows])), 1e-4)


@pytest.mark.parametrize("layer", [nn.LSTM(4, 2), nn.Attention(4, 2), BLOCK, nn.Conv1d(4, 2, 3), nn.BatchNorm(4)])
def test_a_sequence_of_length_0_is_finite_and_lengths_that_are_none_are_refused(layer: Any):
    params, state = fdl.init(layer, key(0))
    x = np.full_like(WIDTHS[4], np.nan)
    loss = lambda params, n: layer.apply(params, state, x, lengths=n)[0].sum()  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(params, np.zeros(B, np.int32))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))
    for wrong in (np.ones(B + 1, np.int32), np.ones((B, 1), np.int32), np.ones(B, np.float32)):
        with pytest.raises(fdl.InputError, match="lengths"):
            layer.apply(params, state, x, lengths=wrong)
