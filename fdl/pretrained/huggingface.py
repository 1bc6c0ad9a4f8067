"""Folders of Hugging Face's `transformers` (config.json and safetensors) as models of `fdl.models`, and back.

BERT, GPT-2, Llama, ViT and ResNet. What a config asks for and these models do not have is an error that names it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from fdl import models, nn
from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.pretrained import bert_heads
from fdl.pretrained import mapping as maps
from fdl.pretrained.adapters import ADAPTER_CONFIG, with_adapter
from fdl.pretrained.files import SAFETENSORS, as_path, read, read_json, write_safetensors
from fdl.pretrained.mapping import Report, Rule, prefixed
from fdl.pretrained.pytorch import CONV, batch_norm, conv, heads, joined_heads, linear, norm

Config = Mapping[str, Any]
"""What config.json holds."""


class Architecture(NamedTuple):
    """A model and the table that maps a file's names to its paths."""

    model: Any
    rules: list[Rule]


def load(
    folder: str | os.PathLike[str],
    *,
    adapter: str | os.PathLike[str] | None = None,
    strict: bool = True,
    initial: tuple[Tree, Tree] | None = None,
    dtype: Any = None,
) -> tuple[Any, Tree, Tree, Report]:
    """(model, params, state, report) of a folder that `save_pretrained` wrote or the Hub holds.

    Args:
      folder: with config.json and weights: model.safetensors or pytorch_model.bin, or an index and shards of these.
      adapter: a folder of PEFT with a LoRA of this model, which is added to the weights; see `with_adapter`.
      strict, initial, dtype: as in `fdl.pretrained.load`.

    Raises:
      InputError: no such folder, another architecture, weights that do not fit it.
    """
    folder = as_path(folder, "huggingface.load")
    if not folder.is_dir():
        got = "a file" if folder.exists() else "no such folder"
        raise InputError(
            f"{folder}: expected a folder with config.json and weights, got {got}; "
            "models are not downloaded: `hf download NAME --local-dir FOLDER` does that"
        )
    if not (folder / "config.json").exists() and (folder / ADAPTER_CONFIG).exists():
        raise InputError(
            f"{folder}: expected a model, got an adapter: load(BASE, adapter={folder.name!r}) adds it to its base model"
        )
    model, rules = architecture(read_json(folder / "config.json", "the config of a model"))
    tensors = read(folder) if adapter is None else with_adapter(read(folder), adapter)
    return model, *maps.load(model, tensors, rules, strict=strict, initial=initial, dtype=dtype)


def save(folder: str | os.PathLike[str], config: Config, params: Tree, state: Tree | None = None) -> None:
    """Write config.json and model.safetensors, for `from_pretrained`.

    Args:
      folder: made if need be; a config.json in it is replaced.
      config: of the model, as `transformers` writes it: `architecture(config).model` has these params.
      params, state: of that model.

    Raises:
      InputError: params that are not of that model.
    """
    model, rules = architecture(config)
    tensors = maps.export(model, params, state or {}, rules)
    folder = as_path(folder, "huggingface.save")
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / SAFETENSORS, tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")


def architecture(config: Config) -> Architecture:
    """The model that a config describes, and the names of its weights.

    >>> sizes = {"vocab_size": 9, "n_positions": 8, "n_layer": 1, "n_head": 2, "n_embd": 4}
    >>> model, rules = architecture({"model_type": "gpt2", **sizes})
    >>> rules[0]
    Rule(source='transformer.wte.weight', path='embedding/embedding', change='')

    Raises:
      InputError: another model type, or an option that the model here does not have.
    """
    if not isinstance(config, Mapping):
        raise InputError(f"architecture: expected what config.json holds, a dict, got {type(config).__name__}")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _MAKERS:
        raise InputError(f"config.json: expected a model_type of {', '.join(_MAKERS)}, got {str(kind)[:80]!r}")
    return _MAKERS[kind](config)


def _bert(config: Config) -> Architecture:
    _require(config, hidden_act="gelu", position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    sizes = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "features": "hidden_size"}
    sizes |= {"hidden_features": "intermediate_size", "num_token_types": "type_vocab_size"}
    vocab_size, features = _size(config, "vocab_size"), _size(config, "hidden_size")
    eps = _number(config, "layer_norm_eps", 1e-12)
    options = {ours: _size(config, theirs) for ours, theirs in sizes.items()}
    encoder = models.bert(vocab_size, _size(config, "max_position_embeddings"), **options, eps=eps)
    kind = _kind(config, "BertModel")
    if kind == "BertModel":
        return Architecture(encoder, _either("bert.", _bert_rules(""), prefix_first=False))
    inside = prefixed("bert.", _bert_rules("encoder/"))
    unused = [Rule(f"cls.seq_relationship.{leaf}", ()) for leaf in ("weight", "bias")]
    if kind == "BertForMaskedLM":
        _require(config, tie_word_embeddings=True)
        pooler = [Rule(f"bert.pooler.dense.{leaf}", ()) for leaf in ("weight", "bias")]
        tied = [Rule(f"cls.predictions.decoder.{leaf}", ()) for leaf in ("weight", "bias")]
        transform, bias = "cls.predictions.transform", Rule("cls.predictions.bias", "bias/bias")
        head = [
            *linear(f"{transform}.dense", "transform/linear"),
            *_old_norm(f"{transform}.LayerNorm", "transform/norm"),
        ]
        bare = dataclasses.replace(encoder, pooler=nn.Serial())
        model = bert_heads.masked_language_model(bare, vocab_size, features, eps)
        return Architecture(model, [*pooler, *inside, *head, bias, *tied, *unused])
    if kind == "BertForSequenceClassification":
        model = bert_heads.SequenceClassifier(encoder, nn.Linear(features, _num_labels(config)))
        return Architecture(model, [*inside, *linear("classifier", "head"), *unused])
    raise InputError(
        f"config.json: expected BertModel, BertForMaskedLM or BertForSequenceClassification, got {kind[:80]!r}"
    )


def _bert_rules(model: str) -> list[Rule]:
    block, layer = f"{model}blocks/{{i}}", "encoder.layer.{i}"
    words = {"word_embeddings": "embedding", "token_type_embeddings": "token_types", "position_embeddings": "positions"}
    table = [Rule(f"embeddings.{name}.weight", f"{model}{path}/embedding") for name, path in words.items()]
    table += [Rule("embeddings.position_ids", ()), *_old_norm("embeddings.LayerNorm", f"{model}norm")]
    for name in ("query", "key", "value"):
        table += heads(f"{layer}.attention.self.{name}", f"{block}/attention/{name}")
    table += joined_heads(f"{layer}.attention.output.dense", f"{block}/attention/out")
    table += _old_norm(f"{layer}.attention.output.LayerNorm", f"{block}/attention_norm")
    table += linear(f"{layer}.intermediate.dense", f"{block}/feed_forward/up")
    table += linear(f"{layer}.output.dense", f"{block}/feed_forward/down")
    table += _old_norm(f"{layer}.output.LayerNorm", f"{block}/feed_forward_norm")
    return table + linear("pooler.dense", f"{model}pooler/linear")


def _old_norm(source: str, path: str) -> list[Rule]:
    """A norm, also by the names of the first checkpoints: gamma and beta."""
    return [*norm(source, path), Rule(f"{source}.gamma", f"{path}/scale"), Rule(f"{source}.beta", f"{path}/bias")]


def _gpt2(config: Config) -> Architecture:
    _require(config, activation_function="gelu_new", tie_word_embeddings=True, add_cross_attention=False)
    _require(config, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True)
    names = {"num_layers": "n_layer", "num_heads": "n_head", "features": "n_embd"}
    sizes: dict[str, Any] = {ours: _size(config, theirs) for ours, theirs in names.items()}
    sizes["hidden_features"] = 4 * sizes["features"] if config.get("n_inner") is None else _size(config, "n_inner")
    model = models.gpt2(_size(config, "vocab_size"), _size(config, "n_positions"), **sizes)
    block, three = "blocks/{i}", tuple(f"blocks/{{i}}/attention/{name}" for name in ("query", "key", "value"))
    table = [
        Rule("wte.weight", "embedding/embedding"),
        Rule("wpe.weight", "positions/embedding"),
        Rule("h.{i}.attn.c_attn.weight", tuple(f"{path}/kernel" for path in three), "d (s h k) -> s d h k"),
        Rule("h.{i}.attn.c_attn.bias", tuple(f"{path}/bias" for path in three), "(s h k) -> s h k"),
        Rule("h.{i}.attn.c_proj.weight", f"{block}/attention/out/kernel", "(h k) d -> h k d"),
        Rule("h.{i}.attn.c_proj.bias", f"{block}/attention/out/bias"),
        *norm("h.{i}.ln_1", f"{block}/attention_norm"),
        *norm("h.{i}.ln_2", f"{block}/feed_forward_norm"),
        *norm("ln_f", "norm"),
        *(Rule(f"h.{{i}}.attn.{buffer}", ()) for buffer in ("bias", "masked_bias")),
    ]
    for theirs, ours in (("c_fc", "up"), ("c_proj", "down")):  # stored [in, out]
        table += [Rule(f"h.{{i}}.mlp.{theirs}.weight", f"{block}/feed_forward/{ours}/kernel")]
        table += [Rule(f"h.{{i}}.mlp.{theirs}.bias", f"{block}/feed_forward/{ours}/bias")]
    bare = _kind(config, "GPT2LMHeadModel") == "GPT2Model"
    table = [*_either("transformer.", table, prefix_first=not bare), Rule("lm_head.weight", ())]
    return Architecture(_with_eps(model, _number(config, "layer_norm_epsilon", 1e-5)), table)


def _llama(config: Config) -> Architecture:
    _require(config, hidden_act="silu", attention_bias=False, mlp_bias=False)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise InputError(
            "config.json: expected plain rotary positions, got scaled ones, which this Llama does not have"
        )
    names = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "features": "hidden_size"}
    names |= {"hidden_features": "intermediate_size"}
    sizes: dict[str, Any] = {ours: _size(config, theirs) for ours, theirs in names.items()}
    sizes["num_kv_heads"] = _size(config, "num_key_value_heads", sizes["num_heads"])
    if _size(config, "head_dim", sizes["features"] // sizes["num_heads"]) * sizes["num_heads"] != sizes["features"]:
        raise InputError("config.json: expected head_dim = hidden_size / num_attention_heads, got another")
    tied = bool(config.get("tie_word_embeddings", False))
    base = _number({**config, **rope}, "rope_theta", 10000.0)
    eps = _number(config, "rms_norm_eps", 1e-6)
    model = models.llama(_size(config, "vocab_size"), **sizes, tied=tied, rotary_base=base, eps=eps)
    layer, block = "model.layers.{i}", "blocks/{i}"
    table = [Rule("model.embed_tokens.weight", "embedding/embedding"), Rule("model.norm.weight", "norm/scale")]
    for theirs, ours in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
        table += heads(f"{layer}.self_attn.{theirs}", f"{block}/attention/{ours}", use_bias=False)
    table += joined_heads(f"{layer}.self_attn.o_proj", f"{block}/attention/out", use_bias=False)
    for theirs, ours in (("up_proj", "up/value"), ("gate_proj", "up/gate"), ("down_proj", "down")):
        table += linear(f"{layer}.mlp.{theirs}", f"{block}/feed_forward/{ours}", use_bias=False)
    for theirs, ours in (("input_layernorm", "attention_norm"), ("post_attention_layernorm", "feed_forward_norm")):
        table.append(Rule(f"{layer}.{theirs}.weight", f"{block}/{ours}/scale"))
    table += [Rule("lm_head.weight", ())] if tied else linear("lm_head", "head", use_bias=False)
    return Architecture(model, [*table, Rule(f"{layer}.self_attn.rotary_emb.inv_freq", ())])


def _vit(config: Config) -> Architecture:
    _require(config, hidden_act="gelu", qkv_bias=True)
    names = {"image_size": "image_size", "patch_size": "patch_size", "num_layers": "num_hidden_layers"}
    names |= {"num_heads": "num_attention_heads", "features": "hidden_size", "hidden_features": "intermediate_size"}
    sizes = {ours: _size(config, theirs) for ours, theirs in names.items()}
    model = models.vit(_size(config, "num_channels", 3), _num_labels(config), **sizes)
    layer, block = "encoder.layer.{i}", "blocks/{i}"
    table = [
        Rule("embeddings.cls_token", "class_token/embedding", "1 1 d -> d"),
        Rule("embeddings.position_embeddings", "positions/embedding", "1 t d -> t d"),
        *conv("embeddings.patch_embeddings.projection", "patches"),
        *norm(f"{layer}.layernorm_before", f"{block}/attention_norm"),
        *norm(f"{layer}.layernorm_after", f"{block}/feed_forward_norm"),
        *linear(f"{layer}.intermediate.dense", f"{block}/feed_forward/up"),
        *linear(f"{layer}.output.dense", f"{block}/feed_forward/down"),
        *joined_heads(f"{layer}.attention.output.dense", f"{block}/attention/out"),
        *norm("layernorm", "norm"),
        *(Rule(f"pooler.dense.{leaf}", ()) for leaf in ("weight", "bias")),
    ]
    for name in ("query", "key", "value"):
        table += heads(f"{layer}.attention.attention.{name}", f"{block}/attention/{name}")
    eps = _number(config, "layer_norm_eps", 1e-12)
    return Architecture(_with_eps(model, eps), [*prefixed("vit.", table), *linear("classifier", "head")])


def _resnet(config: Config) -> Architecture:
    _require(config, hidden_act="relu", downsample_in_first_stage=False, downsample_in_bottleneck=False)
    depths, hidden, block = config.get("depths"), config.get("hidden_sizes"), config.get("layer_type", "bottleneck")
    inside = {"basic": 1, "bottleneck": 4}.get(str(block))
    whole = all(isinstance(sizes, list) and all(type(n) is int and n > 0 for n in sizes) for sizes in (depths, hidden))
    if not whole or not depths or not hidden or inside is None or hidden[0] != inside * _size(config, "embedding_size"):
        raise InputError(
            f'config.json: expected a layer_type "basic" or "bottleneck", depths, hidden_sizes, and '
            f"an embedding_size that is hidden_sizes[0] (a bottleneck: a quarter of it), "
            f"got {str([block, depths, hidden])[:200]}"
        )
    widths = [size // inside for size in hidden]
    model = models.resnet(
        _size(config, "num_channels", 3),
        _num_labels(config),
        depths=depths,
        widths=widths,
        block=block,
        large_images=True,
    )
    table = _convolution("resnet.embedder.embedder", "stem", "")
    for stage in range(len(depths)):
        source, path = f"resnet.encoder.stages.{stage}.layers.{{i}}", f"stages/{stage}/{{i}}/sum"
        table += _convolution(f"{source}.shortcut", f"{path}/shortcut", "")
        for n in range(3):
            table += _convolution(f"{source}.layer.{n}", f"{path}/block", str(n + 1))
    return Architecture(model, [*table, *linear("classifier.1", "head")])


def _convolution(source: str, path: str, number: str) -> list[Rule]:
    weight = Rule(f"{source}.convolution.weight", f"{path}/conv{number}/kernel", CONV)
    return [weight, *batch_norm(f"{source}.normalization", f"{path}/norm{number}")]


_MAKERS: dict[str, Callable[[Config], Architecture]] = {
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "vit": _vit,
    "resnet": _resnet,
}


def _size(config: Config, name: str, default: int | None = None) -> int:
    value = default if config.get(name) is None else config[name]
    if type(value) is not int or not 0 < value < 2**31:
        raise InputError(f"config.json: {name}: expected a whole number > 0, got {str(value)[:80]!r}")
    return value


def _number(config: Config, name: str, default: float) -> float:
    value = config.get(name, default)
    if type(value) not in (int, float):
        raise InputError(f"config.json: {name}: expected a number, got {str(value)[:80]!r}")
    return float(value)


def _kind(config: Config, default: str) -> str:
    """The class of `transformers` that was saved."""
    kinds = config.get("architectures")
    return str(kinds[0]) if isinstance(kinds, list) and kinds else default


def _num_labels(config: Config) -> int:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, Mapping) and labels else 2  # what transformers takes without labels


def _require(config: Config, **only: Any) -> None:
    """Raises for options set to anything else; what a config leaves out has the value here."""
    for name, value in only.items():
        if config.get(name, value) != value:
            raise InputError(f"config.json: {name}: only {value!r} can be read, got {str(config[name])[:80]!r}")


def _either(prefix: str, rules: list[Rule], prefix_first: bool) -> list[Rule]:
    """The rules with and without a prefix: files have both. The first are those that `save` writes."""
    with_prefix = prefixed(prefix, rules)
    return [*with_prefix, *rules] if prefix_first else [*rules, *with_prefix]


def _with_eps(part: Any, eps: float) -> Any:
    """The model with this eps in all its layer norms."""
    if isinstance(part, nn.LayerNorm):
        return dataclasses.replace(part, eps=eps)
    if not isinstance(part, Layer):
        return part
    return part.replace_parts({name: _with_eps(child, eps) for name, child in part.parts().items()})
