"""Compiler options for tests, which spend their time compiling and none running."""

QUICK = {"xla_backend_optimization_level": 0}
