"""A LoRA of PEFT added to its base model: W + s B A by hand, in the names and layouts that PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import fdl
from fdl.errors import InputError
from fdl.pretrained import huggingface, read, with_adapter, write_safetensors

DRAW = np.random.default_rng(0)
A, B = DRAW.normal(size=(2, 3)).astype("f4"), DRAW.normal(size=(4, 2)).astype("f4")
W = DRAW.normal(size=(4, 3)).astype("f4")


def adapter(folder: Path, tensors: dict[str, np.ndarray], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "base", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def lora(module: str, a: np.ndarray = A, b: np.ndarray = B) -> dict[str, np.ndarray]:
    return {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}


@pytest.mark.parametrize("name", ["h.0.fc.weight", "transformer.h.0.fc.weight", "model.transformer.h.0.fc.weight"])
def test_a_lora_is_added(tmp_path: Path, name: str) -> None:
    """Whether the file's names start earlier or later than the adapter's; what it does not change stays as it is."""
    base = {name: W, name.replace("h.0", "h.1"): W, "norm.bias": W[0]}
    tensors = with_adapter(base, adapter(tmp_path, lora("transformer.h.0.fc")))
    assert list(tensors) == list(base)
    np.testing.assert_allclose(tensors[name], W + 3 * B @ A, rtol=1e-6)
    assert tensors["norm.bias"] is base["norm.bias"]
    np.testing.assert_array_equal(tensors[name.replace("h.0", "h.1")], W)


def test_options(tmp_path: Path) -> None:
    """Rank-stabilised: alpha / sqrt(r). fan_in_fan_out: W is [in, out]. Half precision stays, rounded once."""
    stable = with_adapter({"fc.weight": W}, adapter(tmp_path, lora("fc"), use_rslora=True))
    np.testing.assert_allclose(stable["fc.weight"], W + 6 / np.sqrt(2) * B @ A, rtol=1e-6)
    turned = with_adapter({"fc.weight": W.T}, adapter(tmp_path, lora("fc"), fan_in_fan_out=True))
    np.testing.assert_allclose(turned["fc.weight"], (W + 3 * B @ A).T, rtol=1e-6)
    half = W.astype(ml_dtypes.bfloat16)
    got = with_adapter({"fc.weight": half}, adapter(tmp_path, lora("fc")))["fc.weight"]
    np.testing.assert_array_equal(got, (half.astype("f4") + 3 * B @ A).astype(ml_dtypes.bfloat16))


def test_arrays_trained_whole_replace_those_of_the_base(tmp_path: Path) -> None:
    tensors = {**lora("fc"), "base_model.model.head.weight": 2 * W, "base_model.model.fc.bias": W[:, 0]}
    got = with_adapter({"fc.weight": W, "fc.bias": 0 * W[:, 0], "head.weight": W}, adapter(tmp_path, tensors))
    np.testing.assert_array_equal(got["head.weight"], 2 * W)
    np.testing.assert_array_equal(got["fc.bias"], W[:, 0])


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (lora("fc"), {"peft_type": "IA3"}, "peft_type: only 'LORA' can be read, got 'IA3'; merge it with PEFT"),
        (lora("fc"), {"use_dora": True}, "use_dora: only False"),
        (lora("fc"), {"alpha_pattern": {"fc": 3}}, "alpha_pattern"),
        (lora("fc"), {"init_lora_weights": "pissa"}, "init_lora_weights"),
        (lora("other"), {}, "'other.weight', which the model does not have"),
        (lora("fc", a=A[:, :2]), {}, r"'fc.weight' \[4, 3\], A \[2, 2\], B \[4, 2\]"),
        (dict(list(lora("fc").items())[:1]), {}, "lora_B.weight', got an adapter without it"),
        ({"base_model.model.fc.lora_magnitude_vector": B}, {}, "only lora_A and lora_B"),
    ],
)
def test_adapters_that_cannot_be_added(
    tmp_path: Path, tensors: dict[str, np.ndarray], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        dict(with_adapter({"fc.weight": W}, adapter(tmp_path, tensors, **config)))


def test_a_model_of_hugging_face_with_its_adapter(tmp_path: Path) -> None:
    """Changed queries give the logits of the changed params; the adapter alone is named as what it is."""
    config = {"model_type": "llama", "vocab_size": 11, "num_hidden_layers": 1, "num_attention_heads": 2}
    config |= {"hidden_size": 4, "intermediate_size": 6}
    model, _ = huggingface.architecture(config)
    params, _ = fdl.init(model, jax.random.key(0))
    huggingface.save(tmp_path / "base", config, params)
    a, b = A[:, [0, 1, 2, 0]], B
    folder = adapter(tmp_path / "adapter", lora("model.layers.0.self_attn.q_proj", a, b))
    _, changed, _, report = huggingface.load(tmp_path / "base", adapter=folder)
    assert report.complete
    query = params["blocks"]["0"]["attention"]["query"]["kernel"]
    want = query + jnp.asarray(3 * (b @ a).T.reshape(query.shape))
    np.testing.assert_allclose(changed["blocks"]["0"]["attention"]["query"]["kernel"], want, rtol=1e-5)
    assert sorted(read(folder))[0].endswith("q_proj.lora_A.weight")
    with pytest.raises(InputError, match=r"got an adapter: load\(BASE, adapter='adapter'\)"):
        huggingface.load(folder)
    with pytest.raises(InputError, match="pretrained.with_adapter"):
        fdl.pretrained.load(model, folder)
