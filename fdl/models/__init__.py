"""Architectures, one file each, assembled from `fdl.nn`.

A function makes a model: with sizes as its arguments where it has the name of a family (`resnet`, `gpt2`), with the
sizes of the paper where it has the name of a model (`resnet20`, `gpt2_small`). What it returns is a record like any
other, to be edited with `fdl.edit`. Dropout is 0 unless given, in both. `generate` and `sample_images` draw from what
is trained.
"""

from fdl.models.autoencoder import VAE, GaussianNoise, autoencoder, denoising_autoencoder, vae
from fdl.models.block import Block, scanned
from fdl.models.decoder import (
    Decoder,
    gpt2,
    gpt2_large,
    gpt2_medium,
    gpt2_small,
    gpt2_xl,
    llama,
    llama2_7b,
    llama3_8b,
)
from fdl.models.denoiser import Denoiser, diffusion_unet
from fdl.models.diffusion import cosine_schedule, ddim_step, denoising_loss, linear_schedule, noised, sample_images
from fdl.models.encoder import Encoder, bert, bert_base, bert_large
from fdl.models.encoder_decoder import EncoderDecoder, transformer, transformer_base, transformer_big
from fdl.models.generate import generate, sample
from fdl.models.graph import gat, gcn, gin
from fdl.models.lenet import lenet5
from fdl.models.mlp import mlp, perceptron
from fdl.models.recurrent import RecurrentLanguageModel, TimePool, recurrent_classifier, recurrent_language_model
from fdl.models.resnet import (
    resnet,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
)
from fdl.models.seq2seq import Seq2Seq, seq2seq
from fdl.models.unet import unet
from fdl.models.vit import vit, vit_base16, vit_large16, vit_small16

__all__ = [
    "VAE",
    "Block",
    "Decoder",
    "Denoiser",
    "Encoder",
    "EncoderDecoder",
    "GaussianNoise",
    "RecurrentLanguageModel",
    "Seq2Seq",
    "TimePool",
    "autoencoder",
    "bert",
    "bert_base",
    "bert_large",
    "cosine_schedule",
    "ddim_step",
    "denoising_autoencoder",
    "denoising_loss",
    "diffusion_unet",
    "gat",
    "gcn",
    "generate",
    "gin",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_small",
    "gpt2_xl",
    "lenet5",
    "linear_schedule",
    "llama",
    "llama2_7b",
    "llama3_8b",
    "mlp",
    "noised",
    "perceptron",
    "recurrent_classifier",
    "recurrent_language_model",
    "resnet",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "sample",
    "sample_images",
    "scanned",
    "seq2seq",
    "transformer",
    "transformer_base",
    "transformer_big",
    "unet",
    "vae",
    "vit",
    "vit_base16",
    "vit_large16",
    "vit_small16",
]
