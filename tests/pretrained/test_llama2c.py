"""The tokenizer of llama2.c: the ids of its definition, in time that grows as the text, and every text comes back."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fdl.errors import InputError
from fdl.pretrained.llama2c import END, START, Tokenizer

BYTES = [f"<0x{byte:02X}>".encode() for byte in range(256)]
SPECIAL = [b"<unk>", b"<s>", b"</s>"]
WORDS = [b" ", b"a", b"b", b"<", b"s", b">", b"ab", b" a", b"ba", b" ab", b"aa", b"<s", b"bb ", "é".encode()]
TOKENS = [*SPECIAL, *BYTES, *WORDS]
SCORES = [0.0] * 259 + [-float(i % 5) for i in range(len(WORDS))]


def defined(tokenizer: Tokenizer, text: str) -> list[int]:
    """Word for word: the first of the pairs of best score is merged until no pair is a token of text."""
    ids: list[int] = []
    for character in " " + text if text else "":
        token = character.encode("utf-8", "surrogatepass")
        known = token in tokenizer.ids
        ids += [tokenizer.ids[part] for part in ([token] if known else [f"<0x{b:02X}>".encode() for b in token])]
    while True:
        pairs = [tokenizer.tokens[a] + tokenizer.tokens[b] for a, b in itertools.pairwise(ids)]
        there = [i for i, pair in enumerate(pairs) if tokenizer.ids.get(pair, 0) > END and not pair.startswith(b"<0x")]
        if not there:
            return [START, *ids]
        best = max(there, key=lambda i: tokenizer.scores[tokenizer.ids[pairs[i]]])
        ids[best : best + 2] = [tokenizer.ids[pairs[best]]]


@settings(max_examples=200)
@given(text=st.text("ab <s>é\0", max_size=20) | st.text(max_size=5), across=st.booleans())
def test_pairs_merge_by_score(text: str, across: bool) -> None:
    """With tokens that reach across a space ("bb ") and without, which is where words are encoded one by one."""
    keep = len(TOKENS) if across else TOKENS.index(b"bb ")
    tokenizer = Tokenizer(TOKENS[:keep], SCORES[:keep])
    ids = tokenizer.encode(text)
    assert ids == defined(tokenizer, text)
    assert tokenizer.decode(ids) == text


def test_the_tokenizer_of_the_stories(fdl_data: Path) -> None:
    """The ids of the definition on text that it was not made for, and a long text comes back."""
    tokenizer = Tokenizer.read(fdl_data / "weights" / "stories260K" / "tok512.bin", 512)
    text = (fdl_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    for start in range(0, 1_000_000, 200_000):
        piece = text[start : start + 150] + "é中\0🤗"
        assert tokenizer.encode(piece) == defined(tokenizer, piece)
    long = text[:100_000] + "a" * 100_000
    assert tokenizer.decode(tokenizer.encode(long)) == long


def test_a_special_token_in_a_text_is_text() -> None:
    tokenizer = Tokenizer(TOKENS, SCORES)
    assert not {START, END} & set(tokenizer.encode("a<s>b")[1:])
    assert tokenizer.decode(tokenizer.encode("<0x0A>")) == "<0x0A>"
    assert tokenizer.encode("\ud800")[-3:] == [3 + byte for byte in b"\xed\xa0\x80"]


def test_what_cannot_be_encoded_or_decoded_is_said() -> None:
    tokenizer = Tokenizer(TOKENS, SCORES)
    for ids in ([len(TOKENS)], [-1]):
        with pytest.raises(InputError, match=r"Tokenizer: id .* is outside 0\.\.272"):
            tokenizer.decode(ids)
    with pytest.raises(InputError, match="Tokenizer: expected integers"):
        tokenizer.decode([0.5])
    with pytest.raises(InputError, match="expected a text, got list"):
        tokenizer.encode(["ab"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="'c' is not in the vocabulary"):
        Tokenizer(WORDS, [0.0] * len(WORDS)).encode("c")
    with pytest.raises(InputError, match="a finite score for each of 3 tokens"):
        Tokenizer(SPECIAL, [0.0, float("nan"), 1.0])
    with pytest.raises(InputError, match="vocab_size: expected a whole number"):
        Tokenizer.read("tok.bin", 0)
