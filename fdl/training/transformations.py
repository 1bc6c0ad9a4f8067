"""What some Optax transformations need beyond gradients and parameters: other arguments, a second set of weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import optax

from fdl.errors import InputError
from fdl.training.hyperparameters import with_numbers
from fdl.training.scheduled import closure

GIVEN = frozenset(("value", "grad", "value_fn"))
"""The extra arguments of a step, unless a transformation would refuse one of them."""
ASKED = frozenset(("grad_fn", "obj_fn"))
"""Those that it has for a transformation that names them."""
PER_EXAMPLE = ("per_example_global_norm_clip", "per_example_layer_norm_clip", "differentially_private_aggregate")


class WithSlow(NamedTuple):
    """The state of an optimizer with `optax.lookahead` in it, and the slow weights."""

    inner_state: Any
    slow: Any


def arguments(optimizer: Any) -> frozenset[str]:
    """The names of the extra arguments that an optimizer takes from a step, found in the closures of its functions.

    >>> sorted(arguments(optax.lbfgs()))
    ['grad', 'value', 'value_fn']
    >>> steepest = optax.chain(optax.contrib.normalize(), optax.sgd(0.05))
    >>> sorted(arguments(optax.contrib.sam(optax.sgd(0.1), steepest)))
    ['grad_fn']
    """
    taken = GIVEN
    for update, extra in _updates(optimizer):
        if extra:
            names, others = _named(update)
            taken = (taken if others else taken & names) | (ASKED & names)
    return taken


def paired(optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """The optimizer; for `optax.lookahead`, also in a chain, with plain parameters: the slow weights are in its state.

    A gradient is taken at the fast weights, which train; for an evaluation of the slow ones there is
    `Experiment(eval_params=lambda params, opt_state: opt_state.slow)`.

    Raises:
      InputError: `optax.lookahead` within a wrapper that does not know its pair of weights.

    >>> import jax.numpy as jnp
    >>> optimizer = paired(optax.lookahead(optax.sgd(1.0), sync_period=2, slow_step_size=0.5))
    >>> params = jnp.float32(4.0)
    >>> state = optimizer.init(params)
    >>> for _ in range(2):  # to 3, to 2 and from there half of the way back to 4
    ...     updates, state = optimizer.update(jnp.float32(1.0), state, params)
    ...     params = params + updates
    >>> float(params), float(state.slow)
    (3.0, 3.0)
    """
    inner = optax.with_extra_args_support(optimizer)
    if not _takes_pair(optimizer):
        _check(optimizer)
        return inner

    def init(params: Any) -> WithSlow:
        return WithSlow(inner.init(optax.LookaheadParams.init_synced(params)), params)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, WithSlow]:
        pair: Any = optax.LookaheadParams(params, state.slow)
        new, inner_state = inner.update(updates, state.inner_state, pair, **extra)
        return new.fast, WithSlow(inner_state, optax.apply_updates(state.slow, new.slow))  # pyright: ignore

    return optax.GradientTransformationExtraArgs(init, update)


def _check(optimizer: Any) -> None:
    """Raises for what no optimizer of a step can be, or not where it is."""
    kinds = {_kind(update) for update, _ in _updates(optimizer)}
    if "lookahead" in kinds:
        raise InputError(
            "optimizer: optax.lookahead keeps a second set of weights, which the transformation around it does not "
            "know; put it around that one, as in optax.lookahead(fdl.by_path(...), 5, 0.5)"
        )
    for kind in PER_EXAMPLE:
        if kind in kinds:
            raise InputError(
                f"optimizer: {kind} needs the gradient of each example, and a step has that of their mean; compute "
                "them in a step of your own: fdl.Task(init, objective, step=...), with jax.vmap(jax.grad(...))"
            )


def _takes_pair(node: Any) -> bool:
    """Whether it is `optax.lookahead`, or hands its parameters on to that as they are."""
    node = with_numbers(node)
    update = getattr(node, "update", node)
    inside = closure(update)
    handed = {"chain": inside.get("update_fns", ()), "with_extra_args_support": inside.values()}
    return _kind(update) == "lookahead" or any(_takes_pair(inner) for inner in handed.get(_kind(update), ()))


def _named(update: Callable[..., Any]) -> tuple[frozenset[str], bool]:
    """The names of what a function takes, and whether it takes others as well."""
    try:
        parameters = inspect.signature(update).parameters.values()
    except (TypeError, ValueError):
        return frozenset(), True
    names = frozenset(parameter.name for parameter in parameters)
    return names, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _updates(node: Any) -> Iterator[tuple[Callable[..., Any], bool]]:
    """The update functions in an optimizer, and whether each gets the extra arguments."""
    several: Any = node.values() if isinstance(node, Mapping) else node if type(node) in (tuple, list) else ()
    for inner in several:
        yield from _updates(inner)
    if not (callable(getattr(node, "init", None)) and callable(getattr(node, "update", None))):
        return
    made: Any = with_numbers(node)
    if made is not node:
        yield from _updates(made)
    else:
        yield from _from(made.update, type(node) is not optax.GradientTransformation)


def _from(update: Callable[..., Any], extra: bool) -> Iterator[tuple[Callable[..., Any], bool]]:
    if _kind(update) == "paired":
        return
    yield update, extra
    owner = getattr(update, "__self__", None)
    for name, inner in (closure(update) if owner is None else getattr(owner, "__dict__", {})).items():
        if name == "update_fns":  # of a chain, which has them without their transformations
            for each in inner:
                yield from _from(each, True)
        else:
            yield from _updates(inner)


def _kind(update: Any) -> str:
    return getattr(update, "__qualname__", "").partition(".")[0]
