"""The part of the benchmark beside other libraries that needs a GPU, as far as it can be seen without one."""

from __future__ import annotations

import json
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.benchmarks import gpu, job, peers, trainers
from experiments.benchmarks.workloads import gpt2, mlp, resnet50
from fdl.inspect.summary import flops


def test_without_a_gpu_what_needs_one_is_noted_as_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi
    assert not gpu.present()
    options = peers.Options()
    assert set(peers.GPU_WORKLOADS) < set(options.workloads)
    results = peers.Results(None)
    bench = peers.Bench(options, tmp_path, results)
    for name in peers.GPU_WORKLOADS:
        bench.attempt(name, bench.compare, name)
    bench.attempt("gpu_sweep", bench.part, "gpu_sweep", *peers.PARTS["gpu_sweep"])
    assert [row["workload"] for row in results.skipped] == ["gpt2", "resnet50", "gpu_sweep"]
    assert {row["reason"] for row in results.skipped} == {"no GPU"}


@pytest.mark.parametrize(("script", "found"), [("echo 'GPU 0: H100'", True), ("echo 'No devices'; exit 6", False)])
def test_a_gpu_is_what_the_driver_lists(script, found, tmp_path, monkeypatch):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.present() == found


def test_with_a_gpu_processes_reach_it_and_its_rate_is_measured_once(tmp_path, monkeypatch):
    """The work is made on the CPU; the variants, and the rate of products, get the card that the user chose."""
    started = []

    def bounded(command, env, timeout):
        module, *arguments = command[2:]
        started.append((module.rpartition(".")[2], env["JAX_PLATFORMS"], env["CUDA_VISIBLE_DEVICES"], timeout))
        if module.endswith("job"):
            sizes = json.loads(arguments[0])
            assert sizes["device"] == "gpu"
            job.Job(sizes, {}, {"y": np.zeros(32)}, np.zeros((40, 16), int)).save(peers.Path(arguments[1]))
        answer = {"imports": {}, "ready": 1.0, "seconds": [2.0], "disturbed": [False], "after_first_run": 0.0}
        answer |= {"losses": [10.0] * 40, "repeats": True, "peak_mib": 1, "peak_gpu_mib": 900}
        answer |= {"name": "card", "flops": 1e15}
        return subprocess.CompletedProcess(command, 0, json.dumps(answer), "")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(gpu, "present", lambda: True)
    monkeypatch.setattr(peers, "bounded", bounded)
    results = peers.Results(None)
    bench = peers.Bench(peers.Options(variants=("fdl", "JAX by hand"), samples=1), tmp_path, results)
    for name in peers.GPU_WORKLOADS:
        bench.attempt(name, bench.compare, name)
    rate, made, worker = (
        ("gpu", "cuda,cpu", "3", 120.0),
        ("job", "cpu", "", 120.0),
        ("peer_worker", "cuda,cpu", "3", 600),
    )
    assert started == [rate, made, worker, worker, made, worker, worker]
    assert [row["workload"] for row in results.rows] == ["gpt2", "gpt2", "resnet50", "resnet50"]
    row = results.rows[0]
    assert row["tokens_per_second"] == pytest.approx(40 * 16 * 1024 / 2.0, rel=1e-2)  # three digits
    assert row["share"] == pytest.approx(gpt2.flops(gpt2.SIZES) / 2.0 / 1e15, rel=1e-2)
    assert row["peak_gpu_mib"] == 900
    assert results.rows[-1]["images_per_second"] == 40 * 128 / 2.0


def test_the_rate_is_of_products_alone():
    found = gpu.measure(size=64, times=3)
    assert found["name"] == jax.devices()[0].device_kind
    assert 1e6 < found["flops"] < 1e16


def test_operations_of_gpt2():
    assert gpt2.parameters(gpt2.SIZES | {"vocabulary": 50_257}) == 124_439_808  # the paper's, as Hugging Face counts it
    sizes = gpt2.SIZES | gpt2.SMOKE | {"features": 128, "length": 64, "batch": 1, "steps": 1, "vocabulary": 4096}
    params, _ = fdl.abstract(gpt2.experiment(sizes, gpt2.data(sizes)).task.objective.model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == gpt2.parameters(sizes)
    forwards = flops(gpt2.forward, params, {"x": jax.ShapeDtypeStruct((1, 64), jnp.int32)})
    assert 3 * forwards == pytest.approx(gpt2.flops(sizes), rel=0.05)  # XLA counts what is no product as well


def test_operations_of_resnet50():
    assert resnet50.multiplications(resnet50.SIZES) == 4_089_184_256  # 4.09 G, as for torchvision's
    data = {"x": np.zeros((128, 8, 8, 3), np.float32), "y": np.zeros(128, np.int32)}
    model = resnet50.experiment(resnet50.SIZES, data).task.objective.model
    params, state = fdl.abstract(model)
    assert jax.tree.map(np.shape, (params, state)) == jax.tree.map(np.shape, fdl.abstract(fdl.models.resnet50()))
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    counted = flops(lambda *a: model.apply(*a)[0], params, state, images)  # without products with the zeros around
    assert 2 * resnet50.multiplications(resnet50.SIZES) == pytest.approx(counted, rel=0.04)


def test_precision_is_that_of_the_forward_pass_alone():
    """The limit's parameters stay in float32: a step of 1e-5 is lost in bfloat16, a thousand of them are not."""
    seen = []

    def forward(params, batch):
        seen.append([str(leaf.dtype) for leaf in (params["w"], batch["x"], batch["y"])])
        return batch["x"] * params["w"]

    sizes = {"steps": 1000, "optimizer": "sgd", "rate": 5e-6, "loss": "squared_error", "precision": "bfloat16"}
    data = {"x": np.ones((4, 1), np.float32), "y": np.zeros((4, 1), np.int32)}
    losses = trainers.limit(job.Job(sizes, {"w": np.ones(1, np.float32)}, data, None), forward)()
    assert seen[0] == ["bfloat16", "bfloat16", "int32"]
    assert losses[0] == 1.0
    assert losses[-1] < 0.99


def test_without_a_precision_nothing_is_converted():
    sizes = mlp.SIZES | mlp.SMOKE | {"steps": 1}
    made = job.make(mlp, sizes)
    dtypes = set()

    def forward(params, batch):
        dtypes.update(leaf.dtype for leaf in jax.tree.leaves((params, batch["x"])))
        return mlp.forward(params, batch)

    trainers.limit(made, forward)
    assert dtypes == {jnp.dtype(jnp.float32)}
