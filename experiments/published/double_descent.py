r"""Over- and underfitting: the test error over the width of a network goes down, up, and down again.

    fdl sweep experiments/published/double_descent.py --over width=4,8,12,16,24,32,48,64,96,192 --over dropout=0,0.3 \
        --over weight_decay=0,1 --seeds 3 --save experiments/results/double_descent.json
    python experiments/published/double_descent.py  # draws experiments/results/double_descent.png from that file

Narrow networks cannot fit the training labels, of which 15 % are wrong. With more units the error on new signals falls
first, then rises until every label is just fitted, wrong ones too: overfitting. But wider still, the error falls again,
below that of the narrow ones (Belkin et al., Reconciling modern machine learning and the bias-variance trade-off, 2019;
Nakkiran et al., Deep double descent, 2020). Dropout and weight decay (AdamW's) keep networks from
fitting wrong labels.

Published is a shape, with one figure to compare: two hidden layers on 4000 signals, momentum, 500 epochs, have an error
of 46.8 % at width 12, 55.8 % at 47 and 45.9 % at 300 (github.com/greydanus/mnist1d,
notebooks/deep-double-descent.ipynb).

Measured, per cent wrong of the 1000 test signals, mean and standard deviation over the seeds 0 to 2:

    width              8            16           32           64           192
    nothing            58.2 +- 2.8  60.3 +- 1.6  63.0 +- 1.8  61.1 +- 1.5  54.3 +- 0.3
    dropout 0.3        67.5 +- 1.9  56.2 +- 3.1  52.7 +- 2.9  46.4 +- 0.6  44.5 +- 1.3
    weight decay 1     60.5 +- 0.8  57.1 +- 1.1  46.2 +- 1.0  47.6 +- 0.7  49.8 +- 0.4
    both               72.2 +- 0.7  64.1 +- 0.6  57.4 +- 1.0  43.9 +- 0.5  45.2 +- 0.1

Without either, the error has its peak where 14 % of the training labels are still missed; from 48 units on none is. The
test loss peaks at 48, at 5.3, and stays high (3.5 at 192): the wide network is right more often, not less sure. Dropout
takes the peak away. Weight decay lowers it and moves it to wider networks: from 32 units on its error rises again, and
whether it falls beyond 192 was not looked at. The best error, 43.8 +- 1.0 %, is that of both at 96 units.

All 120 runs, 20 programs, took 4 minutes 2 s and 214 s of processor time (2 x86-64 cores, CPU, shared with others).

Seen on 1000 validation signals (--tune) before the test set was: without dropout and decay, two seeds, an error of
55.7 % at width 8, 61.3 and 61.0 % at 32 and 48, 53.7 % at 192. There 2000 signals, 6000 steps and the learning rate
were taken as they first came, and the strengths chosen where the error peaks, at 48, one seed: dropout 0.3 out of 0.1
and 0.3 (53.0, 48.3 %), decay 1 out of 0.3, 1 and 3 (54.8, 45.8, 58.9 %). At 160 units a decay of 3 is better (41.1
against 48.4 %).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optax

import fdl


@dataclass(frozen=True)
class Config:
    width: int = 48
    """Units of each of the two hidden layers; the example runs where the error peaks."""
    dropout: float = 0.0
    """Probability of dropping a hidden unit."""
    weight_decay: float = 0.0
    """AdamW's, of kernels and biases."""
    label_noise: float = 0.15
    """Share of the training signals that get another label, drawn from the other nine."""
    examples: int = 2000
    """Training signals: the first so many of the 4000."""
    learning_rate: float = 3e-3
    """AdamW's, at the start; it falls to 0 along half a cosine."""
    batch_size: int = 100
    """Signals a step."""
    num_steps: int = 6000
    """Steps; 20 are a pass over the 2000 signals."""
    tune: bool = False
    """Evaluate on the last 1000 training signals, with their true labels, as "val"; the test set stays out of it."""


def build(config: Config) -> fdl.Experiment:
    train, test = (fdl.data.load("mnist1d", split=split) for split in ("train", "test"))
    noisy = mislabelled(train, config.label_noise).head(config.examples)
    held_out = {"val": train.take(np.arange(3000, 4000))} if config.tune else {"test": test}
    model = fdl.models.mlp(40, config.width, config.width, 10, dropout=config.dropout)
    rate = optax.cosine_decay_schedule(config.learning_rate, config.num_steps)
    return fdl.Experiment(
        task=fdl.supervised(model, fdl.losses.softmax_cross_entropy, {"error": error}),
        optimizer=optax.adamw(rate, weight_decay=config.weight_decay),
        train=noisy,
        evaluate={"fit": noisy, **held_out},  # "fit": the training signals once more, without dropout
        batch_size=config.batch_size,
        num_steps=config.num_steps,
    )


def error(logits: Any, labels: Any) -> Any:
    """1 where the largest logit is not that of the label."""
    return 1.0 - fdl.metrics.accuracy(logits, labels)


def mislabelled(data: fdl.data.Arrays, share: float) -> fdl.data.Arrays:
    """The same signals; about `share` of them, the same in every run, with one of the other nine labels."""
    rng = np.random.default_rng(0)
    chosen, steps = rng.random(len(data)) < share, rng.integers(1, 10, len(data), np.int32)
    return fdl.data.Arrays(x=data["x"], y=np.where(chosen, (data["y"] + steps) % 10, data["y"]))


CURVES = {
    (0.0, 0.0): ("nothing", "#000000", "o"),
    (0.3, 0.0): ("dropout 0.3", "#0072B2", "s"),
    (0.0, 1.0): ("weight decay 1", "#D55E00", "^"),
    (0.3, 1.0): ("both", "#009E73", "D"),
}
"""Label, colour (Okabe and Ito's, told apart by the colour-blind) and marker of each dropout and weight decay."""


def draw(results: Path) -> None:
    """Errors over the width, mean and standard deviation over the seeds, beside the JSON file of the sweep."""
    import matplotlib.pyplot as plt

    settings = json.loads(results.read_text())["settings"]
    figure, (above, below) = plt.subplots(
        2, sharex=True, figsize=(6.4, 6.4), height_ratios=(3, 2), layout="constrained"
    )
    plot(above, settings, "test/error")
    plot(below, settings, "fit/error")
    above.set_title("error on the 1000 test signals", fontsize="medium")
    below.set_title("error on the 2000 training signals, 15 % of them mislabelled", fontsize="medium")
    above.legend(title="against overfitting")
    widths = sorted({s["setting"]["width"] for s in settings})
    below.set_xscale("log", base=2)
    below.set_xticks(widths, [str(width) for width in widths])
    below.minorticks_off()
    below.set_xlabel("units in each of the two hidden layers")
    figure.savefig(results.with_suffix(".png"), dpi=80)


def plot(axis: Any, settings: list[Any], metric: str) -> None:
    """A curve for each entry of `CURVES`."""
    for (dropout, decay), (label, colour, marker) in CURVES.items():
        mine = [s for s in settings if (s["setting"]["dropout"], s["setting"]["weight_decay"]) == (dropout, decay)]
        widths = [s["setting"]["width"] for s in mine]
        mean, std = (np.array([100 * s["metrics"][metric][part] for s in mine]) for part in ("mean", "std"))
        axis.plot(widths, mean, marker=marker, color=colour, label=label, markersize=5)
        axis.fill_between(widths, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
    axis.set_ylabel("%")
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "results" / "double_descent.json")
