"""Checkpoints as each version of the format wrote them; they stay readable."""
