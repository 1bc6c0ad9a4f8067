# pyright: reportMissingImports=false, reportArgumentType=false
"""Weights that others trained, and what they are known to say: architectures right to the last convention."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import fdl
from fdl import models
from fdl.core import Tree

pytestmark = pytest.mark.slow


def read_llama2c(path: Path) -> tuple[models.Decoder, Tree]:
    """The model of a file of llama2.c (its `legacy_export`): 7 integers, then float32 arrays in its order."""
    raw = path.read_bytes()
    features, hidden, layers, heads, groups, vocabulary, length = np.frombuffer(raw, np.int32, 7).tolist()
    assert vocabulary > 0  # negative: a head of its own
    numbers, K = np.frombuffer(raw, np.float32, offset=28), features // heads
    sizes = {
        "embedding": (vocabulary, features), "attention_norm": (layers, features),
        "query": (layers, heads, K, features), "key": (layers, groups, K, features),
        "value": (layers, groups, K, features), "out": (layers, features, heads, K),
        "feed_forward_norm": (layers, features), "gate": (layers, hidden, features),
        "down": (layers, features, hidden), "up": (layers, hidden, features),
        "norm": (features,), "cosines": (length, K // 2), "sines": (length, K // 2),
    }  # fmt: skip
    ends = np.cumsum([np.prod(shape) for shape in sizes.values()])
    assert ends[-1] == len(numbers)
    pieces = np.split(numbers, ends[:-1])
    w = {name: piece.reshape(shape) for (name, shape), piece in zip(sizes.items(), pieces, strict=True)}

    def block(i: int) -> Tree:
        attention = {name: {"kernel": np.moveaxis(w[name][i], -1, 0)} for name in ("query", "key", "value")}
        attention["out"] = {"kernel": np.moveaxis(w["out"][i], 0, -1)}
        up = {"value": {"kernel": w["up"][i].T}, "gate": {"kernel": w["gate"][i].T}}
        return {
            "attention": attention,
            "attention_norm": {"scale": w["attention_norm"][i]},
            "feed_forward": {"up": up, "down": {"kernel": w["down"][i].T}},
            "feed_forward_norm": {"scale": w["feed_forward_norm"][i]},
        }

    model = models.llama(
        vocabulary, num_layers=layers, num_heads=heads, num_kv_heads=groups, features=features,
        hidden_features=hidden, rotary_layout="interleaved", tied=True,
    )  # fmt: skip
    blocks = {str(i): block(i) for i in range(layers)}
    params = {"embedding": {"embedding": w["embedding"]}, "blocks": blocks, "norm": {"scale": w["norm"]}}
    return model, jax.tree.map(np.ascontiguousarray, params)


def read_pieces(path: Path, count: int) -> list[bytes]:
    """The vocabulary of llama2.c: the longest length, then (score, length, bytes) of each."""
    raw, at, pieces = path.read_bytes(), 4, []
    for _ in range(count):
        length = int(np.frombuffer(raw, np.int32, 1, at + 4)[0])
        pieces.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return pieces


def spelled(pieces: list[bytes], tokens: Any) -> str:
    text = b""
    for token in tokens:
        byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", pieces[token])
        text += bytes([int(byte[1], 16)]) if byte else pieces[token]
    return text.decode().removeprefix(" ")


def test_stories260k_tells_the_published_story(fdl_data: Path):
    """Llama's shape with grouped queries, and the cache: the greedy text of its README, word for word."""
    folder = fdl_data / "weights" / "stories260K"
    if not folder.is_dir():
        pytest.skip("no weights/stories260K")
    model, params = read_llama2c(folder / "stories260K.bin")
    fdl.check(model, params)
    assert sum(a.size for a in jax.tree.leaves(params)) == 260_032
    published = (folder / "stories260K.md").read_text().split("-t 0.0\n")[1].split("\n```")[0]
    tokens = np.asarray(models.generate(model, params, np.array([[1]]), 256, stop=1))[0]
    said = spelled(read_pieces(folder / "tok512.bin", 512), tokens[tokens != 1])
    assert said.startswith(published)


def read_resnet(path: Path, model: fdl.Layer) -> tuple[Tree, Tree]:
    """Params and state of akamaster/pytorch_resnet_cifar10 under our names."""
    torch = pytest.importorskip("torch")
    weights = {
        name.removeprefix("module."): value.numpy()
        for name, value in torch.load(path, map_location="cpu", weights_only=True)["state_dict"].items()
    }

    def theirs(ours: str) -> np.ndarray:
        name = ours.replace("stem/conv", "conv1").replace("stem/norm", "bn1").replace("head", "linear")
        name = re.sub(r"stages/(\d)/(\d+)/sum/block", lambda m: f"layer{int(m[1]) + 1}/{m[2]}", name)
        name = re.sub(r"norm(\d)", r"bn\1", name)
        for old, new in (("kernel", "weight"), ("scale", "weight"), ("mean", "running_mean"), ("var", "running_var")):
            name = re.sub(f"/{old}$", f"/{new}", name)
        array = weights.pop(name.replace("/", "."))
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T

    params, state = fdl.abstract(model)
    fill = lambda path, _: theirs(jax.tree_util.keystr(path, simple=True, separator="/"))  # noqa: E731
    params, state = (jax.tree_util.tree_map_with_path(fill, tree) for tree in (params, state))
    assert not [name for name in weights if not name.endswith("num_batches_tracked")]
    fdl.check(model, params, state)
    return params, state


def test_resnet20_recognises_cifar10_as_published(fdl_data: Path):
    """91.73 % of the 10 000 test images (the origin's README): so of the first 2000 with a standard error of 0.6."""
    path = fdl_data / "weights" / "resnet-cifar10" / "resnet20-12fca82f.th"
    if not path.is_file():
        pytest.skip("no weights/resnet-cifar10")
    model = models.resnet20()
    params, state = read_resnet(path, model)
    test = fdl.data.load("cifar10", split="test").take(np.arange(2000))
    x = (np.asarray(test["x"]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    logits, _ = jax.jit(model.apply)(params, state, x.astype(np.float32))
    right = int((np.asarray(logits).argmax(-1) == np.asarray(test["y"])).sum())
    assert abs(right / 2000 - 0.9173) < 0.01
