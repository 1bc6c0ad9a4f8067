# pyright: reportMissingImports=false, reportArgumentType=false
"""Blocks, decoders, encoders: what sees what, memory, padding, and parity with PyTorch and written-out formulas."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models, nn
from fdl.models.block import Block, exact_gelu, feed_forward
from tests.compiling import QUICK
from tests.models.common import close, ids, lively

pytestmark = pytest.mark.slow

V, T = 11, 6
SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 4, "features": 8, "hidden_features": 12}
DECODERS = {
    "gpt2": models.gpt2(V, 8, **SIZES),
    "llama": models.llama(V, **SIZES, num_kv_heads=2),
    "llama, interleaved and tied": models.llama(V, **SIZES, rotary_layout="interleaved", tied=True),
    "gpt2, scanned": models.scanned(models.gpt2(V, 8, **SIZES))[0],
}
IDS = ids(2, T, below=V)


def compiled(function: Any) -> Any:
    return jax.jit(function, compiler_options=QUICK)


@pytest.mark.parametrize("name", DECODERS)
def test_any_split_of_a_text_decodes_to_the_logits_of_the_whole(name: str):
    model = DECODERS[name]
    params = lively(model)
    whole = compiled(model)(params, IDS)
    decode = compiled(model.decode)
    cache, parts = model.init_cache(2, T + 1), []
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 6)):
        y, cache = decode(params, IDS[:, start:end], cache)
        parts.append(y)
    close(np.concatenate(parts, 1), whole)
    assert int(cache["index"]) == T


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_no_position_sees_a_later_one_and_every_position_sees_all_before_it(name: str):
    """By gradients of logits at t in the embedded token s: zero for s > t, not zero for s <= t.

    The tokens are 0 ... T - 1 and the logits those of the others, for a tied table is read at the output too.
    """
    model = DECODERS[name]
    params = lively(model)
    tokens = np.arange(T, dtype=np.int32)[None]

    def others(table: Any, t: Any) -> Any:
        logits = model(params | {"embedding": {"embedding": table}}, tokens)
        return jnp.take(logits[0, :, T:], t, 0).sum()

    table = params["embedding"]["embedding"]
    seen = compiled(jax.vmap(jax.grad(others), (None, 0)))(table, jnp.arange(T))[:, :T]
    assert ((np.abs(seen).max(-1) > 0) == np.tri(T, dtype=bool)).all()


def test_a_text_padded_on_the_left_has_the_logits_of_the_text():
    for model in (DECODERS["gpt2"], DECODERS["llama"]):
        params = lively(model)
        want = compiled(model)(params, IDS)
        padded = np.concatenate([np.full((2, 2), 3, np.int32), IDS], 1)
        mask, positions = np.arange(T + 2) >= 2, np.maximum(np.arange(T + 2) - 2, 0)
        masks = {"mask": np.broadcast_to(mask, (2, T + 2)), "positions": positions}
        got, _ = compiled(model.decode)(params, padded, model.init_cache(2, T + 2), **masks)
        close(got[:, 2:], want)
        close(compiled(model)(params, padded, **masks)[:, 2:], want)


def test_a_cache_longer_than_the_table_of_positions_is_refused():
    with pytest.raises(fdl.InputError, match="ends at 8"):
        DECODERS["gpt2"].init_cache(1, 9)
    with pytest.raises(fdl.InputError, match=r"expected ids \[B, T\], got int32\[6\]; models see the batch"):
        DECODERS["gpt2"]({}, IDS[0])


def test_padding_changes_nothing_that_an_encoder_says_of_a_text():
    model = models.bert(V, 8, **SIZES)
    params = lively(model)
    types = ids(2, T, below=2, seed=1)
    short = compiled(model)(params, IDS[:, :4], types=types[:, :4])
    mask = np.broadcast_to(np.arange(T) < 4, (2, T))
    padded = compiled(model)(params, IDS, mask=mask, types=types)
    close(padded[:, :4], short)
    pooler = params["pooler"]["linear"]
    close(model.pooled(params, padded), np.tanh(short[:, 0] @ pooler["kernel"] + pooler["bias"]))
    other = compiled(model)(params, IDS, mask=mask, types=1 - types)
    assert np.abs(other - padded).max() > 0.01
    assert np.abs(compiled(model)(params, IDS, types=types)[:, :4] - short).max() > 0.01


ENCODER_DECODER = models.transformer(V, 7, **SIZES)
SOURCE, TARGET = IDS, ids(2, 4, below=7, seed=2)
SOURCE_MASK = np.arange(T) < np.array([T, 3])[:, None]


def test_encoder_decoder_decodes_to_the_logits_of_the_whole_and_ignores_padding():
    model, params = ENCODER_DECODER, lively(ENCODER_DECODER)
    whole = compiled(model)(params, (SOURCE, TARGET), source_mask=SOURCE_MASK)
    cache = model.start(params, SOURCE, 4, mask=SOURCE_MASK)
    first, cache = compiled(model.decode)(params, TARGET[:, :3], cache)
    last, _ = compiled(model.decode)(params, TARGET[:, 3:], cache)
    close(np.concatenate([first, last], 1), whole)
    alone = compiled(model)(params, (SOURCE[1:, :3], TARGET[1:]))
    close(whole[1:], alone)
    changed = TARGET.copy()
    changed[:, 3] += 1 - 2 * (changed[:, 3] > 3)
    later = compiled(model)(params, (SOURCE, changed), source_mask=SOURCE_MASK)
    close(later[:, :3], whole[:, :3], 0)
    assert np.abs(later[:, 3] - whole[:, 3]).max() > 0.01


def test_one_table_for_both_sides():
    params, _ = fdl.abstract(models.transformer(V, **SIZES))
    assert [name for name in params if "embedding" in name] == ["source_embedding"]


def test_scanned_blocks_compute_the_same_and_go_back():
    model = models.gpt2(V, 8, **SIZES, dropout=0.1)
    params = lively(model)
    gradient = lambda m, p: compiled(jax.grad(lambda p: (m(p, IDS) ** 2).sum()))(p)  # noqa: E731
    want = gradient(model, params)
    for remat in (False, True):
        got = gradient(*models.scanned(model, params, remat=remat))
        got["blocks"] = nn.unstack(got["blocks"])
        jax.tree.map(lambda a, b: close(a, b, 1e-4), got, want)
    with pytest.raises(fdl.InputError, match="differ"):
        models.scanned(fdl.edit(model, "blocks/1/attention", nn.Attention(8, 2, causal=True)))


def test_bfloat16_stays_bfloat16():
    for model in (*DECODERS.values(), models.bert(V, 8, **SIZES)):
        params, _ = fdl.abstract(model, jnp.bfloat16)
        assert jax.eval_shape(model, params, IDS).dtype == jnp.bfloat16


# --- PyTorch ---

B, D, H, F = 3, 8, 2, 12
X = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=(B, 5, D)).astype(np.float32)
MASK = np.arange(T) < np.array([6, 4, 1])[:, None]
CONTEXT_MASK = np.arange(5) < np.array([5, 2, 1])[:, None]


def torch_attention(params: Any, name: str) -> dict[str, Any]:
    rows = {part: np.asarray(params[part]["kernel"]).reshape(D, D).T for part in ("query", "key", "value")}
    return {
        f"{name}.in_proj_weight": np.concatenate(list(rows.values())),
        f"{name}.in_proj_bias": np.concatenate([np.ravel(params[part]["bias"]) for part in rows]),
        f"{name}.out_proj.weight": np.asarray(params["out"]["kernel"]).reshape(D, D).T,
        f"{name}.out_proj.bias": np.asarray(params["out"]["bias"]),
    }


def torch_weights(params: Any) -> dict[str, Any]:
    """A block's under the names of `TransformerEncoderLayer`, or `TransformerDecoderLayer` with cross attention."""
    norms = ["attention_norm", "cross_attention_norm", "feed_forward_norm"]
    weights = torch_attention(params["attention"], "self_attn")
    if "cross_attention" in params:
        weights |= torch_attention(params["cross_attention"], "multihead_attn")
    for number, name in enumerate([name for name in norms if name in params], start=1):
        weights |= {f"norm{number}.weight": params[name]["scale"], f"norm{number}.bias": params[name]["bias"]}
    for name, theirs in (("up", "linear1"), ("down", "linear2")):
        linear = params["feed_forward"][name]
        weights |= {f"{theirs}.weight": np.asarray(linear["kernel"]).T, f"{theirs}.bias": linear["bias"]}
    return {name: np.array(value) for name, value in weights.items()}


def torch_block(cross: bool, norm_first: bool, activation: Any) -> Block:
    attention, norm = nn.Attention(D, H, causal=cross), nn.LayerNorm(D)
    inner = feed_forward(D, F, activation, fdl.initializers.Normal(0.3))
    more: dict[str, Any] = {"cross_attention": nn.Attention(D, H), "cross_attention_norm": norm} if cross else {}
    return Block(attention, norm, inner, norm, **more, norm_first=norm_first)


@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize(("norm_first", "activation"), [(True, "gelu"), (False, "relu")])
def test_torch_transformer_layers(cross: bool, norm_first: bool, activation: str):
    """Values, and gradients of all parameters and of x. Where PyTorch's layers pad, ours do."""
    torch = pytest.importorskip("torch")
    block = torch_block(cross, norm_first, {"gelu": exact_gelu, "relu": jax.nn.relu}[activation])
    params = lively(block)
    weight = np.random.default_rng(2).normal(size=X.shape).astype(np.float32) * MASK[..., None]
    keywords = {"context": CONTEXT, "context_mask": CONTEXT_MASK} if cross else {"mask": MASK}

    def loss(params: Any, x: Any) -> Any:
        y = block(params, x, **keywords)
        return (y * weight).sum(), y

    (params_bar, x_bar), y = compiled(jax.grad(loss, (0, 1), has_aux=True))(params, X)

    kind = torch.nn.TransformerDecoderLayer if cross else torch.nn.TransformerEncoderLayer
    module = kind(D, H, F, 0.0, activation, batch_first=True, norm_first=norm_first)
    module.load_state_dict({name: torch.tensor(value) for name, value in torch_weights(params).items()})
    x = torch.tensor(X, requires_grad=True)
    if cross:
        later = torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
        padding = torch.tensor(~CONTEXT_MASK)
        want = module(x, torch.tensor(CONTEXT), tgt_mask=later, memory_key_padding_mask=padding)
    else:
        want = module(x, src_key_padding_mask=torch.tensor(~MASK))
    (want * torch.tensor(weight)).sum().backward()

    close(np.asarray(y) * MASK[..., None], want.detach().numpy() * MASK[..., None])
    close(x_bar, x.grad, 3e-5)
    got = torch_weights(params_bar)
    for name, parameter in module.named_parameters():
        close(got[name], parameter.grad, 3e-5)


# --- the formulas, written out in numpy, one head and one position at a time ---


def softmax(a: np.ndarray) -> np.ndarray:
    e = np.exp(a - a.max())
    return e / e.sum()


def llama_block(p: Any, x: np.ndarray, eps: float, base: float) -> np.ndarray:
    """Touvron et al., section 2.2, on one text x [T, D], in Meta's form: neighbouring features are turned."""
    rms = lambda name, h: h / np.sqrt((h**2).mean(-1, keepdims=True) + eps) * p[name]["scale"]  # noqa: E731

    def turned(h: np.ndarray) -> np.ndarray:
        K = h.shape[-1]
        z = h[..., ::2] + 1j * h[..., 1::2]
        z = z * np.exp(1j * np.arange(len(h))[:, None] * base ** (-np.arange(0, K, 2) / K))
        return np.stack([z.real, z.imag], -1).reshape(h.shape)

    a, h = p["attention"], rms("attention_norm", x)
    heads, groups = a["query"]["kernel"].shape[1], a["key"]["kernel"].shape[1]
    y = x.copy()
    for head in range(heads):
        group = head // (heads // groups)
        q = turned(h @ a["query"]["kernel"][:, head])
        k = turned(h @ a["key"]["kernel"][:, group])
        v = h @ a["value"]["kernel"][:, group]
        for t in range(len(x)):
            weights = softmax(q[t] @ k[: t + 1].T / np.sqrt(q.shape[-1]))
            y[t] += weights @ v[: t + 1] @ a["out"]["kernel"][head]
    f, h = p["feed_forward"], rms("feed_forward_norm", y)
    gate = h @ f["up"]["gate"]["kernel"]
    return y + (gate / (1 + np.exp(-gate)) * (h @ f["up"]["value"]["kernel"])) @ f["down"]["kernel"]


def test_llama_is_its_formulas():
    model = models.llama(V, **SIZES, num_kv_heads=2, rotary_layout="interleaved", rotary_base=100.0)
    params = lively(model)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h = p["embedding"]["embedding"][IDS[0]]
    for block in p["blocks"].values():
        h = llama_block(block, h, 1e-5, 100.0)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"]
    close(compiled(model)(params, IDS)[0], h @ p["head"]["kernel"], 1e-4)


def test_gpt2_is_its_formulas():
    model = models.gpt2(V, 8, num_layers=1, num_heads=1, features=4)
    params = lively(model)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    b = p["blocks"]["0"]

    def norm(q: Any, h: np.ndarray) -> np.ndarray:
        h = h - h.mean(-1, keepdims=True)
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-5) * q["scale"] + q["bias"]

    x = p["embedding"]["embedding"][IDS[0]] + p["positions"]["embedding"][:T]
    h = norm(b["attention_norm"], x)
    q, k, v = (h @ b["attention"][n]["kernel"][:, 0] + b["attention"][n]["bias"] for n in ("query", "key", "value"))
    seen = np.stack([softmax(q[t] @ k[: t + 1].T / 2) @ v[: t + 1] for t in range(T)])
    x = x + seen @ b["attention"]["out"]["kernel"][0] + b["attention"]["out"]["bias"]
    up = norm(b["feed_forward_norm"], x) @ b["feed_forward"]["up"]["kernel"] + b["feed_forward"]["up"]["bias"]
    up = up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
    x = x + up @ b["feed_forward"]["down"]["kernel"] + b["feed_forward"]["down"]["bias"]
    close(compiled(model)(params, IDS)[0], norm(p["norm"], x) @ p["embedding"]["embedding"].T, 1e-4)


def test_what_goes_into_the_blocks_of_bert_and_vit():
    """Sums, norms and patches written out; the blocks themselves are compared with PyTorch's above."""
    bert = models.bert(V, 8, num_layers=1, num_heads=2, features=4)
    params, types = lively(bert), ids(2, T, below=2, seed=3)
    p = jax.tree.map(np.asarray, params)
    tokens, kinds, places = (p[name]["embedding"] for name in ("embedding", "token_types", "positions"))
    h = tokens[IDS] + kinds[types] + places[:T]
    h = h - h.mean(-1, keepdims=True)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-12) * p["norm"]["scale"] + p["norm"]["bias"]
    want = compiled(bert.blocks.parts()["0"])(params["blocks"]["0"], h)
    close(compiled(bert)(params, IDS, types=types), want)

    vit = models.vit(3, 5, image_size=4, patch_size=2, num_layers=1, num_heads=2, features=4)
    params, x = lively(vit), np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    p = jax.tree.map(np.asarray, params)
    patches = [x[:, i : i + 2, j : j + 2].reshape(2, 12) for i in (0, 2) for j in (0, 2)]  # row by row
    h = np.stack(patches, 1) @ p["patches"]["kernel"].reshape(12, 4) + p["patches"]["bias"]
    h = np.concatenate([np.tile(p["class_token"]["embedding"], (2, 1, 1)), h], 1) + p["positions"]["embedding"]
    h = np.asarray(compiled(vit.parts()["blocks"].parts()["0"])(params["blocks"]["0"], h))[:, 0]
    h = h - h.mean(-1, keepdims=True)
    h = h / np.sqrt((h**2).mean(-1, keepdims=True) + 1e-6) * p["norm"]["scale"] + p["norm"]["bias"]
    close(compiled(vit)(params, x), h @ p["head"]["kernel"] + p["head"]["bias"])
