"""Real weights: files of named arrays, tables that map their names to a model's paths, and the layouts that are known.

    tensors = pretrained.read("model.safetensors")  # also sharded, also what torch.save wrote; no code is run
    rules = [pretrained.Rule("fc.weight", "head/kernel", "o i -> i o"), pretrained.Rule("fc.bias", "head/bias")]
    params, state, report = pretrained.load(model, tensors, rules)
    tensors = pretrained.export(model, params, state, rules)  # the same table, the other way

Each layout is a module with `load(path)` -> (model, params, state, report) and the rules for models of your own:
`huggingface` (which also saves), `resnet_cifar`, `llama2c`, `gat_cora`, `crepe`, `silero`; `pytorch` has the rules for
single layers.
"""

from fdl.pretrained import crepe, gat_cora, huggingface, llama2c, pytorch, resnet_cifar, silero
from fdl.pretrained.adapters import with_adapter
from fdl.pretrained.files import read, write_safetensors
from fdl.pretrained.mapping import Report, Rule, export, load, prefixed
from fdl.pretrained.rearrange import Rearrange

__all__ = [
    "Rearrange",
    "Report",
    "Rule",
    "crepe",
    "export",
    "gat_cora",
    "huggingface",
    "llama2c",
    "load",
    "prefixed",
    "pytorch",
    "read",
    "resnet_cifar",
    "silero",
    "with_adapter",
    "write_safetensors",
]
