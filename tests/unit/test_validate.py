# SPDX-License-Identifier: Apache-2.0
"""Values that reach a Dockerfile or an argument list: the good pass unchanged, others are errors."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from buildtool.config.values import as_time
from buildtool.core import strictjson, validate
from buildtool.core.errors import UsageError
from buildtool.core.flags import check_flag

# What turns a value into syntax somewhere: line ends, quotes, escapes, expansions, heredocs.
INJECTIONS = [
    "x\nRUN evil",
    "x\rRUN evil",
    "x\u2028y",
    "x\x00",
    "x\x1b[2J",
    'x"',
    "x'",
    "x\\",
    "x$y",
    "x${y}",
    "x`y`",
    "x<<EOF",
    "\u202ex",
]

CHECKS: dict[str, tuple[Callable[[str], object], list[str], list[str]]] = {
    "word": (validate.check_word, ["a", "--x=1", "/a b", "é", "<"], [""]),
    "release": (validate.check_release, ["1.0", "1.0 beta"], ["", "-1", "x" * 129]),
    "object": (validate.check_object_name, ["x.bpf.o", "_x"], ["", ".x", "-x", "a/b", "x" * 129]),
    "project": (validate.check_project_name, ["a/b.c-d_E"], ["", "/a", "-a", "a b"]),
    "program": (validate.check_program_name, ["count_1"], ["", "1x", "a-b"]),
    "attach": (
        validate.check_attach,
        [
            *["p=eth0", "p=/sys/fs/cgroup/a-b", "p=eth0:egress", "x.bpf.o:p=eth0.100", "p=veth?*:generic"],
            *["p=/usr/lib/libc.so.6:malloc+0x10@12", "p=cpu-clock:99", "p=1:0:1000", "p=ipv4:input:-5"],
            *["p=sched/sched_switch", "p=vfs_*"],
        ],
        ["", "p", "p=", "=x", "p q=x", "p=a b", ":p=x", "a/b:p=x"],
    ),
    "image": (
        validate.check_image,
        ["debian:trixie-slim", "gcr.io/a/b@sha256:" + "0" * 64, "localhost:5000/a:b", "a__b/c-d"],
        ["", "-x", "A", "a:", "a@sha256:00", "a b", "http://x/y", "a/", "../a"],
    ),
    "tag": (validate.check_tag, ["a:1", "r.example/a"], ["a@sha256:" + "0" * 64, "a:-"]),
    "user": (validate.check_user, ["0", "65532:65532"], ["", "nonroot", "1:", "1:2:3", "-1", "\u0661"]),
    "label": (validate.check_label_key, ["org.x/y", "a"], ["", ".a", "a.", "a=b"]),
    "path": (validate.check_relative_path, ["bpf/x.bpf.c", "a..b"], ["", "/a", "../a", "a/../b", "-a", "a*"]),
    "pattern": (validate.check_path_pattern, ["bpf/**/*.bpf.c", "b?"], ["", "/*", "../*", "[a]"]),
    "flag": (
        check_flag,
        [
            *[
                "-DX",
                "-DX=1",
                "-UX",
                "-Wno-unused",
                "-Werror=format",
                "-O3",
                "-DX=a b",
                '-DX="a $b\\"',
                "-DF(x, y)=x",
            ],
            *["-std=gnu11", "-std=c23", "-mcpu=v1", "-mcpu=v4", "-fms-extensions", "-fno-ms-extensions"],
            *["-fno-jump-tables", "-fno-builtin-memset", "-fno-stack-protector", "-fstrict-flex-arrays=3"],
        ],
        [
            *[
                "",
                "x",
                "-o",
                "-I/x",
                "-Wp,-MD,/x",
                "-Wl,x",
                "-Wa,x",
                "-fplugin=x",
                "-O0",
                "-D",
                "@x",
                "-mcpu=probe",
            ],
            *[
                "-include",
                "-includex.h",
                "-Xclang",
                "-mllvm",
                "-std=x",
                "-fprofile-use=x",
                "-fstack-protector",
            ],
            *[
                "-w",
                "-g",
                "-c",
                "-target",
                "-DX=a\tb",
                "-D1",
                "-fmodules",
                "-MD",
                "-MF/x",
                "--config=x",
                "-fPIC",
            ],
            *["-fno-stack-protectorx", "-Wx,y", "-mcpu=v5", "-fdebug-prefix-map=a=b", "-D" + "x" * 2000],
        ],
    ),
    "include": (
        validate.check_include,
        ["include", "../common", "/usr/include/x", "a/../b", "."],
        ["", "-I", "a b", "a:b", "a*", "x" * 1025],
    ),
}


@pytest.mark.parametrize(
    ("check", "value"), [(check, value) for check, good, _ in CHECKS.values() for value in good]
)
def test_good_values_pass_unchanged(check: Callable[[str], object], value: str) -> None:
    """Nothing is escaped or trimmed."""
    assert check(value) == value


@pytest.mark.parametrize(
    ("check", "value"),
    [(check, value) for check, _, bad in CHECKS.values() for value in [*bad, *INJECTIONS]],
)
def test_bad_values_are_one_line_errors(check: Callable[[str], object], value: str) -> None:
    """The message shows the value without being harmed by it."""
    with pytest.raises(UsageError) as caught:
        check(value)
    assert caught.value.message.isprintable()


def test_root_is_a_number() -> None:
    """The user root becomes 0:0, so that the image needs no /etc/passwd."""
    assert validate.check_user("root") == "0:0"


@pytest.mark.parametrize(
    "value",
    ["", "2027-02-30T00:00:00Z", "2027-01-31T24:00:00Z", "2027-01-31T24:00:01Z",
     "2027-01-31T00:60:00Z", "2027-01-31T00:00:60Z", "2027-00-01T00:00:00Z", "2027-13-01T00:00:00Z",
     "2027-01-00T00:00:00Z", "2026-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "0000-01-01T00:00:00Z",
     "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "10000-01-01T00:00:00Z", "2027-01-31T00:00:00+00:00",
     "2027-01-31t00:00:00z", "2027-01-31 00:00:00Z", "2027-01-31T00:00:00.0Z", "2027-01-31T00:00:00Z\n",
     " 2027-01-31T00:00:00Z", "2027-W05-1T00:00:00Z", "2027-1-31T00:00:00Z", "+027-01-31T00:00:00Z",
     "\u0662027-01-31T00:00:00Z", "2027-01-31T0\uff10:00:00Z"],
)  # fmt: skip
def test_only_the_times_of_statements_are_times(value: str) -> None:
    """One form, dates that exist, from 1970 on; for options, in the configuration and in signed JSON."""
    with pytest.raises(UsageError):
        validate.check_time(value)
    with pytest.raises(UsageError):
        as_time(value, Path())
    assert not strictjson.is_time(value)


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", "1969-12-31T23:59:59Z",
     "2027-01-31T00:00:00.5Z", "2027-01-31T00:00:00", "1969-12-31", "00:00:00"],
)  # fmt: skip
def test_times_of_toml_are_the_same_times(text: str) -> None:
    """TOML has more of them than statements: before 1970, after 9999, without a zone, with fractions."""
    with pytest.raises(UsageError):
        as_time(tomllib.loads(f"t = {text}")["t"], Path())
    assert as_time(tomllib.loads("t = 1970-01-02T01:00:01+01:00")["t"], Path()) == 86401


def test_times_are_utc() -> None:
    """Times are UTC, independent of the machine's time zone."""
    assert validate.check_time("1970-01-02T00:00:01Z") == 86401
    assert validate.check_time("9999-12-31T23:59:59Z") == 253402300799


def test_a_date_is_its_first_second() -> None:
    """Options and the configuration accept a date; signed JSON has one form of a time."""
    assert validate.check_time("1970-01-02") == 86400
    assert as_time(tomllib.loads("t = 1970-01-02")["t"], Path()) == 86400
    assert not strictjson.is_time("1970-01-02")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2027-02-30", "'2027-02-30' is not a time in UTC"),
        ("31.1.2027", "'31.1.2027' is not a time in UTC"),
        ("1969-12-31", "'1969-12-31' is before 1970"),
        ("1960-01-01T00:00:00Z", "'1960-01-01T00:00:00Z' is before 1970"),
        ("2027-01-31T18:30:00+01:00", "'2027-01-31T18:30:00+01:00' is not a time in UTC"),
        ("2027-01-31T00:00:00\u202eZ", "'2027-01-31T00:00:00\\u202eZ' is not a time in UTC"),
    ],
)
def test_a_wrong_time_is_told_the_accepted_forms(value: str, message: str) -> None:
    """The message is true of the value, and the hint has both forms."""
    with pytest.raises(UsageError) as caught:
        validate.check_time(value)
    assert caught.value.message == message
    assert "2027-01-31T18:30:00Z, or 2027-01-31 for" in str(caught.value.hint)


def test_a_time_of_toml_without_a_zone_is_told_how_to_write_one() -> None:
    """The hint is the value itself, in UTC."""
    with pytest.raises(UsageError, match=r"^2027-01-31T00:00:00 has no zone$") as caught:
        as_time(tomllib.loads("t = 2027-01-31T00:00:00")["t"], Path())
    assert caught.value.hint == "for UTC write 2027-01-31T00:00:00Z"
