"""The graph attention network that its authors trained on Cora, from their TensorFlow checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Param, Tree
from fdl.initializers import Zeros
from fdl.ops.norm import widen
from fdl.ops.segment import gather
from fdl.pretrained import mapping
from fdl.pretrained.files import as_path, read
from fdl.pretrained.mapping import Report, Rule

FEATURES, CLASSES, HEADS = 1433, 7, 8


@dataclass(frozen=True)
class BiasedGAT(nn.GAT):
    """`nn.GAT` with a bias a head in both terms of the logits, as the authors' code has (and the paper has not).

    leaky_relu(a_source . W x_j + b_source + a_target . W x_i + b_target). Only the sum of the two matters.
    """

    def specs(self) -> Tree:
        specs = super().specs()
        bias = {"bias": Param((self.num_heads,), Zeros(), ("heads",))}
        return specs | {end: specs[end] | bias for end in ("source", "target")}

    def _logits(
        self, params: Tree, x: jax.Array, senders: jax.Array, receivers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        values_NHK = jnp.einsum("nd,dhk->nhk", x, params["kernel"])
        wide = widen(values_NHK)
        source_NH, target_NH = (
            (wide * widen(params[end]["kernel"])).sum(-1) + widen(params[end]["bias"]) for end in ("source", "target")
        )
        logits_EH = gather(source_NH, senders) + gather(target_NH, receivers)
        return values_NHK, jax.nn.leaky_relu(logits_EH, self.negative_slope)


def load(path: str | os.PathLike[str]) -> tuple[Layer, Tree, Tree, Report]:
    """(model, params, state, report) of the checkpoint "mod_cora.ckpt".

    Call: `model(params, x, edges=edges)`, x [N, 1433] with rows that add up to 1, edges [2, E] in both directions ->
    logits [N, 7]. The published accuracy on the 1000 test nodes of Cora is 84.4 %, and that is what it has.

    Raises:
      InputError: not such a checkpoint.

    Source: github.com/PetarV-/GAT; Velickovic et al., Graph attention networks, 2018, section 3.3.
    """
    model = nn.Serial(
        hidden=BiasedGAT(FEATURES, 64, HEADS),
        elu=jax.nn.elu,
        output=BiasedGAT(64, CLASSES, 1, concat=False),
    )
    return model, *mapping.load(model, read(as_path(path, "gat_cora.load")), rules())


def rules() -> list[Rule]:
    """Head i is conv1d_{3 i} (values), _{3 i + 1} (target), _{3 i + 2} (source), BiasAdd_i; 8 hidden heads, then 1."""
    table = [*_layer("hidden", range(HEADS)), *_layer("output", range(HEADS, HEADS + 1))]
    slots = [Rule(f"{name}/{slot}", ()) for rule in table for name in rule.sources for slot in ("Adam", "Adam_1")]
    return [*table, *slots, Rule("beta1_power", ()), Rule("beta2_power", ())]


def _layer(path: str, heads: range) -> list[Rule]:
    def names(step: int, leaf: str) -> tuple[str, ...]:
        return tuple(f"{_numbered('conv1d', 3 * head + step)}/{leaf}" for head in heads)

    biases = tuple(f"{_numbered('BiasAdd', head)}/biases" for head in heads)
    table = [
        Rule(names(0, "kernel"), f"{path}/kernel", "h 1 d k -> d h k"),
        Rule(biases, f"{path}/bias", "h k -> (h k)"),
    ]
    for step, end in ((1, "target"), (2, "source")):
        table.append(Rule(names(step, "kernel"), f"{path}/{end}/kernel", "h 1 k 1 -> h k"))
        table.append(Rule(names(step, "bias"), f"{path}/{end}/bias", "h 1 -> h"))
    return table


def _numbered(name: str, number: int) -> str:
    """TensorFlow's names for the first, second, ... layer of a kind."""
    return f"{name}_{number}" if number else name
