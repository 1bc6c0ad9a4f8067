"""Text to integers and back, on the host: bytes, characters, words, byte pairs, and the files of Hugging Face.

All have `encode(text) -> int32 [n]`, `decode(ids) -> str` and `vocab_size`; ids are 0 .. vocab_size - 1. `pad` makes a
batch of sequences of different lengths.

    tokens = Characters(text)
    data = fdl.data.Windows(tokens.encode(text), length=128)
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fdl.data.byte_pairs import from_utf8, merged, to_utf8
from fdl.errors import InputError
from fdl.file_kinds import file_kind
from fdl.paths import user_path
from fdl.shapes import check_range


class Tokenizer(Protocol):
    """What a tokeniser can do."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> np.ndarray:
        """int32 [n].

        Raises:
          InputError: anything but one text.
        """
        ...

    def decode(self, ids: Any) -> str:
        """The text of integers [n].

        Raises:
          InputError: ids outside 0 .. vocab_size - 1, or that are no list of integers.
        """
        ...


class Bytes:
    """The 256 bytes of UTF-8: no vocabulary to keep, and every string comes back exactly.

    Ids that are not UTF-8 (what a model writes) decode to U+FFFD, the replacement character, where they are not.

    >>> Bytes().encode("hé").tolist()
    [104, 195, 169]
    >>> Bytes().decode([104, 195])
    'h\ufffd'
    """

    vocab_size = 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(to_utf8(_one_text("Bytes", text)), np.uint8).astype(np.int32)

    def decode(self, ids: Any) -> str:
        return from_utf8(checked_ids("Bytes", ids, self.vocab_size).astype(np.uint8).tobytes())


class Characters:
    """The different characters of a text, in the order of their code points.

    Args:
      text: holds every character that will be met; only `vocabulary` is kept, and `Characters(vocabulary)` is the same.

    Raises:
      InputError: an empty text; `encode`: a character that is not in the vocabulary.

    >>> Characters("hello").encode("hole").tolist()
    [1, 3, 2, 0]
    """

    def __init__(self, text: str) -> None:
        if not _one_text("Characters", text):
            raise InputError("Characters: expected a text with the characters of the vocabulary, got ''")
        self._points = np.unique(_code_points(text))
        self.vocabulary = _from_code_points(self._points)

    def __repr__(self) -> str:
        return f"Characters({self.vocabulary!r})"

    @property
    def vocab_size(self) -> int:
        return len(self._points)

    def encode(self, text: str) -> np.ndarray:
        points = _code_points(_one_text("Characters", text))
        ids = np.minimum(np.searchsorted(self._points, points), len(self._points) - 1)
        unknown = np.flatnonzero(self._points[ids] != points)
        if len(unknown):
            at = int(unknown[0])
            raise InputError(
                f"Characters: unknown character {text[at]!r} (U+{ord(text[at]):04X}) at position {at}; the vocabulary "
                f"has {self.vocab_size} characters: build it from all the text, or replace this one"
            )
        return ids.astype(np.int32)

    def decode(self, ids: Any) -> str:
        return _from_code_points(self._points[checked_ids("Characters", ids, self.vocab_size)])


class Words:
    """The most frequent words of some texts. Id 0 is `<pad>` and 1 is `<unk>`, a word that is not among them.

    Args:
      texts: the training texts.
      max_size: of the vocabulary, the two special words included; None = all words.
      split: text -> words; white space and nothing else unless told otherwise.

    Words come by falling frequency, those equally frequent in alphabetical order. `decode` leaves out padding and joins
    with spaces.

    Raises:
      InputError: one text instead of a list of them; max_size below 2.

    >>> words = Words(["a good film", "a bad film"], max_size=5)
    >>> words.vocabulary
    ('<pad>', '<unk>', 'a', 'film', 'bad')
    >>> words.encode("a good bad film").tolist()
    [2, 1, 4, 3]
    """

    def __init__(
        self, texts: Iterable[str], max_size: int | None = None, split: Callable[[str], list[str]] = str.split
    ) -> None:
        if isinstance(texts, str):
            raise InputError("Words: expected a list of texts, got one text; pass [text]")
        if max_size is not None and max_size < 2:
            raise InputError(f"Words: max_size counts <pad> and <unk>, so it is at least 2, got {max_size}")
        self._split = split
        words = (word for text in texts for word in split(_one_text("Words", text)))
        counts = Counter(word for word in words if word not in ("<pad>", "<unk>"))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        self.vocabulary = ("<pad>", "<unk>", *ranked)[:max_size]
        self._ids = {word: number for number, word in enumerate(self.vocabulary) if number > 1}

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> np.ndarray:
        return np.array([self._ids.get(word, 1) for word in self._split(_one_text("Words", text))], np.int32)

    def decode(self, ids: Any) -> str:
        return " ".join(self.vocabulary[i] for i in checked_ids("Words", ids, self.vocab_size) if i)


class BytePair:
    """Byte-pair encoding as in GPT-2: the text is split into words, and in each the pair of lowest rank is merged.

    Args:
      ranks: bytes -> id, all 256 single bytes among them; the id is the rank.
      special: text -> id of tokens that stand for no text, such as `{"<|endoftext|>": 50256}` of GPT-2. `encode` reads
        them as the ordinary text that they look like, unless it is told `special=True`.

    The split needs the classes of Unicode, taken from Python's own tables: a letter younger than those of this Python
    is split from its neighbours (decoding is exact all the same).

    Raises:
      InputError: a byte without a rank; ids that two tokens have.

    Reference: Sennrich et al., Neural machine translation of rare words with subword units, 2016; Radford et al.,
    Language models are unsupervised multitask learners, 2019, section 2.2. Equal to tiktoken's "gpt2".
    """

    def __init__(self, ranks: Mapping[bytes, int], special: Mapping[str, int] | None = None) -> None:
        self._ranks, self.special = dict(ranks), dict(special or {})
        if not all(self.special):
            raise InputError("BytePair: special: expected names of tokens, got an empty one")
        missing = [i for i in range(256) if bytes([i]) not in self._ranks]
        if missing:
            raise InputError(f"BytePair: every byte needs a rank, there is none for {missing[:8]}")
        self._pieces = {number: piece for piece, number in self._ranks.items()}
        self._pieces |= {number: text.encode() for text, number in self.special.items()}
        if len(self._pieces) < len(self._ranks) + len(self.special) or min(self._pieces) < 0:
            raise InputError("BytePair: ids must be different and at least 0")
        self._merge = functools.lru_cache(maxsize=1 << 16)(functools.partial(_merged, ranks=self._ranks))

    @classmethod
    def read(cls, path: str | Path, special: Mapping[str, int] | None = None) -> BytePair:
        """From a file of ranks as tiktoken has them: a line is a token in base64, a space, its rank.

        Raises:
          InputError: no such file; a line of another form.
        """
        try:
            data = user_path(path).read_bytes()
        except OSError as error:
            raise InputError(f"BytePair: cannot read {str(path)!r}: {error.strerror}") from None
        kind = file_kind(data)
        if kind.advice:  # a file of another format, which has a name
            raise InputError(f"{path}: expected a file of ranks, a line for each token, got {kind}")
        ranks = {}
        for number, line in enumerate(data.splitlines(), 1):
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except (ValueError, binascii.Error):
                raise InputError(
                    f"{path}, line {number}: expected a token in base64, a space and its rank, got {line[:60]!r}"
                ) from None
        return cls(ranks, special)

    @property
    def vocab_size(self) -> int:
        return max(self._pieces) + 1

    def encode(self, text: str, special: bool = False) -> np.ndarray:
        ids: list[int] = []
        names = "|".join(re.escape(name) for name in sorted(self.special, key=len, reverse=True))
        parts = (
            re.split(f"({names})", _one_text("BytePair", text)) if special and names else [_one_text("BytePair", text)]
        )
        for number, part in enumerate(parts):
            if number % 2:
                ids.append(self.special[part])
                continue
            for word in gpt2_words().findall(part):
                ids += self._merge(to_utf8(word))
        return np.array(ids, np.int32)

    def decode(self, ids: Any) -> str:
        checked = checked_ids("BytePair", ids, self.vocab_size).tolist()
        return from_utf8(b"".join(self._pieces.get(i, b"") for i in checked))


class HuggingFace:
    """The tokeniser of a `tokenizer.json`, run by the package `tokenizers` (`pip install 'fdl[text]'`).

    Args:
      path: the file.
      special: whether `encode` adds what the file says belongs around a text, such as [CLS] and [SEP]. `decode` leaves
        such tokens out.
      padding, truncation: whether `encode` pads and cuts as the file says; many files hold the settings of the training
        that they come from. `pad` makes a batch of any texts.

    A special token that is written in a text is read as that token, as `transformers` does.

    Raises:
      InputError: the package is not installed; no such file, or a file that it cannot read; padding or truncation of
        which the file says nothing; `encode`: half a surrogate pair, which is no character.
    """

    def __init__(
        self, path: str | Path, special: bool = True, *, padding: bool = False, truncation: bool = False
    ) -> None:
        try:
            import tokenizers  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise InputError("a tokenizer.json needs the package tokenizers: pip install 'fdl[text]'") from None
        path = user_path(path)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing more particular
            kind = f", {file_kind(path)}" if path.is_file() else ""
            raise InputError(f"HuggingFace: cannot read {str(path)!r}{kind}: {str(error)[:200]}") from None
        self._special = special
        for name, wanted in (("padding", padding), ("truncation", truncation)):
            if wanted and getattr(self._tokenizer, name) is None:
                raise InputError(f"HuggingFace: {name}=True, but {str(path)!r} does not say how")
            if not wanted:
                getattr(self._tokenizer, f"no_{name}")()

    @property
    def vocab_size(self) -> int:
        return max(self._tokenizer.get_vocab().values(), default=-1) + 1  # ids may have gaps

    def encode(self, text: str) -> np.ndarray:
        try:
            to_utf8(_one_text("HuggingFace", text)).decode()
        except UnicodeDecodeError:
            raise InputError("HuggingFace: expected a text in Unicode, got half a surrogate pair in it") from None
        return np.array(self._tokenizer.encode(text, add_special_tokens=self._special).ids, np.int32)

    def decode(self, ids: Any) -> str:
        return self._tokenizer.decode(checked_ids("HuggingFace", ids, self.vocab_size).tolist())


def pad(sequences: Sequence[Any], length: int | None = None, value: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of ids as one array, `value` behind the end of each.

    Args:
      sequences: B of them, integers [n].
      length: T; None = that of the longest.
      value: the id of padding.

    Returns:
      ids int32 [B, T] and lengths int32 [B].

    Raises:
      InputError: a sequence that is longer than `length`, or no list of integers.

    >>> ids, lengths = pad([[5, 6], [7]])
    >>> ids.tolist(), lengths.tolist()
    ([[5, 6], [7, 0]], [2, 1])
    """
    rows = [_integers(f"pad: sequence {number}", row) for number, row in enumerate(sequences)]
    lengths = np.array([len(row) for row in rows], np.int32)
    longest = int(lengths.max(initial=0))
    length = longest if length is None else length
    if longest > length:
        raise InputError(
            f"pad: sequence {int(lengths.argmax())} has {longest} ids, more than length={length}; "
            f"cut them where that is meant: pad([ids[:{length}] for ids in sequences], {length})"
        )
    ids = np.full((len(rows), length), value, np.int32)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    return ids, lengths


WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Unicode's property of that name. Python's own \\s also takes the separators U+001C to U+001F."""


@functools.cache
def gpt2_words() -> re.Pattern[str]:
    """The split of GPT-2: contractions, and runs of letters, of numbers, of other signs, each with the space before it.

    A run of white space leaves its last space to the word behind. Python's `re` does not know the classes L and N, but
    its \\w is letters, numbers and "_", and its \\d the decimals among the numbers. The other numbers are few.
    """
    alphanumeric = re.findall(r"[^\W\d_]", "".join(map(chr, range(sys.maxunicode + 1))))
    numbers = "".join(character for character in alphanumeric if not character.isalpha())
    letter, number, other = rf"[^\W\d_{numbers}]", rf"[\d{numbers}]", rf"(?:[^\w{WHITE_SPACE}]|_)"
    blank = f"[{WHITE_SPACE}]"
    return re.compile(f"'(?:[stmd]|re|ve|ll)| ?{letter}+| ?{number}+| ?{other}+|{blank}+(?![^{WHITE_SPACE}])|{blank}+")


def _merged(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The ids of one word."""
    if piece in ranks:
        return [ranks[piece]]
    return [ranks[part] for part in merged([piece[i : i + 1] for i in range(len(piece))], ranks)]


def _one_text(where: str, text: Any) -> str:
    if not isinstance(text, str):
        raise InputError(f"{where}: expected a text, got {type(text).__name__}; several are encoded one by one")
    return text


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _from_code_points(points: np.ndarray) -> str:
    return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _integers(where: str, ids: Any) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{where}: expected integers [n], got {array.dtype}{list(array.shape)}")
    return array.astype(np.int64)


def checked_ids(where: str, ids: Any, vocab_size: int) -> np.ndarray:
    array = _integers(where, ids)
    check_range(where, "id", array, 0, vocab_size - 1)
    return array
