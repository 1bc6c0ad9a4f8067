"""What was typed after a command that takes runs and files: names, and a few options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fdl.errors import InputError, did_you_mean


def parsed(
    command: str, arguments: Sequence[str], options: Mapping[str, bool]
) -> tuple[list[str], dict[str, list[str]]]:
    """What is no option, and for each option that was given its values: `--runs DIR` and `--runs=DIR`, or none.

    Args:
      command: for messages, such as "fdl runs list".
      arguments: as they were typed.
      options: each with whether a value belongs to it.

    Raises:
      InputError: no such option, no value, a value too much.

    >>> parsed("fdl resume", ["a/b", "--runs", "c", "--cast"], {"--runs": True, "--cast": False})
    (['a/b'], {'--runs': ['c'], '--cast': []})
    """
    names: list[str] = []
    given: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            names.append(word)
            continue
        option, equals, value = word.partition("=")
        if option not in options:
            raise InputError(f"{command}: there is no option {option!r}{did_you_mean(option, tuple(options))}")
        values = given.setdefault(option, [])
        if not options[option]:
            if equals:
                raise InputError(f"{command}: {option} takes no value, got {value!r}")
            continue
        if not equals:
            if not rest:
                raise InputError(f"{command}: {option}: expected a value after it")
            value = rest.pop(0)
        values.append(value)
    return names, given


def whole_numbers(command: str, option: str, values: Sequence[str], least: int = 1) -> list[int]:
    """The numbers that were typed after an option, also several with commas between.

    Raises:
      InputError: something else than whole numbers from `least` on.

    >>> whole_numbers("fdl verify-resume", "--at", ["1,20", "30"])
    [1, 20, 30]
    """
    words = [word.strip() for value in values for word in value.split(",")]
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 19 and int(word) >= least):
            raise InputError(f"{command}: {option}: expected whole numbers >= {least}, got {word!r}")
    return [int(word) for word in words]
