"""Tiny models that `transformers` writes here and now: the same outputs, and the same from what is written back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError
from fdl.models import generate
from fdl.pretrained import huggingface, read, write_safetensors

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of what transformers and its dependencies import

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
TEXT: dict[str, Any] = {"vocab_size": 50, "max_position_embeddings": 20, **SIZES}
GPT2: dict[str, Any] = {"vocab_size": 50, "n_positions": 20, "n_embd": 32, "n_layer": 2, "n_head": 4}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 1}
LABELS: dict[str, Any] = {"num_labels": 5}
RESNET: dict[str, Any] = {"depths": [2, 1], **LABELS}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("BertConfig", TEXT),
    "BertForMaskedLM": ("BertConfig", TEXT),
    "BertForSequenceClassification": ("BertConfig", TEXT | LABELS),
    "GPT2LMHeadModel": ("GPT2Config", GPT2 | {"n_inner": 40, "layer_norm_epsilon": 1e-3}),
    "LlamaForCausalLM": ("LlamaConfig", TEXT | {"num_key_value_heads": 2, "rope_theta": 300.0, "rms_norm_eps": 1e-3}),
    "LlamaForCausalLM tied": ("LlamaConfig", TEXT | {"tie_word_embeddings": True}),
    "ViTForImageClassification": (
        "ViTConfig",
        SIZES | LABELS | {"image_size": 16, "patch_size": 4, "layer_norm_eps": 1e-3},
    ),
    "ResNetForImageClassification basic": (
        "ResNetConfig",
        RESNET | {"embedding_size": 8, "hidden_sizes": [8, 16], "layer_type": "basic"},
    ),
    "ResNetForImageClassification bottleneck": (
        "ResNetConfig",
        RESNET | {"embedding_size": 8, "hidden_sizes": [32, 64]},
    ),
}


@pytest.fixture
def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def made(name: str, folder: Path, **options: Any) -> Any:
    """A model with every parameter and statistic drawn at random, saved to the folder."""
    kind, (config, sizes) = name.split(" ")[0], MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**sizes)).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.5 + 0.1 if tensor.ndim == 1 else torch.randn_like(tensor) * 0.2)
    model.save_pretrained(folder, **options)
    return model


def inputs(name: str) -> tuple[Any, Any]:
    """A batch for `transformers` and for us."""
    torch.manual_seed(1)
    if name.startswith(("ViT", "ResNet")):
        images = torch.randn(2, 3, *((16, 16) if name.startswith("ViT") else (40, 24)))
        return images, jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
    ids = torch.randint(0, 50, (2, 9))
    return ids, jnp.asarray(ids.numpy())


def theirs(model: Any, x: Any, **keywords: Any) -> np.ndarray:
    with torch.no_grad():
        y = model(x, **keywords)
    return (y.logits if hasattr(y, "logits") else y.last_hidden_state).numpy()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", list(MODELS))
def test_outputs_agree_there_and_back(tmp_path: Path, name: str) -> None:
    reference = made(name, tmp_path / "theirs")
    x, ours = inputs(name)
    model, params, state, report = huggingface.load(tmp_path / "theirs")
    y, want = np.asarray(model.apply(params, state, ours)[0]), theirs(reference, x)
    assert report.complete
    assert np.abs(want).max() > 0.05  # or everything would be close to it
    np.testing.assert_allclose(y, want, atol=1e-4, rtol=1e-4)

    config = json.loads((tmp_path / "theirs/config.json").read_text())
    huggingface.save(tmp_path / "ours", config, params, state)
    before, after = read(tmp_path / "theirs"), read(tmp_path / "ours")
    assert set(before) - set(after) == set(report.ignored)
    for tensor in after:
        np.testing.assert_array_equal(after[tensor], before[tensor], err_msg=tensor)
    again = type(reference).from_pretrained(tmp_path / "ours").eval()
    np.testing.assert_array_equal(theirs(again, x), want)


@pytest.mark.usefixtures("quiet")
def test_masks_types_and_pooling_of_bert(tmp_path: Path) -> None:
    reference = made("BertModel", tmp_path)
    x, ours = inputs("BertModel")
    mask, types = np.arange(9) < np.array([[9], [5]]), np.tile(np.arange(9) > 4, (2, 1))
    with torch.no_grad():
        y = reference(x, attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types).long())
    model, params, _, _ = huggingface.load(tmp_path)
    h = model(params, ours, mask=jnp.asarray(mask), types=jnp.asarray(types, jnp.int32))
    np.testing.assert_allclose(np.asarray(h)[mask], y.last_hidden_state.numpy()[mask], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(model.pooled(params, h), y.pooler_output.numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_greedy_text_agrees(tmp_path: Path, name: str) -> None:
    """By our cache against theirs."""
    reference = made(name, tmp_path)
    x, ours = inputs(name)
    model, params, _, _ = huggingface.load(tmp_path)
    with torch.no_grad():
        want = reference.generate(
            x, max_new_tokens=8, min_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    np.testing.assert_array_equal(generate(model, params, ours, 8), want[:, 9:].numpy())


@pytest.mark.usefixtures("quiet")
def test_shards_and_bfloat16(tmp_path: Path) -> None:
    reference = made("LlamaForCausalLM", tmp_path / "whole")
    reference.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    reference.bfloat16().save_pretrained(tmp_path / "bf16")
    _, params, _, _ = huggingface.load(tmp_path / "whole")
    _, same, _, _ = huggingface.load(tmp_path / "shards")
    _, small, _, _ = huggingface.load(tmp_path / "bf16")
    _, wide, _, _ = huggingface.load(tmp_path / "bf16", dtype=jnp.float32)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    kernels = [tree["blocks"]["1"]["attention"]["out"]["kernel"] for tree in (params, same, small, wide)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert [str(kernel.dtype) for kernel in kernels] == ["float32", "float32", "bfloat16", "float32"]
    np.testing.assert_array_equal(kernels[2], kernels[0].astype(jnp.bfloat16))


@pytest.mark.usefixtures("quiet")
def test_a_folder_from_before_safetensors(tmp_path: Path) -> None:
    reference = made("BertModel", tmp_path)
    _, params, _, _ = huggingface.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(reference.state_dict(), tmp_path / "pytorch_model.bin")
    _, same, _, _ = huggingface.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, same)


@pytest.mark.usefixtures("quiet")
def test_names_with_and_without_the_prefix_of_the_model(tmp_path: Path) -> None:
    """The GPT-2 of the Hub has no "transformer." before its names, old BERTs gamma and beta for weight and bias."""
    made("GPT2LMHeadModel", tmp_path / "gpt2")
    tensors = {name.removeprefix("transformer."): array for name, array in read(tmp_path / "gpt2").items()}
    write_safetensors(tmp_path / "gpt2/model.safetensors", tensors | {"h.0.attn.bias": np.ones((1, 1, 20, 20))})
    report = huggingface.load(tmp_path / "gpt2")[3]
    assert (report.complete, report.ignored) == (True, ("h.0.attn.bias",))
    made("BertForMaskedLM", tmp_path / "bert")
    old = {name.replace("Norm.weight", "Norm.gamma"): array for name, array in read(tmp_path / "bert").items()}
    write_safetensors(tmp_path / "bert/model.safetensors", old | {"cls.seq_relationship.bias": np.ones(2)})
    report = huggingface.load(tmp_path / "bert")[3]
    assert (report.complete, report.ignored) == (True, ("cls.seq_relationship.bias",))


@pytest.mark.usefixtures("quiet")
def test_a_config_of_other_sizes_than_the_weights(tmp_path: Path) -> None:
    made("LlamaForCausalLM", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "vocab_size": 51}))
    with pytest.raises(InputError) as raised:
        huggingface.load(tmp_path)
    table = str(raised.value).splitlines()
    assert len(table) == 12
    assert "  - blocks/2/attention/query/kernel: missing, expected 'model.layers.2.self_attn.q_proj.weight'" in table
    assert "  ! head/kernel: expected [32, 51], got 'lm_head.weight' [50, 32] by 'o i -> i o'" in table
    assert table[-1] == "  ... and 1 more"  # the embedding
