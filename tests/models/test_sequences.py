# pyright: reportArgumentType=false
"""Recurrent models and sequence to sequence: padding, memory, generation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models, nn
from tests.compiling import QUICK
from tests.models.common import close, ids, lively

V, T = 9, 5
TEXT = ids(3, T, below=V)
LENGTHS = np.array([5, 2, 1], np.int32)


def compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("pool", [None, "mean", "max"])
def test_padding_changes_no_label(pool: Any):
    model = models.recurrent_classifier(
        3, 2, hidden_features=4, num_layers=2, bidirectional=True, vocab_size=V, pool=pool
    )
    params = lively(model)
    together = compiled(model)(params, TEXT, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        close(together[row], compiled(model)(params, TEXT[row : row + 1, :length])[0])


@pytest.mark.slow
def test_the_last_state_of_each_direction_is_what_a_classifier_reads():
    model = models.recurrent_classifier(3, 2, hidden_features=4, bidirectional=True, cell=nn.GRU)
    params, x = lively(model), np.random.default_rng(0).normal(size=(3, T, 3)).astype(np.float32)
    _, carry = model.parts()["rnn0"].unroll(params["rnn0"], x, lengths=LENGTHS)
    states = np.concatenate([carry["forward"], carry["backward"]], -1)
    close(model(params, x, lengths=LENGTHS), states @ params["head"]["kernel"] + params["head"]["bias"])


def test_time_pool_of_nothing_is_zero_and_an_unknown_one_is_refused():
    x = jnp.full((1, 2, 2), jnp.nan)
    for reduce in ("last", "ends", "mean", "max"):
        assert models.TimePool(reduce)({}, x, lengths=jnp.array([0])).tolist() == [[0.0, 0.0]]
    with pytest.raises(fdl.InputError, match="reduce"):
        models.TimePool("first")  # pyright: ignore[reportArgumentType]
    with pytest.raises(fdl.InputError, match="at least one layer"):
        models.recurrent_classifier(3, 2, hidden_features=4, num_layers=0)


@pytest.mark.slow
def test_a_recurrent_language_model_decodes_to_the_logits_of_the_whole_and_generates_them():
    model = models.recurrent_language_model(V, features=3, hidden_features=6, num_layers=2)
    params = lively(model, 1.0)
    whole = compiled(model)(params, TEXT)
    first, cache = model.decode(params, TEXT[:, :3], model.init_cache(3, T))
    close(jnp.concatenate([first, model.decode(params, TEXT[:, 3:], cache)[0]], 1), whole)
    said = np.asarray(models.generate(model, params, TEXT, 4))
    text = np.concatenate([TEXT, said], 1)
    np.testing.assert_array_equal(compiled(model)(params, text)[:, T - 1 : -1].argmax(-1), said)
    drawn = models.generate(model, params, TEXT, 4, key=jax.random.key(0), temperature=1.0)
    np.testing.assert_array_equal(
        drawn, models.generate(model, params, TEXT, 4, key=jax.random.key(0), temperature=1.0)
    )


@pytest.mark.slow
def test_seq2seq_ignores_padding_and_sees_no_later_token():
    model = models.seq2seq(V, 7, features=3, hidden_features=4)
    params, target = lively(model), ids(3, 4, below=6, seed=1)
    together = compiled(model)(params, (TEXT, target), source_lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone = compiled(model)(params, (TEXT[row : row + 1, :length], target[row : row + 1]))
        close(together[row], alone[0])
    changed = compiled(model)(params, (TEXT, target + np.array([0, 0, 0, 1], np.int32)), source_lengths=LENGTHS)
    close(changed[:, :3], together[:, :3], 0)
    assert np.abs(changed[:, 3] - together[:, 3]).max() > 1e-3
    other = (TEXT + np.array([1, 0, 0, 0, 0], np.int32)) % V
    assert np.abs(compiled(model)(params, (other, target), source_lengths=LENGTHS) - together).min(-1).max() > 1e-3


@pytest.mark.slow
def test_seq2seq_translates_as_it_scores():
    model = models.seq2seq(V, 7, features=3, hidden_features=4)
    params, start = lively(model, 1.0), np.zeros((3, 1), np.int32)
    said = np.asarray(models.generate(model, params, start, 4, cache=model.start(params, TEXT, lengths=LENGTHS)))
    read = np.concatenate([start, said], 1)[:, :-1]
    logits = compiled(model)(params, (TEXT, read), source_lengths=LENGTHS)
    np.testing.assert_array_equal(logits.argmax(-1), said)
