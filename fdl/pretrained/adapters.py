"""Adapters as PEFT saves them: the low-rank changes of a LoRA, added to the arrays of the base model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fdl.errors import InputError
from fdl.pretrained.arrays import Lazy, as_array, named
from fdl.pretrained.files import as_path, read, read_json

ADAPTER_CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False,),
    "alpha_pattern": ({},),
    "init_lora_weights": (True, False, "gaussian", "eva"),  # the others change the base weights too
}


def with_adapter(tensors: Mapping[str, Any], folder: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The arrays of a base model with a LoRA added: W + s B A, s = lora_alpha / r (/ sqrt(r) for rank-stabilised ones).

    Computed in float32, and returned in the dtype of W. Arrays that were trained whole (`modules_to_save`, biases)
    replace those of the base model.

    Args:
      tensors: of the base model, as `read` gives them.
      folder: with adapter_config.json and adapter_model.safetensors (or .bin), as PEFT's `save_pretrained` writes it.

    Raises:
      InputError: no such folder; an adapter of another kind than LoRA; arrays that the base model lacks.

    Source: huggingface.co/docs/peft, "Checkpoint format"; Hu et al., LoRA, 2021, section 4.1.
    """
    folder = as_path(folder, "with_adapter")
    config = read_json(folder / ADAPTER_CONFIG, "the config of an adapter")
    for name, values in _ONLY.items():
        if (config.get(name) or values[0]) not in values:
            raise InputError(
                f"{folder / ADAPTER_CONFIG}: {name}: only {values[0]!r} can be read, got {str(config[name])[:80]!r}; "
                "merge it with PEFT (merge_and_unload) and save the whole model"
            )
    base, parts = named(tensors), read(folder)
    changes: dict[str, tuple[str, str]] = {}
    whole: dict[str, str] = {}
    for name in parts:
        module, mark, rest = name.removeprefix(_PREFIX).partition(".lora_")
        if not mark:
            whole[_base_name(base, module, name)] = name
        elif rest in ("A.weight", "B.weight"):
            pair = f"{_PREFIX if name.startswith(_PREFIX) else ''}{module}.lora_"
            changes[_base_name(base, f"{module}.weight", name)] = pair + "A.weight", pair + "B.weight"
        else:
            raise InputError(f"{folder}: {name!r}: only lora_A and lora_B of linear layers can be read")
    absent = [part for pair in changes.values() for part in pair if part not in parts]
    if absent:
        raise InputError(f"{folder}: expected {absent[0]!r}, got an adapter without it")
    return _Adapted(base, parts, changes, whole, config)


def _base_name(base: Mapping[str, Any], name: str, source: str) -> str:
    """The name in the base model, whose file may have a longer or a shorter start of the names."""
    found = [name] if name in base else [n for n in base if n.endswith(f".{name}") or name.endswith(f".{n}")]
    if len(found) != 1:
        raise InputError(
            f"the adapter does not fit the model: {source!r} changes {name!r}, which the model does not have"
        )
    return found[0]


class _Adapted(Lazy):
    """The base model's arrays, each changed when it is asked for."""

    def __init__(
        self,
        base: Mapping[str, Any],
        parts: Mapping[str, Any],
        changes: Mapping[str, tuple[str, str]],
        whole: Mapping[str, str],
        config: Mapping[str, Any],
    ) -> None:
        self.base, self.parts, self.changes, self.whole, self.config = base, parts, changes, whole, config

    def __contains__(self, name: object) -> bool:
        return name in self.base

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, name: str) -> Any:
        value = self.parts[self.whole[name]] if name in self.whole else self.base[name]
        if name not in self.changes:
            return value
        w = as_array(name, value)
        a, b = (as_array(part, self.parts[part]).astype(np.float32) for part in self.changes[name])
        turned = bool(self.config.get("fan_in_fan_out"))  # GPT-2 keeps [in, out]
        shape = w.shape[::-1] if turned else w.shape
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1] or (b.shape[0], a.shape[1]) != shape:
            raise InputError(
                f"the adapter does not fit the model: {name!r} {list(w.shape)}, A {list(a.shape)}, B {list(b.shape)}"
            )
        rank = a.shape[0]
        scale = self._alpha() / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        change = scale * (b @ a)
        return (w.astype(np.float32) + (change.T if turned else change)).astype(w.dtype)

    def _alpha(self) -> float:
        alpha = self.config.get("lora_alpha", 8)  # PEFT's default
        if type(alpha) not in (int, float):
            raise InputError(f"{ADAPTER_CONFIG}: lora_alpha: expected a number, got {str(alpha)[:80]!r}")
        return alpha
