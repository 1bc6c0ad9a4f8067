"""Networks that learn a code for their input: autoencoders, plain, denoising and variational."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Initializer, Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import NonNegative, Size, check_values
from fdl.models.mlp import KERNEL, mlp
from fdl.nn.containers import scope
from fdl.records import short

Activation = Callable[[jax.Array], jax.Array]


def autoencoder(in_features: int, *sizes: int, activation: Activation = jax.nn.relu) -> nn.Serial:
    """decoder(encoder(x)), two multilayer perceptrons that mirror each other.

    Args:
      in_features: numbers in an example.
      sizes: units of the encoder's layers; the last are the code.
      activation: after every hidden layer, not after the code and the output.
    Call: x [B, ...] with in_features numbers in an example -> [B, in_features]; for pixels in 0..1, logits of a
      `losses.sigmoid_binary_cross_entropy`. The code: `model.parts()["encoder"](params["encoder"], x)`.

    Reference: Hinton & Salakhutdinov, Reducing the dimensionality of data with neural networks, 2006.

    >>> model = autoencoder(64, 32, 8)
    >>> model.parts()["decoder"].parts()["head"]
    Linear(32, 64)
    """
    return nn.Serial(**_mirrored(in_features, sizes, sizes[-1] if sizes else 0, activation))


def denoising_autoencoder(
    in_features: int, *sizes: int, corruption: Layer | None = None, activation: Activation = jax.nn.relu
) -> nn.Serial:
    """decoder(encoder(corruption(x))): to be compared with x itself, so that the code says what x is without noise.

    Args:
      in_features, sizes, activation: as in `autoencoder`.
      corruption: a layer that acts in training only: `GaussianNoise(0.3)` unless given; `nn.Dropout(rate)` hides
        inputs.
    Call: as `autoencoder`; `train=True` needs a key.

    Reference: Vincent et al., Extracting and composing robust features with denoising autoencoders, 2008.

    >>> denoising_autoencoder(64, 8).parts()["corruption"]
    GaussianNoise(0.3)
    """
    noise = GaussianNoise(0.3) if corruption is None else corruption
    return nn.Serial(corruption=noise, **_mirrored(in_features, sizes, sizes[-1] if sizes else 0, activation))


def vae(
    in_features: int,
    *sizes: int,
    activation: Activation = jax.nn.relu,
    kernel_init: Initializer = KERNEL,
) -> VAE:
    """A variational autoencoder of two multilayer perceptrons.

    Args:
      in_features: numbers in an example.
      sizes: units of the encoder's layers; the last is the number of latent variables.
      activation: after every hidden layer.
      kernel_init: of every layer.

    >>> import fdl
    >>> model = vae(64, 32, 2)
    >>> params, _ = fdl.abstract(model)
    >>> y, mean, log_variance = jax.eval_shape(model, params, jnp.ones((3, 64)))
    >>> y.shape, mean.shape, log_variance.shape
    ((3, 64), (3, 2), (3, 2))
    """
    if not sizes:
        raise InputError("vae: expected sizes, the last being the number of latent variables")
    check_values("vae", Size, latents=sizes[-1])
    code = 2 * sizes[-1]
    return VAE(sizes[-1], **_mirrored(in_features, sizes, code, activation, kernel_init))


@dataclass(frozen=True)
class VAE(Layer):
    """y = decoder(z), z = mean + exp(log_variance / 2) * noise, [mean, log_variance] = encoder(x).

    Args:
      latents: the number of latent variables.
      encoder: from x to 2 * latents numbers.
      decoder: from latents numbers to the parameters of p(x | z), such as logits of pixels.
    Call: x -> (y, mean, log_variance), the latter two [B, latents]; without a key z is the mean. The loss of an example
      is the negative evidence lower bound:

        loss = -log p(x | y) + fdl.losses.standard_normal_kl_divergence(mean, log_variance)

      where -log p is `fdl.losses.sigmoid_binary_cross_entropy(y, x).sum(-1)` for pixels in 0..1. An objective gets a
      key in evaluation too, and so a sample of z, as the bound asks.

    Reference: Kingma & Welling, Auto-encoding variational Bayes, 2013, section 3 and appendix C.
    """

    latents: Size
    encoder: Layer
    decoder: Layer

    def __call__(
        self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mean, log_variance = self.encode(params, x, key=fold(key, "encoder"), train=train)
        z = mean
        if key is not None:
            noise = jax.random.normal(fold(key, "z"), mean.shape, mean.dtype)
            z = mean + jnp.exp(log_variance / 2) * noise
        return self.decode(params, z, key=fold(key, "decoder"), train=train), mean, log_variance

    def encode(
        self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """(mean, log_variance) of q(z | x)."""
        with scope("encoder"):
            code = self.encoder(params["encoder"], x, key=key, train=train)
        if code.shape[-1] != 2 * self.latents:
            raise InputError(f"VAE: expected an encoder to {2 * self.latents} numbers, got {list(code.shape)}")
        return code[..., : self.latents], code[..., self.latents :]

    def decode(self, params: Tree, z: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        """y, the parameters of p(x | z)."""
        with scope("decoder"):
            return self.decoder(params["decoder"], z, key=key, train=train)

    def sample(self, params: Tree, key: jax.Array, count: int) -> jax.Array:
        """y of `count` latent vectors drawn from N(0, I)."""
        dtype = jax.tree.leaves(params)[0].dtype
        return self.decode(params, jax.random.normal(key, (count, self.latents), dtype))


@dataclass(frozen=True)
class GaussianNoise(Layer):
    """y = x + noise in training, noise ~ N(0, stddev^2); y = x otherwise.

    Args:
      stddev: may be swept.
    Call: x of any shape; `train=True` needs `key`.

    Raises:
      InputError: stddev < 0; training without a key.

    >>> GaussianNoise(0.5)({}, jnp.ones(2)).tolist()
    [1.0, 1.0]
    """

    stddev: NonNegative

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        if not train:
            return x
        if key is None:
            raise InputError(f"{short(self)}: train=True needs randomness; pass key=")
        return x + jax.random.normal(key, x.shape, x.dtype) * jnp.asarray(self.stddev, x.dtype)


def _mirrored(
    in_features: int,
    sizes: tuple[int, ...],
    code: int,
    activation: Activation,
    kernel_init: Initializer = KERNEL,
) -> dict[str, nn.Serial]:
    """Encoder to `code` numbers and decoder from sizes[-1] numbers."""
    if not sizes:
        raise InputError("autoencoder: expected sizes, the last being that of the code")
    options: Any = {"activation": activation, "kernel_init": kernel_init}
    encoder = mlp(in_features, *sizes[:-1], code, **options)
    return {"encoder": encoder, "decoder": mlp(*sizes[::-1], in_features, **options)}
