"""Does a sentence of a film review praise or blame? A convolutional network and an LSTM, from random word vectors.

    fdl run experiments/published/sst2.py --model lstm
    fdl sweep experiments/published/sst2.py --over model=cnn,lstm --seeds 5 --save experiments/results/sst2.json

Stanford's Sentiment Treebank with two classes, whole sentences only: 6920 to train on, 872 to choose by, 1821 to test.
A batch holds sentences of different lengths, padded, and their `lengths`. Words that are not among the training
sentences are one unknown word, which gets a vector because training words are forgotten at random. The result is that
of the epoch with the best accuracy on the dev set.

Published: 82.7 % for "CNN-rand" (Kim, Convolutional neural networks for sentence classification, 2014, table 2), which
learns from the labels of all phrases of the training sentences as well, some ten times as many examples. They are not
in these files.

Measured, seeds 0 to 4, test accuracy: cnn 79.7 +- 0.5 % (dev 78.5 +- 0.7 %), lstm 81.8 +- 0.3 % (dev 80.0 +- 0.8 %):
the figure is missed. Without phrases both are about where logistic regression on TF-IDF is, 79.5 % on dev (its 81.3 %
on test are from the README of the data). 271 s by the clock for the ten (2 x86-64 cores, CPU, shared with other work).

Chosen on the dev set, one seed each, before a test figure was seen: forgotten words (0, 0.1, 0.3), dropout of the word
vectors (0, 0.5), their size (64, 128), the learning rate (1e-3, 2e-3), weight decay, longer averages. All were between
77.5 and 79.6 % there, with a standard error of 1.4 %, and the dev loss rises after two or three epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

import fdl
from fdl import nn
from fdl.models import TimePool

UNKNOWN = 1
"""The id of a word that is not among the training sentences; 0 is padding."""


@dataclass(frozen=True)
class Config:
    model: Literal["cnn", "lstm"] = "cnn"
    """Filters over one, two and three words, or a recurrent network that reads in both directions."""
    features: int = 128
    """Size of a word's vector."""
    filters: int = 100
    """Filters of each width."""
    units: int = 64
    """Units of the LSTM in each direction."""
    forget: float = 0.3
    """Probability that a training word becomes the unknown word."""
    dropout: float = 0.5
    """Probability of dropping a number of a word's vector, and a feature before the last layer."""
    learning_rate: float = 1e-3
    """Adam's."""
    batch_size: int = 50
    """Sentences a step."""
    num_epochs: int = 5
    """Passes over the training sentences."""


def build(config: Config) -> fdl.Experiment:
    train, dev, test = (fdl.data.load("sst2", split=split) for split in ("train", "dev", "test"))

    def augment(batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
        return batch | {"tokens": forget(batch["tokens"], key, config.forget)}

    return fdl.Experiment(
        task=fdl.supervised(
            network(config, vocab_size=int(train["tokens"].max()) + 1),
            fdl.losses.softmax_cross_entropy,
            {"accuracy": fdl.metrics.accuracy},
            inputs=("tokens", {"lengths": "lengths"}),
        ),
        optimizer=fdl.with_ema(optax.adam(config.learning_rate), 0.99),
        eval_params=fdl.ema_params,  # the average of about the last 100 steps
        train=train,
        evaluate={"dev": dev, "test": test},
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        eval_every=train.steps_per_epoch(config.batch_size),
        select="dev/accuracy",
        mode="max",
        augment=augment,
    )


def network(config: Config, vocab_size: int) -> nn.Serial:
    """Word vectors, features at each word, their maximum over the sentence, a linear layer. Only the second differ."""
    reader, size = ngrams(config) if config.model == "cnn" else both_ways(config)
    return nn.Serial(
        embedding=nn.Embedding(vocab_size, config.features),
        dropout0=nn.Dropout(config.dropout),
        reader=reader,
        pool=TimePool("max"),  # of the real words: it is given the lengths
        dropout1=nn.Dropout(config.dropout),
        head=nn.Linear(size, 2),
    )


def ngrams(config: Config) -> tuple[nn.Parallel, int]:
    """Filters over k neighbouring words. Behind a sentence they see the vector of id 0: they can tell where it ends."""
    widths = (1, 2, 3)
    filters = {f"words{k}": nn.Serial(nn.Conv1d(config.features, config.filters, k), jax.nn.relu) for k in widths}
    return nn.Parallel(**filters, combine="concat"), len(widths) * config.filters


def both_ways(config: Config) -> tuple[nn.Bidirectional, int]:
    """Without a step on padding: it is given the lengths, too."""
    lstm = nn.LSTM(config.features, config.units)
    return nn.Bidirectional(lstm, lstm), 2 * config.units


def forget(tokens: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Words become the unknown word with probability `rate`; padding stays."""
    return jnp.where(jax.random.bernoulli(key, rate, tokens.shape) & (tokens > 0), UNKNOWN, tokens)
