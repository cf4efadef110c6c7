# SPDX-License-Identifier: Apache-2.0
"""buildtool.toml: defaults, precedence, and an exact place in every error."""

from __future__ import annotations

from pathlib import Path

import pytest

from buildtool.config.file import (
    MAX_CONFIG_BYTES,
    Config,
    environment_variables,
    load_config,
    named_variable,
)
from buildtool.core.errors import ConfigError, SigningKeyError


def _load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    path = tmp_path / "buildtool.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, environ=environ)


def _error(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert "\n" not in caught.value.message
    return caught.value.message.removeprefix(f"{tmp_path}/")


def test_no_file_gives_defaults_named_after_the_directory(tmp_path: Path) -> None:
    """A directory with sources alone is a project."""
    directory = tmp_path / ".My Agent!"
    directory.mkdir()
    config = load_config(directory / "buildtool.toml")
    assert config.project.name == "My-Agent-"
    assert config.compile.sources == ("bpf/*.bpf.c",)
    assert config.image.user == "65532:65532"
    assert "@sha256:" in config.images.builder
    assert "@sha256:" in config.images.base


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    """A typing error in --config must not build with defaults."""
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_config(tmp_path / "other.toml", required=True)
    assert "buildtool init" in str(caught.value.hint)


def test_every_key_is_read(tmp_path: Path) -> None:
    """One file with all keys, each other than its default."""
    config = _load(
        tmp_path,
        """
        [project]
        name = "line-3/agent"
        version = 12
        release = "1.2.0-rc1"
        [compile]
        sources = ["src/*.bpf.c"]
        include = ["include"]
        flags = ["-DLIMIT=8", "-O3"]
        clang = "clang-19"
        [sign]
        key = "keys/release.pem"
        not-after = 2027-01-31T01:00:00+01:00
        [trust]
        keys = ["keys/a.pub", "keys/b.pub"]
        threshold = 2
        [build]
        arch = ["arm64", "linux/arm/v7"]
        tag = "registry:5000/line/agent:1"
        sign-on = "host"
        [image]
        user = "root"
        attach = ["count=eth0", "x.bpf.o:count=/sys/fs/cgroup"]
        load = ["watch", "x.bpf.o:probe"]
        workload = ["/usr/bin/agent", "--quiet"]
        healthcheck = ["/usr/bin/agent", "ping"]
        [image.labels]
        "org.example.line" = "3 (north)"
        [loader]
        pin-root = "/sys/fs/bpf/agent"
        health-command = "/usr/bin/agent ping"
        health-wait = 3
        reload = true
        seccomp = false
        hand-over = true
        workload-user = "1000:2000"
        [images]
        builder = "local/builder:1"
        base = "local/base"
        """,
    )
    assert (config.project.name, config.project.version, config.project.release) == (
        "line-3/agent",
        12,
        "1.2.0-rc1",
    )
    assert config.compile.include == ("include",)
    assert config.compile.flags == ("-DLIMIT=8", "-O3")
    assert config.sign.key == tmp_path / "keys/release.pem"
    assert config.sign.not_after == 1801353600
    assert config.trust.keys == (tmp_path / "keys/a.pub", tmp_path / "keys/b.pub")
    assert config.build.arch == ("arm64", "arm")
    assert config.build.sign_on == "host"
    assert config.image.user == "0:0"
    assert config.image.load == ("watch", "x.bpf.o:probe")
    assert config.image.labels == {"org.example.line": "3 (north)"}
    assert config.images.base == "local/base"
    assert (config.loader.pin_root, config.loader.health_wait) == ("/sys/fs/bpf/agent", 3)
    assert (config.loader.reload, config.loader.map_fds) == (True, True)
    assert config.loader.hand_over
    assert (config.loader.seccomp, config.loader.workload_user) == (False, "1000:2000")


def test_environment_goes_over_the_file(tmp_path: Path) -> None:
    """Lists are separated by commas; paths start from the working directory."""
    environ = {
        "BUILDTOOL_ARCH": "arm64, amd64",
        "BUILDTOOL_OBJECT_VERSION": "7",
        "BUILDTOOL_KEY": "other.pem",
        "BUILDTOOL_NOT_AFTER": "2027-01-31T00:00:00Z",
        "BUILDTOOL_RELEASE": "",
    }
    config = _load(
        tmp_path, '[build]\narch = ["s390x"]\n[sign]\nkey = "a.pem"\n[project]\nrelease = "1"', environ
    )
    assert config.build.arch == ("arm64", "amd64")
    assert config.project.version == 7
    assert config.project.release == "1"
    assert config.sign.key == Path("other.pem")
    assert config.sign.not_after == 1801353600


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    """The error does not blame the file."""
    with pytest.raises(ConfigError, match=r"^BUILDTOOL_ARCH: unknown architecture 'vax'$"):
        _load(tmp_path, "", {"BUILDTOOL_ARCH": "vax"})


def test_environment_variables_are_distinct_and_documented() -> None:
    """The reference names each variable and each key."""
    text = (Path(__file__).parents[2] / "docs/reference/configuration.md").read_text(encoding="utf-8")
    variables = environment_variables()
    assert len(set(variables.values())) == len(variables)
    for name in variables:
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[image]\n\nusr = "root"', "buildtool.toml:3: unknown key image.usr (did you mean user?)"),
        ("[imag]\n", "buildtool.toml:1: unknown key imag (did you mean image?)"),
        ("# x\n[zzz.y]\n", "buildtool.toml:2: unknown key zzz"),
        ("\nproject.nme = 'x'", "buildtool.toml:2: unknown key project.nme (did you mean name?)"),
        ('image = { user = "root",\t"a\\nb" = 1 }', "buildtool.toml:1: unknown key image.a\\nb"),
        ("x", "buildtool.toml:1: not valid TOML: a key without ="),
        ("a = x", "buildtool.toml:1: not valid TOML: column 5: not a value, text needs quotes"),
        ("\na = 'x", "buildtool.toml:2: not valid TOML: a string without its closing quote"),
        ('a = "x\n"', "buildtool.toml:1: not valid TOML: column 7: a string without its closing quote"),
        ("a = [1", "buildtool.toml:1: not valid TOML: an array without its ]"),
        ("[image]\nuser = 'a'\nuser = 'b'", "buildtool.toml:3: not valid TOML: duplicate key"),
        ("[image]\n[build]\n\n[image]\n", "buildtool.toml:4: duplicate table [image]"),
        ("[image.labels]\n[image.'labels']\n", "buildtool.toml:2: duplicate table [image.labels]"),
        ("[project]\nversion = -1", "buildtool.toml:2: project.version: must be an integer from 0 to"),
        ("[project]\nversion = true", "buildtool.toml:2: project.version: must be an integer"),
        ("[project]\nversion = '1'", "buildtool.toml:2: project.version: must be an integer"),
        ("project = 1", "buildtool.toml:1: project must be a table"),
        ("[loader]\nshare = 'here'", "buildtool.toml:2: loader.share: 'here' is not an absolute path"),
        ("[loader]\nstate = '/a/../b'", "buildtool.toml:2: loader.state: '/a/../b' is not an absolute path"),
        ("[loader]\nreload = 'yes'", "buildtool.toml:2: loader.reload: must be true or false"),
        (
            "[loader]\nhealth-wait = 86401",
            "buildtool.toml:2: loader.health-wait: must be an integer from 0 to",
        ),
        ("[loader]\nhealth-command = 'sh -c x'", "buildtool.toml:2: loader.health-command: 'sh' is not"),
        ("[[image]]\n", "buildtool.toml:1: image must be a table"),
        ("[compile]\nsources = 'a'", "buildtool.toml:2: compile.sources: must be a list of strings"),
        ("[compile]\nsources = [1]", "buildtool.toml:2: compile.sources: must be a list of strings"),
        (
            '[image]\nworkload = [\n"a",\n# ]\n"b$(x)"]\n',
            "buildtool.toml:2: image.workload: 'b$(x)' must not contain $",
        ),
        ("[sign]\nnot-after = 7", "buildtool.toml:2: sign.not-after: must be a time"),
        ("[sign]\nnot-after = 1969-12-31", "buildtool.toml:2: sign.not-after: '1969-12-31' is before 1970"),
        ("[build]\nsign-on = 'moon'", "buildtool.toml:2: build.sign-on: 'moon' is neither builder nor host"),
        (
            "[trust]\nkeys = ['a.pub']\nthreshold = 2",
            "buildtool.toml:3: trust.threshold: 2 signatures of 1 keys",
        ),
    ],
)
def test_errors_say_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    """Each kind of mistake is one line with its place."""
    assert _error(tmp_path, text).startswith(message)


def test_the_line_is_found_behind_values_that_look_like_keys(tmp_path: Path) -> None:
    """Strings and arrays over several lines with text like keys in them do not mislead."""
    lines = [
        "[image]",
        'user = """\\',
        'x"""',
        "workload = ['''usr = 1",
        "[image]",
        "''',",
        "]",
        "# usr",
        "usr = 3",
    ]
    assert _error(tmp_path, "\n".join(lines)).startswith("buildtool.toml:9: unknown key image.usr")


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    """The line of the first bad byte is named."""
    path = tmp_path / "buildtool.toml"
    path.write_bytes(b"# ok\n# \xff\n")
    with pytest.raises(ConfigError, match=r"buildtool\.toml:2: not UTF-8"):
        load_config(path)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    """Reading is bounded."""
    with pytest.raises(ConfigError, match="larger than"):
        _load(tmp_path, "#" * (MAX_CONFIG_BYTES + 1))


def test_deep_nesting_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A parser that runs out of stack is not a traceback."""
    assert _error(tmp_path, "a = " + "[" * 20000) == "buildtool.toml: not valid TOML: nested too deep"


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """Editors on Windows write one, and end lines with two characters."""
    (tmp_path / "buildtool.toml").write_bytes(b"\xef\xbb\xbf[project]\r\nversion = 7\r\n")
    assert load_config(tmp_path / "buildtool.toml").project.version == 7


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[trust]\nprogram-types = ['tc']", "buildtool inspect OBJECT shows the types"),
        ("[image]\nattach = ['p=']", "p=none"),
        ("[image]\nattach = ['p']", "PROGRAM=none"),
        ("[build]\narch = ['vax']", "choose from amd64, "),
        ("[project]\nname = 7", 'text stands in quotes: "text"'),
        ("[compile]\nsources = 'a'", "a list stands in brackets"),
        ("[sign]\nkey = 'gpg:x'", "name a file, env:NAME, "),
        ("[image]\nusr = 'x'", "[image] has the keys user, labels, "),
        ("imge = 1", "the file has the tables project, compile, "),
        ("x", 'for example: key = "text"'),
    ],
)
def test_the_hint_of_a_value_is_not_lost(tmp_path: Path, text: str, hint: str) -> None:
    """What a check of a single value advises arrives with the file and the line."""
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "meant"), [("tc", "sched_cls"), ("tcx", "sched_cls"), ("fentry", "tracing"), ("xpd", "xdp")]
)
def test_a_section_is_taken_for_the_type_of_its_programs(tmp_path: Path, name: str, meant: str) -> None:
    """People know the sections; policies have the names of types."""
    message = _error(tmp_path, f"[trust]\nprogram-types = ['{name}']")
    assert message.endswith(f"'{name}' is not a program type (did you mean {meant}?)")


def test_a_variable_is_named_where_its_value_is_used(tmp_path: Path) -> None:
    """A path of the environment is found wrong late; the error does not blame the file, or nothing."""
    environ = {"BUILDTOOL_KEY": "none.pem"}
    config = _load(tmp_path, "[trust]\nkeys = ['none.pub']", environ)
    for key, message in (("sign.key", "BUILDTOOL_KEY: x"), ("trust.keys", "x")):
        with pytest.raises(SigningKeyError) as caught, named_variable(config, key):
            raise SigningKeyError("x")
        assert caught.value.message == message
