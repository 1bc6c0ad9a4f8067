"""Tables of names: what they use, what they report, and that export is the inverse of load."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn, pretrained
from fdl.core import leaves
from fdl.errors import InputError
from fdl.pretrained import Rule, export, load
from fdl.pretrained.huggingface import architecture

MODEL = nn.Serial(body=nn.Linear(3, 4), norm=nn.BatchNorm(4), head=nn.Linear(4, 2))
RULES = [
    *pretrained.pytorch.linear("fc.0", "body"),
    *pretrained.pytorch.batch_norm("bn", "norm"),
    *pretrained.pytorch.linear("fc.1", "head"),
]


def tensors() -> dict[str, np.ndarray]:
    """As PyTorch would have them."""
    random = np.random.default_rng(0)
    sizes: dict[str, tuple[int, ...]] = {"fc.0.weight": (4, 3), "fc.0.bias": (4,), "fc.1.weight": (2, 4)}
    sizes |= {"fc.1.bias": (2,)} | {f"bn.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")}
    made = {name: random.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    return made | {"bn.num_batches_tracked": np.array(7)}


def test_every_array_goes_to_its_path_transposed() -> None:
    source = tensors()
    params, state, report = load(MODEL, source, RULES)
    fdl.check(MODEL, params, state)
    np.testing.assert_array_equal(params["body"]["kernel"], source["fc.0.weight"].T)
    np.testing.assert_array_equal(params["norm"]["scale"], source["bn.weight"])
    np.testing.assert_array_equal(state["norm"]["var"], source["bn.running_var"])
    assert (len(report.used), report.ignored, report.complete) == (8, ("bn.num_batches_tracked",), True)
    assert jax.tree.structure((params, state)) == jax.tree.structure(fdl.init(MODEL, jax.random.key(0)))


def test_export_gives_the_same_bits() -> None:
    source = tensors()
    params, state, report = load(MODEL, source, RULES)
    back = export(MODEL, params, state, RULES)
    assert sorted(back) == sorted(report.used)
    for name, array in back.items():
        np.testing.assert_array_equal(array, source[name])
        assert array.dtype == source[name].dtype


SIZES = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 8, "intermediate_size": 12, "vocab_size": 11}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "bert", "max_position_embeddings": 9, "type_vocab_size": 2, **SIZES},
    {
        "model_type": "bert",
        "max_position_embeddings": 9,
        "type_vocab_size": 2,
        "architectures": ["BertForMaskedLM"],
        **SIZES,
    },
    {"model_type": "gpt2", "vocab_size": 11, "n_positions": 9, "n_layer": 2, "n_head": 4, "n_embd": 8},
    {"model_type": "llama", "num_key_value_heads": 2, **SIZES},
    {"model_type": "llama", "tie_word_embeddings": True, **SIZES},
    {"model_type": "vit", "image_size": 8, "patch_size": 4, **SIZES},
    {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 8], "depths": [2, 1], "layer_type": "basic"},
    {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [16, 32], "depths": [1, 2]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config["model_type"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_any_model_of_hugging_face_survives_export_and_load_to_the_bit(config: dict[str, Any], dtype: Any) -> None:
    """Every path of these models has a rule, and every rule its inverse."""
    model, rules = architecture(config)
    params, state = fdl.init(model, jax.random.key(0), dtype)
    draw = np.random.default_rng(0)  # also where initial values are 0
    params, state = jax.tree.map(lambda a: jnp.asarray(draw.normal(size=a.shape), a.dtype), (params, state))
    again, state_again, report = load(model, export(model, params, state, rules), rules)
    assert report.complete
    assert jax.tree.structure((again, state_again)) == jax.tree.structure((params, state))
    for before, after in ((params, again), (state, state_again)):
        loaded = dict(leaves(after))
        for path, leaf in leaves(before):
            assert loaded[path].dtype == leaf.dtype, path
            np.testing.assert_array_equal(loaded[path], leaf, err_msg=path)


def test_one_table_says_all_that_is_wrong() -> None:
    wrong = {"fc.9.weight" if name == "fc.1.weight" else name: array for name, array in tensors().items()}
    wrong["fc.0.weight"] = wrong["fc.0.weight"][:, :2]
    with pytest.raises(InputError) as raised:
        load(MODEL, wrong, RULES)
    assert str(raised.value).splitlines() == [
        "the file does not fit the model:",
        "  - head/kernel: missing, expected 'fc.1.weight'; the nearest name is 'fc.9.weight'",
        "  ! body/kernel: expected [3, 4], got 'fc.0.weight' [4, 2] by 'o i -> i o'",
        "  + fc.9.weight: unused",
    ]


def test_the_table_stops_after_ten_lines() -> None:
    with pytest.raises(InputError) as raised:
        load(MODEL, {f"no.{i}": np.zeros(1) for i in range(30)}, RULES)
    assert len(str(raised.value).splitlines()) == 12
    assert str(raised.value).endswith("  ... and 28 more")


def test_not_strict_takes_the_rest_from_initial_values() -> None:
    """A new head: the body of the file, the head of `fdl.init`."""
    initial = fdl.init(MODEL, jax.random.key(0))
    source = tensors() | {"fc.1.weight": np.zeros((7, 4)), "fc.1.bias": np.zeros(7)}
    params, state, report = load(MODEL, source, RULES, strict=False, initial=initial)
    fdl.check(MODEL, params, state)
    np.testing.assert_array_equal(params["head"]["kernel"], initial[0]["head"]["kernel"])
    np.testing.assert_array_equal(params["body"]["bias"], source["fc.0.bias"])
    assert sorted(report.misshapen) == ["head/bias", "head/kernel"]
    params, _, _ = load(MODEL, source, RULES, strict=False)
    assert params["head"] == {}


def test_stack_and_split_need_all_their_names() -> None:
    layer = nn.Attention(4, 2, use_bias=False)
    parts = ("query/kernel", "key/kernel", "value/kernel")
    rules = [Rule("qkv", parts, "(s h k) d -> s d h k"), Rule("o", "out/kernel", "d (h k) -> h k d")]
    fused = {"qkv": np.arange(48.0, dtype=np.float32).reshape(12, 4), "o": np.ones((4, 4), np.float32)}
    params, _, _ = load(layer, fused, rules)
    np.testing.assert_array_equal(params["key"]["kernel"].reshape(4, 4), fused["qkv"][4:8].T)
    np.testing.assert_array_equal(export(layer, params, {}, rules)["qkv"], fused["qkv"])
    with pytest.raises(InputError, match=r"- bias: missing, expected 'b'\n  \+ a: unused"):
        load(
            nn.Linear(1, 2),
            {"w": np.ones((1, 2)), "a": np.ones(2)},
            [Rule("w", "kernel"), Rule(("a", "b"), "bias", "s o -> o")],
        )


def test_two_names_for_one_path_are_not_both_taken() -> None:
    rules = [Rule("w", "kernel"), Rule("b", "bias"), Rule("old_b", "bias")]
    layer, w = nn.Linear(1, 2), np.ones((1, 2))
    _, _, report = load(layer, {"w": w, "old_b": np.ones(2)}, rules)
    assert report.used == ("w", "old_b")
    with pytest.raises(InputError, match=r"\+ old_b: unused"):
        load(layer, {"w": w, "b": np.ones(2), "old_b": np.ones(2)}, rules)
    assert sorted(export(layer, {"kernel": w, "bias": np.ones(2)}, {}, rules)) == ["b", "w"]


def test_numbers_stand_for_themselves_only() -> None:
    """A dot is a dot, a number a number, and layers beyond the model's are unused."""
    layer, rules = nn.Serial(nn.Linear(1, 1, use_bias=False)), [Rule("l.{i}.w", "{i}/kernel")]
    good = {"l.0.w": np.ones((1, 1))}
    assert load(layer, good, rules)[2].complete
    for name in ("lx0.w", "l.1.w", "l.x.w", "xl.0.w", "l.0.w.more"):
        assert load(layer, good | {name: np.ones((1, 1))}, rules, strict=False)[2].unused == (name,)


def test_export_refuses_what_it_cannot_write() -> None:
    params, state, _ = load(MODEL, tensors(), RULES)
    with pytest.raises(InputError, match="no rule knows the path 'head/kernel'"):
        export(MODEL, params, state, RULES[:-2])
    with pytest.raises(InputError, match="head/bias: expected"):
        export(MODEL, params | {"head": params["head"] | {"bias": np.zeros(5)}}, state, RULES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected a model_type of bert"),
        ({"model_type": ["gpt2"]}, "expected a model_type"),
        ({"model_type": "llama", **SIZES, "rope_scaling": {"rope_type": "llama3"}}, "plain rotary"),
        ({"model_type": "llama", **SIZES, "attention_bias": True}, "attention_bias: only False"),
        ({"model_type": "llama", **SIZES, "head_dim": 7}, "head_dim"),
        ({"model_type": "gpt2"}, "n_layer: expected a whole number > 0, got 'None'"),
        ({"model_type": "bert", **SIZES, "hidden_act": "relu"}, "hidden_act: only 'gelu'"),
        ({**CONFIGS[0], "layer_norm_eps": "tiny"}, "layer_norm_eps: expected a number, got 'tiny'"),
        ({**CONFIGS[0], "architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ({"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [8], "depths": [1]}, "embedding_size"),
    ],
)
def test_configs_that_no_model_here_has(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        architecture(config)
