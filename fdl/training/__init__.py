"""The engine: tasks, experiments and runs as compiled chunks of steps. It knows no layer, only pure functions."""
