"""Predictions of many trained members together: a deep ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.data.conversion import jax_tree
from fdl.errors import InputError
from fdl.metrics.calibration import Calibration
from fdl.records import listed, sizes, source
from fdl.training.sweep_result import SweepResult

Predict = Callable[[Any, Any, Any], jax.Array]


@dataclass(frozen=True)
class Ensemble:
    """Trained members that predict together.

    Reference: Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles,
    2017.

    Args:
      predict: (params, state, x) -> predictions [B, ...] of one member: logits, or values of a regression.
      params, state: of all members, each array with a leading axis for them.

    >>> ensemble = Ensemble(lambda params, state, x: x * params, jnp.array([1.0, 3.0]), {})
    >>> [float(values[0]) for values in (ensemble.mean(jnp.ones(1)), ensemble.variance(jnp.ones(1)))]
    [2.0, 1.0]
    """

    predict: Predict
    params: Any
    state: Any

    def __repr__(self) -> str:
        members = len(next(iter(jax.tree.leaves((self.params, self.state))), ()))
        return listed(
            f"Ensemble of {members} members:", [("predict", source(self.predict)), ("params", sizes(self.params))]
        )

    @classmethod
    def of(cls, result: SweepResult, predict: Predict, members: Sequence[int] | None = None) -> Ensemble:
        """The members of a sweep with these numbers; None = all. They have to share one structure and its shapes.

        Raises:
          InputError: no members, or members of different shapes.
        """
        chosen = [result.member(i) for i in (range(len(result)) if members is None else members)]
        if not chosen:
            raise InputError("Ensemble: expected at least one member, got none")
        trees = [(each.params, each.state) for each in chosen]
        shapes = [jax.tree.map(jnp.shape, tree) for tree in trees]
        for number, other in enumerate(shapes):
            if other != shapes[0]:
                raise InputError(
                    f"Ensemble: members 0 and {number} of those given differ in shape: take members of one"
                )
        return cls(predict, *jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees))

    def __call__(self, x: Any) -> jax.Array:
        """What each member predicts, [members, B, ...]; x is any tree that `predict` takes."""
        return jax.vmap(self.predict, in_axes=(0, 0, None))(self.params, self.state, jax_tree(x, "Ensemble: x"))

    def mean(self, x: Any) -> jax.Array:
        """The mean prediction [B, ...]: of a regression."""
        return self(x).mean(0)

    def variance(self, x: Any) -> jax.Array:
        """The variance between members [B, ...], divided by their number."""
        return self(x).var(0)

    def probabilities(self, x: Any) -> jax.Array:
        """The mean of the members' softmax [B, classes]: the prediction of a mixture."""
        return jax.nn.softmax(self(x), -1).mean(0)

    def disagreement(self, x: Any) -> jax.Array:
        """Jensen-Shannon divergence of the members' softmax [B], in nats: 0 where all agree, at most log(members).

        It is what the members do not know; the entropy of `probabilities` has what no member could know in it, too.
        """
        each = jax.nn.log_softmax(self(x), -1)
        mixture = jax.nn.logsumexp(each, 0) - jnp.log(len(each))
        return (jnp.exp(each) * (each - mixture)).sum(-1).mean(0)

    def calibration(self, x: Any, labels: jax.Array, bins: int = 15) -> Calibration:
        """How often the mixture is right at each confidence; `.error()` is the expected calibration error."""
        probabilities = self.probabilities(x)
        return Calibration.of(probabilities.max(-1), probabilities.argmax(-1) == labels, bins)
