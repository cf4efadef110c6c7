# SPDX-License-Identifier: Apache-2.0
"""Write the values of a survey as `buildtool.toml`, in few lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from buildtool.adopt.survey import Survey
from buildtool.config.file import CONFIG_NAME
from buildtool.core.errors import FileAccessError, UsageError
from buildtool.core.files import write_atomic

_WIDTH = 110  # of the rows of a list that is longer than _LONGEST
_LONGEST = 300


def write_config(root: Path, survey: Survey) -> tuple[Path, str]:
    """
    Write `buildtool.toml` of *survey* into *root*, and return its path and text. Never replace a file.

    Raises: FileAccessError, if the file exists; UsageError, if the project has no eBPF programs.
    """
    path = root / CONFIG_NAME
    if path.is_symlink() or path.exists():
        raise FileAccessError(
            f"{path}: already there", hint="nothing was written; rename the file to let init write another"
        )
    if not survey.files and not survey.prebuilt:
        raise UsageError(
            f"{root}: " + "; ".join(str(note).removeprefix(".: ") for note in survey.notes[:3]),
            hint="`buildtool init DIR` makes a new project; compile.sources names C files of your own",
        )
    text = render_config(survey)
    write_atomic(path, text.encode(), replace=False)
    return path, text


def render_config(survey: Survey) -> str:
    """Return the text of `buildtool.toml`."""
    lines = [f"build.arch = {_list(survey.architectures)}", 'sign.key = "keys/release.pem"']
    if survey.sources:
        lines += ["", "[compile]", _entry("sources", survey.sources)]
        for key in ("exclude", "include", "flags"):
            if values := getattr(survey, key):
                lines.append(_entry(key, values))
        lines += [_entry(f"{arch}.include", names) for arch, names in survey.arch_include.items()]
        lines += [_entry(f"{arch}.exclude", names) for arch, names in survey.arch_exclude.items()]
        lines += [_entry(f"{arch}.flags", flags) for arch, flags in survey.arch_flags.items()]
        lines += _tables("rule", [_rule(rule.match, rule.include, rule.flags) for rule in survey.rules])
        lines += _tables(
            "object",
            [
                f"{{ name = {_text(each.name)}, "
                + (f"sources = {_list(each.sources)}" if each.sources else f"source = {_text(each.source)}")
                + (f", flags = {_list(each.flags)}" if each.flags else "")
                + " }"
                for each in survey.objects
            ],
        )
        lines += _tables(
            "program",
            [
                f"{{ section = {_text(each.section)}, loaded-as = {_text(each.loaded_as)} }}"
                for each in survey.programs
            ],
        )
        lines += _tables(
            "generate",
            [
                f"{{ output = {_text(each.output)}, command = {_list(each.command)} }}"
                for each in survey.generate
            ],
        )
    return "\n".join(lines) + "\n"


def count_lines(text: str) -> int:
    """Return the number of lines of *text* that set something."""
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in text.splitlines())


def _rule(match: Sequence[str], include: Sequence[str], flags: Sequence[str]) -> str:
    parts = [f"match = {_list(match)}"]
    parts += [f"include = {_list(include)}"] if include else []
    parts += [f"flags = {_list(flags)}"] if flags else []
    return "{ " + ", ".join(parts) + " }"


def _tables(key: str, tables: list[str]) -> list[str]:
    if not tables:
        return []
    start = f"{key} = ["
    return (start + (",\n" + " " * len(start)).join(tables) + "]").split("\n")


def _entry(key: str, values: Sequence[str]) -> str:
    """Return the line of *key*, or several if it would be too long."""
    whole = f"{key} = {_list(values)}"
    if len(whole) <= _LONGEST:
        return whole
    lines = [f"{key} = ["]
    row = " "
    for value in values:
        word = f" {_text(value)},"
        if len(row) + len(word) > _WIDTH and row.strip():
            lines.append(row)
            row = " "
        row += word
    return "\n".join([*lines, row, "]"])


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(map(_text, values)) + "]"


def _text(value: str) -> str:
    """Return *value* as a TOML string: literal if it has quotes or backslashes."""
    if ('"' in value or "\\" in value) and "'" not in value:
        return f"'{value}'"
    return json.dumps(value)
