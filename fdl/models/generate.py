"""Text from a language model, token by token, as one compiled loop over its memory."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from fdl.core import Tree, fold
from fdl.errors import InputError
from fdl.ops.norm import widen
from fdl.shapes import check_range


class LanguageModel(Protocol):
    """What `generate` needs: a `Decoder`, a recurrent language model, or a sequence-to-sequence model."""

    def decode(self, params: Tree, x: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        """(logits [B, T, vocabulary], cache) of the next ids x [B, T]."""
        ...


def generate(
    model: LanguageModel,
    params: Tree,
    prompt: jax.Array,
    num_tokens: int,
    *,
    key: jax.Array | None = None,
    temperature: float | jax.Array | None = None,
    top_k: int | jax.Array | None = None,
    top_p: float | jax.Array | None = None,
    lengths: jax.Array | None = None,
    stop: int | None = None,
    cache: Any = None,
) -> jax.Array:
    """token_i ~ softmax(logits / temperature) given all tokens before it, cut to the top_k and to the top_p.

    Args:
      model: see `LanguageModel`.
      params: its parameters.
      prompt: ids [B, T], T >= 1.
      num_tokens: how many to add.
      key: None = no randomness: always the most probable token ("greedy").
      temperature, top_k, top_p: see `sample`. Other values of them, or another key, compile nothing anew.
      lengths: integers [B], where the prompts are padded on the right to a common T; for a `Decoder`.
      stop: a token after which a text is over; the rest of its row is filled with it, and the loop ends with the last
        text.
      cache: what the model has read already, with room for T + num_tokens - 1 more: for models that translate,
        `model.start(params, source)`. Unless given `model.init_cache`.

    Returns:
      The new tokens, int32 [B, num_tokens]. The first n are the same however many are asked for.

    Raises:
      InputError: a prompt that is empty or no integers, lengths outside 1 ... T, options that do not go together;
        logits that are NaN (of which an argmax would be 0), unless called inside a compiled program.

    >>> import fdl
    >>> from fdl.models import gpt2
    >>> model = gpt2(50, 16, num_layers=1, num_heads=2, features=8)
    >>> params, _ = fdl.init(model, jax.random.key(0))
    >>> generate(model, params, jnp.array([[3, 1, 4]]), 5, key=jax.random.key(1), top_k=10).shape
    (1, 5)
    """
    prompt, lengths = jnp.asarray(prompt), None if lengths is None else jnp.asarray(lengths)
    _check(model, prompt, num_tokens, lengths, cache, stop)
    if key is None and any(option is not None for option in (temperature, top_k, top_p)):
        raise InputError("generate: temperature, top_k and top_p draw at random; pass key=, or none of them for greedy")
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    sampling = {name: value for name, value in options.items() if value is not None}
    _check_sampling(**sampling)
    if cache is None:
        dtype = jax.tree.leaves(params)[0].dtype
        cache = model.init_cache(prompt.shape[0], prompt.shape[1] + num_tokens - 1, dtype)  # pyright: ignore
    tokens, lost = _generate(model, params, prompt, num_tokens, key, sampling, lengths, stop, cache)
    if not isinstance(lost, Tracer) and bool(lost):
        raise InputError(
            "generate: the logits became NaN: ids of the prompt are outside the vocabulary, the cache is too short, or "
            "the params are NaN"
        )
    return tokens


def sample(
    logits: jax.Array,
    key: jax.Array | None = None,
    *,
    temperature: float | jax.Array = 1.0,
    top_k: int | jax.Array | None = None,
    top_p: float | jax.Array | None = None,
) -> jax.Array:
    """An id drawn from softmax(logits / temperature), cut to its most probable ids.

    Args:
      logits: [..., V].
      key: None = no randomness: the most probable id.
      temperature: 0 is the most probable id as well. It acts before the cuts.
      top_k: the number of ids that stay (Fan et al., Hierarchical neural story generation, 2018).
      top_p: of those, the fewest with this probability in all stay, at least one (Holtzman et al., The curious case of
        neural text degeneration, 2020). Of ids with equal logits the lower comes first.

    Returns:
      int32 [...].

    Raises:
      InputError: a negative temperature, top_k < 1, top_p outside 0..1.

    >>> sample(jnp.array([0.0, 3.0, 2.0]), jax.random.key(0), top_p=0.5).item()
    1
    """
    _check_sampling(temperature, top_k, top_p)
    logits = widen(logits)
    best = jnp.argmax(logits, -1).astype(jnp.int32)
    if key is None:
        return best
    temperature = jnp.asarray(temperature, logits.dtype)
    # less the largest first, or a small temperature would make them infinite
    scaled = (logits - logits.max(-1, keepdims=True)) / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
    if top_k is None and top_p is None:
        drawn = jax.random.categorical(key, scaled).astype(jnp.int32)
    else:
        drawn = _drawn_from_top(scaled, key, top_k, top_p)
    return jnp.where(temperature > 0, drawn, best)


def _drawn_from_top(logits: jax.Array, key: jax.Array, top_k: Any, top_p: Any) -> jax.Array:
    order = jnp.argsort(logits, axis=-1, descending=True).astype(jnp.int32)
    ranked, rank = jnp.take_along_axis(logits, order, -1), jnp.arange(logits.shape[-1])
    if top_k is not None:
        ranked = jnp.where(rank < top_k, ranked, -jnp.inf)
    if top_p is not None:
        probability = jax.nn.softmax(ranked)
        before = jnp.cumsum(probability, -1) - probability
        ranked = jnp.where((before < top_p) | (rank == 0), ranked, -jnp.inf)
    return jnp.take_along_axis(order, jax.random.categorical(key, ranked)[..., None], -1)[..., 0]


@partial(jax.jit, static_argnames=("model", "num_tokens"))
def _generate(
    model: LanguageModel,
    params: Tree,
    prompt: jax.Array,
    num_tokens: int,
    key: jax.Array | None,
    sampling: dict[str, Any],
    lengths: jax.Array | None,
    stop: jax.Array | None,
    cache: Any,
) -> tuple[jax.Array, jax.Array]:
    """The tokens, and whether a logit was NaN."""
    batch, T = prompt.shape
    where: dict[str, Any] = {}
    if lengths is not None:
        prompt, where = _padded_left(prompt, lengths, T + num_tokens - 1)

    def choose(logits: jax.Array, i: Any, done: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = sample(logits[:, -1], fold(key, i), **sampling)
        if stop is None:
            return token, done
        return jnp.where(done, stop, token), done | (token == stop)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        i, token, done, cache, tokens, lost = carry
        here = where | ({} if lengths is None else {"positions": (lengths + i - 1)[:, None]})
        logits, cache = model.decode(params, token[:, None], cache, **here)
        token, done = choose(logits, i, done)
        return i + 1, token, done, cache, tokens.at[:, i].set(token), lost | jnp.isnan(logits).any()

    logits, cache = model.decode(params, prompt, cache, **where)
    where.pop("positions", None)
    token, done = choose(logits, 0, jnp.zeros(batch, bool))
    tokens = jnp.zeros((batch, num_tokens), jnp.int32).at[:, 0].set(token)
    if stop is not None:
        tokens = tokens.at[:, 1:].set(stop)
    carry = jnp.ones((), jnp.int32), token, done, cache, tokens, jnp.isnan(logits[:, -1]).any()
    return lax.while_loop(lambda carry: (carry[0] < num_tokens) & ~carry[2].all(), step, carry)[4:]


def _padded_left(prompt: jax.Array, lengths: jax.Array, length: int) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The prompts moved to the right, so that the next token of all is in one column; what of the cache they may see,
    and the positions of their tokens.
    """
    T = prompt.shape[1]
    empty = (T - lengths)[:, None]
    moved = jnp.take_along_axis(prompt, (jnp.arange(T) - empty) % T, 1)
    moved = jnp.where(jnp.arange(T) >= empty, moved, 0)  # padding need not be in the vocabulary
    positions = jnp.maximum(jnp.arange(T) - empty, 0)
    return moved, {"mask": jnp.arange(length) >= empty, "positions": positions}


def _check_sampling(temperature: Any = 1.0, top_k: Any = None, top_p: Any = None) -> None:
    check_range("sample", "temperature", temperature, 0.0, float("inf"))
    check_range("sample", "top_k", 1 if top_k is None else top_k, 1, float("inf"))
    check_range("sample", "top_p", 1.0 if top_p is None else top_p, 0.0, 1.0)


def _check(model: Any, prompt: Any, num_tokens: int, lengths: Any, cache: Any, stop: Any) -> None:
    name, shape, dtype = type(model).__name__, prompt.shape, prompt.dtype
    if cache is None and not hasattr(model, "init_cache"):
        raise InputError(f"generate: a {name} reads a source first: cache=model.start(params, source, ...)")
    if len(shape) != 2 or shape[1] < 1 or not jnp.issubdtype(dtype, jnp.integer):
        raise InputError(f"generate: expected a prompt of ids [B, T] with T >= 1, got {dtype}{list(shape)}")
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or num_tokens < 1:
        raise InputError(f"generate: num_tokens: expected a whole number >= 1, got {num_tokens!r}")
    if stop is not None and jnp.shape(stop) != ():
        raise InputError(f"generate: stop: expected one id, got an array {list(jnp.shape(stop))}")
    if lengths is None:
        return
    if "mask" not in inspect.signature(model.decode).parameters:
        raise InputError(f"generate: a {name} cannot skip padding before a prompt; take prompts of one length together")
    if cache is not None:
        raise InputError("generate: lengths say where new texts start; they do not go with a cache")
    if jnp.shape(lengths) != shape[:1]:
        raise InputError(f"generate: expected lengths [{shape[0]}], got {list(jnp.shape(lengths))}")
    check_range("generate", "length", lengths, 1, shape[1])
