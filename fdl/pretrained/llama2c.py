"""The files of karpathy/llama2.c: a Llama in one binary file, and its tokenizer."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import struct
from typing import Any, NamedTuple

import numpy as np

from fdl.core import Tree
from fdl.data.byte_pairs import from_utf8, merged, to_utf8
from fdl.data.formats.source import Source, damage, open_source
from fdl.data.tokens import checked_ids
from fdl.errors import InputError
from fdl.models import Decoder, llama
from fdl.pretrained import mapping
from fdl.pretrained.files import as_path
from fdl.pretrained.mapping import Report, Rule

START, END = 1, 2
"""The token before every text, and the one behind it."""

_MOST = 2**24  # of a size in a header


class Config(NamedTuple):
    """The header of the file."""

    features: int
    hidden_features: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    max_length: int
    tied: bool


def load(path: str | os.PathLike[str]) -> tuple[Decoder, Tree, Tree, Report]:
    """(model, params, state, report) of a file of llama2.c ("legacy", float32), such as stories260K.bin.

    Raises:
      InputError: a damaged file or another format.
    """
    config, tensors = read_llama2c(path)
    sizes = config._asdict()
    sizes.pop("max_length")
    model = llama(**sizes, rotary_layout="interleaved")
    return model, *mapping.load(model, tensors, rules(config.num_layers))


def rules(num_layers: int) -> list[Rule]:
    """llama2.c's names; the arrays of all layers are one array there."""

    def split(source: str, path: str, change: str) -> Rule:
        return Rule(source, tuple(f"blocks/{i}/{path}" for i in range(num_layers)), change)

    queries = {"wq": "query", "wk": "key", "wv": "value"}
    hidden = {"w1": "up/gate", "w2": "down", "w3": "up/value"}
    return [
        Rule("token_embedding_table", "embedding/embedding"),
        split("rms_att_weight", "attention_norm/scale", "l d -> l d"),
        *(split(name, f"attention/{path}/kernel", "l (h k) d -> l d h k") for name, path in queries.items()),
        split("wo", "attention/out/kernel", "l d (h k) -> l h k d"),
        split("rms_ffn_weight", "feed_forward_norm/scale", "l d -> l d"),
        *(split(name, f"feed_forward/{path}/kernel", "l o i -> l i o") for name, path in hidden.items()),
        Rule("rms_final_weight", "norm/scale"),
        Rule("freq_cis_real", ()),
        Rule("freq_cis_imag", ()),
        Rule("wcls", "head/kernel", "o i -> i o"),
    ]


def read_llama2c(path: str | os.PathLike[str]) -> tuple[Config, dict[str, np.ndarray]]:
    """The header and the arrays, by the names that run.c gives them.

    Seven int32, a negative vocabulary meaning that the output weights are arrays of their own, then float32.

    Raises:
      InputError: a damaged file or another format.
    """
    source = open_source(as_path(path, "llama2c"), "a model of llama2.c")
    data = source.read()
    if len(data) < 28:
        raise source.error("a model of llama2.c", str(source.kind() or f"{len(data)} bytes"))
    D, F, L, H, G, V, T = struct.unpack("<7i", data[:28])
    config = Config(D, F, L, H, G, abs(V), T, tied=V > 0)
    if not all(0 < size < _MOST for size in config[:7]) or config.features % config.num_heads:
        raise source.error("a model of llama2.c", str(source.kind() or f"the sizes {config[:7]}"))
    V, K = abs(V), D // H
    shapes = {"token_embedding_table": (V, D), "rms_att_weight": (L, D), "wq": (L, H * K, D), "wk": (L, G * K, D)}
    shapes |= {"wv": (L, G * K, D), "wo": (L, D, H * K), "rms_ffn_weight": (L, D), "w1": (L, F, D), "w2": (L, D, F)}
    shapes |= {"w3": (L, F, D), "rms_final_weight": (D,), "freq_cis_real": (T, K // 2), "freq_cis_imag": (T, K // 2)}
    shapes |= {} if config.tied else {"wcls": (V, D)}
    return config, _arrays(source, data, shapes)


def _arrays(source: Source, data: bytes, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    size = 28 + 4 * sum(math.prod(shape) for shape in shapes.values())
    if len(data) != size:
        raise source.error(f"{size} bytes, by its header", f"{len(data)}")
    tensors, start = {}, 28
    for name, shape in shapes.items():
        tensors[name] = np.frombuffer(data, "<f4", math.prod(shape), start).reshape(shape)
        start += tensors[name].nbytes
    return tensors


class Tokenizer:
    """The tokenizer of llama2.c: the best pair by score is merged until none is left.

    Args:
      tokens: bytes of every id; "<0x0A>" is the byte 10.
      scores: of every id.

    `read(path, vocab_size)` reads a file: int32 longest, then float32 score, int32 length and bytes of every token.

    >>> tokens = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b"b", b"ab", b" ab"]
    >>> tokenizer = Tokenizer(tokens, [0.0, 0.0, 0.0, -3.0, -3.0, -3.0, -1.0, -2.0])
    >>> tokenizer.encode("ab"), tokenizer.decode([1, 7])
    ([1, 7], 'ab')
    """

    def __init__(self, tokens: list[bytes], scores: list[float]) -> None:
        if len(tokens) != len(scores) or not all(map(math.isfinite, scores)):
            raise InputError(f"Tokenizer: expected a finite score for each of {len(tokens)} tokens")
        self.tokens, self.scores = tokens, scores
        self.ids = {token: i for i, token in reversed(list(enumerate(tokens)))}
        special = {*range(END + 1)} | {i for i, token in enumerate(tokens) if _is_byte(token)}  # stand for no text
        self._ranks = {token: -scores[i] for token, i in self.ids.items() if i not in special}
        across = any(re.search(b"[^ ] ", token) for token in self._ranks)
        self._words = re.compile(".+" if across else " *[^ ]+| +", re.DOTALL)  # no token reaches into the next word
        self._encode_word = functools.lru_cache(maxsize=1 << 16)(self._word)

    @classmethod
    def read(cls, path: str | os.PathLike[str], vocab_size: int) -> Tokenizer:
        """See the class.

        Raises:
          InputError: a damaged file or another format.
        """
        if type(vocab_size) is not int or vocab_size < 1:
            raise InputError(f"Tokenizer: vocab_size: expected a whole number > 0, got {vocab_size!r:.80}")
        source = open_source(as_path(path, "llama2c"), "a tokenizer of llama2.c")
        try:
            with damage(source.name, "a tokenizer of llama2.c"):
                return cls(*_tokens(source.read(), vocab_size))
        except InputError:
            if source.kind():
                raise source.other("a tokenizer of llama2.c") from None
            raise

    def encode(self, text: str) -> list[int]:
        """START and the ids of the text, a space before it, as sentencepiece does; InputError without ids for it."""
        if not isinstance(text, str):
            raise InputError(f"Tokenizer: expected a text, got {type(text).__name__}; several are encoded one by one")
        words = self._words.findall(" " + text) if text else []
        return [START, *itertools.chain.from_iterable(map(self._encode_word, words))]

    def _word(self, word: str) -> list[int]:
        parts: list[bytes] = []
        for character in word:
            token = to_utf8(character)
            pieces = [token] if token in self.ids else [f"<0x{byte:02X}>".encode() for byte in token]
            if any(piece not in self.ids for piece in pieces):
                raise InputError(f"Tokenizer: {character!r} is not in the vocabulary")
            parts += pieces
        return [self.ids[part] for part in merged(parts, self._ranks)]

    def decode(self, ids: Any) -> str:
        """The text up to the next START or END; a START at the very beginning is left out, with the space after it."""
        numbers = checked_ids("Tokenizer", ids, len(self.tokens)).tolist()
        numbers = numbers[1:] if numbers[:1] == [START] else numbers
        tokens = [self.tokens[i] for i in itertools.takewhile(lambda i: i not in (START, END), numbers)]
        data = b"".join(bytes([int(token[3:5], 16)]) if _is_byte(token) else token for token in tokens)
        return from_utf8(data).removeprefix(" ")


def _tokens(data: bytes, vocab_size: int) -> tuple[list[bytes], list[float]]:
    """The tokens of a file and their scores."""
    tokens, scores, start = [], [], 4
    for _ in range(vocab_size):
        score, length = struct.unpack_from("<fi", data, start)
        if not 0 <= length <= len(data) - start - 8:
            raise ValueError(f"a token of {length} bytes")
        tokens.append(data[start + 8 : start + 8 + length])
        scores.append(score)
        start += 8 + length
    if start != len(data):
        raise ValueError(f"{len(data)} bytes, where {vocab_size} tokens end at {start}")
    return tokens, scores


def _is_byte(token: bytes) -> bool:
    """Whether a token stands for a byte: "<0x0A>"."""
    return re.fullmatch(rb"<0x[0-9A-Fa-f]{2}>", token) is not None
