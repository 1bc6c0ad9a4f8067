"""Readers of file formats: each a pure function from a file (a path or its bytes) to numpy arrays.

Nothing in a file is ever executed, no size a file claims is believed before it was compared with the bytes that are
there, and whatever is wrong with a file is one `InputError` that names it.
"""
