"""Runs as a person meets them: the run folder, the display, and the experiment files they start from."""
