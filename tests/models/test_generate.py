# pyright: reportArgumentType=false
"""Generation against a loop without a cache, the laws of sampling, and a published text."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models, nn
from fdl.models import generate as generate_text
from fdl.models import sample
from tests.compiling import QUICK
from tests.models.common import ids, lively

V, T, N = 13, 5, 6
SIZES: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "features": 8, "hidden_features": 6}
MODELS = {
    "gpt2": replace(models.gpt2(V, T + N - 1, **SIZES), head=nn.Linear(8, V)),  # tied, it repeats itself
    "llama": models.llama(V, **SIZES),
}
PROMPT = ids(3, T, below=V)


def talkative(model: Any) -> Any:
    """Params with small biases, which would make one token the most probable everywhere."""
    params = lively(model, 1.0)
    return jax.tree_util.tree_map_with_path(lambda path, a: a * (0.1 if path[-1].key == "bias" else 1.0), params)


def greedy_without_cache(model: Any, params: Any, prompt: Any, num_tokens: int) -> np.ndarray:
    """The text grows in an array of fixed length; what is not yet written cannot be seen."""
    forward, length = jax.jit(model, compiler_options=QUICK), prompt.shape[1]
    text = np.concatenate([prompt, np.zeros((len(prompt), num_tokens), np.int32)], 1)[:, :-1]
    tokens = []
    for i in range(num_tokens):
        tokens.append(np.asarray(forward(params, text))[:, length + i - 1].argmax(-1))
        text[:, length + i : length + i + 1] = tokens[-1][:, None]
    return np.stack(tokens, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_greedy_is_the_loop_without_a_cache(name: str):
    model, params = MODELS[name], talkative(MODELS[name])
    want = greedy_without_cache(model, params, PROMPT, N)
    assert len(np.unique(want)) > 2  # a model that says one thing only would agree with anything
    np.testing.assert_array_equal(generate_text(model, params, PROMPT, N), want)
    np.testing.assert_array_equal(generate_text(model, params, PROMPT, N - 2), want[:, : N - 2])


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_prompts_of_different_lengths_go_on_as_each_alone(name: str):
    model, params = MODELS[name], talkative(MODELS[name])
    lengths = np.array([T, 1, 3], np.int32)
    padded = np.where(np.arange(T) < lengths[:, None], PROMPT, -1)
    together = generate_text(model, params, padded, N, lengths=lengths)
    for row, length in enumerate(lengths):
        alone = generate_text(model, params, PROMPT[row : row + 1, :length], N)
        np.testing.assert_array_equal(together[row : row + 1], alone)


@pytest.mark.slow
def test_one_program_serves_every_key_and_every_way_of_sampling():
    model, params = MODELS["gpt2"], talkative(MODELS["gpt2"])
    program = importlib.import_module("fdl.models.generate")._generate
    program.clear_cache()
    draw = lambda seed, t, k, p: np.asarray(  # noqa: E731
        generate_text(model, params, PROMPT, N, key=jax.random.key(seed), temperature=t, top_k=k, top_p=p)
    )
    first = draw(0, 2.0, V, 1.0)
    np.testing.assert_array_equal(draw(0, 2.0, V, 1.0), first)
    assert (draw(1, 2.0, V, 1.0) != first).any()
    greedy = np.asarray(generate_text(model, params, PROMPT, N))
    for same in (draw(2, 1.0, 1, 1.0), draw(3, 0.0, V, 1.0), draw(4, 1e-6, V, 1.0), draw(5, 1.0, V, 1e-6)):
        np.testing.assert_array_equal(same, greedy)
    assert program._cache_size() == 2  # this one, and greedy


@pytest.mark.slow
def test_a_text_is_over_at_the_stop():
    model, params = MODELS["gpt2"], talkative(MODELS["gpt2"])
    free = np.asarray(generate_text(model, params, PROMPT, N))
    stop = int(free[0, 2])
    assert stop not in free[0, :2]
    want = free.copy()
    for row in want:
        at = np.flatnonzero(row == stop)
        row[at[0] if len(at) else N :] = stop
    np.testing.assert_array_equal(generate_text(model, params, PROMPT, N, stop=stop), want)


@pytest.mark.slow
def test_generation_in_bfloat16():
    model = MODELS["llama"]
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), lively(model))
    tokens = generate_text(model, params, PROMPT, 2, key=jax.random.key(0), top_p=0.9)
    assert tokens.dtype == jnp.int32


@pytest.mark.slow
def test_a_translation_from_its_source():
    model = models.transformer(V, **SIZES)
    params = lively(model, 1.0)
    mask = np.arange(T) < np.array([T, 2, 4])[:, None]
    start = np.zeros((3, 1), np.int32)
    got = np.asarray(generate_text(model, params, start, 4, cache=model.start(params, PROMPT, 4, mask=mask)))
    forward = jax.jit(lambda target: model(params, (PROMPT, target), source_mask=mask), compiler_options=QUICK)
    said = np.concatenate([start, got], 1)[:, :-1]
    np.testing.assert_array_equal(forward(said).argmax(-1), got)


@pytest.mark.slow
def test_logits_that_are_nan_say_nothing():
    """An argmax of NaN is 0: a text of zeros would look like an answer."""
    model, params = MODELS["llama"], talkative(MODELS["llama"])
    with pytest.raises(fdl.InputError, match="outside the vocabulary"):
        generate_text(model, params, np.full((1, 2), V), 2)
    short = model.init_cache(3, T + 1)
    generate_text(model, params, PROMPT, 2, cache=short)
    with pytest.raises(fdl.InputError, match="too short"):
        generate_text(model, params, PROMPT, 3, cache=short)


LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.25, 0.05], np.float32))


def drawn(logits: Any, n: int = 4000, **options: Any) -> np.ndarray:
    """The shares of n draws."""
    tokens = sample(jnp.broadcast_to(logits, (n, len(logits))), jax.random.key(0), **options)
    return np.bincount(tokens, minlength=len(logits)) / n


@pytest.mark.parametrize(
    ("options", "probabilities"),
    [
        ({}, [0.1, 0.4, 0.2, 0.25, 0.05]),
        ({"top_k": 2}, [0, 0.4, 0, 0.25, 0]),
        ({"top_p": 0.6}, [0, 0.4, 0, 0.25, 0]),  # 0.4 alone is less than 0.6
        ({"top_p": 0.66}, [0, 0.4, 0.2, 0.25, 0]),
        ({"top_p": 0.0}, [0, 1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0.4, 0, 0.25, 0]),  # of three, 0.65 / 0.85 = 0.76 is enough
        ({"temperature": 0.5}, [0.01, 0.16, 0.04, 0.0625, 0.0025]),
        ({"temperature": 0.5, "top_p": 0.75}, [0, 0.16, 0, 0.0625, 0]),  # 0.58 before the second, 0.81 after it
        ({"temperature": 0.0}, [0, 1, 0, 0, 0]),
    ],
)
def test_draws_have_the_probabilities_asked_for(options: Any, probabilities: list[float]):
    """Four standard deviations of a share of 4000 draws are 0.032 at most."""
    want = np.array(probabilities) / sum(probabilities)
    got = drawn(LOGITS, **options)
    np.testing.assert_allclose(got, want, atol=0.032)
    assert ((got > 0) <= (want > 0)).all()


def test_of_equal_logits_exactly_top_k_stay():
    np.testing.assert_array_equal(drawn(np.zeros(4, np.float32), top_k=2) > 0, [True, True, False, False])
    np.testing.assert_array_equal(drawn(np.zeros(4, np.float32), top_k=1), [1, 0, 0, 0])


def test_forbidden_ids_are_never_drawn():
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    assert drawn(logits, top_p=1.0, top_k=4)[[0, 2]].sum() == 0


def test_what_does_not_go_together_is_refused():
    model, key = MODELS["gpt2"], jax.random.key(0)
    params: Any = {"x": jnp.zeros(1)}
    for arguments, options, message in (
        ((PROMPT, 2), {"top_k": 3}, "pass key="),
        ((PROMPT[:, :0], 2), {}, "T >= 1"),
        ((PROMPT * 1.0, 2), {}, "ids"),
        ((PROMPT, 0), {}, "num_tokens"),
        ((PROMPT, 2), {"lengths": np.array([0, 1, 1])}, "length 0 at index 0 is outside 1..5"),
        ((PROMPT, 2), {"lengths": np.array([1, 1])}, r"lengths \[3\]"),
        ((PROMPT, N + 1), {}, "ends at 10"),
        ((PROMPT, 2), {"lengths": np.array([5, 1, 1]), "cache": {}}, "do not go with a cache"),
        ((PROMPT, 2), {"key": key, "temperature": -1.0}, "temperature"),
        ((PROMPT, 2), {"key": key, "top_k": 0}, "top_k"),
        ((PROMPT, 2), {"key": key, "top_p": 1.5}, "top_p"),
    ):
        with pytest.raises(fdl.InputError, match=message):
            generate_text(model, params, *arguments, **options)
    with pytest.raises(fdl.InputError, match="reads a source first"):
        generate_text(models.transformer(V, **SIZES), params, PROMPT, 2)
    recurrent = models.recurrent_language_model(V, features=2, hidden_features=2)
    with pytest.raises(fdl.InputError, match="cannot skip padding"):
        generate_text(recurrent, params, PROMPT, 2, lengths=np.array([1, 2, 3]))
