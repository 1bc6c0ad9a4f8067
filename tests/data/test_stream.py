# pyright: reportArgumentType=false
"""Streams: the batch of a step is that of `batch_at`, whatever the chunk; what goes wrong says where."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.data.stream import AHEAD, Prefetch, Stream
from tests.training.test_run import assert_same_bits, experiment

ROWS = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)


def batch_at(step: int):
    index = np.random.default_rng(step).integers(0, len(ROWS), 10)
    x = ROWS[index]
    return {"x": x, "y": (x.sum(1) > 0).astype(np.int32), "weight": np.ones(10, np.float32)}


def streamed(**changes) -> fdl.Experiment:
    return experiment(**({"train": Stream(batch_at), "batch_size": None} | changes))


@pytest.mark.parametrize("chunk", [1, 7, None])
def test_a_stream_is_trained_on_in_the_order_of_its_steps(chunk):
    """Against the same batches one after the other through the step by itself."""
    run = fdl.run(streamed(num_steps=30), chunk=chunk)
    reference = fdl.run(streamed(num_steps=30), chunk=30)
    assert_same_bits((run.params, run.history), (reference.params, reference.history))
    ids = Stream(lambda step: {"id": np.full(3, step, np.float32)})
    task = fdl.Task(lambda key: (jnp.zeros(()), {}), lambda p, s, batch, **_: fdl.Outcome(batch["id"] + 0 * p))
    seen = fdl.run(fdl.Experiment(task, optax.sgd(0.1), ids, num_steps=40), chunk=chunk).history["train/loss"]
    np.testing.assert_array_equal(seen, np.arange(40))


def test_the_thread_reads_ahead_while_a_chunk_is_used():
    """Two chunks and no more, without being asked."""
    reading = threading.Semaphore(0)
    steps: list[int] = []

    def counted(step):
        steps.append(step)
        reading.release()
        return {"x": np.ones(1, np.float32)}

    prefetch = Prefetch(Stream(counted), 5, lambda step: 5, 1000)
    prefetch.next()
    for _ in range(15):  # the chunk in use and two more
        assert reading.acquire(timeout=60)
    prefetch.close()
    assert len(steps) <= 5 * (1 + AHEAD + 1)  # and one that waits for a place


def test_an_error_of_the_reader_names_the_step():
    def broken(step):
        if step == 7:
            raise OSError("disk gone")
        return batch_at(step)

    with pytest.raises(OSError, match="disk gone") as error:
        fdl.run(streamed(train=Stream(broken)), chunk=2)
    assert any("from step 6 on" in note for note in error.value.__notes__)


def test_a_batch_of_another_shape_is_refused():
    def changing(step):
        return {"x": np.ones((3 if step == 4 else 2, 5), np.float32), "y": np.zeros(3 if step == 4 else 2, np.int32)}

    with pytest.raises(fdl.InputError, match="batch of step 4"):
        fdl.run(streamed(train=Stream(changing), task=fdl.supervised(fdl.nn.Linear(5, 2), _loss)))


def _loss(logits, labels):
    return fdl.losses.softmax_cross_entropy(logits, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 5}, "no batch_size"),
        ({"num_steps": None, "num_epochs": 2}, "num_steps"),
        ({"evaluate": {"test": Stream(batch_at)}}, "a set that ends"),
        ({"train": Stream(lambda step: {})}, "no arrays"),
        ({"train": Stream(lambda step: {"x": ["a"]})}, "expected numbers"),
    ],
)
def test_what_a_stream_cannot_be_is_refused(settings, message):
    with pytest.raises(fdl.InputError, match=message):
        fdl.run(streamed(**settings))


def test_the_thread_ends_with_the_run():
    before = threading.active_count()
    fdl.run(streamed(num_steps=12))
    with pytest.raises(FloatingPointError):
        fdl.run(streamed(optimizer=optax.sgd(1e30), num_steps=2000), chunk=2)
    assert threading.active_count() == before


def test_an_epoch_of_an_indexable_sees_every_example_once():
    class Map:
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return np.float32(i), np.int32(i % 2)

    stream = fdl.data.from_indexable(Map(), 3)
    epochs = [np.concatenate([stream.read(3 * e + i)["x"] for i in range(3)]) for e in range(4)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    np.testing.assert_array_equal(stream.read(5)["y"], stream.read(5)["x"] % 2)


def test_a_torch_dataset_is_indexable():
    torch_data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    dataset = torch_data.TensorDataset(torch.arange(8.0), torch.arange(8))
    assert sorted(np.concatenate([fdl.data.from_indexable(dataset, 4).read(i)["y"] for i in (0, 1)])) == list(range(8))


def test_a_grain_dataset_is_indexable():
    grain = pytest.importorskip("grain.python")
    dataset = grain.MapDataset.range(12).map(lambda i: {"x": np.float32(i), "y": np.int32(i % 3)})
    stream = fdl.data.from_indexable(dataset, 4)
    epoch = np.concatenate([stream.read(i)["x"] for i in range(3)])
    assert sorted(epoch) == list(range(12))
    np.testing.assert_array_equal(stream.read(7)["y"], stream.read(7)["x"] % 3)


PROGRAM = """
import re
from pathlib import Path
import numpy as np, optax, fdl
random = np.random.default_rng(0).normal(size=(512, 3072)).astype(np.float32)  # 6 MB a batch
def batch_at(step):
    return {"x": random * np.float32(1 + step % 7), "y": np.full(512, step % 10, np.int32)}
task = fdl.supervised(fdl.nn.Linear(3072, 10), fdl.losses.softmax_cross_entropy)
fdl.run(fdl.Experiment(task, optax.sgd(1e-6), fdl.data.Stream(batch_at), num_steps=500))
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
def test_three_gigabytes_train_in_one_of_memory():
    """500 batches of 6.3 MB. (`ru_maxrss` would begin with the memory of the process that started this one.)"""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak is read from /proc")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1024
