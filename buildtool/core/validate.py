# SPDX-License-Identifier: Apache-2.0
"""
Check single values from configuration files, the environment and the command line.

Many of these values end in the Dockerfile or in an argument list of a build. A value outside
the narrow alphabet of its kind is an error. No value is escaped, so no escaping can be wrong.
"""

from __future__ import annotations

import re
from pathlib import Path

from buildtool.core.errors import UsageError
from buildtool.core.strictjson import parse_time
from buildtool.core.text import quote

MAX_TEXT_BYTES = 1024
MAX_NAME_BYTES = 128
MAX_LABEL_BYTES = 4096

# Quotes, backslash, $ and ` are syntax of Dockerfile words; << starts a heredoc.
_DOCKERFILE_SYNTAX = ('"', "'", "\\", "$", "`", "<<")

_OBJECT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_PROJECT_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")
_PROGRAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")
_USER = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
_PATH = re.compile(r"[A-Za-z0-9_./+=,-]+")
_PATH_PATTERN = re.compile(r"[A-Za-z0-9_./+=,*?-]+")
_RULE_NUMBER = re.compile(r"BT\d{3}")
_TARGET = re.compile(r"[A-Za-z0-9_./:@%+,*?-]+")
SIGNER_SCHEMES = ("env", "pkcs11", "ssh-agent", "exec")
_SIGNER_HINT = "name a file, env:NAME, pkcs11:URI, ssh-agent:NAME or exec:PROGRAM"
_ATTACH_HINT = "for example count_packets=eth0; PROGRAM=none loads the program and attaches it nowhere"
_SETTING_HINT = "for example monitor.bpf.o:sample_rate=10"
_PATH_HINT = "name it from the directory of buildtool.toml, for example bpf"
_TIME_FORMS = "for example 2027-01-31T18:30:00Z, or 2027-01-31 for the first second of that day"
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BEFORE_1970 = re.compile(r"(0[0-9]|1[0-8]|19[0-6])[0-9]+-[0-9]{2}-[0-9]{2}([T ].*)?$")
_IMAGE_HINT = "for example registry.example/plant/agent:7, the name in lower case"
_SCHEME = re.compile(r"([a-z][a-z0-9+-]+):")
# A PEM header contains the first text. Each Ed25519 key in PKCS#8 begins with the second in base64.
_KEY_TEXTS = ("PRIVATE KEY", "MC4CAQAwBQYDK2Vw")
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
# The grammar of distribution/reference: [host[:port]/]path[:tag][@digest].
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*(?::[0-9]{{1,5}})?/)"
_TAGGED = rf"{_HOST}?{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}})?"
_TAG = re.compile(_TAGGED)
_IMAGE = re.compile(rf"{_TAGGED}(?:@sha256:[0-9a-f]{{64}})?")
LAYOUT_SCHEME = "oci-layout://"
_LAYOUT = re.compile(rf"{LAYOUT_SCHEME}(?P<path>[A-Za-z0-9_./+=,-]+?)(?:@sha256:(?P<digest>[0-9a-f]{{64}}))?")


def parse_signer(value: str) -> Path | str:
    """
    Return the path of the key file *value*, or *value* itself if it begins with a signer's scheme.

    A message never shows a value that may be a key, because people paste keys.

    Raises: UsageError.
    """
    if not value:
        raise UsageError("the name of the signer is empty", hint=_SIGNER_HINT)
    if not value.isprintable() or any(text in value for text in _KEY_TEXTS):
        raise UsageError(
            "the text of a key where the name of a signer is expected",
            hint=f"{_SIGNER_HINT}; BUILDTOOL_SIGNING_KEY holds the text of a key",
        )
    found = _SCHEME.match(value)
    if found is None:
        return Path(value)
    if found[1] not in SIGNER_SCHEMES:
        raise UsageError(f"no signer of kind {found[1]}:", hint=f"{_SIGNER_HINT}; for a file write ./{value}")
    if found[1] == "env" and not _VARIABLE.fullmatch(value):
        raise UsageError("env: requires the name of a variable", hint="write env:NAME")
    return value


def check_text(value: str) -> str:
    """
    Return *value* if a Dockerfile can contain it unescaped: printable, without Dockerfile syntax, bounded.

    Raises: UsageError.
    """
    if len(value.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES:
        raise UsageError(f"text is longer than {MAX_TEXT_BYTES} bytes")
    if not value.isprintable():
        raise UsageError(f"{_show(value)} has control characters")
    for syntax in _DOCKERFILE_SYNTAX:
        if syntax in value:
            raise UsageError(
                f"{_show(value)} must not contain {syntax}",
                hint="leave quotes, backslashes, $, ` and << out: the Dockerfile cannot escape them",
            )
    return value


def check_word(value: str) -> str:
    """
    Return *value* if it can be an argument of a command in the image: not empty, and valid for `check_text`.

    Raises: UsageError.
    """
    if not value:
        raise UsageError("an argument must not be empty", hint="leave it out of the list")
    return check_text(value)


def check_release(value: str) -> str:
    """
    Return *value* if it can be a release: text of 1 to 128 bytes that does not begin like an option.

    Raises: UsageError.
    """
    if not value or value.startswith("-") or len(value.encode()) > MAX_NAME_BYTES:
        raise UsageError(
            f"{_show(value)} is not a release: 1 to {MAX_NAME_BYTES} bytes, not beginning with '-'",
            hint="for example 1.2.0",
        )
    return check_text(value)


def check_object_name(value: str) -> str:
    """
    Return *value* if it is an object name (spec/sig-section.md, section 6).

    Raises: UsageError.
    """
    hint = "for example monitor.bpf.o"
    return _match(_OBJECT_NAME, value, "an object name (A-Z a-z 0-9 . _ -)", MAX_NAME_BYTES, hint)


def check_key_name(value: str) -> str:
    """
    Return *value* if key files can be called so: it stands before .pem and .pub.

    Raises: UsageError.
    """
    hint = "for example release; --dir names the directory"
    return _match(_OBJECT_NAME, value, "a name of a key (A-Z a-z 0-9 . _ -)", MAX_NAME_BYTES, hint)


def check_project_name(value: str) -> str:
    """
    Return *value* if it is a project name (spec/sig-section.md, section 6).

    Raises: UsageError.
    """
    hint = "for example line3/agent"
    return _match(_PROJECT_NAME, value, "a project name (A-Z a-z 0-9 . _ - /)", MAX_NAME_BYTES, hint)


def check_program_name(value: str) -> str:
    """
    Return *value* if it can be the name of a BPF program, which is a C function.

    Raises: UsageError.
    """
    hint = "for example count_packets; buildtool inspect OBJECT shows the programs"
    return _match(_PROGRAM_NAME, value, "a program name (a C function)", MAX_NAME_BYTES, hint)


def check_difference(value: str) -> str:
    """
    Return *value* if it is OBJECT, OBJECT:PROGRAM or OBJECT:MAP, as `build.allow-differences` requires.

    Raises: UsageError.
    """
    name, _, part = value.partition(":")
    check_object_name(name)
    if ":" in value:
        # Maps of global variables are named .bss, .data or .rodata, or .data.NAME after a section.
        for word in part.removeprefix(".").split(".") if part.startswith(".") else [part]:
            check_program_name(word)
    return value


def check_rule_number(value: str) -> str:
    """
    Return *value* if it can be the number of a rule of `check`.

    Raises: UsageError.
    """
    return _match(
        _RULE_NUMBER,
        value,
        "the number of a rule",
        5,
        "for example BT010; docs/reference/check-rules.md lists them",
    )


def check_attach(value: str) -> str:
    """
    Return *value* if it is an attachment: PROGRAM=TARGET or OBJECT:PROGRAM=TARGET.

    Raises: UsageError.
    """
    program, separator, target = value.partition("=")
    if not separator:
        raise UsageError(f"{_show(value)} is not PROGRAM=TARGET", hint=_ATTACH_HINT)
    if not target:
        raise UsageError(
            f"{_show(value)}: the target is missing",
            hint=f"{program}=eth0 for example; {program}=none attaches it nowhere",
        )
    owner, named, inner = program.partition(":")
    check_program_name(inner if named else program)
    if named:
        check_object_name(owner)
    _match(_TARGET, target, "a target: an interface, a path or a name", MAX_TEXT_BYTES, _ATTACH_HINT)
    return value


def check_load(value: str) -> str:
    """
    Return *value* if it names a program to load: PROGRAM or OBJECT:PROGRAM.

    Raises: UsageError.
    """
    owner, named, program = value.rpartition(":")
    if "=" in value:
        raise UsageError(
            f"{_show(value)} is not PROGRAM or OBJECT:PROGRAM", hint="image.attach says where it is attached"
        )
    check_program_name(program)
    if named:
        check_object_name(owner)
    return value


def check_setting(value: str) -> str:
    """
    Return *value* if it is a setting: NAME=VALUE or OBJECT:NAME=VALUE, of printable ASCII.

    Raises: UsageError.
    """
    left, separator, given = value.partition("=")
    owner, named, name = left.partition(":")
    if not separator:
        raise UsageError(f"{_show(value)} is not OBJECT:NAME=VALUE", hint=_SETTING_HINT)
    check_object_name(name if named else left)
    if named:
        check_object_name(owner)
    if not (given.isascii() and given.isprintable()):
        raise UsageError(f"{_show(value)}: the value is not printable ASCII", hint=_SETTING_HINT)
    return value


def check_container_path(value: str) -> str:
    """
    Return *value* if it is an absolute path in a container without "..".

    Raises: UsageError.
    """
    if not value.startswith("/") or ".." in value.split("/"):
        raise UsageError(f"{_show(value)} is not an absolute path", hint="for example /var/lib/agent")
    return check_text(value)


def check_command(value: str) -> str:
    """
    Return *value* if it is the absolute path of a program, followed by arguments after blanks or none.

    Raises: UsageError.
    """
    check_container_path(value.partition(" ")[0])
    return check_text(value)


def check_image(value: str) -> str:
    """
    Return *value* if it is an image reference, with or without tag and sha256 digest.

    Raises: UsageError.
    """
    return _match(_IMAGE, value, "an image reference", MAX_TEXT_BYTES, _IMAGE_HINT)


def check_base(value: str) -> str:
    """
    Return *value* if it can name a base image: a reference or oci-layout://PATH, with or without digest.

    Raises: UsageError.
    """
    if value.startswith(LAYOUT_SCHEME):
        split_layout(value)
        return value
    return check_image(value)


def split_layout(value: str) -> tuple[Path, str]:
    """
    Return path and digest of *value*, oci-layout://PATH@sha256:DIGEST. The digest is hex or empty.

    Raises: UsageError.
    """
    hint = f"for example {LAYOUT_SCHEME}base.tar"
    _match(_LAYOUT, value, f"{LAYOUT_SCHEME}PATH or {LAYOUT_SCHEME}PATH@sha256:DIGEST", MAX_TEXT_BYTES, hint)
    found = _LAYOUT.fullmatch(value)
    assert found
    return Path(found["path"]), found["digest"] or ""


def names_registry(reference: str) -> bool:
    """
    Return whether image *reference* begins with the name of a registry.

    The rule of distribution/reference: the first part has a dot or a port, or is localhost.
    """
    host, slash, _ = reference.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def check_names_registry(reference: str) -> None:
    """
    Check that image *reference* begins with the name of a registry.

    Raises: UsageError.
    """
    if not names_registry(reference):
        raise UsageError(f"{reference}: the reference names no registry", hint="write REGISTRY/NAME:TAG")


def check_stored(target: str) -> None:
    """
    Check that image *target*, which is no file of this machine, begins with the name of a registry.

    Raises: UsageError.
    """
    if not names_registry(target):
        raise UsageError(
            f"{target}: no such file, and not REGISTRY/NAME:TAG",
            hint="name an archive, a layout or an image of a registry; docker save -o FILE IMAGE writes an"
            " archive of an engine's image",
        )


def check_tag(value: str) -> str:
    """
    Return *value* if it can tag an image: a reference without digest.

    Raises: UsageError.
    """
    return _match(_TAG, value, "an image tag", MAX_TEXT_BYTES, _IMAGE_HINT)


def check_user(value: str) -> str:
    """
    Return the numeric user of *value*, which is UID, UID:GID or root.

    Another name is refused, because only /etc/passwd of the base image could resolve it.

    Raises: UsageError.
    """
    hint = "for example 65532:65532; a base image need not know names"
    return "0:0" if value == "root" else _match(_USER, value, "a user: UID, UID:GID or root", 32, hint)


def check_label_key(value: str) -> str:
    """
    Return *value* if it can be the key of an image label.

    Raises: UsageError.
    """
    hint = "for example org.example.team"
    return _match(_LABEL_KEY, value, "a label key (A-Z a-z 0-9 . _ - /)", MAX_TEXT_BYTES, hint)


def check_label_text(value: str) -> str:
    """
    Return *value* if it can be the value of a label or an annotation: one printable line.

    Raises: UsageError.
    """
    if len(value.encode("utf-8", "surrogatepass")) > MAX_LABEL_BYTES:
        raise UsageError(
            f"a label's value is longer than {MAX_LABEL_BYTES} bytes", hint="put long texts into a file"
        )
    if not value.isprintable():
        raise UsageError(f"{_show(value)} has control characters", hint="write the value in one line")
    return value


def parse_image_label(text: str) -> tuple[str, str]:
    """
    Return key and value of a label that is written KEY=VALUE.

    Raises: UsageError.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{_show(text)}: not KEY=VALUE", hint="for example org.example.team=plant")
    return check_label_key(key), check_label_text(value)


def check_relative_path(value: str) -> str:
    """
    Return *value* if it is a path inside the project, in characters that no tool interprets.

    Raises: UsageError.
    """
    return _inside(_match(_PATH, value, "a path (A-Z a-z 0-9 _ . / + = , -)", MAX_TEXT_BYTES, _PATH_HINT))


def check_include(value: str) -> str:
    """
    Return *value* if it names a directory of headers: inside the project, or outside by .. or from /.

    Raises: UsageError.
    """
    hint = "for example include, ../common/include or /opt/vendor/include"
    _match(_PATH, value, "a path (A-Z a-z 0-9 _ . / + = , -)", MAX_TEXT_BYTES, hint)
    if value.startswith("-"):
        raise UsageError(f"{_show(value)} begins with '-'", hint=f"write ./{value}")
    return value


def is_inside(path: str) -> bool:
    """Return whether *path*, a checked path of a configuration, is inside the project."""
    return not path.startswith("/") and ".." not in path.split("/")


def check_path_pattern(value: str) -> str:
    """
    Return *value* if it is a path inside the project that may contain the wildcards * and ?.

    Raises: UsageError.
    """
    hint = "for example bpf/*.bpf.c"
    return _inside(_match(_PATH_PATTERN, value, "a path pattern", MAX_TEXT_BYTES, hint))


def check_time(value: str) -> int:
    """
    Return the seconds since the epoch of *value*: YYYY-MM-DDTHH:MM:SSZ, or the date YYYY-MM-DD.

    A date is its first second in UTC.

    Raises: UsageError.
    """
    try:
        return parse_time(f"{value}T00:00:00Z" if _DATE.fullmatch(value) else value)
    except ValueError as error:
        raise not_a_time(value) from error


def not_a_time(value: str) -> UsageError:
    """Return the error for *value*, which is no time that statements and policies can have."""
    if _BEFORE_1970.match(value):
        return UsageError(f"{_show(value)} is before 1970", hint=f"write a later time, {_TIME_FORMS}")
    return UsageError(f"{_show(value)} is not a time in UTC", hint=f"write {_TIME_FORMS}")


def _match(pattern: re.Pattern[str], value: str, what: str, limit: int, hint: str) -> str:
    if len(value) > limit or pattern.fullmatch(value) is None:
        raise UsageError(f"{_show(value)} is not {what}", hint=hint)
    return value


def _inside(value: str) -> str:
    if value.startswith(("/", "-")) or ".." in value.split("/"):
        raise UsageError(f"{_show(value)} must be a path inside the project", hint=_PATH_HINT)
    return value


def _show(value: str) -> str:
    """Return *value* for a message: quoted on one line, cut to 80 characters."""
    return quote(value)
