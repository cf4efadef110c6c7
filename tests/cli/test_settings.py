# SPDX-License-Identifier: Apache-2.0
"""load.settable and image.set from the configuration to statements, images, and the loader's options."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from labs.cli import BUILD, left
from labs.settable import SOURCE

from buildtool.cli.main import run
from buildtool.core.cache import Cache
from buildtool.image.inspect import inspect_images
from buildtool.objects.elf import parse_object
from buildtool.objects.settable import SettableMap, SettableVariable
from buildtool.signing.statement import read_statement

Capture = pytest.CaptureFixture[str]
RULES = """
[load.settable."answer.bpf.o"]
port = { min = 1, max = 1024 }
flag = true
counts = { max-entries = 64 }
"""


@pytest.fixture
def settable(project: Path) -> Path:
    """Make a project whose object has constants, with rules about some of them."""
    (project / "bpf/answer.bpf.c").write_text(SOURCE)
    write(RULES)
    return project


def write(text: str) -> None:
    """Add *text* to the configuration."""
    with Path("buildtool.toml").open("a") as file:
        file.write(text)


def fails(capsys: Capture, *arguments: str, code: int = 2) -> str:
    """Run the command and return its one error line."""
    assert run([*arguments]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("buildtool: error:")]
    return line.removeprefix("buildtool: error: ")


def test_signing_states_what_may_be_set(settable: Path, capsys: Capture) -> None:
    """`sign` puts the rules into the statement, and `inspect` shows them."""
    assert run(["compile", "--arch", "amd64"]) == 0
    assert run(["sign", "build/amd64/answer.bpf.o"]) == 0
    capsys.readouterr()
    assert run(["inspect", "build/amd64/answer.bpf.o", "--json"]) == 0
    statement = json.loads(capsys.readouterr().out)["statement"]
    assert statement["predicate"]["settable"] == {
        "maps": [{"maxEntries": 64, "minEntries": 1, "name": "counts"}],
        "variables": [
            {"name": "flag", "type": "boolean"},
            {"max": "1024", "min": "1", "name": "port", "type": "integer"},
        ],
    }
    assert run(["inspect", "build/amd64/answer.bpf.o"]) == 0
    shown = capsys.readouterr().out
    assert "settable  flag  false or true\n" in shown
    assert "settable  port  an integer from 1 to 1024\n" in shown
    assert "settable  counts  1 to 64 entries\n" in shown


def test_signing_refuses_rules_that_the_object_does_not_fit(settable: Path, capsys: Capture) -> None:
    """The error names the object's file, the key and the name; the object stays unsigned."""
    write("nothing = true\n")
    assert run(["compile", "--arch", "amd64"]) == 0
    before = Path("build/amd64/answer.bpf.o").read_bytes()
    line = fails(capsys, "sign", "build/amd64/answer.bpf.o")
    assert line.startswith("build/amd64/answer.bpf.o: load.settable: nothing: the object has no constant")
    assert Path("build/amd64/answer.bpf.o").read_bytes() == before


def test_signing_names_rules_for_no_object(settable: Path, capsys: Capture) -> None:
    """A misspelt object would otherwise be signed without bounds, silently. `build` ends with an error."""
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    assert run(["sign", "build/amd64/answer.bpf.o"]) == 0
    assert "no such object" not in capsys.readouterr().err
    write('[load.settable."other.bpf.o"]\nport = true\n')
    assert run(["sign", "build/amd64/answer.bpf.o", "--force"]) == 0
    assert (
        "load.settable: other.bpf.o: no such object; the project makes answer.bpf.o"
        in capsys.readouterr().err
    )


def test_check_finds_rules_that_signing_would_refuse(settable: Path, capsys: Capture) -> None:
    """`check` looks at the rules for unsigned objects, with and without settings."""
    assert run(["compile", "--arch", "amd64"]) == 0
    assert run(["check", "--arch", "amd64"]) == 0
    write("nothing = true\n")
    capsys.readouterr()
    line = fails(capsys, "check", "--arch", "amd64")
    assert line.startswith("build/amd64/answer.bpf.o: load.settable: nothing: the object has no constant")


def test_an_image_has_settings_within_the_bounds(settable: Path, capsys: Capture) -> None:
    """`build` signs the rules, and image.set becomes options of the image's loader."""
    write('[image]\nset = ["port=80", "answer.bpf.o:flag=true"]\nmap-entries = ["counts=32"]\n')
    assert run([*BUILD]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "set     port=80\nset     answer.bpf.o:flag=true\nentries counts=32\n" in shown
    (archive,) = left(settable)
    (image,) = inspect_images(f"./{archive}", Cache(directory=None))
    assert image.entrypoint.set == ("port=80", "answer.bpf.o:flag=true")
    assert image.entrypoint.map_entries == ("counts=32",)
    assert run(["inspect", f"./{archive}"]) == 0
    shown = capsys.readouterr().out
    assert "set         port=80\n" in shown
    assert "entries     counts=32\n" in shown


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('[image]\nset = ["port=0"]\n', "image.set port=0: '0' is outside of the bounds"),
        ('[image]\nset = ["s32=1"]\n', "image.set s32=1: no object lets s32 be set"),
        ('[image]\nset = ["x.bpf.o:port=1"]\n', "image.set x.bpf.o:port=1: no object x.bpf.o"),
        ('[image]\nmap-entries = ["counts=65"]\n', "image.map-entries counts=65: '65' is outside"),
        ('[image]\nset = ["port"]\n', "image.set: 'port' is not OBJECT:NAME=VALUE"),
        ('[image]\nset = ["label=$x"]\n', "image.set: 'label=$x' must not contain $"),
        ('[load.settable."x.bpf.o"]\na = true\n', "load.settable: x.bpf.o: the project makes no such object"),
        (
            '[image]\nset = ["port=1"]\nworkload = ["/agent"]\n[loader]\nhand-over = true\n',
            "image.set has no effect with loader.hand-over",
        ),
        (
            '[image]\nworkload = ["/agent"]\n[loader]\nhand-over = true\nsettings = "/etc/settings"\n',
            "loader.settings has no effect with loader.hand-over",
        ),
    ],
)
def test_settings_that_no_start_could_follow(
    settable: Path, capsys: Capture, config: str, problem: str
) -> None:
    """A build ends before anything is written if the image's loader would refuse a setting."""
    write(config)
    line = fails(capsys, *BUILD)
    assert problem in line
    assert left(settable) == []


def test_the_builder_gets_the_rules(settable: Path, capsys: Capture) -> None:
    """A Dockerfile carries the rules to its signer stage; without rules it has neither file nor mount."""
    write('[image]\nset = ["port=80"]\n')
    text = Path("buildtool.toml").read_text().replace('base = "oci-layout://base.tar"', "")
    Path("buildtool.toml").write_text(text)
    assert run(["render", "--arch", "amd64"]) == 0
    text = capsys.readouterr().out
    assert '{"answer.bpf.o": {"counts": {"max-entries": 64}, "flag": true, "port": ' in text
    assert re.search(r'"--settable",[ \\\n]*"/settable\.json"', text)
    assert "from=plan,source=/settable.json,target=/settable.json" in text
    assert text.count('"--set", "port=80"') == 2  # of the check in the build, and of the entrypoint
    plain = Path("buildtool.toml").read_text().replace(RULES, "").replace('set = ["port=80"]', "")
    Path("buildtool.toml").write_text(plain)
    assert run(["render", "--arch", "amd64"]) == 0
    assert "settable.json" not in capsys.readouterr().out


def test_the_hidden_option_of_the_signer_stage(settable: Path, capsys: Capture) -> None:
    """`sign --settable` reads the rules that a Dockerfile carries, in place of the configuration's."""
    assert run(["compile", "--arch", "amd64"]) == 0
    Path("rules.json").write_text('{"answer.bpf.o": {"ring": {"max-entries": 8192}, "s32": {"max": 5}}}')
    assert run(["sign", "build/amd64/answer.bpf.o", "--settable", "rules.json"]) == 0
    statement = read_statement(parse_object(Path("build/amd64/answer.bpf.o").read_bytes()))
    assert statement.settable is not None
    assert statement.settable.maps == (SettableMap(name="ring", min_entries=4096, max_entries=8192),)
    assert statement.settable.variables == (
        SettableVariable(name="s32", type="integer", min=-(2**31), max=5),
    )
    capsys.readouterr()
    Path("rules.json").write_text("{")
    arguments = ("sign", "build/amd64/answer.bpf.o", "--force", "--settable", "rules.json")
    assert "not JSON of load.settable" in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--set", "port=0"],
            "--set port=0: '0' is outside of the bounds, which are: an integer from 1 to 1024",
        ),
        (["--set", "s8=1"], "--set s8=1: no object lets s8 be set"),
        (["--map-entries", "counts=65"], "--map-entries counts=65: '65' is outside of the bounds"),
        (["--set", "port"], "--set: 'port' is not OBJECT:NAME=VALUE"),
        (["--set", "a b=1"], "--set: 'a b' is not an object name"),
    ],
)
def test_check_refuses_other_values(
    settable: Path, capsys: Capture, options: list[str], problem: str
) -> None:
    """`check` decides by the rules for unsigned objects, and by the statement for signed ones."""
    assert run(["compile", "--arch", "amd64"]) == 0
    capsys.readouterr()
    assert problem in fails(capsys, "check", *options)
    assert run(["sign", "build/amd64/answer.bpf.o"]) == 0
    Path("buildtool.toml").write_text(Path("buildtool.toml").read_text().replace(RULES, ""))
    capsys.readouterr()
    assert problem in fails(capsys, "check", *options)
