"""Log-mel spectrograms on the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from fdl.errors import InputError, did_you_mean


def log_mel(
    samples: Any,
    rate: int,
    *,
    window: int = 400,
    hop: int = 160,
    num_fft: int | None = None,
    num_mels: int = 80,
    low: float = 0.0,
    high: float | None = None,
    scale: str = "slaney",
    floor: float = 1e-10,
) -> np.ndarray:
    """S[t, m] = log(max(floor, sum_k M[m, k] |sum_n w[n] x[t hop + n - num_fft / 2] exp(-2 pi i k n / num_fft)|^2)).

    w is the periodic Hann window, centred in num_fft; x is continued by reflection at both ends; M is
    `mel_filters(...)`. Frame t is centred at sample t hop. Computed in float64.

    Args:
      samples: [t], more than num_fft / 2 of them.
      rate: samples a second.
      window, hop: samples; the usual 25 ms and 10 ms at 16 kHz.
      num_fft: of the Fourier transform, at least `window` and even; None = the window.
      num_mels, low, high, scale: see `mel_filters`; high None = rate / 2.
      floor: the least power, below which the logarithm is cut.

    Returns:
      float32 [1 + t // hop, num_mels], natural logarithm.

    librosa: `np.log(np.maximum(floor, librosa.feature.melspectrogram(y, pad_mode="reflect", ...)))`, transposed.
    torchaudio's `MelSpectrogram` defaults to scale "htk" and filters of height 1.
    """
    x = np.asarray(samples, np.float64)
    size = window if num_fft is None else num_fft
    if size < window or size % 2 or hop < 1 or window < 2:
        raise InputError(f"log_mel: expected 2 <= window <= num_fft (even), hop >= 1, got {window}, {size}, {hop}")
    if x.ndim != 1 or len(x) <= size // 2:
        raise InputError(f"log_mel: expected samples [t], t > {size // 2} for num_fft {size}, got {list(x.shape)}")
    filters = mel_filters(rate, size, num_mels, low, high, scale)
    padded = np.pad(x, size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    before = (size - window) // 2
    hann = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window), (before, size - window - before))
    power = np.abs(np.fft.rfft(frames * hann, axis=-1)) ** 2
    return np.log(np.maximum(floor, power @ filters.T)).astype(np.float32)


def mel_filters(
    rate: int, num_fft: int, num_mels: int = 80, low: float = 0.0, high: float | None = None, scale: str = "slaney"
) -> np.ndarray:
    """Triangles over the frequencies of a Fourier transform, their corners equally spaced in mel: [num_mels, bins].

    Args:
      rate: samples a second.
      num_fft: of the transform, which has num_fft // 2 + 1 bins.
      num_mels: triangles.
      low, high: Hz where the first begins and the last ends; high None = rate / 2.
      scale: "slaney": linear to 1 kHz, logarithmic above (27 steps for a factor 6.4), each triangle of area 1 in Hz;
        "htk": mel = 2595 log10(1 + Hz / 700), each triangle of height 1.

    Source: M. Slaney, "Auditory toolbox" (1998); S. Young et al., "The HTK book" (2006), section 5.6.
    librosa: `filters.mel(norm="slaney")`, and `mel(htk=True, norm=None)`.

    >>> mel_filters(8000, 8, 2, scale="htk").round(2).tolist()
    [[0.0, 0.68, 0.0, 0.0, 0.0], [0.0, 0.32, 0.91, 0.45, 0.0]]
    """
    top = rate / 2 if high is None else high
    if scale not in _SCALES:
        raise InputError(f"mel_filters: no scale {scale!r}{did_you_mean(scale, _SCALES)}")
    if not 0 <= low < top <= rate / 2 or num_mels < 1:
        raise InputError(
            f"mel_filters: expected 0 <= low < high <= {rate / 2}, mels >= 1, got {low}, {top}, {num_mels}"
        )
    to_mel, to_hz = _SCALES[scale]
    corners = to_hz(np.linspace(to_mel(low), to_mel(top), num_mels + 2))[:, None]
    hz = np.arange(num_fft // 2 + 1) * (rate / num_fft)
    rising = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    triangles = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (corners[2:] - corners[:-2])) if scale == "slaney" else triangles


_STEP = np.log(6.4) / 27


def _slaney(hz: Any) -> Any:
    return np.where(np.less(hz, 1000), np.divide(hz, 200 / 3), 15 + np.log(np.maximum(hz, 1000) / 1000) / _STEP)


def _from_slaney(mel: Any) -> Any:
    return np.where(np.less(mel, 15), np.multiply(mel, 200 / 3), 1000 * np.exp(_STEP * (np.maximum(mel, 15) - 15)))


def _htk(hz: Any) -> Any:
    return 2595 * np.log10(1 + np.divide(hz, 700))


def _from_htk(mel: Any) -> Any:
    return 700 * (10 ** np.divide(mel, 2595) - 1)


_SCALES = {"slaney": (_slaney, _from_slaney), "htk": (_htk, _from_htk)}
