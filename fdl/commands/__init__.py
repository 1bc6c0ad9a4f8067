"""The commands of `fdl`, one a file: `HELP`, and `main(arguments) -> exit code`. None imports jax before it has to."""
