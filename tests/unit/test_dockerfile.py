# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile: deterministic, self-contained, and no value of the configuration can change its syntax."""

from __future__ import annotations

import ast
import dis
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
import pytest
from labs.dockerfile import KEY_ID, PEM, instructions, render, request

from buildtool.config.file import DEFAULT_BASE, DEFAULT_BUILDER
from buildtool.config.project import Piece, Unit
from buildtool.core.errors import BuildtoolError, ConfigError, UsageError
from buildtool.core.resources import package_directory
from buildtool.image import dockerfile as renderer
from buildtool.image import embedded as embed
from buildtool.image.dockerfile import Form, is_prepared, render_dockerfile, source_directories
from buildtool.image.embedded import loader_sources, python_sources
from buildtool.runtime import debian
from buildtool.runtime.carried import LINKED_FROM
from buildtool.signing.keys import KeyId

NASTY = [
    "a\nRUN evil",
    "a\rRUN evil",
    'a"',
    "a'",
    "a\\",
    "$HOME",
    "${BASE_IMAGE}",
    "`id`",
    "<<EOF",
    "a\x00b",
    "a\u2028b",
    "a\x1b[31m",
]


def test_same_request_gives_same_dockerfile() -> None:
    """The same request gives the same text and archive, independent of time and machine."""
    assert render() == render()


def test_one_file_fits_into_a_message() -> None:
    """BuildKit's client sends at most 16 MiB, and about five times the text for two platforms."""
    text = render_dockerfile(replace(request(), form=Form.INLINE)).text
    assert 1_000_000 < len(text) < 3_000_000
    assert "<<'libbpf.c'" not in text


def test_every_instruction_is_known_and_no_run_needs_a_shell() -> None:
    """Instructions outside heredocs are those of the template. RUN and ENTRYPOINT are JSON arrays."""
    text = render(image__healthcheck=("/usr/bin/verify-and-load", "--version"))
    known = (
        "ARG ",
        "FROM ",
        "COPY ",
        "RUN ",
        "ENV ",
        "WORKDIR ",
        "LABEL ",
        "USER ",
        "HEALTHCHECK ",
        "ENTRYPOINT ",
    )
    for line in instructions(text):
        assert line.startswith(known), line
        if line.startswith(("RUN", "ENTRYPOINT", "HEALTHCHECK")):
            words = [word for word in line.split(" ") if word and not word.startswith("--")]
            assert next(word for word in words[1:] if word != "CMD").startswith("["), line
    assert text.startswith("# check=error=true\n")
    assert "# syntax" not in text


def test_loader_options_are_in_the_entrypoint() -> None:
    """[loader] becomes options before the workload. Options for a workload are an error without one."""
    wanted = request(
        loader__share="/share",
        loader__btf="/btf",
        loader__replace=True,
        loader__seccomp=False,
        loader__workload_user="1000:1000",
        image__workload=("/agent",),
    )
    line = next(
        line for line in instructions(render_dockerfile(wanted).text) if line.startswith("ENTRYPOINT")
    )
    end = '"--share", "/share", "--btf", "/btf", "--workload-user", "1000:1000", "--replace", "--no-seccomp"'
    assert line.endswith(f'{end}, "--image-workload", "/agent"]')
    for key, value in (("seccomp", False), ("map-fds", False), ("workload-user", "1000")):
        with pytest.raises(ConfigError, match=rf"loader\.{key} requires a workload"):
            render(**{f"loader__{key.replace('-', '_')}": value})
    assert "seccomp" not in render(image__workload=("/agent",))


def test_hand_over_to_a_workload_with_its_own_loader() -> None:
    """The option precedes the workload. Keys that only the loader's own loading would use are errors."""
    wanted = {"loader__hand_over": True, "image__workload": ("/agent",), "loader__state": "/state"}
    assert '"--state", "/state", "--hand-over", "--image-workload", "/agent"]' in render(**wanted)
    with pytest.raises(ConfigError, match=r"loader\.hand-over requires a workload"):
        render(loader__hand_over=True)
    for key, value in (
        ("image.attach", ("count=eth0",)),
        ("loader.pin-root", "/pins"),
        ("loader.share", "/share"),
        ("loader.attach-file", "/file"),
        ("loader.wait-interface", 0),
        ("loader.replace", True),
        ("loader.health-command", "/app"),
        ("loader.health-wait", 1),
        ("loader.reload", True),
        ("loader.map-fds", False),
        ("loader.seccomp", False),
    ):
        name = key.replace(".", "__").replace("-", "_")
        with pytest.raises(ConfigError, match=f"^{key} has no effect with loader.hand-over"):
            render(**wanted, **{name: value})


@pytest.mark.parametrize("key", ["share", "pin_root"])
def test_pins_without_the_filter_need_another_user(key: str) -> None:
    """The loader would refuse such a start: a build says so first."""
    wanted = {f"loader__{key}": "/run/pins", "loader__seccomp": False, "image__workload": ("/agent",)}
    with pytest.raises(
        ConfigError, match=rf"loader\.seccomp: false: .* loader\.{key.replace('_', '-')} pins"
    ):
        render(**wanted)
    assert "--no-seccomp" in render(**wanted, loader__workload_user="1000")


def test_configured_capabilities_are_allowed_by_the_entrypoint() -> None:
    """The loader refuses workloads of containers that have more than is needed, unless it is told of it."""
    text = render(image__capabilities=("PERFMON", "BPF"))
    line = next(line for line in instructions(text) if line.startswith("ENTRYPOINT"))
    assert line.endswith('"--capabilities", "BPF,PERFMON"]')
    assert "--capabilities" not in render().split("ENTRYPOINT")[1]


def test_capabilities_are_in_the_label_and_granted() -> None:
    """A user other than root gets them by the file; configured ones may be more than is needed."""
    text = render(capabilities=("BPF", "NET_ADMIN"))
    assert 'LABEL buildtool.capabilities="BPF,NET_ADMIN"' in text
    line = next(line for line in instructions(text) if '"grant"' in line)
    assert '"--capability", "BPF", "--capability", "NET_ADMIN", "--exactly", "--trust", "/trust"' in line
    root = render(image__user="root", image__capabilities=("BPF",))
    line = next(line for line in instructions(root) if '"grant"' in line)
    assert "--exactly" not in line
    assert '"--no-attribute"' in line


def test_tools_are_linked_granted_and_copied() -> None:
    """With image.tools, ebpf-pins is linked, granted and copied like the loader. Otherwise it is absent."""
    assert "ebpf-pins" not in render().partition("# ---- Loader")[2]
    text = render(image__tools=True)
    (line,) = (line for line in instructions(text) if '"-o", "/ebpf-pins"' in line)
    assert '"operate/main.c", "operate/commands.c", "@sources.txt"' in line
    (line,) = (line for line in instructions(text) if '"grant"' in line)
    assert '"/loader/verify-and-load", "/loader/ebpf-pins", "/init/tini", "--objects"' in line
    assert "COPY --chmod=0755 --from=granted /verify-and-load /ebpf-pins /usr/bin/" in text


def test_key_id_is_in_the_signers_command() -> None:
    """Another key is another command, so that BuildKit cannot reuse the old key's layer."""
    other = KeyId("cd" * 32)
    line = next(line for line in instructions(render()) if '"sign"' in line)
    assert f'"--expect-key-id", "{KEY_ID}"' in line
    assert f'"--expect-key-id", "{other}"' in render(key_id=other)


def test_secret_is_a_mount_and_compile_and_sign_have_no_network() -> None:
    """Only the signer stage mounts the key, and compile and sign stages have no network."""
    text = render(images__builder="buildtool.local/builder:trixie")
    lines = instructions(text)
    starts = [line for line in lines if line.startswith("RUN ")]
    assert len(starts) == 7
    assert all(line.startswith("RUN --network=none") for line in starts)
    assert sum("type=secret,id=signing-key,required=true" in line for line in lines) == 1
    assert "apt-get" not in "\n".join(lines)


def test_only_source_directories_are_mounted() -> None:
    """BuildKit sends what is mounted: sources and include directories, never the project."""
    wanted = request(
        sources=("bpf/a.bpf.c", "bpf/sub/b.bpf.c", "more/c.bpf.c"), compile__include=("include",)
    )
    assert source_directories(wanted) == ["bpf", "include", "more"]
    text = render_dockerfile(wanted).text
    assert "source=bpf,target=/project/bpf " in text
    assert "source=.," not in text


def test_sources_beside_the_configuration_are_mounted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project's directory, with its keys, is never sent: only a source there, and headers."""
    monkeypatch.chdir(tmp_path)
    for name in ("x.bpf.c", "other.c", "x.h", "secret.pem"):
        (tmp_path / name).touch()
    wanted = request(sources=("x.bpf.c", "bpf/a.bpf.c"), compile__include=(".", "../out"))
    assert source_directories(wanted) == ["bpf", "x.bpf.c", "x.h"]
    text = render_dockerfile(wanted).text
    assert "source=x.bpf.c,target=/project/x.bpf.c " in text
    assert "secret.pem" not in text


def test_default_builder_is_completed_by_apt_and_others_are_taken_as_prepared() -> None:
    """A Debian image gets packages; an image of another name has them."""
    assert not is_prepared(DEFAULT_BUILDER)
    assert not is_prepared("registry.example:5000/mirror/debian:trixie-slim")
    assert is_prepared("buildtool.local/builder:trixie")
    text = render()
    assert f"ARG BUILDER_IMAGE={DEFAULT_BUILDER}\nARG BASE_IMAGE={DEFAULT_BASE}\n" in text
    assert '"libbpf-dev:arm64"' in text


def test_runtime_stage_says_what_was_configured() -> None:
    """User, entrypoint, labels and health check come from the configuration."""
    text = render(
        image__user="0:0",
        image__attach=("count=eth0",),
        image__load=("x.bpf.o:watch",),
        image__workload=("/app", "--port", "1"),
        image__labels={"org.example.team": "Plant 7, hall B"},
        image__healthcheck=("/app", "ok"),
    )
    runtime = text.partition(" AS runtime\n")[2]
    entry = (
        '["/sbin/tini", "-g", "--", "/usr/bin/verify-and-load",'
        ' "--image-attach", "count=eth0", "--image-load", "x.bpf.o:watch",'
        ' "--image-workload", "/app", "--image-workload", "--port", "--image-workload", "1"]'
    )
    assert f"\nENTRYPOINT {entry}\n" in runtime
    assert "\nUSER 0:0\n" in runtime
    assert '\nLABEL org.example.team="Plant 7, hall B"\n' in runtime
    assert f'\nLABEL buildtool.key-id="{KEY_ID}"\n' in runtime
    assert '\nHEALTHCHECK CMD ["/app", "ok"]\n' in runtime


@pytest.mark.parametrize("nasty", NASTY)
@pytest.mark.parametrize(
    "field",
    [
        "project__name",
        "project__release",
        "compile__include",
        "compile__flags",
        "image__user",
        "image__attach",
        "image__workload",
        "image__healthcheck",
        "image__labels",
        "image__labels_key",
        "images__builder",
        "images__base",
        "sources",
        "key_id",
        "trust_name",
    ],
)
def test_nasty_value_is_an_error_in_every_field(field: str, nasty: str) -> None:
    """Even a value that the configuration's own checks never saw cannot reach the Dockerfile."""
    changes: dict[str, Any] = {field: nasty}
    if field in (
        "compile__include",
        "compile__flags",
        "image__attach",
        "image__workload",
        "image__healthcheck",
    ):
        changes = {field: (f"p=eth0{nasty}" if field == "image__attach" else nasty,)}
    elif field == "image__labels":
        changes = {field: {"key": nasty}}
    elif field == "image__labels_key":
        changes = {"image__labels": {nasty: "value"}}
    elif field == "sources":
        changes = {field: (f"bpf/{nasty}.bpf.c",)}
    elif field == "trust_name":
        changes = {"trust": {nasty: PEM}}
    with pytest.raises((UsageError, ConfigError)):
        render(**changes)


def test_macros_with_syntax_stay_in_their_heredoc() -> None:
    """A macro may hold any printable text. It changes no instruction, and the plan has it unchanged."""
    flags = ("-DA=\"$HOME ${B} `id` <<EOF 'x' \\\\ # RUN evil\"", "-DB=arm64.json", "-DC=\\")
    plain = instructions(render(compile__flags=("-DA=1",)))
    text = render(compile__flags=flags)
    assert instructions(text) == plain
    plan = text.partition("<<'arm64.json' /\n")[2].partition("\narm64.json\n")[0]
    (group,) = json.loads(plan)["groups"]
    assert group["flags"] == list(flags)


@pytest.mark.parametrize("form", list(Form))
@pytest.mark.parametrize("what", ["include", "sources"])
def test_directory_adds_no_option_to_its_mount(tmp_path: Path, form: Form, what: str) -> None:
    """A comma ends the value of --mount: here it would hand the signing key to the compiler."""
    name = "b,type=secret,id=signing-key"
    for directory in ("bpf", name):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "x.bpf.c").write_text("int x;\n")
    more: dict[str, Any] = (
        {"compile__include": (name,)} if what == "include" else {"sources": (f"{name}/x.bpf.c",)}
    )
    wanted = request(form=form, **more)
    wanted = replace(wanted, config=replace(wanted.config, root=tmp_path))
    with pytest.raises(UsageError, match="'b,type=secret,id=signing-key': a comma"):
        render_dockerfile(wanted)


@pytest.mark.parametrize("text", ["a\ndev.pub\nRUN evil\n", "a\r\n", "a\x00\n"])
def test_file_cannot_end_its_heredoc(text: str) -> None:
    """A line that equals the delimiter would end the heredoc; the rest would be instructions."""
    with pytest.raises(UsageError, match="heredoc"):
        render(trust={"dev.pub": text})


def test_labels_of_ours_cannot_be_set() -> None:
    """A configuration must not claim another key."""
    with pytest.raises(ConfigError, match="set by the build"):
        render(image__labels={"buildtool.key-id": "x"})


def test_template_cannot_print_without_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that a template prints as it is stops the rendering."""
    environment = jinja2.Environment(finalize=renderer._finalize, autoescape=False)  # noqa: S701 - as render does
    monkeypatch.setattr(renderer, "load_template", lambda: environment.from_string("{{ user }}"))
    with pytest.raises(BuildtoolError, match="without a filter"):
        render()


def test_embedded_modules_are_what_the_compiler_finds() -> None:
    """The names that the parser finds are those that the compiled code of the module imports."""
    for file in python_sources():
        compiled = set(_compiled_imports(compile(file.text, file.name, "exec")))
        modules = {name for name in compiled if embed._module_path(package_directory(), name)}
        found = {name for name in embed._imported(file.text) if embed._module_path(package_directory(), name)}
        assert found == modules, file.name


def _compiled_imports(code: CodeType) -> Iterator[str]:
    """Yield the names of ours that *code* and the functions in it import."""
    module = ""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            module = instruction.argval
        if instruction.opname in ("IMPORT_NAME", "IMPORT_FROM") and module.split(".")[0] == "buildtool":
            yield module if instruction.opname == "IMPORT_NAME" else f"{module}.{instruction.argval}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled_imports(constant)


def test_embedded_modules_stay_few() -> None:
    """The embedded modules, which compile and sign, include neither the template nor engine code."""
    names = {f"{file.directory}/{file.name}" for file in python_sources()}
    assert {"buildtool/__main__.py", "buildtool/cli/compile.py", "buildtool/cli/sign.py"} <= names
    assert not names & {
        "buildtool/image/dockerfile.py",
        "buildtool/build.py",
        "buildtool/image/docker/prepare.py",
        "buildtool/image/docker/buildx.py",
    }


def test_embedded_modules_compile_and_sign_alone(tmp_path: Path, clang: Path) -> None:
    """In a directory with nothing but them and the builder's libraries, both commands work."""
    for file in python_sources():
        (tmp_path / file.directory).mkdir(parents=True, exist_ok=True)
        (tmp_path / file.directory / file.name).write_text(file.text)
    # The packages that the builder image has; rich, jinja2 and docker must not be needed.
    for name in ("rich", "jinja2", "docker"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not in the builder image')\n")
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf/x.bpf.c").write_text(
        '__attribute__((section("socket"), used)) int f(void *c) { return 0; }\n'
        'char l[] __attribute__((section("license"), used)) = "GPL";\n'
    )
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "k.pem"], check=True)
    (tmp_path / "k.pem").chmod(0o600)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "BUILDTOOL_CLANG": str(clang)}
    for arguments in (
        ["compile", "bpf/x.bpf.c", "--arch", "arm64", "--output", "o"],
        [
            "sign",
            "o/x.bpf.o",
            "--key",
            "k.pem",
            "--passphrase-file",
            "missing",
            "--output",
            "s",
            "--arch",
            "arm64",
        ],
    ):
        argv = [sys.executable, "-m", "buildtool", *arguments]
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "s/x.bpf.o").stat().st_size > 0


def test_the_builder_has_and_compiles_every_library_of_the_embedded_modules() -> None:
    """A library that they import is a package of the builder, and its byte code is made there."""
    imported = {module for file in python_sources() for module in _imported_modules(file.text)}
    # rich is imported where stderr is a terminal, which no build step has.
    libraries = (
        {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"buildtool", "rich"}
    )
    assert libraries == {"click", "cryptography", "elftools"}
    packages = {"elftools": "pyelftools"}
    assert {f"python3-{packages.get(name, name)}" for name in libraries} <= {*debian.BUILDER_PACKAGES}
    precompiled = {*_imported_modules(debian.PRECOMPILE)}
    assert libraries <= {name.partition(".")[0] for name in precompiled}
    assert {name for name in imported if name.startswith("elftools.")} <= precompiled


def _imported_modules(text: str) -> Iterator[str]:
    """Yield the modules that *text* imports, relative imports apart."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_loader_sources_are_complete() -> None:
    """Every C file of the list, and every header that one includes, is carried, with the flags."""
    files = {f"{file.directory}/{file.name}": file.text for file in loader_sources()}
    assert {"loader/flags.txt", "loader/discard.ld"} <= set(files)
    for listed in ("loader/sources.txt", "loader/verify/sources.txt", "loader/vendor/libbpf/sources.txt"):
        assert {f"loader/{name}" for name in files[listed].split()} <= set(files)
    assert "loader/verify/example.c" not in files
    for name, text in files.items():
        root = "loader/vendor/libbpf/bpf/" if name.startswith("loader/vendor/") else "loader/"
        for line in text.split("\n"):
            if line.startswith('#include "'):
                assert root + line.split('"')[1] in files


def test_the_linker_is_made_in_the_builder_if_an_object_needs_it() -> None:
    """Its stage, its sources and the builder's own libraries appear only for an object of several sources."""
    plain = render_dockerfile(request())
    assert "AS linker" not in plain.text
    assert plain.archive
    assert b"loader/probe/link.c" not in plain.archive.data
    piece = Piece(source="bpf/x.bpf.c")
    units = (Unit(path="x.bpf.o", pieces=(piece, piece)),)
    wanted = replace(request(), plan={"arm64": units})
    made = render_dockerfile(wanted)
    (stage,) = re.findall(r"^FROM toolchain AS linker\n(.*?)\n\n", made.text, re.MULTILINE | re.DOTALL)
    assert '["clang", "-static", "/libbpf.o", "probe/probe.c", "probe/link.c"' in stage
    assert made.text.count("--mount=type=bind,from=linker,source=/bpf-probe,target=/bpf-probe") == 1
    assert made.text.count('"--linker", "/bpf-probe"') == 1
    assert made.archive
    for name in LINKED_FROM["probe"]:
        assert f"loader/{name.removeprefix('@')}".encode() in made.archive.data
    inline = render_dockerfile(replace(wanted, form=Form.INLINE)).text
    assert "/sources/loader/probe/" in inline
    assert '"libbpf-dev"' in made.text
    assert '"libbpf-dev"' not in plain.text


def test_missing_template_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing template is one clear error."""
    package = tmp_path / "buildtool"
    shutil.copytree(package_directory(), package, ignore=shutil.ignore_patterns("__pycache__", "templates"))
    monkeypatch.setattr("buildtool.core.resources._PACKAGE", package)
    renderer.load_template.cache_clear()
    try:
        with pytest.raises(BuildtoolError, match="not part of this installation"):
            render()
    finally:
        renderer.load_template.cache_clear()
