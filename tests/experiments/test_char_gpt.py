"""The character GPT: nanoGPT's split and sizes, what it may see, what it writes, and the published loss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published.char_gpt import CHARACTERS, Config, build, network, schedule, write

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments/results/char_gpt.json"


def tokens(split: str) -> np.ndarray:
    return fdl.data.load("tinyshakespeare", split=split)["tokens"]


def bigram_loss() -> float:
    """Nats a character of the best table of pairs: counts of the training text, plus one, on the validation text."""
    train, val = tokens("train"), tokens("val")
    counts = np.ones((65, 65))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    table = counts / counts.sum(1, keepdims=True)
    return float(-np.log(table[val[:-1], val[1:]]).mean())


def test_the_split_and_the_characters_are_those_of_nanogpt():
    """1 003 854 and 111 540 tokens (nanoGPT, data/shakespeare_char/readme.md)."""
    assert (len(tokens("train")), len(tokens("val")), CHARACTERS.vocab_size) == (1_003_854, 111_540, 65)
    assert CHARACTERS.decode(tokens("train")[:15]) == "First Citizen:\n"


def test_validation_sees_every_character_once_but_for_the_last_window():
    val = build(Config()).evaluate["val"]
    assert isinstance(val, fdl.data.Windows)
    assert len(val) == (111_540 - 1) // 64 == 1742


def test_the_sizes_are_nanogpts():
    """Which has no biases: a block has 12 d^2 + 2 d parameters, the embedding, tied to the output, 65 d."""
    params = jax.tree_util.tree_leaves_with_path(fdl.abstract(network(Config()))[0])
    sizes = {"/".join(str(k.key) for k in path): int(np.prod(leaf.shape)) for path, leaf in params}
    without = sum(size for path, size in sizes.items() if not path.endswith("bias"))
    assert without == 65 * 128 + 64 * 128 + 4 * (12 * 128**2 + 2 * 128) + 128 == 804_096
    assert sum(sizes.values()) - without == 4 * (3 * 128 + 128 + 512 + 128 + 2 * 128) + 128


def test_the_rate_warms_up_for_100_steps_and_ends_at_a_tenth():
    rate = schedule(Config())
    np.testing.assert_allclose(
        jnp.stack([jnp.asarray(rate(step)) for step in (0, 50, 100, 2000)]), [1e-5, 5.05e-4, 1e-3, 1e-4], rtol=1e-5
    )


def test_no_prediction_depends_on_what_follows():
    config = Config(num_layers=1, num_heads=2, features=16, context=16)
    model = network(config)
    params, _ = fdl.init(model, jax.random.key(0))
    ids = jnp.asarray(tokens("val")[None, :16])
    changed = jax.jit(model)(params, ids.at[0, 9].set(5))
    same = jnp.equal(changed, jax.jit(model)(params, ids)).all(-1)[0]
    assert same[:9].all()
    assert not same[9:].any()


def test_writing_goes_on_beyond_the_context():
    """And piece by piece it is what `generate` writes after the last half of a context."""
    config = Config(num_layers=1, num_heads=2, features=8, context=16)
    params, _ = fdl.init(network(config), jax.random.key(0))
    text = write(config, params, "KING", 50, jax.random.key(1))
    assert len(text) == 50
    assert text.startswith(write(config, params, "KING", 20, jax.random.key(1)))
    seen = jnp.asarray(CHARACTERS.encode(text[8:16]))[None]
    key = fdl.fold(jax.random.key(1), 24)
    assert CHARACTERS.decode(fdl.models.generate(network(config), params, seen, 8, key=key)[0]) == text[16:24]


@pytest.mark.slow
def test_it_learns_more_than_the_frequencies_of_the_characters():
    """In 60 steps, of which most are warmup; its own characters' frequencies leave 3.3 nats."""
    frequencies = np.bincount(tokens("val"), minlength=65) / 111_540
    entropy = -(frequencies * np.log(frequencies, where=frequencies > 0, out=np.zeros(65))).sum()
    loss = fdl.run(dataclasses.replace(build(Config()), num_steps=60)).metrics["val/loss"]
    assert loss < entropy - 0.3


def test_the_committed_figures_reach_the_published_loss():
    """1.88 (nanoGPT's README), on the whole validation part; a table of pairs of characters has 2.5.

    The preset's learning rate is held to what was measured, 0.01 above it; twice that rate is below it.
    """
    for name, figure in (("char_gpt", 1.895), ("char_gpt-rate", 1.88)):
        (setting,) = json.loads(RESULTS.with_name(f"{name}.json").read_text())["settings"]
        losses = setting["metrics"]["val/loss"]["values"]
        assert np.mean(losses) <= figure
        assert max(losses) < bigram_loss() - 0.4
