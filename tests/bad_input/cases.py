# pyright: reportArgumentType=false, reportCallIssue=false
"""The fifty mistakes that people make with data, labels, shapes, numbers and checkpoints: each by its number.

What is wrong is an `InputError` that says what, where, expected, got and how to put it right, and comes before a
program is compiled: here, with the test in `test_refused.py`. What is no mistake has one documented answer, asserted by
value in `test_answered.py`.
Numbers are those of the catalogue of failures that other libraries pass over in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import losses, nn
from fdl.data import Arrays

X, Y = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4), np.array([0, 1, 2, 0, 1, 2])
KEY = jax.random.key(0)


def experiment(x: Any = X, y: Any = Y, **changes: Any) -> fdl.Experiment:
    loss, metrics = changes.pop("loss", losses.softmax_cross_entropy), changes.pop("metrics", {})
    task = fdl.supervised(changes.pop("model", nn.Linear(4, 3)), loss, metrics, weight=changes.pop("weight", None))
    settings = {"task": task, "optimizer": optax.sgd(0.1), "train": Arrays(x=x, y=y), "num_steps": 1}
    return fdl.Experiment(**(settings | changes))


def run(x: Any = X, y: Any = Y, **changes: Any) -> Callable[[], Any]:
    return lambda: fdl.run(experiment(x, y, **changes))


def descend(optimizer: Any) -> Callable[[], Any]:
    return lambda: fdl.run(experiment(optimizer=optimizer))


def regress(y: np.ndarray, loss: Any = losses.squared_error, outputs: int = 1, **changes: Any) -> Callable[[], Any]:
    return run(y=y, model=nn.Linear(4, outputs), loss=loss, **changes)


def apply(layer: fdl.Layer, x: Any) -> Callable[[], Any]:
    params, state = zeros(layer)
    return lambda: layer.apply(params, state, x)


def zeros(layer: fdl.Layer) -> Any:
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), fdl.abstract(layer))


def changed(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    copy = np.array(array)
    copy[index] = value
    return copy


def without(tree: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key != name}


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1


def build(config: Config) -> fdl.Experiment:
    return experiment(optimizer=optax.sgd(config.learning_rate))


def stale_state() -> Any:
    """A step with the optimiser's state of other parameters, which would broadcast."""

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        return fdl.Outcome(losses.squared_error(batch["x"] @ params, batch["y"]))

    step = fdl.make_step(objective, optax.sgd(0.1, momentum=0.9))
    now, other = (step.init(jnp.ones(shape), key=KEY) for shape in ((3, 2), (2,)))
    batch = {"x": jnp.ones((5, 3)), "y": jnp.ones((5, 2))}
    return jax.eval_shape(step, now._replace(opt_state=other.opt_state), batch)


LINEAR, IMAGES = zeros(nn.Linear(4, 3))[0], np.ones((2, 8, 8, 3), np.float32)
IDS, VOCABULARY = np.array([[1, 2], [3, 9]]), nn.Embedding(9, 4)
BINARY = losses.sigmoid_binary_cross_entropy
SPARSE, DENSE = losses.softmax_cross_entropy, losses.softmax_cross_entropy_with_probabilities
FOREIGN = {"weight": np.ones((2, 3), np.float32)}
RULES = [fdl.pretrained.Rule("weight", "kernel", "o i -> i o"), fdl.pretrained.Rule("b", "bias")]

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "1 label == classes": (run(y=changed(Y, 4, 3)), r"entropy: label 3 in row 4 of 'train' is outside 0\.\.2"),
    "2 label -1": (run(y=changed(Y, 2, -1)), r"softmax_cross_entropy: label -1 in row 2 of 'train' is outside 0\.\.2"),
    "3 label -100": (run(y=changed(Y, 2, -100)), r"label -100 .*outside 0\.\.2"),
    "4 float labels": (run(y=Y.astype(np.float32)), "labels are class numbers, expected integers, got float32"),
    "5 labels (B, 1)": (run(y=Y[:, None]), r"logits \[6, 3\] need labels \[6\], got \[6, 1\].*labels\[\.\.\., 0\]"),
    "6 one-hot for numbers": (run(y=np.eye(3, dtype=np.int32)[Y]), r"look one-hot: take labels\.argmax\(-1\)"),
    "6 numbers for one-hot": (run(X[:3], Y[:3], loss=DENSE), r"need a class axis.*\[3, 3\], got \[3\]"),
    "7 one-hot of label == classes": (
        run(y=changed(np.eye(3, dtype=np.float32)[Y], (4, 1), 0.0), loss=DENSE),
        "probabilities in row 4 of 'train' have sum 0, expected 1",
    ),
    "8 predictions (B, 1), targets (B,)": (regress(X[:, 0]), r"predictions \[6, 1\] and targets \[6\].*y\[\.\.\., 0\]"),
    "8 and a Huber loss": (regress(X[:, 0], losses.huber_loss), r"huber_loss: predictions \[6, 1\] and targets \[6\]"),
    "8 and log cosh": (regress(X[:, 0], losses.log_cosh), r"log_cosh: predictions \[6, 1\] and targets \[6\]"),
    "8 and a loss of one's own": (regress(X[:, 0], lambda p, t: (p - t) ** 2), r"shape \[6, 6\].*differ in shape"),
    "9 targets (B, 1) for (B, 3)": (regress(X[:, :1], outputs=3), r"predictions \[6, 3\] and targets \[6, 1\]"),
    "10 accuracy of labels (B, 1)": (
        lambda: fdl.metrics.accuracy(jnp.ones((6, 3)), jnp.asarray(Y)[:, None]),
        r"accuracy: .*\[6, 3\].*\[6\].*\[6, 1\]",
    ),
    "11 binary labels {1, 2}": (
        regress((Y[:, None] % 2 + 1).astype(np.int32), BINARY),
        r"sigmoid_binary_cross_entropy: label 2 .*0\.\.1",
    ),
    "11 and as floats": (regress((Y[:, None] % 2 + 1.0).astype(np.float32), BINARY), r"label 2\.0 .*outside 0\.\.1"),
    "12 logits as probabilities": (
        lambda: DENSE(jnp.zeros((1, 2)), jnp.array([[2.0, -1.0]])), r"probability 2.0 .*outside 0\.\.1"),
    "13 no examples": (lambda: Arrays(x=X[:0], y=Y[:0]), "Arrays: no examples .x, y have a leading axis of 0"),
    "15 NaN": (run(changed(X, (5, 1), np.nan)), "'x' of the set 'train': not finite: nan at row 5, column 1.*replace"),
    "15 infinity in a test set": (
        run(evaluate={"test": Arrays(x=changed(X, (3, 0), np.inf), y=Y)}),
        "'x' of the set 'test': not finite: inf at row 3, column 0",
    ),
    "16 uint8 images to Conv": (
        run(np.ones((6, 4, 4, 1), np.uint8), model=nn.Serial(nn.Conv(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))),
        r"Conv\(1, 2, 3\): expected x of floats, got uint8\[6, 4, 4, 1\]; scale it.*/ 255.*in layer 0",
    ),
    "16 uint8 images to Linear": (run(X.astype(np.uint8)), r"Linear\(4, 3\): expected x of floats, got uint8.*/ 255"),
    "17 float64 beyond float32": (lambda: Arrays(x=[1e300]), "array 'x': 1e.300 is beyond 32-bit floats"),
    "18 int64 beyond int32": (lambda: Arrays(x=[2**40 + 7]), "array 'x': values beyond 32-bit integers.*wrap"),
    "19 steps beyond int32": (lambda: experiment(num_steps=2**31), "num_steps: expected at most 2147483647.*got 21474"),
    "21 unequal lengths": (lambda: experiment(y=Y[:5]), "all leading axes must be equal .*x: 6, y: 5"),
    "22 batch > data": (lambda: experiment(batch_size=7), "7 is larger than the 6 examples.*batch_size <= 6"),
    "24 batch size 0": (lambda: experiment(batch_size=0), "batch_size: expected a whole number >= 1, got 0"),
    "24 batch size -2": (lambda: experiment(batch_size=-2), "batch_size: expected a whole number >= 1, got -2"),
    "24 epochs -1": (lambda: experiment(num_steps=None, num_epochs=-1), "num_epochs: expected a whole .* >= 1, got -1"),
    "25 strings": (lambda: Arrays(x=[1, "b"]), "array 'x': expected numbers, got dtype <U.*index 0.*encode"),
    "25 objects": (
        lambda: Arrays(x=np.array([1.0, None], object)), "'x': expected numbers, got dtype object .None at index 1"),
    "25 ragged": (lambda: Arrays(x=[[1.0], [2.0], [1.0, 2.0]]), r"'x' is ragged.*row 0 .*\[1\], row 2 \[2\]; pad them"),
    "26 features": (
        run(np.ones((6, 785), np.float32), model=nn.Serial(nn.Linear(784, 8), head=nn.Linear(8, 3))),
        r"Linear\(784, 8\): expected x of shape \[\.\.\., in_features=784\], got float32\[6, 785\].*in layer 0",
    ),
    "26 in the middle": (
        run(model=nn.Serial(nn.Linear(4, 8), head=nn.Linear(9, 3))), r"in_features=9\], got .*\[6, 8\].*layer head"),
    "27 channels first": (
        apply(nn.Conv(3, 4, 3), IMAGES.transpose(0, 3, 1, 2)), r"in_channels=3\], got .*\[2, 3, 8, 8\]; channels come"),
    "28 no batch axis": (apply(nn.Conv(3, 4, 3), IMAGES[0]), r"got float32\[8, 8, 3\]; .* leading axis, x\[None\]"),
    "28 no channel axis": (
        apply(nn.Conv(1, 4, 3), IMAGES[..., 0]), r"in_channels=1\], got float32\[2, 8, 8\].*x\[\.\.\., None\]"),
    "29 id == vocabulary": (apply(VOCABULARY, IDS), r"Embedding\(9, 4\): id 9 at index \(1, 1\) is outside 0\.\.8"),
    "29 in a run": (
        run(changed(Y, 3, 9), model=nn.Serial(VOCABULARY, nn.Linear(4, 3))), r"id 9 in row 3 of 'train'.*layer 0"),
    "30 id -1": (apply(VOCABULARY, IDS - 2), r"Embedding\(9, 4\): id -1 at index \(0, 0\) is outside 0\.\.8"),
    "31 more positions than the table": (
        apply(nn.LearnedPositions(8, 4), jnp.ones((1, 10, 4))), "x has 10 positions, the table 8; make it longer"),
    "33 heads do not divide": (
        lambda: nn.Attention(10, 4), "num_heads must divide features .*features=10, num_heads=4"),
    "34 dropout 1.5": (lambda: nn.Dropout(1.5), r"Dropout: rate is the probability of dropping, .* 0\.\.1, got 1\.5"),
    "34 dropout -0.5": (lambda: nn.Dropout(-0.5), r"expected 0\.\.1, got -0\.5"),
    "35 BatchNorm of one example": (
        run(X[:1], Y[:1], model=nn.Serial(nn.BatchNorm(4), nn.Linear(4, 3))),
        r"BatchNorm\(4\): training needs at least two values a channel, got x of shape \[1, 4\].*in layer 0",
    ),
    "36 learning rate -0.1": (descend(optax.adam(-0.1)), "optimizer: .*uphill.*positive learning rate.*negative"),
    "36 learning rate -0.1, injected": (
        descend(optax.inject_hyperparams(optax.adam)(learning_rate=-0.1)), "optimizer: .*uphill"),
    "36 learning rate -0.1, averaged": (descend(fdl.with_ema(optax.adam(-0.1))), "optimizer: .*uphill"),
    "36 learning rate nan": (descend(optax.sgd(np.nan)), "scale: step_size: .*finite number.*learning rate.*nan"),
    "36 learning rate None": (descend(optax.adamw(None)), "optimizer: .*uphill.*or None"),
    "36 learning rate '0.1'": (descend(optax.sgd("0.1")), "step_size: expected a finite number.*learning rate.*got ''"),
    "36 swept": (lambda: fdl.sweep(build, Config(), over={"learning_rate": [0.1, -0.1]}), "optimizer: .*uphill"),
    "36 learning rate nan, an array": (descend(optax.sgd(jnp.float32(np.nan))), "step_size: .*finite number.*nan"),
    "36 learning rate 1e-3j": (descend(optax.adam(1e-3j)), r"step_size: expected a finite number.*0\.001j"),
    "36 a schedule from nan": (
        descend(optax.adam(optax.join_schedules([fdl.schedules.warmup_cosine(np.nan, 2, 9)], []))),
        "the learning rate's schedule: peak: expected a finite number, got nan",
    ),
    "37 b1 = 0.9j": (descend(optax.adam(0.1, b1=0.9j)), r"scale_by_adam: b1: expected 0 <= b1 < 1, got 0\.9j"),
    "37 eps = inf": (descend(optax.adam(0.1, eps=np.inf)), "scale_by_adam: eps: expected a finite eps >= 0, got inf"),
    "37 momentum = '0.9'": (descend(optax.sgd(0.1, momentum="0.9")), "trace: decay: expected 0 <= .* got '0.9'"),
    "37 b1 = 1.5": (descend(optax.adam(0.1, b1=1.5)), "scale_by_adam: b1: expected 0 <= b1 < 1, got 1.5"),
    "37 weight_decay = -1": (descend(optax.adamw(0.1, weight_decay=-1)), "weight_decay: expected a number >= 0.*-1"),
    "38 transition_steps = 0": (
        descend(optax.adam(optax.linear_schedule(1.0, 0.0, 0))), r"transition_steps >= 1.*stays at 1\.0 for ever"),
    "39 optimiser state of other shapes": (
        stale_state, r"structure of opt_state: before .*\[2\].*after .*\[3, 2\].*made for other parameters"),
    "41 seed 1.5": (lambda: fdl.run(experiment(), seed=1.5), r"seed: expected a whole number, got 1\.5"),
    "45 a leaf too many": (
        lambda: fdl.check(nn.Linear(4, 3), LINEAR | {"scale": jnp.ones(3)}), r"\+ scale: unexpected, got \(3,\)"),
    "45 a leaf too few": (
        lambda: fdl.check(nn.Linear(4, 3), without(LINEAR, "bias")), r"- bias: missing, expected \(3,\)"),
    "46 another shape": (
        lambda: fdl.check(nn.Linear(4, 8), LINEAR), r"! bias: .*! kernel: expected \(4, 8\), got \(4, 3\)"),
    "46 a file of another shape": (
        lambda: fdl.pretrained.load(nn.Linear(4, 2), FOREIGN, RULES), r"does not fit.*- bias: missing.*! kernel: .*4"),
    "49 unknown field": (
        lambda: fdl.sweep(build, Config(), over={"learning_rat": [1.0]}),
        "the config has no field 'learning_rat'; did you mean 'learning_rate'",
    ),
    "49 unknown option": (
        lambda: fdl.make_step(lambda: None, optax.sgd(0.1), acumulate=2), "no option 'acumulate'; did you mean 'accu"),
}  # fmt: skip

HALF = lambda params: jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)  # noqa: E731


def typed(model: fdl.Layer, cast: Callable[[Any], Any]) -> fdl.Task:
    """The task of `experiment` with its parameters in another type."""
    task = fdl.supervised(model, losses.softmax_cross_entropy)

    def init(key: jax.Array) -> tuple[Any, Any]:
        params, state = task.init(key)
        return cast(params), state

    return fdl.Task(init, task.objective)


ADAM = r"is of another optimizer; bring it back.*chain/0/scale_by_adam/"
RESTORED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "39 the optimiser's state in a checkpoint has other shapes": (
        {"optimizer": optax.adafactor(1e-2, min_dim_size_to_factor=2)},
        {"optimizer": optax.adafactor(1e-2, min_dim_size_to_factor=128)},
        r"another optimizer; .*min_dim_size_to_factor: was 2, is 128",
    ),
    "39 the optimiser's state is that of other trained parameters": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adam(1e-2), "trainable": [("bias", False)]},
        r"does not fit this experiment:.*\+ carry/train/opt_state/0/mu/bias: not expected, float32\[3\]",
    ),
    "46 the parameters in a checkpoint have other shapes": (
        {"model": nn.Linear(4, 3)},
        {"model": nn.Linear(4, 5)},
        r"! carry/train/params/kernel: expected float32\[4, 5\], got float32\[4, 3\]",
    ),
    "46 the parameters in a checkpoint have other names": (
        {"model": nn.Serial(nn.Linear(4, 3))},
        {"model": nn.Serial(head=nn.Linear(4, 3))},
        r"- carry/train/params/head/kernel: missing, expected float32\[4, 3\].*\+ carry/train/params/0/bias",
    ),
    "47 a float32 checkpoint into bfloat16": (
        {},
        {"task": typed(nn.Linear(4, 3), HALF)},
        r"! carry/train/params/bias: expected bfloat16\[3\], got float32\[3\]",
    ),
    "48 a checkpoint of Adam into Nadam": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.nadam(1e-2)},
        ADAM + "nesterov: was False, is True",
    ),
    "48 a checkpoint of Adam into RAdam": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.radam(1e-2)},
        ADAM + "b1: was 0.9, is not there.*more",
    ),
    "48 a checkpoint of Adam into AdaBelief": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adabelief(1e-2)},
        ADAM + "b1: was 0.9, is not there.*scale_by_belief",
    ),
    "48 a checkpoint of Adam into Adam with another b1": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adam(1e-2, b1=0.8)},
        ADAM + "b1: was 0.9, is 0.8$",
    ),
    "48 a checkpoint of Adam into another learning rate": (
        {"optimizer": optax.adam(1e-2)},
        {"optimizer": optax.adam(1e-3)},
        r"another optimizer; .*chain/1/scale/step_size: was -0.01, is -0.001$",
    ),
    "48 a checkpoint of AdamW into another decay": (
        {"optimizer": optax.adamw(1e-2)},
        {"optimizer": optax.adamw(1e-2, weight_decay=0.1)},
        r"add_decayed_weights/weight_decay: was 0.0001, is 0.1$",
    ),
    "48 a schedule into another one": (
        {"optimizer": optax.adam(optax.linear_schedule(1e-2, 0.0, 10))},
        {"optimizer": optax.adam(optax.linear_schedule(1e-2, 0.0, 20))},
        r"polynomial_schedule/transition_steps: was 10, is 20$",
    ),
}


TASK = fdl.supervised(nn.Linear(4, 3), SPARSE)
STEP = fdl.make_step(TASK.objective, optax.sgd(0.1))
PROBABLE = nn.Serial(nn.Linear(4, 3), jax.nn.softmax)
CALL = r"Linear\(4, 3\): params: expected a dict.*layer\(params, x\), got "


def supervised(**options: Any) -> Callable[[], Any]:
    return lambda: fdl.supervised(nn.Linear(4, 3), SPARSE, **options)


def experimental(**changes: Any) -> Callable[[], Any]:
    return lambda: experiment(**changes)


def swept(**options: Any) -> Callable[[], Any]:
    return lambda: fdl.sweep(build, Config(), **options)


def trained(**options: Any) -> Callable[[], Any]:
    return lambda: fdl.run(experiment(), **options)


NEWCOMER: dict[str, tuple[Callable[[], Any], str]] = {
    "labels are booleans": (run(y=Y > 0), "labels are class numbers, expected integers, got bool"),
    "data for a model": (lambda: fdl.supervised(Arrays(x=X), SPARSE), "expected a fdl Layer as model, got Arrays of 6"),
    "model and loss swapped": (lambda: fdl.supervised(SPARSE, nn.Linear(4, 3)), r"place: supervised\(model, loss\)"),
    "the class of a model": (run(model=nn.Linear), r"that is the class: make one, Linear\(\.\.\.\)"),
    "a list of layers": (run(model=[nn.Linear(4, 3)]), r"one model as fdl\.nn\.Serial\(\*layers\)"),
    "a list in Serial": (lambda: nn.Serial([nn.Linear(4, 3)]), r"give them one by one: Serial\(\*layers\)"),
    "a class in Serial": (lambda: nn.Serial(nn.Flatten), r"'0' must be a layer, got the class Flatten: make one"),
    "a layer for a task": (experimental(task=nn.Linear(4, 3)), r"task: .*fdl\.supervised\(model, loss\), got Linear"),
    "the function that makes an optimizer": (descend(optax.adam), r"optimizer: .*; call it: optax\.adam\(1e-3\)"),
    "a number for an optimizer": (descend(1e-3), r"optimizer: expected an Optax transformation.*got 0\.001"),
    "and in an average": (lambda: fdl.with_ema(optax.adam), r"with_ema: optimizer: .*call it: optax\.adam"),
    "a metric that is a text": (run(metrics={"a": lambda y, t: "good"}), "metric 'a': expected an array.*got str"),
    "a metric without return": (run(metrics={"a": lambda y, t: None}), "metric 'a': expected an array.*got NoneType"),
    "a metric of one argument": (run(metrics={"a": lambda y: y}), r"'a': .*\(predictions, targets\).*<lambda>\(y\)"),
    "a loss without return": (run(loss=lambda y, t: None), "the loss: expected an array .*, got None"),
    "a loss of one argument": (run(loss=lambda y: y), r"loss: expected a function \(predictions, targets\) "),
    "a generator as an array": (lambda: Arrays(x=(i for i in X)), "'x': .*got a generator; make a list or an array"),
    "a generator as a dataset": (experimental(train=(i for i in X)), r"'train': expected a dataset.*got <generator"),
    "a pair as a dataset": (experimental(train=(X, Y)), r"'train': expected a dataset.*Arrays\(x=\.\.\., y=\.\.\.\)"),
    "arrays without names": (lambda: Arrays(X, Y), r"Arrays: every array has a name, such as Arrays\(x=images"),
    "a dataset to evaluate on": (experimental(evaluate=Arrays(x=X, y=Y)), r"evaluate: expected a dict, \{name: datas"),
    "a set without targets": (lambda: fdl.run(experimental(train=Arrays(x=X))()), "the batch has no entry 'y'; valid"),
    "an int for a path": (trained(folder=3), "folder: expected a path as text or a pathlib.Path, got int"),
    "an int for a sweep's path": (swept(folder=3), "folder: expected a path as text or a pathlib.Path, got int"),
    "negative steps": (experimental(num_steps=-1), "num_steps: expected a whole number >= 1, got -1"),
    "steps as a text": (experimental(num_steps="10"), "num_steps: expected a whole number >= 1, got '10'"),
    "min_delta as a text": (experimental(min_delta="a"), "min_delta: expected a number >= 0, got 'a'"),
    "trainable as a text": (experimental(trainable="bias"), r"trainable: expected \[\(regex, bool\), \.\.\.\]"),
    "augment without a key": (experimental(augment=lambda b: b), r"augment: .*\(batch, key\) -> batch, got <lambda>"),
    "a monitor of one argument": (experimental(monitor=lambda p: {}), r"monitor: .*\(params, grads, updates, opt_st"),
    "eval_params as a flag": (experimental(eval_params=True), r"eval_params: expected a function \(params, opt_state"),
    "reports as a list": (experimental(reports=[len]), r"reports: expected a dict, \{name: function"),
    "a report of two arguments": (experimental(reports={"a": lambda y, t: 1}), r"reports 'a': .*\(outputs\) -> number"),
    "softmax twice": (run(model=PROBABLE), r"takes logits and has softmax in it.*layer 1\); leave that out"),
    "softmax twice, deeper": (run(model=nn.Serial(nn.Linear(4, 4), head=PROBABLE)), r"\(layer head/1\)"),
    "sigmoid twice": (run(model=nn.Serial(nn.Linear(4, 3), jax.nn.sigmoid), loss=BINARY), "has sigmoid in it"),
    "inputs as a dict": (supervised(inputs={"x": "x"}), r"inputs: expected the name.*got \{'x': 'x'\}.*x=\(a, b\)"),
    "inputs as names": (supervised(inputs=("x", "y")), r"inputs: expected the name of an entry .*got \('x', 'y'\)"),
    "a keyword that no layer takes": (supervised(inputs=("x", {"n": "n"})), "does not take the keyword 'n'; it takes"),
    "targets as an array": (supervised(targets=Y), "targets: expected the name of an entry of the batch, got array"),
    "weights as an array": (supervised(weight=Y), "weight: expected the name of an entry of the batch, got array"),
    "an objective without key": (
        lambda: fdl.Task(TASK.init, lambda params, state, batch: None),
        r"Task: objective: expected a function \(params, state, batch, \*, key, train\) .*got <lambda>\(params, state",
    ),
    "an init without key": (lambda: fdl.Task(lambda: 1, TASK.objective), r"Task: init: expected a function \(key\)"),
    "an init without state": (
        lambda: fdl.run(experiment(task=fdl.Task(lambda key: LINEAR, TASK.objective))),
        r"init: expected it to return \(params, state\), with \{\} for no state, got a dict",
    ),
    "make_step of a task": (lambda: fdl.make_step(TASK), r"got a Task; pass make_step\(task\.objective, optimizer\)"),
    "make_step of a layer": (
        lambda: fdl.make_step(nn.Linear(4, 3), optax.sgd(0.1)), r"got a Linear; pass make_step\(fdl\.supervised"),
    "make_step of a loss": (lambda: fdl.make_step(SPARSE, optax.sgd(0.1)), "objective: .*got softmax_cross_entropy"),
    "make_step without optimizer": (lambda: fdl.make_step(TASK.objective), "make_step: optimizer: .*got None"),
    "a step of parameters": (lambda: STEP(LINEAR, {"x": X, "y": Y}), r"a step: expected the state that step\.init"),
    "a seed for a step's key": (lambda: STEP.init(LINEAR, key=7), r"key: expected a key such as jax\.random\.key\(7\)"),
    "run of a task": (lambda: fdl.run(TASK), "run: expected an fdl.Experiment, or build and a config, got Task"),
    "build returns nothing": (lambda: fdl.run(lambda config: None, Config()), "got None; does it end with return"),
    "a config beside an experiment": (trained(config=Config()), r"fdl\.run\(build, config\)"),
    "a seed as a text": (trained(seed="1"), "seed: expected a whole number, got '1'"),
    "a chunk of 0": (trained(chunk=0), "chunk: expected a whole number >= 1, got 0"),
    "a hook without argument": (trained(hooks=[lambda: None]), r"hooks: expected a function \(event\) -> None"),
    "a sweep of an experiment": (lambda: fdl.sweep(experiment(), Config()), "sweep: build: expected a function"),
    "a sweep's seeds as a number": (swept(seeds=3), r"seeds: .*got 3; range\(3\) are so many"),
    "a sweep's devices as a number": (swept(devices=2), "devices: expected a list of JAX devices.*got 2"),
    "no members": (swept(max_members=0), "max_members: expected a whole number >= 1, got 0"),
    "a seed for a key": (lambda: fdl.init(nn.Linear(4, 3), 0), r"init: key: expected a key.*jax\.random\.key\(0\)"),
    "init of a class": (lambda: fdl.init(nn.Linear, KEY), r"as layer; make one, Linear\(\.\.\.\)"),
    "a layer without params": (lambda: nn.Linear(4, 3)(X), CALL + "array"),
    "a layer with the pair of init": (lambda: nn.Linear(4, 3)((LINEAR, {}), X), CALL + r"the pair \(params, state\)"),
    "a stream of no step": (lambda: fdl.data.Stream(lambda: {"x": X}), r"batch_at: expected a function \(step\)"),
}  # fmt: skip
