# pyright: reportArgumentType=false
"""`fdl.pretrained` from Python: every form of arrays and paths is taken, and any other argument answered in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.sparse

import fdl
from fdl import nn, pretrained
from fdl.errors import InputError
from fdl.pretrained import Rule, export, load, write_safetensors

MODEL = nn.Linear(3, 2)
RULES = [Rule("fc.weight", "kernel", "o i -> i o"), Rule("fc.bias", "bias")]
KERNEL, BIAS = np.arange(6, dtype=np.float32).reshape(3, 2), np.array([7, 8], np.float32)
OURS = {"kernel": KERNEL, "bias": BIAS}
THEIRS = {"fc.weight": KERNEL.T, "fc.bias": BIAS}


def torch_tensors() -> Any:
    torch = pytest.importorskip("torch")
    model = torch.nn.ModuleDict({"fc": torch.nn.Linear(3, 2)})
    model["fc"].weight.data, model["fc"].bias.data = torch.tensor(KERNEL.T.copy()), torch.tensor(BIAS)
    return dict(model.named_parameters())


def half_tensors() -> Any:
    torch = pytest.importorskip("torch")
    return {name: torch.tensor(array.copy()).to(torch.bfloat16) for name, array in THEIRS.items()}


@pytest.mark.parametrize(
    ("tensors", "rules"),
    [
        (lambda: OURS, None),
        (lambda: THEIRS, RULES),
        (lambda: THEIRS, tuple(RULES)),
        (torch_tensors, RULES),
        (half_tensors, RULES),
        (lambda: {name: jax.numpy.asarray(array) for name, array in OURS.items()}, None),
        (lambda: {name: array.tolist() for name, array in OURS.items()}, None),
        (lambda: {name: array.astype(">f4") for name, array in OURS.items()}, None),
        (lambda: {name: array.astype(np.longdouble) for name, array in OURS.items()}, None),
        (lambda: {name: array.astype(np.float16) for name, array in OURS.items()}, None),
        (lambda: {name: np.ma.masked_array(array) for name, array in OURS.items()}, None),
        (lambda: {name: array.astype(object) for name, array in OURS.items()}, None),
    ],
)
def test_arrays_of_any_kind(tensors: Any, rules: Any) -> None:
    params, _, report = load(MODEL, tensors(), rules)
    assert report.complete
    np.testing.assert_array_equal(np.asarray(params["kernel"], np.float32), KERNEL)
    np.testing.assert_array_equal(np.asarray(params["bias"], np.float32), BIAS)


def test_nested_arrays_are_paths() -> None:
    params, _, _ = load(nn.Serial(body=MODEL), {"body": OURS})
    np.testing.assert_array_equal(params["body"]["kernel"], KERNEL)


def test_a_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, as a `Path`, below the home folder, and the folder of the file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_safetensors(tmp_path / "m.safetensors", OURS)
    for path in (str(tmp_path / "m.safetensors"), tmp_path / "m.safetensors", "~/m.safetensors", tmp_path):
        np.testing.assert_array_equal(load(MODEL, path)[0]["kernel"], KERNEL)
    with pytest.raises(InputError, match="m.safetensors does not fit the model:"):
        load(nn.Linear(2, 2), tmp_path / "m.safetensors")


def test_the_names_of_the_model_are_written_and_read_without_rules() -> None:
    params, state = fdl.init(nn.Serial(MODEL, nn.BatchNorm(2)), jax.random.key(0))
    again, state_again, _ = load(
        nn.Serial(MODEL, nn.BatchNorm(2)), export(nn.Serial(MODEL, nn.BatchNorm(2)), params, state)
    )
    jax.tree.map(np.testing.assert_array_equal, (params, state), (again, state_again))


def sparse() -> Any:
    return pytest.importorskip("torch").eye(3, 2).to_sparse()


def module_of_torch() -> Any:
    return pytest.importorskip("torch").nn.Linear(3, 2)


WRONG: dict[str, tuple[Any, str]] = {
    "swapped": (lambda: load(OURS, MODEL), "expected a model, an `fdl.Layer`, got dict; the model comes first"),
    "a class": (lambda: load(nn.Linear, OURS), "got type"),
    "nothing": (lambda: load(MODEL, None), "expected a path, or arrays by name .* got NoneType"),
    "a list": (lambda: load(MODEL, [KERNEL]), "got list"),
    "no file": (lambda: load(MODEL, "absent.safetensors"), "absent.safetensors: .* no such file"),
    "numbers as names": (lambda: load(MODEL, {0: KERNEL}), "names of arrays that are text"),
    "text": (lambda: load(MODEL, OURS | {"kernel": "abc"}), "'kernel': expected numbers, got dtype <U3"),
    "None": (lambda: load(MODEL, OURS | {"kernel": None}), "'kernel': expected numbers, got None"),
    "ragged": (lambda: load(MODEL, OURS | {"kernel": [[1.0], [1.0, 2.0]]}), "'kernel' is ragged"),
    "masked": (lambda: load(MODEL, OURS | {"bias": np.ma.masked_equal(BIAS, 7)}), "'bias': .* without masked values"),
    "sparse": (lambda: load(MODEL, OURS | {"kernel": sparse()}), "'kernel': expected numbers, got a sparse .*to_dense"),
    "sparse of SciPy": (
        lambda: load(MODEL, OURS | {"kernel": scipy.sparse.csr_matrix(KERNEL)}),
        "'kernel': expected numbers, got a sparse csr_matrix; pass value.toarray",
    ),
    "complex": (lambda: load(MODEL, OURS | {"kernel": KERNEL + 1j}), "! kernel: expected real numbers .*complex64"),
    "a module of PyTorch": (lambda: load(MODEL, module_of_torch()), r"got Linear; pass its state_dict\(\)"),
    "quantized": (lambda: load(MODEL, OURS | {"kernel": KERNEL.astype("i1")}), "! kernel: .*quantized.*int8"),
    "rules of pairs": (lambda: load(MODEL, THEIRS, [("fc.weight", "kernel")]), "rules: expected a list of pret"),
    "rules in a dict": (lambda: load(MODEL, THEIRS, {"fc.weight": "kernel"}), "rules: expected a list of pret"),
    "one rule": (lambda: load(MODEL, THEIRS, RULES[0]), "rules: expected a list of pret"),
    "dtype": (lambda: load(MODEL, OURS, dtype="bf16"), "dtype: expected a dtype of floating-point"),
    "dtype of integers": (lambda: load(MODEL, OURS, dtype="int8"), "dtype: expected a dtype of floating-point"),
    "initial": (lambda: load(MODEL, {}, strict=False, initial=OURS), r"initial: expected \(params, state\)"),
    "prefixed": (lambda: pretrained.prefixed("module.", ["fc.weight"]), "prefixed: rules"),
    "rule of a number": (lambda: Rule(3, "kernel"), "Rule: expected a name"),
    "change of a number": (lambda: Rule("w", "kernel", 3), "Rule: expected a name and a change"),
    "export": (lambda: export(OURS, MODEL, {}), "export: expected a model"),
    "folder of None": (lambda: pretrained.huggingface.load(None), "huggingface.load: expected a path"),
    "a name of the Hub": (
        lambda: pretrained.huggingface.load("bert-base-uncased"),
        "no such folder; models are not dow",
    ),
    "a config that is text": (lambda: pretrained.huggingface.architecture("gpt2"), "expected what config.json holds"),
    **{
        f"{name} of None": (lambda name=name: getattr(pretrained, name).load(None), "expected a path")
        for name in ("crepe", "silero", "llama2c", "resnet_cifar", "gat_cora")
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_other_arguments_are_answered_in_words(name: str) -> None:
    call, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        call()


def test_a_file_of_which_nothing_fits_gets_a_hint() -> None:
    with pytest.raises(InputError, match=r"the names fit without the start 'fc\.'"):
        load(MODEL, THEIRS)
    with pytest.raises(InputError, match="without rules names must be paths, such as 'kernel'"):
        load(MODEL, {"fc.W": np.ones((3, 2)), "fc.b": np.ones(2)})
    wrapped = {f"state_dict/module.{name}": array for name, array in THEIRS.items()}
    with pytest.raises(InputError, match=r"pretrained.prefixed\('state_dict/module.', rules\)"):
        load(MODEL, wrapped, RULES)
    assert load(MODEL, wrapped, pretrained.prefixed("state_dict/module.", RULES))[2].complete


def test_names_that_nearly_fit_get_a_hint() -> None:
    model = nn.Serial(body=MODEL)
    names = {f"body/{name}": array for name, array in OURS.items()}
    for tensors, hint in (
        ({"params": names}, r"without the start 'params/': pass \{name.removeprefix\('params/'\): array"),
        ({name.replace("/", "."): array for name, array in names.items()}, "the names fit with '/' for '.'"),
        (OURS, "the names fit the part 'body' of the model"),
        ({"body/kernal": KERNEL, "body/bias": BIAS}, "- body/kernel: missing, .*; the nearest name is 'body/kernal'"),
    ):
        with pytest.raises(InputError, match=hint):
            load(model, tensors)
    with pytest.raises(InputError, match="- kernel: missing, expected 'fc.weight'; the nearest name is 'fc.wieght'"):
        load(MODEL, {"fc.wieght": KERNEL.T, "fc.bias": BIAS}, RULES)


def test_complex_numbers_are_taken_where_they_are_asked_for() -> None:
    params, _, _ = load(MODEL, OURS | {"kernel": KERNEL + 1j}, dtype="complex64")
    assert params["kernel"][0, 0] == 1j


def test_names_without_end_are_cut() -> None:
    with pytest.raises(InputError) as raised:
        load(MODEL, {"x" * 10_000 + str(i): BIAS for i in range(1000)})
    assert len(str(raised.value)) < 5000
