# SPDX-License-Identifier: Apache-2.0
"""
Usage errors that click finds, in the words of this tool: what is wrong, of which option or variable.

click's own sentences name types of Python and differ between its versions.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import click
from click.core import ParameterSource

from buildtool.core.errors import BuildtoolError


def explain_usage(error: click.ClickException) -> tuple[str, str]:
    """Return message and hint for *error*."""
    context = getattr(error, "ctx", None)
    usage = f"{context.command_path if context else 'buildtool'} --help shows the usage"
    return _describe(error, context), _own_hint(error) or usage


def _describe(error: click.ClickException, context: click.Context | None) -> str:
    command = context.command if context else None
    match error:
        case click.MissingParameter(param=click.Parameter() as parameter):
            return f"missing {parameter.param_type_name} {_name(parameter)}"
        case click.BadParameter(param=click.Parameter() as parameter):
            return f"{_origin(parameter, context)}: {_problem(error, parameter)}"
        case click.NoSuchOption(option_name=name):
            known = [word for parameter in command.params for word in parameter.opts] if command else []
            return f"unknown option {name!r}{guess(name, known)}"
        case click.BadOptionUsage(option_name=name):
            return f"option {name} {'requires a' if 'requires' in error.message else 'accepts no'} value"
    return _describe_words(" ".join(error.format_message().split()).rstrip("."), context)


def _describe_words(text: str, context: click.Context | None) -> str:
    """Return *text*, what click says of words that no option or argument takes, in words of ours."""
    if found := re.match(r"Got unexpected extra arguments? \((.*)\)", text):
        return f"unexpected argument {found[1]!r}"
    found = re.match(r"No such command '?([^']*)", text)
    if found and context and isinstance(context.command, click.Group):
        return f"unknown command {found[1]!r}{guess(found[1], context.command.list_commands(context))}"
    return text[:1].lower() + text[1:]


def guess(word: str, known: Iterable[str]) -> str:
    """Return what is said about the one of *known* that is nearest to *word*, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _name(parameter: click.Parameter) -> str:
    """Return the name of *parameter* as people write it."""
    if isinstance(parameter, click.Argument):
        return parameter.human_readable_name
    return max(parameter.opts, key=len)


def _origin(parameter: click.Parameter, context: click.Context | None) -> str:
    """Return where the value of *parameter* came from: its variable, or its own name."""
    source = context.get_parameter_source(parameter.name or "") if context else None
    if source is ParameterSource.ENVIRONMENT and isinstance(parameter.envvar, str):
        return parameter.envvar
    return _name(parameter)


def _problem(error: click.BadParameter, parameter: click.Parameter) -> str:
    text, kind = " ".join(error.message.split()).rstrip("."), parameter.type
    found = re.match(r"(.+?) is not (?:a valid (?:integer|float)|in the range|one of)\b", text)
    if found and isinstance(kind, click.Choice):
        return f"{found[1]} is none of {', '.join(map(str, kind.choices))}"
    if found and isinstance(kind, click.IntRange | click.FloatRange):
        number = "an integer" if isinstance(kind, click.IntRange) else "a number"
        upper = f"from {kind.min} to {kind.max}" if kind.max is not None else f"of at least {kind.min}"
        return f"{found[1]} is not {number} {upper}"
    if found := re.fullmatch(r"\w+ '(.*)' is a directory", text):
        return f"{found[1]}: a directory, not a file"
    return text


def _own_hint(error: click.ClickException) -> str | None:
    """Return the hint of the error of ours that *error* was made of, if it has one."""
    cause = error.__cause__
    return cause.hint if isinstance(cause, BuildtoolError) else None
