"""Tokenisers: every text comes back, and GPT-2's ids are those that others have published."""

from __future__ import annotations

import itertools
import os
import random
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fdl
from fdl.data.tokens import BytePair, Bytes, Characters, HuggingFace, Words, gpt2_words, pad

EVERY_TEXT = st.text(st.characters())  # lone surrogates among them
SINGLE = {bytes([i]): i for i in range(256)}


@pytest.fixture(scope="module")
def gpt2() -> BytePair:
    path = Path(os.environ.get("FDL_DATA", ""), "tokenizers", "gpt2.tiktoken")
    if not path.is_file():
        pytest.skip("no $FDL_DATA/tokenizers/gpt2.tiktoken")
    return BytePair.read(path, special={"<|endoftext|>": 50256})


@given(EVERY_TEXT)
def test_bytes_come_back(text):
    ids = Bytes().encode(text)
    assert ids.dtype == np.int32
    assert Bytes().decode(ids) == text


@given(st.lists(st.integers(0, 255)))
def test_any_bytes_decode(ids):
    """Text that is in them stays, behind whatever else."""
    assert Bytes().decode([*ids, *b"end"]).endswith("end")


def test_bytes_that_are_no_text_are_replaced():
    assert Bytes().decode([72, 0xFF, 105, 0xE2, 0x82]) == "H\ufffdi\ufffd"
    assert Bytes().encode("€").tolist() == [0xE2, 0x82, 0xAC]


@given(EVERY_TEXT, EVERY_TEXT)
def test_characters_come_back(text, more):
    tokens = Characters(text + more + "x")
    ids = tokens.encode(text)
    assert (tokens.decode(ids), ids.dtype) == (text, np.int32)
    assert list(tokens.vocabulary) == sorted(set(text + more + "x"))
    assert tokens.decode(range(tokens.vocab_size)) == tokens.vocabulary == Characters(tokens.vocabulary).vocabulary


def test_an_unknown_character_is_named():
    with pytest.raises(fdl.InputError, match=r"unknown character 'é' \(U\+00E9\) at position 3; .* 3 characters"):
        Characters("caf").encode("cafés é")
    with pytest.raises(fdl.InputError, match="expected a text"):
        Characters("")


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [15496, 995]),
        ("hello world", [31373, 995]),  # tiktoken, tests/test_encoding.py, as the zeros below
        ("Hello, world!", [15496, 11, 995, 0]),
        ("Hello, I'm a language model,", [15496, 11, 314, 1101, 257, 3303, 2746, 11]),
        ("hello world    hello", [31373, 995, 220, 220, 220, 23748]),  # tiktoken-rs
        ("Akwirw ier", [33901, 86, 343, 86, 220, 959]),  # Raschka, Build a large language model, exercise 2.1
        ("00000", [20483]),
        ("0" * 9, [10535, 830]),
        ("0" * 16, [25645]),
        ("0" * 17, [8269, 10535, 830]),
        ("", []),
    ],
)
def test_published_encodings_of_gpt2(gpt2, text, ids):
    assert gpt2.encode(text).tolist() == ids
    assert gpt2.decode(ids) == text


def test_special_tokens_are_read_only_when_asked_for(gpt2):
    """Raschka, Build a large language model, section 2.5."""
    text = "Hello, do you like tea? <|endoftext|> In the sunlit terraces of someunknownPlace."
    ids = [
        15496,
        11,
        466,
        345,
        588,
        8887,
        30,
        220,
        50256,
        554,
        262,
        4252,
        18250,
        8812,
        2114,
        286,
        617,
        34680,
        27271,
        13,
    ]
    assert gpt2.encode(text, special=True).tolist() == ids
    assert 50256 not in gpt2.encode(text)
    assert gpt2.decode(ids) == gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.vocab_size == 50257


def test_the_words_of_shakespeare(gpt2, fdl_data):
    """nanoGPT, data/shakespeare: 301,966 and 36,059 tokens in the first 90 % of tiny Shakespeare and the rest."""
    text = (fdl_data / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")
    cut = int(len(text) * 0.9)
    ids = gpt2.encode(text[:cut]), gpt2.encode(text[cut:])
    assert [len(each) for each in ids] == [301_966, 36_059]
    assert gpt2.decode(np.concatenate(ids)) == text


@given(text=EVERY_TEXT)
def test_gpt2_comes_back(gpt2, text):
    ids = gpt2.encode(text)
    assert (gpt2.decode(ids), ids.dtype) == (text, np.int32)


@pytest.mark.slow
def test_every_token_of_gpt2_comes_back(gpt2):
    """Whatever a token's text is, its bytes decode to it."""
    for number in range(0, 50256, 7):
        text = gpt2.decode([number])
        if "\ufffd" not in text and gpt2_words().fullmatch(text):
            assert gpt2.encode(text).tolist() == [number]


PAIRS = SINGLE | {
    token: 256 + rank for rank, token in enumerate([b"ab", b"aa", b"ba", b"abc", b"aaaa", b"bab", b"cab", b"abcab"])
}


@settings(max_examples=300)
@given(st.text("abc", max_size=30))
def test_pairs_merge_by_rank(text):
    """The definition, word for word: merge the leftmost pair of lowest rank until none has a rank."""
    parts = [bytes([byte]) for byte in text.encode()]
    while True:
        ranks = [PAIRS.get(a + b, 10**9) for a, b in itertools.pairwise(parts)]
        if not ranks or min(ranks) == 10**9:
            break
        at = ranks.index(min(ranks))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    whole = PAIRS.get(text.encode())  # a word that is a token is that token
    expected = [PAIRS[part] for part in parts] if whole is None else [whole]
    assert BytePair(PAIRS).encode(text).tolist() == expected


def test_a_word_without_end_is_no_trouble():
    text = "ab" * 20_000
    ids = BytePair(PAIRS).encode(text)
    assert set(ids.tolist()) == {256}
    assert BytePair(PAIRS).decode(ids) == text


def test_words_are_split_as_by_the_published_pattern():
    """GPT-2's own pattern, run by the module that it was written for, on all classes of Unicode that Python knows."""
    regex = pytest.importorskip("regex")
    theirs = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", flags=regex.VERSION0
    )
    draw = random.Random(0)
    known = [chr(i) for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i)) != "Cn"]
    common = [*" \t\n\r\x1c\x1f\x85\xa0'_-aZ09½Ⅷ²é中\u3000🤗\u0301", "'s", "'ll", "'VE", "  "]
    text = "".join(draw.choice(known if draw.random() < 0.5 else common) for _ in range(50_000))
    assert gpt2_words().findall(text) == theirs.findall(text)
    assert "".join(gpt2_words().findall(text)) == text


def test_ranks_that_cannot_be_right(tmp_path):
    with pytest.raises(fdl.InputError, match=r"there is none for \[0, 1\]"):
        BytePair({token: rank for token, rank in SINGLE.items() if rank > 1})
    with pytest.raises(fdl.InputError, match="must be different"):
        BytePair(SINGLE, special={"<end>": 7})
    with pytest.raises(fdl.InputError, match="special: expected names of tokens"):
        BytePair(SINGLE, special={"": 300})
    with pytest.raises(fdl.InputError, match="No such file"):
        BytePair.read(tmp_path / "none")
    (tmp_path / "ranks").write_text("IQ== 0\nIg= 1\n")
    with pytest.raises(fdl.InputError, match="line 2: expected a token in base64"):
        BytePair.read(tmp_path / "ranks")


def test_words_by_frequency():
    words = Words(["the cat sat", "the dog sat", "the <pad> end"])
    assert words.vocabulary == ("<pad>", "<unk>", "the", "sat", "cat", "dog", "end")
    assert words.encode("the <pad> bird sat").tolist() == [2, 1, 1, 3]
    assert words.decode([2, 4, 1, 3, 0, 0]) == "the cat <unk> sat"
    small = Words(["the cat sat", "the dog sat"], max_size=3, split=lambda text: text.upper().split())
    assert (small.vocabulary, small.vocab_size) == (("<pad>", "<unk>", "SAT"), 3)
    assert small.encode("Sat down").tolist() == [2, 1]


@given(st.lists(st.text("abcd \n"), min_size=1))
def test_known_words_come_back(texts):
    words = Words(texts)
    for text in texts:
        ids = words.encode(text)
        assert ids.dtype == np.int32
        assert words.decode(pad([ids], len(ids) + 2)[0][0]) == " ".join(text.split())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Words("one text"),
        lambda: Words(["a"], max_size=1),
        lambda: Words([b"a"]),  # pyright: ignore[reportArgumentType]
        lambda: Words([None]),  # pyright: ignore[reportArgumentType]
    ],
)
def test_words_refuse(make):
    with pytest.raises(fdl.InputError, match="Words: "):
        make()


@pytest.mark.parametrize("tokens", [Bytes(), Characters("abc"), Words(["a b"]), BytePair(SINGLE)])
def test_bad_ids_are_named(tokens):
    size = tokens.vocab_size
    with pytest.raises(fdl.InputError, match=rf"id {size} at index 1 is outside 0\.\.{size - 1}"):
        tokens.decode([0, size])
    with pytest.raises(fdl.InputError, match=r"expected integers \[n\], got float64\[1\]"):
        tokens.decode([0.5])
    with pytest.raises(fdl.InputError, match=r"got int64\[1, 1\]"):
        tokens.decode([[0]])
    assert tokens.decode([]) == ""
    assert tokens.encode("").shape == (0,)


def test_pad():
    ids, lengths = pad([[1, 2, 3], [], np.array([4], np.uint8)], 5, value=9)
    assert ids.tolist() == [[1, 2, 3, 9, 9], [9] * 5, [4, 9, 9, 9, 9]]
    assert lengths.tolist() == [3, 0, 1]
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int32)
    assert pad([[1], [2, 3]])[0].shape == (2, 2)
    assert pad([])[0].shape == (0, 0)
    with pytest.raises(fdl.InputError, match="sequence 1 has 3 ids, more than length=2; cut them"):
        pad([[1], [1, 2, 3]], 2)
    with pytest.raises(fdl.InputError, match="sequence 1: expected integers"):
        pad([[1], ["a"]])


def test_hugging_face_files(tmp_path):
    """A file with the tables of ours gives the ids of ours; what belongs around a text is added unless refused."""
    tokenizers: Any = pytest.importorskip("tokenizers")
    vocabulary = {"[CLS]": 0, "[UNK]": 1, "a": 2, "film": 3}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.add_special_tokens(["[CLS]"])
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A", special_tokens=[("[CLS]", 0)])
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    tokens = HuggingFace(path)
    assert tokens.encode("a good film").tolist() == [0, 2, 1, 3]
    assert HuggingFace(path, special=False).encode("a good film").tolist() == [2, 1, 3]
    assert (tokens.decode([0, 2, 3]), tokens.vocab_size) == ("a film", 4)
    assert tokens.encode("").dtype == np.int32
    with pytest.raises(fdl.InputError, match=r"id 4 at index 0 is outside 0\.\.3"):
        tokens.decode([4])
    with pytest.raises(fdl.InputError, match="cannot read"):
        HuggingFace(tmp_path / "none.json")


def padded_file(path: Path) -> Path:
    """As sentence-transformers writes them: padded and cut to 4 ids."""
    tokenizers: Any = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 7}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_padding(length=4)
    made.enable_truncation(4)
    made.save(str(path / "tokenizer.json"))
    return path


def test_hugging_face_pads_and_cuts_only_when_asked(tmp_path):
    folder = padded_file(tmp_path)
    assert HuggingFace(folder).encode("a a").tolist() == [7, 7]
    assert HuggingFace(folder).encode("a " * 600).tolist() == [7] * 600
    assert HuggingFace(folder, padding=True).encode("a a").tolist() == [7, 7, 0, 0]
    assert HuggingFace(folder, truncation=True).encode("a " * 600).tolist() == [7] * 4
    assert HuggingFace(folder, truncation=True).encode("a a").tolist() == [7, 7]
    assert HuggingFace(folder).vocab_size == 8, "ids may have gaps"


def test_hugging_face_refuses(tmp_path):
    tokens = HuggingFace(padded_file(tmp_path))
    with pytest.raises(fdl.InputError, match="half a surrogate pair"):
        tokens.encode("a\ud800")
    assert tokens.encode("a\0 \U0001f917").dtype == np.int32
    (tmp_path / "pointer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(fdl.InputError, match="a Git LFS pointer"):
        HuggingFace(tmp_path / "pointer.json")
    tokens._tokenizer.save(str(tmp_path / "plain.json"))
    with pytest.raises(fdl.InputError, match="padding=True, but .* does not say how"):
        HuggingFace(tmp_path / "plain.json", padding=True)


@pytest.mark.parametrize("text", [None, 3, b"ab", ["ab"]])
@pytest.mark.parametrize("tokens", [Bytes(), Characters("ab"), Words(["ab"]), BytePair(SINGLE)])
def test_only_text_is_encoded(tokens, text):
    with pytest.raises(fdl.InputError, match=f"{type(tokens).__name__}: expected a text, got {type(text).__name__}"):
        tokens.encode(text)


def test_hugging_face_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(fdl.InputError, match="pip install 'fdl"):
        HuggingFace("tokenizer.json")
