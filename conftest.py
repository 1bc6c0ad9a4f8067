"""Tests, and the examples in docstrings, neither read nor fill a user's compilation cache."""

import os

import jax

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # for subprocesses
jax.config.update("jax_enable_compilation_cache", False)
