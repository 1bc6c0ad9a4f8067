# pyright: reportArgumentType=false
"""Autoencoders and diffusion: what the papers' equations say of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models
from tests.compiling import QUICK
from tests.models.common import close, lively

X = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)


def test_noise_enters_in_training_only_and_has_its_size():
    noise = models.GaussianNoise(0.5)
    assert noise({}, X, key=jax.random.key(0)) is X
    added = noise({}, jnp.zeros(10_000), key=jax.random.key(0), train=True)
    assert abs(float(added.std()) - 0.5) < 0.02  # four standard errors are 0.014
    with pytest.raises(fdl.InputError, match="pass key="):
        noise({}, X, train=True)
    with pytest.raises(fdl.InputError, match="stddev: expected a number >= 0"):
        models.GaussianNoise(-1.0)


@pytest.mark.slow
def test_vae_draws_from_its_posterior_and_is_the_mean_without_a_key():
    model = models.vae(6, 5, 2)
    params = lively(model)
    many = np.repeat(X[:1], 20_000, 0)
    y, mean, log_variance = model(params, X)
    close(y, model.decode(params, mean))
    (also_mean, also_log_variance) = model.encode(params, X)
    close(mean, also_mean)
    close(log_variance, also_log_variance)

    decoder = fdl.nn.Serial()  # shows z
    z, *_ = models.VAE(2, model.encoder, decoder)(params | {"decoder": {}}, many, key=jax.random.key(0))
    deviation = np.exp(log_variance[0] / 2)
    np.testing.assert_allclose(z.mean(0), mean[0], atol=0.03 * deviation.max())  # four standard errors
    np.testing.assert_allclose(z.std(0), deviation, rtol=0.02)
    # The KL divergence, by the same draws: log q(z) - log p(z).
    log_ratio = (-0.5 * ((z - mean[0]) / deviation) ** 2 - np.log(deviation) + 0.5 * z**2).sum(-1)
    kl = fdl.losses.standard_normal_kl_divergence(mean, log_variance)[0]
    assert abs(float(log_ratio.mean() - kl)) < 4 * float(log_ratio.std()) / 20_000**0.5


def test_vae_refuses_an_encoder_of_another_size():
    model = models.VAE(3, fdl.nn.Linear(6, 5), fdl.nn.Linear(3, 6))
    with pytest.raises(fdl.InputError, match="encoder to 6 numbers"):
        model(fdl.init(model, jax.random.key(0))[0], X)
    with pytest.raises(fdl.InputError, match="expected sizes"):
        models.vae(6)


# --- diffusion ---


def test_eta_one_is_the_posterior_of_the_forward_process():
    """Ho et al., equations 6 and 7, mean and variance, at every time of the schedule."""
    kept = np.asarray(models.linear_schedule(1000), np.float64)
    assert abs(kept[-1] - 4.0358e-5) < 1e-8  # the figure of Ho et al.'s code for 1000 times
    before = np.append(1.0, kept[:-1])
    beta = 1 - kept / before
    image, noise = 0.3, -0.7
    x = np.sqrt(kept) * image + np.sqrt(1 - kept) * noise
    with jax.enable_x64(True):
        found, share = jnp.full(1000, noise, jnp.float64), jnp.asarray(kept)
        mean, deviation = models.ddim_step(jnp.asarray(x), found, share, jnp.asarray(before), 1.0)
    want = np.sqrt(before) * beta / (1 - kept) * image + np.sqrt(1 - beta) * (1 - before) / (1 - kept) * x
    np.testing.assert_allclose(mean, want, rtol=1e-9)
    np.testing.assert_allclose(np.square(deviation), (1 - before) / (1 - kept) * beta, rtol=1e-9, atol=1e-15)


def test_eta_zero_goes_along_one_noise_and_the_last_step_is_the_image():
    share, before, image, noise = 0.5, 0.8, jnp.array(0.2), jnp.array(1.1)
    x = models.noised(image[None], noise[None], jnp.array([share]))[0]
    mean, deviation = models.ddim_step(x, noise, share, before, 0.0)
    close(mean, np.sqrt(0.8) * 0.2 + np.sqrt(0.2) * 1.1)
    assert deviation == 0.0
    for eta in (0.0, 1.0):
        mean, deviation = models.ddim_step(x, noise, share, 1.0, eta)
        close(mean, image)
        assert deviation == 0.0


def test_the_estimated_image_stays_in_its_range():
    mean, _ = models.ddim_step(jnp.array(5.0), jnp.array(0.0), 0.25, 1.0)
    assert float(mean) == 1.0
    assert float(models.ddim_step(jnp.array(5.0), jnp.array(0.0), 0.25, 1.0, clip=None)[0]) == 10.0


def test_schedules_fall_from_the_image_to_noise():
    for kept in (models.cosine_schedule(100), models.linear_schedule(1000)):
        kept = np.asarray(kept)
        assert (np.diff(kept) < 0).all()
        assert kept[0] > 0.99
        assert 0 < kept[-1] < 1e-4


SMALL = models.diffusion_unet(1, num_classes=3, widths=(4, 8), num_groups=2, num_heads=2)
IMAGES = np.random.default_rng(1).normal(size=(2, 4, 6, 1)).astype(np.float32)
TIMES, LABELS = np.array([3, 9], np.int32), np.array([0, 2], np.int32)


@pytest.mark.slow
def test_the_network_hears_time_and_class_and_keeps_examples_apart():
    params = lively(SMALL)
    run = jax.jit(lambda x, t, y: SMALL(params, x, time=t, labels=y), compiler_options=QUICK)
    base = run(IMAGES, TIMES, LABELS)
    assert base.shape == IMAGES.shape
    for changed in (run(IMAGES, TIMES + np.array([0, 5], np.int32), LABELS), run(IMAGES, TIMES, LABELS[[0, 0]])):
        close(changed[0], base[0])
        assert np.abs(changed[1] - base[1]).max() > 1e-3
    anybody = jax.jit(lambda: SMALL(params, IMAGES, time=TIMES), compiler_options=QUICK)()
    close(anybody, run(IMAGES, TIMES, np.array([3, 3], np.int32)))


def test_what_the_network_lacks_is_said():
    params, _ = fdl.abstract(SMALL)
    with pytest.raises(fdl.InputError, match="time="):
        SMALL(params, IMAGES)
    plain = models.diffusion_unet(1, widths=(4, 8), num_groups=2)
    with pytest.raises(fdl.InputError, match="without num_classes"):
        jax.eval_shape(lambda p: plain(p, IMAGES, time=TIMES, labels=LABELS), fdl.abstract(plain)[0])
    with pytest.raises(fdl.InputError, match="multiples of 2, got 3 x 6"):
        jax.eval_shape(lambda p: SMALL(p, IMAGES[:, :3], time=TIMES), params)
    with pytest.raises(fdl.InputError, match="num_steps"):
        models.sample_images(SMALL, params, jax.random.key(0), (1, 4, 4, 1), models.cosine_schedule(4), num_steps=5)
    with pytest.raises(fdl.InputError, match="labels="):
        models.sample_images(SMALL, params, jax.random.key(0), (1, 4, 4, 1), models.cosine_schedule(4), guidance=1.0)


@pytest.mark.slow
def test_a_network_that_knows_the_one_image_of_its_data_gives_it_back():
    """For data of one image m the noise in x is (x - sqrt(a_t) m) / sqrt(1 - a_t): every sampler must end in m."""
    kept, image = models.cosine_schedule(20), jnp.full((2, 2, 2, 1), 0.4)

    class Oracle(models.Denoiser):
        def __call__(self, params, x, *, time=None, labels=None, key=None, train=False):
            share = kept[time]
            return (x - jnp.sqrt(share) * image) / jnp.sqrt(1 - share)

    oracle = Oracle(SMALL.time, None, SMALL.stem, SMALL.body, SMALL.head, 4)
    params = {"x": jnp.zeros(1)}
    for steps, eta in ((None, 1.0), (5, 0.0), (1, 0.0), (7, 0.5)):
        drawn = models.sample_images(oracle, params, jax.random.key(0), image.shape, kept, num_steps=steps, eta=eta)
        close(drawn, image, 1e-4)


@pytest.mark.slow
def test_sampling_is_a_function_of_the_key_and_guidance_zero_changes_nothing():
    params, kept = lively(SMALL, 0.1), models.cosine_schedule(3)
    draw = lambda seed, **more: np.asarray(  # noqa: E731
        models.sample_images(SMALL, params, jax.random.key(seed), (2, 4, 4, 1), kept, labels=LABELS, **more)
    )
    np.testing.assert_array_equal(draw(0), draw(0))
    assert np.abs(draw(1) - draw(0)).max() > 0.01
    close(draw(0, guidance=0.0), draw(0))
    assert np.abs(draw(0, guidance=3.0) - draw(0)).max() > 1e-3
    assert np.abs(draw(0)).max() <= 1.0


@pytest.mark.slow
def test_the_first_guess_is_no_noise_so_that_the_loss_starts_at_one():
    params, _ = fdl.init(SMALL, jax.random.key(0))
    x = np.zeros((64, 4, 4, 1), np.float32)
    labels = np.zeros(64, np.int32)
    kept = models.cosine_schedule(50)
    loss = models.denoising_loss(SMALL, params, x, kept, key=jax.random.key(1), labels=labels, train=True)
    assert loss.shape == x.shape
    assert abs(float(loss.mean()) - 1.0) < 4 * (2 / x.size) ** 0.5
