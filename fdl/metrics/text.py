"""Text: perplexity of a language model, BLEU of a translation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.metrics.mean import Mean

Tokens = Sequence[Any]


def perplexity(loss: Mean) -> jax.Array:
    """exp of the mean cross-entropy a token, in nats; NaN of no token. Average the losses first: it is no mean itself.

    Raises:
      InputError: anything but a `Mean`.

    >>> float(perplexity(Mean(jnp.log(jnp.float32(8.0)) * 2, jnp.float32(2.0)))).__round__(4)
    8.0
    """
    if not isinstance(loss, Mean):
        raise InputError(f"perplexity: expected a Mean, got {type(loss).__name__}: perplexity(Mean.of(losses, weight))")
    return jnp.where(loss.count == 0, jnp.nan, jnp.exp(loss.value()))


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], max_order: int = 4) -> float:
    """Corpus BLEU, 0..1: brevity penalty * geometric mean of the clipped n-gram precisions. Runs on the host.

    Args:
      candidates: token sequences, one a sentence (words, or ids).
      references: for each candidate its reference translations.
      max_order: the longest n-gram.

    Returns:
      0 where any order has no match: there is no smoothing, as in the paper. Tokenisation is yours, and decides the
      figure as much as the model does.

    Raises:
      InputError: no candidates, another number of references, a candidate without reference, a bare string; a
        max_order below 1.

    Reference: Papineni et al., BLEU, 2002, section 2.3. Equal to sacreBLEU's corpus score / 100 on the same tokens.

    >>> bleu(["the cat sat on the mat".split()], [["the cat sat on the mat".split()]])
    1.0
    """
    if not _is_tokens(candidates) or not _is_tokens(references):
        raise InputError("bleu: expected a list of sentences, each a list of tokens, and one of their references")
    if len(candidates) != len(references):
        raise InputError(f"bleu: {len(candidates)} candidates but {len(references)} lists of references")
    if not len(candidates):
        raise InputError("bleu: expected at least one candidate, got none")
    if isinstance(max_order, bool) or not isinstance(max_order, int) or max_order < 1:
        raise InputError(f"bleu: max_order: expected a whole number >= 1, got {max_order!r}")
    matches, totals, length, wanted = [0] * max_order, [0] * max_order, 0, 0
    for number, (candidate, choices) in enumerate(zip(candidates, references, strict=True)):
        if not _is_tokens(choices) or any(not _is_tokens(each) for each in (candidate, *choices)) or not len(choices):
            raise InputError(f"bleu: sentence {number}: expected tokens and a list of references; split strings first")
        candidate, choices = _listed(candidate), [_listed(choice) for choice in choices]
        length += len(candidate)
        # The reference closest in length; of two equally close the shorter.
        wanted += min((len(choice) for choice in choices), key=lambda n: (abs(n - len(candidate)), n))
        for order in range(1, max_order + 1):
            counts, most = _ngrams(candidate, order), Counter[tuple[Any, ...]]()
            for choice in choices:
                most |= _ngrams(choice, order)
            matches[order - 1] += sum((counts & most).values())
            totals[order - 1] += sum(counts.values())
    if not all(matches):
        return 0.0
    precision = math.fsum(math.log(hit / total) for hit, total in zip(matches, totals, strict=True)) / max_order
    return math.exp(precision + min(0.0, 1.0 - wanted / length))


def _is_tokens(sentence: Any) -> bool:
    return not isinstance(sentence, str | bytes) and hasattr(sentence, "__len__")


def _listed(sentence: Tokens) -> list[Any]:
    """The tokens as a list: those of an array are numbers then."""
    return sentence.tolist() if hasattr(sentence, "tolist") else list(sentence)  # pyright: ignore


def _ngrams(tokens: Tokens, order: int) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
