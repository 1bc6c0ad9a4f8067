"""The README's table of published figures beside ours, made from the JSON files in this folder.

    python experiments/results/table.py             # writes it into README.md

A row names a file `fdl sweep --save` wrote, the setting in it, a metric, and the figure to compare it with. What the
published figure was measured with, and why ours differs where it does, stands at the top of each experiment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- published figures: experiments/results/table.py -->\n", "<!-- end of published figures -->\n"


class Row(NamedTuple):
    """A figure: file of results, what it is, the setting's values that tell it apart, metric, published, its unit."""

    file: str
    label: str
    setting: dict[str, Any]
    metric: str
    published: str
    unit: str = "%"
    experiment: str = ""

    @property
    def source(self) -> str:
        return self.experiment or self.file.split("-")[0]


def rows() -> list[Row]:
    """Every row of the table, in the order of the introduction that the experiments follow."""
    accuracy = "test/accuracy"
    mnist1d = {"logistic": (32, 32), "mlp": (68, 68), "cnn": (94, 56), "gru": (91, 57)}
    return [
        *(
            Row("mnist1d", f"MNIST-1D, {model}{', shuffled' * shuffled}", {"model": model, "shuffled": shuffled},
                accuracy, str(figures[shuffled]))
            for shuffled in (False, True) for model, figures in mnist1d.items()
        ),
        Row("images-mnist", "MNIST, CNN of 41 K parameters", {"model": "cnn"}, accuracy, "99.2"),
        Row("images-mlp", "MNIST, MLP 256-128-100", {"data": "mnist"}, accuracy, "-"),
        Row("images-fashion", "Fashion-MNIST, the same CNN", {"model": "cnn"}, accuracy, "92.5"),
        Row("images-mlp", "Fashion-MNIST, MLP 256-128-100", {"data": "fashion-mnist"}, accuracy, "88.3"),
        Row("cora-gcn", "Cora, GCN", {"model": "gcn"}, accuracy, "81.5"),
        Row("cora-gat", "Cora, GAT", {"model": "gat"}, accuracy, "83.0 +- 0.7"),
        Row("char_gpt", "tiny Shakespeare, GPT by characters, rate 1e-3", {}, "val/loss", "1.88", "nats"),
        Row("char_gpt-rate", "tiny Shakespeare, GPT by characters, rate 2e-3", {}, "val/loss", "1.88", "nats"),
        *(
            Row("etth1", f"ETTh1, 96 hours, {model}, {metric.upper()}", {"model": model}, f"test/{metric}", figure, "")
            for model, figures in {
                "linear": (".375", ".397"), "nlinear": (".374", ".394"), "dlinear": (".375", ".399"),
                "lstm": ("-", "-"), "transformer": ("-", "-"),
            }.items() for metric, figure in zip(("mse", "mae"), figures, strict=True)
        ),
        *(
            Row("memory-adding", f"adding problem, 200 steps, {cell}", {"cell": cell}, "test/loss", figure, "")
            for cell, figure in {"rnn": "0.167 (guessing)", "lstm": "solved", "gru": "solved"}.items()
        ),
        *(
            Row("memory-copy", f"copy memory, 30 blanks, {cell}", {"cell": cell}, accuracy, "12.5 % (guessing)")
            for cell in ("rnn", "lstm", "gru")
        ),
        *(
            Row("chorales", f"JSB chorales, {cell}", {"cell": cell}, "test/loss", figure, "nats")
            for cell, figure in {"rnn": "8.91", "lstm": "8.45", "gru": "8.43"}.items()
        ),
        *(Row("sst2", f"SST-2 from random vectors, {m}", {"model": m}, accuracy, "82.7") for m in ("cnn", "lstm")),
        *(
            Row("finetune_sst2", f"200 sentences of SST-2, {method}", {"method": method}, "dev/accuracy", "-")
            for method in ("bag", "scratch", "frozen", "lora", "full")
        ),
        Row("vae_mnist", "VAE on MNIST, 10 epochs, bound", {}, "test/loss", "104", "nats"),
        Row("denoising_mnist", "denoising MNIST, squared error", {}, "test/denoised_mse", "0.0177 (linear)", ""),
        *(
            Row("anomaly", f"anomalies in {data}, ROC-AUC beside a forest's", {"data": data, "code": 2}, "all/roc_auc",
                figure, "")
            for data, figure in {
                "annthyroid": ".832", "breastw": ".988", "cardio": ".926", "ionosphere": ".842", "mammography": ".861",
                "optdigits": ".682", "pima": ".664", "satimage-2": ".993", "thyroid": ".978", "vowels": ".767",
            }.items()
        ),
        Row("spoken_digits", "spoken digits, official split", {"split": "official"}, accuracy, "97"),
        *(
            Row("spoken_digits", f"spoken digits, {speaker} never heard", {"split": speaker}, accuracy, "-")
            for speaker in ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
        ),
    ]  # fmt: skip


def figure(row: Row) -> tuple[str, int]:
    """Our mean and standard deviation, as text, and the number of seeds."""
    saved = json.loads((HERE / f"{row.file}.json").read_text())
    settings = [({**saved["config"], **each["setting"]}, each) for each in saved["settings"]]
    found = [each for setting, each in settings if row.setting.items() <= setting.items()]
    if len(found) != 1:
        raise SystemExit(f"{row.file}.json: {row.label}: {len(found)} settings are {row.setting}, expected one")
    spread, seeds = found[0]["metrics"][row.metric], len(found[0]["seeds"])
    scale, digits = (100, 1) if row.unit == "%" else (1, 2 if row.unit else 4)
    mean, std = scale * spread["mean"], scale * spread["std"]
    if row.unit == "" and mean >= 0.01:
        digits = 3
    return f"{mean:.{digits}f} +- {std:.{digits}f}", seeds


def table() -> str:
    lines = ["| experiment | | published | here | seeds |", "| --- | --- | --- | --- | --- |"]
    for row in rows():
        mine, seeds = figure(row)
        unit = f" {row.unit}" if row.unit else ""
        published = row.published + unit if row.published[-1].isdigit() else row.published
        link = f"[{row.source}](experiments/published/{row.source}.py)"
        lines.append(f"| {link} | {row.label} | {published} | {mine}{unit} | {seeds} |")
    return "\n".join(lines) + "\n"


def inserted(readme: str) -> str:
    """The README with the table between its two comments."""
    before, _, rest = readme.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(inserted(README.read_text()))
