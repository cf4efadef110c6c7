# SPDX-License-Identifier: Apache-2.0
"""Declare keys of `buildtool.toml`, and parse and check their values."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from buildtool.core import validate
from buildtool.core.errors import UsageError
from buildtool.core.files import expand_home
from buildtool.core.strictjson import MAX_INTEGER, format_time
from buildtool.objects.helpers import HELPER_NUMBERS
from buildtool.objects.types import SECTION_TYPES, nearest_type

_TIME_HINT = "for example 2027-01-31T18:30:00Z, or 2027-01-31"
ENGINES = ("auto", "docker", "local")


class EnvironmentText(str):
    """A value from an environment variable, which is always text."""

    __slots__ = ()


# A parser's arguments are a value and the directory where relative paths start. It raises UsageError.
Parser = Callable[[Any, Path], Any]


def as_text(check: Callable[[str], object]) -> Parser:
    """Return a parser of a string that satisfies *check*."""
    return lambda value, _: check(expect(value, str, "a string"))


def as_texts(check: Callable[[str], object]) -> Parser:
    """Return a parser of a list of strings, each of which satisfies *check*."""

    def parse(value: Any, _: Path) -> tuple[object, ...]:
        return tuple(check(expect(item, str, "a list of strings")) for item in expect_list(value))

    return parse


def as_integer(low: int, high: int) -> Parser:
    """Return a parser of an integer from *low* to *high*."""

    def parse(value: Any, _: Path) -> int:
        if isinstance(value, EnvironmentText) and value.isascii() and value.isdigit():
            value = int(value[:20])
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(
                f"must be an integer from {low} to {high}", hint="write the number without quotes"
            )
        return value

    return parse


def as_switch(value: Any, _: Path) -> bool:
    """Parse a boolean. In the environment it is the text true or false."""
    if isinstance(value, EnvironmentText) and value in ("true", "false"):
        return value == "true"
    return expect(value, bool, "true or false")  # type: ignore[no-any-return]


def as_path(value: Any, root: Path) -> Path:
    """Parse a path, relative to the configuration's directory."""
    text: str = expect(value, str, "a string")
    if not text or not text.isprintable():
        raise UsageError(f"{text!r} is not a path", hint="leave the key out for its default")
    return root / expand_home(Path(text))


def as_signer(value: Any, root: Path) -> Path | str:
    """Parse the path of a key file or a signer's reference."""
    text = expect(value, str, "a string")
    found = validate.parse_signer(text)
    return found if isinstance(found, str) else as_path(text, root)


def as_paths(value: Any, root: Path) -> tuple[Path, ...]:
    """Parse a list of paths."""
    return tuple(as_path(item, root) for item in expect_list(value))


def as_time(value: Any, _: Path) -> int:
    """Parse a time, a TOML date, date-time with zone, or string, to seconds since the epoch."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise UsageError(f"{value.isoformat()} has no zone", hint=f"for UTC write {value.isoformat()}Z")
        # TOML allows fractions of seconds. With an offset, the year in UTC may be 0 or 10000.
        if value.microsecond:
            raise UsageError(f"{value} has a fraction of a second", hint="leave the fraction out")
        try:
            value = format_time(int(value.timestamp()))
        except (ValueError, OverflowError) as error:
            raise validate.not_a_time(str(value)) from error
    elif isinstance(value, date):
        value = value.isoformat()
    return validate.check_time(expect(value, str, "a time", hint=_TIME_HINT))


def as_labels(value: Any, _: Path) -> dict[str, str]:
    """Parse a table of labels."""
    table = expect(value, dict, "a table of strings")
    return {
        validate.check_label_key(key): validate.check_text(expect(text, str, f"a string ({key})"))
        for key, text in sorted(table.items())
    }


def check_place(value: str) -> str:
    """Return *value* if it is builder or host, a place of signing. Raises: UsageError."""
    if value not in ("builder", "host"):
        raise UsageError(f"{value!r} is neither builder nor host")
    return value


def check_sbom(value: str) -> str:
    """Return *value* if it is one of SBOM_FORMATS. Raises: UsageError."""
    if value not in SBOM_FORMATS:
        raise UsageError(f"{value!r} is none of {', '.join(SBOM_FORMATS)}")
    return value


def as_formats(value: Any, _: Path) -> tuple[str, ...]:
    """Parse a list of IMAGE_FORMATS, each once."""
    formats = tuple(expect(item, str, "a list of strings") for item in expect_list(value))
    for name in formats:
        if name not in IMAGE_FORMATS:
            raise UsageError(
                f"{name!r} is none of {', '.join(IMAGE_FORMATS)}", hint='for example ["runtime", "bpfman"]'
            )
    if RUNTIME_FORMAT not in formats:
        raise UsageError(
            f"{RUNTIME_FORMAT} is missing", hint="the other images are made from the runtime image"
        )
    return tuple(dict.fromkeys(formats))


def check_engine(value: str) -> str:
    """Return *value* if it is one of ENGINES. Raises: UsageError."""
    if value not in ENGINES:
        raise UsageError(f"{value!r} is none of {', '.join(ENGINES)}")
    return value


def check_program(value: str) -> str:
    """Return *value* if it can be the name or path of a program to run. Raises: UsageError."""
    if not value or value.startswith(("-", "@")) or not value.isprintable():
        raise UsageError(f"{value!r} is not a program", hint="for example clang-19, or the path of one")
    return value


def expect(value: Any, kind: type, what: str, *, hint: str | None = None) -> Any:
    """Return *value* if it is of *kind*. Raises: UsageError, with *what* is required and *hint*."""
    if not isinstance(value, kind):
        raise UsageError(f"must be {what}", hint=hint or _EXAMPLES.get(kind))
    return value


def expect_list(value: Any) -> list[Any]:
    """Return *value* if it is a list. Raises: UsageError."""
    # In the environment a list is one text with commas between the items.
    if isinstance(value, EnvironmentText):
        return [item.strip() for item in value.split(",") if item.strip()]
    return expect(value, list, "a list of strings")  # type: ignore[no-any-return]


def list_keys(keys: Iterable[str]) -> str:
    """Return *keys* as a text for messages."""
    return ", ".join(sorted(keys))


def declare(parse: Parser, default: Any, env: str = "") -> Any:
    """Return the dataclass field of a key, with its parser, default and environment variable."""
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"parse": parse, "env": env})
    return field(default=default, metadata={"parse": parse, "env": env})


# How values of a kind look in TOML.
_EXAMPLES = {
    str: 'text stands in quotes: "text"',
    list: 'a list stands in brackets: ["a", "b"]',
    dict: 'a table stands in braces: { key = "value" }',
    bool: "write true or false, without quotes",
}
SBOM_FORMATS = ("cyclonedx", "spdx", "none")
RUNTIME_FORMAT = "runtime"
IMAGE_FORMATS = (RUNTIME_FORMAT, "bpfman", "gadget")
CLOCKS = ("required", "unset-ok")
MAX_HELPER = 2**32 - 1
_HELPER_HINT = "for example bpf_probe_write_user; buildtool inspect OBJECT shows the helpers"


def check_clock(value: str) -> str:
    """Return *value* if it is one of CLOCKS, the rules for an unset clock. Raises: UsageError."""
    if value not in CLOCKS:
        raise UsageError(f"{value!r} is neither {' nor '.join(CLOCKS)}")
    return value


def check_program_type(value: str) -> str:
    """Return *value* if it is libbpf's name of a program type. Raises: UsageError."""
    hint = "buildtool inspect OBJECT shows the types of its programs"
    return _one_of(value, set(SECTION_TYPES.values()), "a program type", hint, nearest_type(value))


def check_attach_point(value: str) -> str:
    """Return *value* if it is a section name, or the first part of one before a *. Raises: UsageError."""
    if not value or not value.isprintable() or "*" in value[:-1] or value.startswith("?"):
        raise UsageError(
            f"{value!r} is not a section name, which may end in a *",
            hint="for example cgroup/*; buildtool inspect OBJECT shows the sections",
        )
    return value


def parse_helper(value: Any) -> int:
    """Return the number of the helper with name or number *value*. Raises: UsageError."""
    if isinstance(value, str):
        return HELPER_NUMBERS[_one_of(value, set(HELPER_NUMBERS), "a helper", _HELPER_HINT)]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_HELPER:
        raise UsageError("must be a list of helpers: names or numbers", hint=_HELPER_HINT)
    return value


def parse_minimum_versions(value: Any) -> dict[str, int]:
    """Return *value*, a table of versions by object name, sorted. Raises: UsageError."""
    if not isinstance(value, dict):
        raise UsageError("must be a table of object names and versions", hint='for example { "x.bpf.o" = 3 }')
    for name, version in value.items():
        validate.check_object_name(name)
        if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= MAX_INTEGER:
            raise UsageError(
                f"the version of {name} must be an integer from 0 to {MAX_INTEGER}",
                hint=f'"{name}" = 3 for example',
            )
    return dict(sorted(value.items()))


def _one_of(value: str, known: set[str], what: str, hint: str, near: str = "") -> str:
    """Return *value* if it is *known*; *near* is the one that it stands for elsewhere."""
    if value in known:
        return value
    close = [near] if near else difflib.get_close_matches(value, known, n=1)
    guess = f" (did you mean {close[0]}?)" if close else ""
    raise UsageError(f"{value[:80]!r} is not {what}{guess}", hint=hint)
