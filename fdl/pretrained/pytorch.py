"""How PyTorch's layers name and lay out their arrays, as rules from a name to a path."""

from __future__ import annotations

from fdl.pretrained.mapping import Rule

CONV, CONV1D = "o i h w -> h w i o", "o i k -> k i o"


def linear(source: str, path: str, use_bias: bool = True) -> list[Rule]:
    """`torch.nn.Linear` as `nn.Linear`."""
    return _with_bias(source, path, "o i -> i o", "", use_bias)


def heads(source: str, path: str, use_bias: bool = True) -> list[Rule]:
    """A `torch.nn.Linear` that makes queries, keys or values, as a projection of `nn.Attention`."""
    return _with_bias(source, path, "(h k) d -> d h k", "(h k) -> h k", use_bias)


def joined_heads(source: str, path: str, use_bias: bool = True) -> list[Rule]:
    """The `torch.nn.Linear` behind the heads, as `out` of `nn.Attention`."""
    return _with_bias(source, path, "d (h k) -> h k d", "", use_bias)


def conv(source: str, path: str, use_bias: bool = True) -> list[Rule]:
    """`torch.nn.Conv2d` as `nn.Conv`."""
    return _with_bias(source, path, CONV, "", use_bias)


def conv1d(source: str, path: str, use_bias: bool = True) -> list[Rule]:
    """`torch.nn.Conv1d` as `nn.Conv1d`."""
    return _with_bias(source, path, CONV1D, "", use_bias)


def norm(source: str, path: str) -> list[Rule]:
    """`torch.nn.LayerNorm` as `nn.LayerNorm`."""
    return [Rule(f"{source}.weight", f"{path}/scale"), Rule(f"{source}.bias", f"{path}/bias")]


def batch_norm(source: str, path: str) -> list[Rule]:
    """`torch.nn.BatchNorm2d` as `nn.BatchNorm`; the number of batches it has seen is ignored."""
    running = Rule(f"{source}.running_mean", f"{path}/mean"), Rule(f"{source}.running_var", f"{path}/var")
    return [*norm(source, path), *running, Rule(f"{source}.num_batches_tracked", ())]


def lstm(source: str, path: str, suffix: str = "") -> list[Rule]:
    """`torch.nn.LSTMCell`, or with suffix "_l0" the first layer of `torch.nn.LSTM`, as `nn.LSTM`.

    PyTorch adds two biases where here there is one: on the way back the first is their sum and the second 0.
    """
    biases = f"{source}.bias_ih{suffix}", f"{source}.bias_hh{suffix}"
    return [
        Rule(f"{source}.weight_ih{suffix}", f"{path}/input/kernel", "o i -> i o"),
        Rule(f"{source}.weight_hh{suffix}", f"{path}/recurrent/kernel", "o i -> i o"),
        Rule(biases, f"{path}/input/bias", "s o -> o"),
    ]


def _with_bias(source: str, path: str, kernel: str, bias: str, use_bias: bool) -> list[Rule]:
    rules = [Rule(f"{source}.weight", f"{path}/kernel", kernel)]
    return [*rules, Rule(f"{source}.bias", f"{path}/bias", bias)] if use_bias else rules
