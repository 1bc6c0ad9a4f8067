"""What `sweeps.py` measures: the networks, and the ways to train many of each. One process holds one kind of them.

All variants draw the same initial values and the same order of the examples, so that their losses must agree. Those by
hand, and torch's, are written out below; PyTorch gets initial values and orders before the clock starts.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import fdl
from experiments import digits
from experiments.benchmarks.load import Watch
from fdl import nn, ops
from fdl.training.driver import Driver
from fdl.training.executables import Programs
from fdl.training.recipe import Recipe, settled, traced_fields, weak_column
from fdl.training.run import run_key
from fdl.training.sweep import Member, expand
from fdl.training.sweep_result import SweepResult

BATCH, RATE, CHECKED = 64, 1e-3, 10  # the losses of so many steps are compared
Train = Callable[[], dict[int, np.ndarray]]  # trains, and gives the losses of each member by its number


@dataclasses.dataclass(frozen=True)
class Config:
    learning_rate: float = RATE


class Work(NamedTuple):
    """Members to train: those of `fdl.sweep(build, config, over, seeds)`; `alone` those that solo runs are made of."""

    build: Callable[[Any], fdl.Experiment]
    config: Any
    over: Any
    seeds: Sequence[int]
    alone: slice
    forward: Callable[..., jax.Array] | None = None

    def members(self) -> list[Member]:
        settings = expand(self.config, self.over)
        return [Member(dataclasses.replace(self.config, **s), s, seed) for s in settings for seed in self.seeds]


def work(name: str, members: int, steps: int) -> Work:
    """A workload by name; of "digits" `steps` counts epochs, and `members` is a square: rates times seeds."""
    if name == "digits":
        side = math.isqrt(members)
        over = {"learning_rate": np.geomspace(1e-4, 1e-1, side).tolist()}
        return Work(digits.build, digits.Config(num_epochs=steps), over, range(side), slice(None, None, side))
    model, forward = NETWORKS[name]()
    x, y = data(name)

    def build(config: Config) -> fdl.Experiment:
        task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
        train = fdl.data.Arrays(x=x, y=y)
        return fdl.Experiment(task, optax.adam(config.learning_rate), train, batch_size=BATCH, num_steps=steps)

    return Work(build, Config(), None, range(members), slice(None), forward)


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits: 64 numbers, 8 x 8 x 1, or enlarged to 28 rows of 28."""
    x = (train := fdl.data.load("digits", split="train"))["x"]
    if name == "mlp":
        x = x.reshape(-1, 64)
    if name == "lstm":
        x = np.kron(x[..., 0], np.ones((1, 4, 4), np.float32))[:, 2:30, 2:30]
    return np.ascontiguousarray(x), train["y"]


def mlp() -> tuple[fdl.Layer, Any]:
    def forward(params: Any, x: jax.Array) -> jax.Array:
        return _linear(params["head"], jax.nn.relu(_linear(params["hidden"], x)))

    return nn.Serial(hidden=nn.Linear(64, 32), relu=jax.nn.relu, head=nn.Linear(32, 10)), forward


def cnn() -> tuple[fdl.Layer, Any]:
    """`xla` takes XLA's own convolution and pooling, as most code does, instead of fdl's functions of arrays."""

    def forward(params: Any, x: jax.Array, xla: bool = False) -> jax.Array:
        for name in ("conv1", "conv2"):
            convolve = _xla_conv if xla else ops.conv
            x = jax.nn.relu(convolve(x, params[name]["kernel"]) + params[name]["bias"])
            x = _xla_pool(x) if xla else ops.max_pool(x, 2)
        return _linear(params["head"], x.reshape(len(x), -1))

    one = {"conv1": nn.Conv(1, 16, 3), "relu1": jax.nn.relu, "pool1": nn.MaxPool(2)}
    two = {"conv2": nn.Conv(16, 32, 3), "relu2": jax.nn.relu, "pool2": nn.MaxPool(2)}
    return nn.Serial(**one, **two, flatten=nn.Flatten(), head=nn.Linear(128, 10)), forward


def lstm() -> tuple[fdl.Layer, Any]:
    def forward(params: Any, x: jax.Array) -> jax.Array:
        def step(carry: tuple[jax.Array, jax.Array], projected: jax.Array) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(projected + h @ params["lstm"]["recurrent"]["kernel"], 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = jnp.zeros((len(x), 32))
        (h, _), _ = lax.scan(step, (start, start), _linear(params["lstm"]["input"], x).swapaxes(0, 1))
        return _linear(params["head"], h)

    return nn.Serial(lstm=nn.LSTM(28, 32), last=fdl.models.TimePool("last"), head=nn.Linear(32, 10)), forward


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm}


def _linear(params: Any, x: jax.Array) -> jax.Array:
    return x @ params["kernel"] + params["bias"]


def _xla_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _xla_pool(x: jax.Array) -> jax.Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def fdl_sweep(job: Work) -> Train:
    """The first call is `fdl.sweep` itself; later ones go through its executables, and put the results together."""
    done: list[SweepResult] = []
    programs: list[Programs] = []

    def train() -> dict[int, np.ndarray]:
        if done:
            done[0] = _again(done[0], programs[0])
        else:  # results hold no executables, so they are taken from the driver
            with mock.patch.object(sys.modules[fdl.sweep.__module__], "Driver", wraps=Driver) as driver:
                done.append(fdl.sweep(job.build, job.config, job.over, job.seeds))
            programs.append(driver.call_args.args[0])
        return dict(enumerate(done[0].history["train/loss"]))

    return train


def _again(result: SweepResult, programs: Programs) -> SweepResult:
    (bucket,), blocks, last = result.buckets, [], len(result) - 1
    for first in range(0, len(result), bucket.block):
        rows = [min(first + i, last) for i in range(bucket.block)]
        keys = jnp.stack([run_key(result.seeds[i]) for i in rows])
        traced = {name: [getattr(result.configs[i], name) for i in rows] for name in programs.recipe.traced}
        hyper = {name: weak_column(values) for name, values in traced.items()}
        blocks.append(Driver(programs, keys, hyper).drive())
    members = [Member(*each) for each in zip(result.configs, result.settings, result.seeds, strict=True)]
    return SweepResult.of(members, [dataclasses.replace(bucket, blocks=tuple(blocks))])


def fdl_solo(job: Work) -> Train:
    """One executable of `fdl.run`, and the runs one after another through it."""
    members = list(enumerate(job.members()))[job.alone]
    recipe = Recipe(job.build(job.config), job.build, job.config, traced_fields(job.config))
    programs, _ = settled(recipe, lambda recipe: Programs(recipe, run_key(0), recipe.values()))

    def one(member: Member) -> np.ndarray:
        hyper = dataclasses.replace(programs.recipe, config=member.config).values()
        return Driver(programs, run_key(member.seed), hyper).drive().result().history["train/loss"]

    return lambda: {number: one(member) for number, member in members}


class ByHand:
    """A training loop as people write it in JAX and Optax, from the same keys as fdl's."""

    def __init__(self, job: Work, **options: Any) -> None:
        experiment = job.build(job.config)
        self.init, self.steps, self.tx = experiment.update().init, experiment.total_steps(), optax.adam(RATE)
        self.forward, self.per_epoch = partial(job.forward or _linear, **options), experiment.steps_per_epoch()
        self.x, self.y = (jnp.asarray(experiment.dataset.arrays["tree"][name]) for name in "xy")
        self.keys = jnp.stack([run_key(member.seed) for member in job.members()])

    def order(self, key: jax.Array, epoch: Any) -> jax.Array:
        return jax.random.permutation(fdl.fold(key, "order", epoch), len(self.x))

    def start(self, key: jax.Array) -> tuple[Any, Any]:
        params = self.init(key).params
        return params, self.tx.init(params)

    def step(self, params: Any, state: Any, x: Any, y: Any, order: jax.Array, position: Any) -> tuple[Any, Any, Any]:
        rows = lax.dynamic_slice(order, (position * BATCH,), (BATCH,))

        def loss(params: Any) -> jax.Array:
            logits = self.forward(params, x[rows])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = self.tx.update(grads, state)
        return optax.apply_updates(params, updates), state, value

    def whole(self, key: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        """The whole training as one function."""

        def body(carry: Any, i: jax.Array) -> Any:
            params, state, order = carry
            epoch, position = i // self.per_epoch, i % self.per_epoch
            order = lax.cond(position == 0, lambda: self.order(key, epoch), lambda: order)
            params, state, loss = self.step(params, state, x, y, order, position)
            return (params, state, order), loss

        carry = (*self.start(key), jnp.zeros(len(x), jnp.int32))
        (params, *_), losses = lax.scan(body, carry, jnp.arange(self.steps))
        return params, losses

    def vmapped(self) -> Train:
        train = jax.jit(jax.vmap(self.whole, (0, None, None)))
        return lambda: dict(enumerate(np.asarray(train(self.keys, self.x, self.y)[1])))

    def scanned(self) -> Train:
        train = jax.jit(self.whole)
        return lambda: {i: np.asarray(train(key, self.x, self.y)[1]) for i, key in enumerate(self.keys)}

    def looped(self) -> Train:
        step, start, shuffle = jax.jit(self.step, donate_argnums=(0, 1)), jax.jit(self.start), jax.jit(self.order)

        def one(key: jax.Array) -> np.ndarray:
            (params, state), order, losses = start(key), None, []
            for i in range(self.steps):
                if i % self.per_epoch == 0:
                    order = shuffle(key, i // self.per_epoch)
                params, state, loss = step(params, state, self.x, self.y, order, i % self.per_epoch)
                losses.append(loss)
            return np.array(jax.device_get(losses))

        return lambda: {i: one(key) for i, key in enumerate(self.keys)}


class Torch:
    """The same in PyTorch; names and layouts of parameters are torch's."""

    def __init__(self, job: Work) -> None:
        import torch

        hand, self.torch = ByHand(job), torch
        self.steps, self.count = hand.steps, len(hand.keys)
        self.x, self.y = torch.tensor(np.asarray(hand.x)), torch.tensor(np.asarray(hand.y)).long()
        if self.x.ndim == 4:
            self.x = self.x.permute(0, 3, 1, 2).contiguous()
        params = jax.jit(jax.vmap(lambda key: hand.start(key)[0]))(hand.keys)
        flat = {"_".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
        self.initial = {name: torch.tensor(_torch_layout(name, np.asarray(leaf))) for name, leaf in flat.items()}
        shuffle = jax.jit(jax.vmap(hand.order, (0, None)))
        orders = [shuffle(hand.keys, epoch) for epoch in range(-(-self.steps // hand.per_epoch))]
        cut = [np.asarray(o)[:, : hand.per_epoch * BATCH].reshape(self.count, -1, BATCH) for o in orders]
        self.rows = torch.tensor(np.concatenate(cut, 1)).long()  # [members, steps, B]
        self.fused = torch.nn.LSTM(28, 32, batch_first=True)

    def loss(self, params: Any, x: Any, y: Any, fused: bool) -> Any:
        f = self.torch.nn.functional
        if "hidden_kernel" in params:
            x = f.linear(x, params["hidden_kernel"], params["hidden_bias"]).relu()
        if "conv1_kernel" in params:
            for name in ("conv1", "conv2"):
                x = f.max_pool2d(f.conv2d(x, params[f"{name}_kernel"], params[f"{name}_bias"], padding=1).relu(), 2)
            x = x.flatten(1)
        if "lstm_input_kernel" in params:
            x = self._lstm(params, x, fused)
        return f.cross_entropy(f.linear(x, params["head_kernel"], params["head_bias"]), y)

    def _lstm(self, params: Any, x: Any, fused: bool) -> Any:
        """The last h: by `nn.LSTM`, or cell by cell, as `torch.func.vmap` knows no rule for the former."""
        kernel, bias, recurrent = (params[f"lstm_{n}"] for n in ("input_kernel", "input_bias", "recurrent_kernel"))
        if fused:
            names = {"weight_ih_l0": kernel, "weight_hh_l0": recurrent, "bias_ih_l0": bias}
            zeros = {"bias_hh_l0": self.torch.zeros_like(bias)}
            return self.torch.func.functional_call(self.fused, names | zeros, (x,))[0][:, -1]
        h = c = x.new_zeros(x.shape[0], 32)
        for projected in self.torch.nn.functional.linear(x, kernel, bias).unbind(1):
            i, g, u, o = (projected + h @ recurrent.mT).chunk(4, -1)
            c = g.sigmoid() * c + i.sigmoid() * u.tanh()
            h = o.sigmoid() * c.tanh()
        return h

    def vmapped(self) -> Train:
        """Stacked parameters and `torch.func`; Adam works element by element, so that one serves all members."""
        grad = self.torch.func.vmap(self.torch.func.grad_and_value(partial(self.loss, fused=False)))

        def train() -> dict[int, np.ndarray]:
            params = {name: value.clone() for name, value in self.initial.items()}
            adam, losses = self.torch.optim.Adam(list(params.values()), RATE), []
            for step in range(self.steps):
                rows = self.rows[:, step]
                grads, loss = grad(params, self.x[rows], self.y[rows])
                for name, value in params.items():
                    value.grad = grads[name]
                adam.step()
                losses.append(loss)
            return dict(enumerate(self.torch.stack(losses, 1).numpy()))

        return train

    def looped(self) -> Train:
        def one(member: int) -> np.ndarray:
            params = {name: value[member].clone().requires_grad_() for name, value in self.initial.items()}
            adam, losses = self.torch.optim.Adam(list(params.values()), RATE), []
            for rows in self.rows[member, : self.steps]:
                adam.zero_grad()
                loss = self.loss(params, self.x[rows], self.y[rows], fused=True)
                loss.backward()
                adam.step()
                losses.append(loss.detach())
            return self.torch.stack(losses).numpy()

        return lambda: {member: one(member) for member in range(self.count)}


def _torch_layout(name: str, leaf: np.ndarray) -> np.ndarray:
    """Of stacked arrays: a product's kernel is [out, in], a convolution's [out, in, H, W], and images have C first."""
    if leaf.ndim == 5:
        return leaf.transpose(0, 4, 3, 1, 2)
    if name == "head_kernel" and leaf.shape[1] == 128:
        leaf = leaf.reshape(-1, 2, 2, 32, 10).transpose(0, 3, 1, 2, 4).reshape(-1, 128, 10)
    return leaf.swapaxes(1, 2) if leaf.ndim == 3 else leaf


def matmul(size: int = 1024, times: int = 10) -> Train:
    """Products that the machine is good at: 2 * size^3 * times floating-point operations."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    run = jax.jit(lambda a: lax.fori_loop(0, times, lambda _, b: a @ b / size, a))
    return lambda: {0: np.asarray(run(a)[0, :1])}


VARIANTS: dict[str, Callable[[Work], Train]] = {
    "fdl.sweep": fdl_sweep,
    "vmap by hand": lambda job: ByHand(job).vmapped(),
    "vmap by hand, XLA's convolution": lambda job: ByHand(job, xla=True).vmapped(),
    "fdl, solo runs": fdl_solo,
    "scan by hand, solo runs": lambda job: ByHand(job).scanned(),
    "jitted step loop": lambda job: ByHand(job).looped(),
    "torch.func vmap": lambda job: Torch(job).vmapped(),
    "torch, one by one": lambda job: Torch(job).looped(),
}


def serve(requests: Iterable[str], shortest: float) -> None:
    """Answers each line with a line. The first of its kind compiles and trains, the others are samples.

    A sample repeats a training until `shortest` seconds have passed.
    """
    ready: dict[str, tuple[Train, float]] = {}
    for line in requests:
        ask = json.loads(line)
        if line in ready:
            train, first = ready[line]
            answer = sample(train, max(1, math.ceil(shortest / first)))
        else:
            started = time.perf_counter()
            job = None if ask["variant"] == "matmul" else work(ask["workload"], ask["members"], ask["steps"])
            train = matmul() if job is None else VARIANTS[ask["variant"]](job)
            losses = train()
            answer: dict[str, Any] = {"first": time.perf_counter() - started}
            answer["losses"] = {number: row[:CHECKED].tolist() for number, row in losses.items()}
            short = shortest and answer["first"] < 5  # else training may take as long as compiling: once is enough
            ready[line] = train, sample(train, 1)["seconds"] if short else answer["first"]
        print(json.dumps(answer), flush=True)


def sample(train: Train, calls: int) -> dict[str, Any]:
    """Seconds by the clock and of this process's cores for each call, and whether others worked meanwhile."""
    watch, cpu = Watch(), time.process_time()
    for _ in range(calls):
        train()
    seconds, disturbed = watch.read()
    return {"seconds": seconds / calls, "cpu": (time.process_time() - cpu) / calls, "disturbed": disturbed}


if __name__ == "__main__":
    if sys.argv[1] == "devices":
        jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
    serve(sys.stdin, float(sys.argv[3]))
