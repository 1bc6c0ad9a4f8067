"""How each library trains: the loop that its own documentation shows, for any model and data.

Each function gets a job and a model that has the job's initial values. When it returns, everything is compiled or,
where there is nothing to compile, one step has been taken. What it returns trains from the initial values and gives the
losses of all steps. The batches come in the job's order, and are gathered where the library's users gather them: inside
the compiled step in JAX, by indexing in PyTorch, by `fit` in Keras. Jobs that say "evaluate" go to `evaluators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from experiments.benchmarks import evaluators, optimizers
from experiments.benchmarks.job import Job

Train = Callable[[], np.ndarray]
Forward = Callable[..., Any]  # (params or model, batch) -> predictions


def fdl(job: Job, experiment: Callable[[Any, Any], Any]) -> Train:
    """What `fdl.run` does, so that its programs can be run more than once; they are compiled when this returns."""
    from fdl.training.driver import Driver
    from fdl.training.executables import Programs
    from fdl.training.recipe import Recipe
    from fdl.training.rehearsal import rehearse
    from fdl.training.run import run_key

    made, key = experiment(job.sizes, job.data), run_key(0)
    if "evaluate" in job.sizes:
        return evaluators.fdl(job, made)
    rehearse(made)
    recipe = Recipe(made, None, None, ())
    programs = Programs(recipe, key, recipe.values())
    first = [Driver(programs, key, recipe.values())]

    def train() -> np.ndarray:
        driver = first.pop() if first else Driver(programs, key, recipe.values())
        return driver.drive().result().history["train/loss"]

    return train


def limit(job: Job, forward: Forward, state: Any = None) -> Train:
    """The whole run as one program, by hand: a `lax.scan` over the batches.

    With a `state`, running statistics say, `forward(params, batch, state)` gives (predictions, state).
    """
    import jax
    from jax import lax

    if "evaluate" in job.sizes:
        return evaluators.limit(job, forward)
    order = np.arange(job.steps)[:, None] if job.order is None else job.order
    forward = _mixed(job, forward)

    def objective(params: Any, batch: Any, state: Any) -> Any:
        y, state = (forward(params, batch), None) if state is None else forward(params, batch, state)
        return jax_loss(job, y, batch), state

    def run(params: Any, state: Any, data: Any, order: Any) -> Any:
        rule, moments = optimizers.by_hand(job.sizes["optimizer"], params)

        def step(carry: Any, rows: Any) -> Any:
            params, state, moments, i = carry
            batch = data if job.order is None else {name: array[rows] for name, array in data.items()}
            (loss, state), grads = jax.value_and_grad(objective, has_aux=True)(params, batch, state)
            params, moments = rule(job.sizes["rate"], i, params, grads, moments)
            return (params, state, moments, i + 1), loss

        (params, state, *_), losses = lax.scan(step, (params, state, moments, 0), order)
        return (params, state), losses

    inputs = jax.device_put((job.params, state, job.data, order))
    program = jax.jit(run).lower(*inputs).compile()
    return lambda: np.asarray(jax.block_until_ready(program(*inputs))[1])


def jax_loop(job: Job, params: Any, forward: Forward) -> Train:
    """A jitted step with Optax, called from Python."""
    import jax
    import jax.numpy as jnp
    import optax

    if "evaluate" in job.sizes:
        return evaluators.jax(job, jax.device_put(params), forward, jax.jit)
    tx, forward = optimizers.optax(job.sizes), _mixed(job, forward)
    data, initial = jax.device_put((job.data, params))

    def step(params: Any, state: Any, data: Any, rows: Any) -> Any:
        batch = data if rows is None else {name: array[rows] for name, array in data.items()}
        loss, grads = jax.value_and_grad(lambda params: jax_loss(job, forward(params, batch), batch))(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(step, donate_argnums=(0, 1))

    def run(steps: int = job.steps) -> np.ndarray:
        params, losses = jax.tree.map(jnp.copy, initial), []
        state = tx.init(params)
        for i in range(steps):
            params, state, loss = step(params, state, data, _rows(job, i))
            losses.append(loss)
        return np.array(jax.device_get(losses))

    run(1)
    return run


def linen(job: Job, model: Any, params: Any, inputs: tuple[str, ...] = ("x",)) -> Train:
    """Its initial values are drawn, as its users must, and then exchanged for the job's."""
    import jax

    drawn = model.init(jax.random.key(0), *(_first(job)[name] for name in inputs))["params"]
    forward = lambda params, batch: model.apply({"params": params}, *(batch[name] for name in inputs))  # noqa: E731
    return jax_loop(job, _fitting(drawn, params), forward)


def haiku(job: Job, model: Any, params: Any, inputs: tuple[str, ...] = ("x",)) -> Train:
    """The same for Haiku."""
    import jax

    drawn = model.init(jax.random.key(0), *(_first(job)[name] for name in inputs))
    forward = lambda params, batch: model.apply(params, *(batch[name] for name in inputs))  # noqa: E731
    return jax_loop(job, _fitting(drawn, params), forward)


def equinox(job: Job, model: Any, forward: Forward) -> Train:
    """`eqx.filter_jit` of a step on the model itself."""
    import equinox as eqx
    import jax

    if "evaluate" in job.sizes:
        return evaluators.jax(job, model, forward, eqx.filter_jit)
    tx, data = optimizers.optax(job.sizes), jax.device_put(job.data)

    @eqx.filter_jit
    def step(model: Any, state: Any, data: Any, rows: Any) -> Any:
        batch = data if rows is None else {name: array[rows] for name, array in data.items()}
        loss, grads = eqx.filter_value_and_grad(lambda model: jax_loss(job, forward(model, batch), batch))(model)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    def run(steps: int = job.steps) -> np.ndarray:
        now, losses = model, []
        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        for i in range(steps):
            now, state, loss = step(now, state, data, None if job.order is None else jax.numpy.asarray(job.order[i]))
            losses.append(loss)
        return np.array(jax.device_get(losses))

    run(1)
    return run


def nnx(job: Job, model: Any, forward: Forward) -> Train:
    """`nnx.jit` of a step that changes model and optimizer in place, through `nnx.cached_partial`."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    if "evaluate" in job.sizes:
        return evaluators.jax(job, model, forward, nnx.jit)
    tx = optimizers.optax(job.sizes)
    optimizer, data = nnx.Optimizer(model, tx, wrt=nnx.Param), jax.device_put(job.data)
    initial = jax.tree.map(jnp.copy, (nnx.state(model), nnx.state(optimizer)))

    @nnx.jit
    def step(model: Any, optimizer: Any, data: Any, rows: Any) -> Any:
        batch = data if rows is None else {name: array[rows] for name, array in data.items()}
        loss, grads = nnx.value_and_grad(lambda model: jax_loss(job, forward(model, batch), batch))(model)
        optimizer.update(model, grads)
        return loss

    cached = nnx.cached_partial(step, model, optimizer)

    def run(steps: int = job.steps) -> np.ndarray:
        for module, state in zip((model, optimizer), jax.tree.map(jnp.copy, initial), strict=True):
            nnx.update(module, state)
        return np.array(jax.device_get([cached(data, _rows(job, i)) for i in range(steps)]))

    run(1)
    return run


def keras(job: Job, model: Any) -> Train:
    """`compile` and `fit`: the losses are means over an epoch; one call of `fit` where a step is an epoch."""
    import keras

    adam = keras.optimizers.Adam(job.sizes["rate"], epsilon=1e-8)
    optimizer = adam if job.sizes["optimizer"] == "adam" else keras.optimizers.SGD(job.sizes["rate"])
    labels = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    classifies = job.sizes["loss"] == "cross_entropy"
    model.compile(optimizer, labels if classifies else "mse", metrics=["accuracy"] if "evaluate" in job.sizes else None)
    if "evaluate" in job.sizes:
        return evaluators.keras(job, model)
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    initial, per_epoch = [np.array(v) for v in variables], job.epoch_steps()

    def run(steps: int = job.steps) -> np.ndarray:
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        options: Any = {"shuffle": False, "verbose": 0}
        if job.order is None:
            options |= {"batch_size": len(job.data["y"]), "epochs": steps, "sample_weight": job.data.get("mask")}
            return np.array(model.fit(job.data["x"], job.data["y"], **options).history["loss"])
        losses: list[float] = []
        for first in range(0, steps, per_epoch):  # one call an epoch, on the examples in their order
            rows = job.order[first : min(first + per_epoch, steps)]
            losses += model.fit(*_xy(job, rows.ravel()), batch_size=rows.shape[1], **options).history["loss"]
        return np.array(losses)

    run(1)
    return run


def torch(job: Job, model: Any, forward: Forward | None = None, compile: bool = False) -> Train:
    """An eager loop with the fused optimiser; `compile`: the model through `torch.compile`.

    In mixed precision as nanoGPT has it: autocast, and the loss compiled together with the model.
    """
    import torch

    device = "cuda" if job.sizes.get("device") == "gpu" else "cpu"
    half = getattr(torch, job.sizes["precision"]) if "precision" in job.sizes else None
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # of what autocast leaves in float32
    data = {name: torch.from_numpy(array).to(device) for name, array in job.data.items()}
    data = {name: array if array.is_floating_point() else array.long() for name, array in data.items()}
    order = None if job.order is None else torch.from_numpy(job.order).long().to(device)
    model = model.to(device)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    called = torch.compile(model) if compile and half is None else model
    if "evaluate" in job.sizes:
        return evaluators.torch(job, called, forward)

    def objective(batch: Any) -> Any:
        return _torch_loss(job, called(batch["x"]) if forward is None else forward(called, batch), batch)

    compute = torch.compile(objective) if compile and half is not None else objective

    def run(steps: int = job.steps) -> np.ndarray:
        model.load_state_dict(initial)
        optimizer, losses = optimizers.torch(job.sizes, [p for p in model.parameters() if p.requires_grad]), []
        for i in range(steps):
            batch = data if order is None else {name: array[order[i]] for name, array in data.items()}
            optimizer.zero_grad()
            with nullcontext() if half is None else torch.autocast(device, half):
                loss = compute(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu().numpy()

    run(1)
    return run


def load_torch(model: Any, params: Mapping[str, Any]) -> Any:
    """fdl's parameters into a PyTorch model of the same names: [in, out] becomes [out, in], HWIO becomes OIHW."""
    import torch

    with torch.no_grad():
        for path, name, leaf in _leaves(params):
            module = model.get_submodule(".".join(path))
            weight = getattr(module, "bias" if name == "bias" else "weight")
            weight.copy_(torch.from_numpy(np.array(weights_first(name, leaf))).reshape(weight.shape))
    return model


def load_equinox(model: Any, params: Mapping[str, Any]) -> Any:
    """The same for Equinox, whose layouts are those of PyTorch."""
    import equinox as eqx
    import jax.numpy as jnp

    for path, name, leaf in _leaves(params):
        attribute = "bias" if name == "bias" else "weight"

        def place(model: Any, path: Any = path, attribute: str = attribute) -> Any:
            for part in path:
                model = model[int(part)] if part.isdigit() else getattr(model, part)
            return getattr(model, attribute)

        model = eqx.tree_at(place, model, jnp.asarray(weights_first(name, leaf)).reshape(place(model).shape))
    return model


def load_nnx(model: Any, params: Mapping[str, Any]) -> Any:
    """The same for Flax NNX, whose layouts are those of fdl."""
    import jax.numpy as jnp

    for path, name, leaf in _leaves(params):
        module = model
        for part in path:
            module = module[int(part)] if part.isdigit() else getattr(module, part)
        getattr(module, name)[...] = jnp.asarray(leaf)
    return model


def weights_first(name: str, leaf: np.ndarray) -> np.ndarray:
    if name == "kernel":
        return leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    return leaf


def haiku_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same for Haiku: modules by their whole path, kernels called w, biases b."""
    names = {"kernel": "w", "bias": "b", "embedding": "embeddings", "scale": "scale"}
    tree: dict[str, dict[str, Any]] = {}
    for path, name, leaf in _leaves(params):
        tree.setdefault("/".join(path), {})[names[name]] = leaf
    return tree


def jax_loss(job: Job, y: Any, batch: Any) -> Any:
    """The mean loss of a batch; by the weights of its mask where it has one."""
    import jax
    import jax.numpy as jnp

    if job.sizes["loss"] == "squared_error":
        return jnp.square(y - batch["y"]).mean()
    logs = jax.nn.log_softmax(y.astype(jnp.float32))
    losses = -jnp.take_along_axis(logs, batch["y"][..., None].astype(jnp.int32), -1)[..., 0]
    return losses.mean() if "mask" not in batch else (losses * batch["mask"]).sum() / batch["mask"].sum()


def _torch_loss(job: Job, y: Any, batch: Any) -> Any:
    from torch.nn import functional

    if job.sizes["loss"] == "squared_error":
        return functional.mse_loss(y, batch["y"])
    if "mask" in batch:
        losses = functional.cross_entropy(y, batch["y"], reduction="none")
        return (losses * batch["mask"]).sum() / batch["mask"].sum()
    return functional.cross_entropy(y.flatten(0, -2), batch["y"].flatten())


def _mixed(job: Job, forward: Forward) -> Forward:
    """`forward` on parameters and inputs in the job's precision, where it has one; gradients reach the originals."""
    import jax

    if "precision" not in job.sizes:
        return forward
    floating = lambda x: jax.numpy.issubdtype(x.dtype, jax.numpy.floating)  # noqa: E731
    half = lambda tree: jax.tree.map(lambda x: x.astype(job.sizes["precision"]) if floating(x) else x, tree)  # noqa: E731
    return lambda params, batch, *state: forward(half(params), half(batch), *state)


def _first(job: Job) -> dict[str, np.ndarray]:
    """The first batch."""
    return job.data if job.order is None else {name: array[job.order[0]] for name, array in job.data.items()}


def _fitting(drawn: Any, params: Any) -> Any:
    """`params`, if their shapes are those that the library has drawn."""
    import jax

    want, got = (jax.tree.map(np.shape, tree) for tree in (drawn, params))
    if want != got:
        raise ValueError(f"the model has parameters {want}, not {got}")
    return params


def _rows(job: Job, step: int) -> np.ndarray | None:
    return None if job.order is None else job.order[step]


def _xy(job: Job, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    return job.data["x"][rows], job.data["y"][rows]


def _leaves(params: Mapping[str, Any], path: tuple[str, ...] = ()) -> Any:
    for name, branch in params.items():
        if isinstance(branch, Mapping):
            yield from _leaves(branch, (*path, name))
        else:
            yield path, name, branch
