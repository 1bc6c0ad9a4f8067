"""The benchmark beside other libraries compares like with like: every variant does the same work."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.benchmarks import evaluators, peer_worker, peers, peers_table, trainers
from experiments.benchmarks.job import Job, make
from experiments.benchmarks.peer_worker import VARIANTS, Variant, workload
from experiments.benchmarks.peers_picture import draw

FILE = Path(peers.__file__)


def there(name: str) -> list[Variant]:
    """The variants of a workload whose libraries are there; without torch.compile, which needs a compiler and time."""
    chosen = [v for v in VARIANTS if not v.options and hasattr(workload(name), v.function)]
    return [v for v in chosen if all(importlib.util.find_spec(library.split(".")[0]) for library in v.libraries)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of other libraries
@pytest.mark.parametrize(
    ("name", "precision"),
    [(name, None) for name in peers.WORKLOADS + peers.GPU_WORKLOADS]
    + [(name, "bfloat16") for name in peers.GPU_WORKLOADS],
)
def test_what_the_variants_compute_agrees(name, precision, tmp_path, monkeypatch):
    """Losses of a few steps of float32 programs that take sums in another order; other values, or batches, differ more.

    In bfloat16, where each library rounds other intermediate results by up to 2^-9, ten times as much is allowed; that
    the workloads in it do the same work is seen in float32. All in this process, where they share what is compiled.
    """
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(peer_worker, "MOST", 2)  # runs of each: the second must not go on where the first has ended
    sizes = {"workload": name, **workload(name).SIZES, **workload(name).SMOKE}
    sizes.pop("precision", None)
    sizes |= {} if precision is None else {"precision": precision}
    off = 1e-3 if precision is None else 1e-2
    with jax.debug_key_reuse(False):  # other libraries may
        make(workload(name), sizes).save(tmp_path)
        job = Job.load(tmp_path)
        answers = {variant.name: peer_worker.measure(variant, job) for variant in there(name)}
    found = {variant: peers.agreement(answer, answers[peers.LIMIT], job) for variant, answer in answers.items()}
    assert {variant: row for variant, row in found.items() if not (row["agrees"] and row["loss_differs"] < off)} == {}


@pytest.mark.slow
def test_the_command_measures_in_processes_of_their_own(tmp_path):
    """Those of one workload; a variant that is skipped although its libraries are there is an error."""
    output, names = tmp_path / "peers.json", ("fdl", "JAX by hand", "PyTorch", "NumPy")
    command = [
        sys.executable,
        str(FILE),
        "--smoke",
        "--no-cache",
        "--no-scaling",
        "--no-sweep",
        "--output",
        str(output),
    ]
    subprocess.run([*command, "--workloads", "classic", "--variants", *names], check=True)
    everything = json.loads(output.read_text())["rows"]
    rows = [row for row in everything if row["kind"] == "workload"]
    assert [row["variant"] for row in rows] == [v.name for v in there("classic") if v.name in names]
    assert all(row["agrees"] for row in rows)
    assert all(0 < row["steady"] < row["end_to_end"] and row["peak_mib"] > 10 for row in rows)
    saved = [row for row in everything if row["kind"] == "checkpoint"]
    assert saved[0]["variant"] == "fdl"
    assert all(0 < row["blocking"][0] <= row["written"][0] and row["restored"][0] > 0 for row in saved)


def test_a_job_comes_back_from_its_files_as_it_was(tmp_path):
    params = {"dense": {"kernel": np.eye(2, dtype=np.float32)}, "scale": np.float32(3)}
    job = Job({"steps": 3}, params, {"x": np.arange(6).reshape(3, 2), "y": np.arange(3)}, np.array([[0], [2], [1]]))
    job.save(tmp_path)
    again = Job.load(tmp_path)
    assert again.sizes == job.sizes
    assert again.params["dense"]["kernel"].tolist() == [[1, 0], [0, 1]]
    assert again.params["scale"] == 3
    assert again.data["x"].tolist() == job.data["x"].tolist()
    assert again.order is not None
    assert again.order.tolist() == [[0], [2], [1]]
    assert again.epoch_steps() == 3


def sample(*losses: float, repeats: bool = True) -> dict:
    return {"losses": list(losses), "repeats": repeats}


@pytest.mark.parametrize(
    ("mine", "agrees"),
    [
        (sample(1.0, 0.5, 0.3, 0.2), True),
        (sample(1.0, 0.4, 0.303, 0.2), True),  # the last epoch is the last two steps: 0.6 % off
        (sample(1.0, 0.5, 0.4, 0.2), False),  # 20 %
        (sample(1.1, 0.5, 0.3, 0.2), False),  # other initial values
        (sample(0.75, 0.25), True),  # the mean of each epoch
        (sample(0.75, 0.35), False),
        (sample(1.0, 0.5, 0.3, 0.2, repeats=False), False),  # a second run went on where the first had ended
        (sample(1.0, 0.5, 0.3, float("nan")), False),
    ],
)
def test_losses_that_do_not_agree_are_told(mine, agrees):
    job = Job({}, {}, {"y": np.zeros(8)}, np.zeros((4, 4), int))
    assert peers.agreement(mine, sample(1.0, 0.5, 0.3, 0.2), job)["agrees"] == agrees


def test_one_mean_of_all_full_batches_is_compared_with_the_mean_of_all():
    limit = sample(1.0, 0.5, 0.3, 0.2)
    assert peers.agreement(sample(0.5), limit, Job({}, {}, {}, None))["agrees"]
    assert not peers.agreement(sample(0.2), limit, Job({}, {}, {}, None))["agrees"]


def test_of_an_evaluation_every_number_counts():
    job = Job({"exact": True}, {}, {}, None)
    assert peers.agreement(sample(0.7, 0.9), sample(0.7, 0.9), job)["agrees"]
    assert not peers.agreement(sample(0.7, 0.8), sample(0.7, 0.9), job)["agrees"]
    assert not peers.agreement(sample(0.7), sample(0.7, 0.9), job)["agrees"]


@pytest.mark.parametrize("wrong", [lambda y: y[::-1], lambda y: y[:64], lambda y: y + 0.01, lambda y: np.roll(y, 1, 1)])
def test_of_predictions_order_number_and_values_count(wrong):
    """Of 80 examples in batches of 32: another order, the last batch forgotten, another bias, classes exchanged."""
    logits = np.random.default_rng(0).normal(size=(80, 10))
    job = Job({"exact": True, "evaluate": "logits"}, {}, {}, None)
    theirs, same, other = (sample(*evaluators.answer(job, y)) for y in (logits, logits.copy(), wrong(logits)))
    assert peers.agreement(same, theirs, job)["agrees"]
    assert not peers.agreement(other, theirs, job)["agrees"]


def test_ratios_are_of_medians():
    """One slow sample of three, and one slow repetition in it, change nothing."""

    def taken(*runs: list[float]) -> list[dict]:
        rest = {"imports": {"jax": 0.5}, "ready": 1.0, "end_to_end": 3.0, "peak_mib": 100, "process_disturbed": False}
        return [rest | {"seconds": seconds, "disturbed": [False]} for seconds in runs]

    times = {peers.LIMIT: taken([2.0], [2.0], [9.0]), "fdl": taken([3.0, 3.0, 50.0], [3.0], [7.0])}
    row = peers.row("fdl", times)
    assert (row["steady"], row["ratio"], row["disturbed"]) == (3.0, 1.5, 0)


def test_a_variant_that_hangs_or_fails_is_left_out_and_the_others_stay(tmp_path, capsys):
    results = peers.Results(tmp_path / "peers.json")
    bench = peers.Bench(peers.Options(samples=2), tmp_path, results)

    def sample(variant, folder, extra):
        if variant.name == "Keras":
            raise peers.Skipped("took more than 1 s")
        return {"end_to_end": peers.LONG + 1 if variant.name == "torch.compile" else 1.0}

    bench.sample = sample
    chosen = [variant for variant in VARIANTS if variant.name in ("fdl", "Keras", "torch.compile")]
    taken = bench.take("mlp", chosen, tmp_path, {})
    assert {name: len(samples) for name, samples in taken.items()} == {"fdl": 2, "torch.compile": 1}
    results.write()
    assert json.loads((tmp_path / "peers.json").read_text())["skipped"] == [
        {"workload": "mlp", "variant": "Keras", "reason": "took more than 1 s"}
    ]
    assert "skipped: mlp, Keras" in capsys.readouterr().out


def test_a_workload_whose_data_cannot_be_made_is_noted(tmp_path, monkeypatch):
    monkeypatch.setitem(workload("gcn").SIZES, "nodes", -1)
    results = peers.Results(None)
    bench = peers.Bench(peers.Options(), tmp_path, results)
    bench.attempt("gcn", bench.compare, "gcn")
    assert [(row["workload"], row["variant"]) for row in results.skipped] == [("gcn", "all")]
    assert "negative" in results.skipped[0]["reason"]


def test_a_process_that_takes_too_long_ends_with_what_it_started(tmp_path):
    """Its child holds the pipe: a wait for the end of the output would be one for the child."""
    command = ["sh", "-c", "sleep 1000 & echo $! > child; wait"]
    command[2] = command[2].replace("child", str(tmp_path / "child"))
    with pytest.raises(peers.Skipped, match=r"more than 0\.5 s"):
        peers.bounded(command, peers.environment(), 0.5)
    stat = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 10  # of a busy machine: until the child that nobody waits for is gone, or dead
    while stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not stat.exists() or stat.read_text().split()[2] == "Z"


@pytest.mark.parametrize("option", [{"workloads": ("mpl",)}, {"variants": ("JAX",)}, {"samples": 0}])
def test_options_that_mean_nothing_are_refused(option):
    with pytest.raises(SystemExit, match="peers: "):
        peers.Options(**option)


def test_layouts_of_other_libraries():
    assert trainers.weights_first("kernel", np.zeros((3, 5))).shape == (5, 3)
    assert trainers.weights_first("kernel", np.zeros((3, 4, 1, 32))).shape == (32, 1, 3, 4)
    assert trainers.weights_first("bias", np.zeros(5)).shape == (5,)


def test_the_table_has_a_cell_for_what_was_measured():
    row = {"kind": "workload", "workload": "mlp", "variant": peers_table.LIMIT, "disturbed": 0}
    row |= {"steady": 1.3, "ratio": 1.0, "end_to_end": 3.8}
    other = row | {"workload": "classic", "steady": 0.018, "end_to_end": 1.3}
    ours = row | {"variant": "fdl", "ratio": 1.02, "end_to_end": 4.25, "disturbed": 1}
    curve = ours | {"kind": "scaling"}
    assert peers_table.table({"rows": [row, ours, other, curve]}).splitlines()[2:] == [
        "| JAX by hand, the work alone | 1.3 s | 0.018 s |",
        "| JAX by hand | 1 (3.8 s) | 1 (1.3 s) |",
        "| fdl | 1.02! (4.25 s) |  |",
    ]


def test_the_tables_of_sweeps_and_checkpoints():
    row = {"kind": "sweep", "variant": "fdl.sweep", "members": 8, "measured": 8, "disturbed": 0}
    ours = row | {"seconds": 0.1, "ratio": 1.0}
    theirs = row | {"variant": "torch, one by one", "measured": 4, "seconds": 2.0, "ratio": 20.0, "disturbed": 1}
    assert peers_table.sweep_table({"rows": [ours, theirs]}).splitlines() == [
        "| members of a sweep | 8 |",
        "| --- | --- |",
        "| fdl.sweep | 0.1 s (1) |",
        "| torch, one by one | ~!2 s (20) |",
    ]
    times = {"blocking": [31.2, 28.0, 214.0], "written": [701.0, 519.0, 1270.0], "restored": [302.0, 239.0, 386.0]}
    saved = {"kind": "checkpoint", "variant": "fdl", **times}
    assert peers_table.checkpoint_table({"rows": [ours, saved]}).splitlines()[2:] == [
        "| fdl | 31 (28 to 214) | 701 (519 to 1270) | 302 (239 to 386) |"
    ]


def test_the_readme_has_the_table_of_the_results():
    """What `python experiments/benchmarks/peers_table.py` would write is what is there."""
    readme = peers_table.README.read_text()
    assert peers_table.inserted(readme) == readme


def test_the_picture_is_drawn_where_variants_are_missing(tmp_path):
    pytest.importorskip("matplotlib")
    row = {"kind": "workload", "workload": "mlp", "variant": peers.LIMIT, "steady": 1.3, "end_to_end": 3.8}
    curve = row | {"kind": "scaling", "axis": "width", "size": 64}
    alone = row | {"workload": "gcn", "variant": "fdl"}  # of a workload whose limit was skipped
    results = tmp_path / "peers.json"
    results.write_text(json.dumps({"rows": [row, alone, curve]}))
    draw(results)
    assert results.with_suffix(".png").stat().st_size > 10_000
