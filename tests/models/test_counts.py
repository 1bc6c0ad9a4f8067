"""Parameter counts against published ones. Nothing is allocated."""

from __future__ import annotations

from typing import Any

import pytest

import fdl
from fdl import models, nn
from tests.models.common import count, rebuilt

PUBLISHED = {
    # LeCun et al., 1998, with full connections in the second convolution (60 thousand in the paper)
    "lenet5": (models.lenet5(), 61_706),
    # the README of akamaster/pytorch_resnet_cifar10 has them in units of 0.01 M, as the paper's table 6
    "resnet20": (models.resnet20(), 269_722),
    "resnet32": (models.resnet32(), 464_154),
    "resnet44": (models.resnet44(), 658_586),
    "resnet56": (models.resnet56(), 853_018),
    "resnet110": (models.resnet110(), 1_727_962),
    # torchvision's table of models
    "resnet18": (models.resnet18(), 11_689_512),
    "resnet34": (models.resnet34(), 21_797_672),
    "resnet50": (models.resnet50(), 25_557_032),
    "resnet101": (models.resnet101(), 44_549_160),
    "resnet152": (models.resnet152(), 60_192_808),
    "vit_base16": (models.vit_base16(), 86_567_656),
    "vit_large16": (models.vit_large16(), 304_326_632),
    # timm's vit_small_patch16_224 and DeiT-S
    "vit_small16": (models.vit_small16(), 22_050_664),
    # Hugging Face: gpt2, gpt2-medium, gpt2-large, gpt2-xl, bert-base-uncased, bert-large-uncased (with pooler),
    # meta-llama/Llama-2-7b-hf, meta-llama/Meta-Llama-3-8B
    "gpt2_small": (models.gpt2_small(), 124_439_808),
    "gpt2_medium": (models.gpt2_medium(), 354_823_168),
    "gpt2_large": (models.gpt2_large(), 774_030_080),
    "gpt2_xl": (models.gpt2_xl(), 1_557_611_200),
    "bert_base": (models.bert_base(), 109_482_240),
    "bert_large": (models.bert_large(), 335_141_888),
    "llama2_7b": (models.llama2_7b(), 6_738_415_616),
    "llama3_8b": (models.llama3_8b(), 8_030_261_248),
    # milesial/Pytorch-UNet's unet_carvana without bilinear upsampling
    "unet": (models.unet(3, 2), 31_037_698),
    # PyTorch Geometric's examples for Cora
    "gcn": (models.gcn(1433, 7), 23_063),
    "gat": (models.gat(1433, 7), 92_373),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_published_one(name: str):
    model, published = PUBLISHED[name]
    assert count(model) == published


def test_the_paper_s_transformers_have_its_counts_but_for_positions_and_vocabulary():
    """Table 3: 65 and 213 million, in units of a million and with a vocabulary of "about 37000" tokens."""
    assert abs(count(models.transformer_base()) - 65e6) < 2.5e6
    assert abs(count(models.transformer_big()) - 213e6) < 2.5e6


def test_multilayer_perceptron_s_count_is_that_of_its_matrices():
    assert count(models.perceptron(784, 10)) == 7850
    assert count(models.mlp(784, 128, 64, 10, dropout=0.5)) == 785 * 128 + 129 * 64 + 65 * 10


def test_names_are_the_checkpoint_format():
    names = lambda model: {path for path, _ in fdl.core.leaves(fdl.abstract(model)[0])}  # noqa: E731
    assert "hidden/1/linear/kernel" in names(models.mlp(4, 3, 3, 2)) & names(models.mlp(4, 3, 3, 2, dropout=0.1))
    assert "stages/1/0/sum/block/norm2/scale" in names(models.resnet20())
    assert "stages/1/0/sum/shortcut/conv/kernel" in names(models.resnet18())
    small: Any = {"num_layers": 2, "num_heads": 2, "features": 4}
    assert {"blocks/0/attention/query/kernel", "blocks/1/feed_forward/up/bias"} <= names(models.gpt2(9, 9, **small))
    assert "blocks/0/feed_forward/up/gate/kernel" in names(models.llama(9, **small, hidden_features=4))
    assert "pooler/linear/kernel" in names(models.bert(9, 9, **small))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_record_prints_as_source(name: str):
    """Equal records are one program, wherever they come from."""
    model, _ = PUBLISHED[name]
    again = rebuilt(model)
    assert again == model
    assert hash(again) == hash(model)


def test_a_record_is_edited_by_path():
    model = models.resnet20()
    narrow = fdl.edit(model, "head", nn.Linear(64, 3))
    assert count(narrow) == count(model) - 7 * 65


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(fdl.InputError, match="at least one layer"):
        models.mlp(3)
    with pytest.raises(fdl.InputError, match="12 or more"):
        models.lenet5(image_size=8)
    with pytest.raises(fdl.InputError, match="for each stage"):
        models.resnet(3, 10, depths=(1, 2), widths=(4,))
    with pytest.raises(fdl.InputError, match="do not divide"):
        models.vit(3, 10, image_size=30, patch_size=16, num_layers=1, num_heads=1, features=4)
    with pytest.raises(fdl.InputError, match="at least one block"):
        models.gpt2(9, 9, num_layers=0, num_heads=1, features=4)
    with pytest.raises(fdl.InputError, match="go together"):
        models.Block(nn.Attention(4, 2), nn.LayerNorm(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Attention(4, 2))
