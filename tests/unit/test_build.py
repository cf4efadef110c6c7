# SPDX-License-Identifier: Apache-2.0
"""Parts of `build` that need no engine: command, key, tag, output file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from buildtool import build as pipeline
from buildtool.config.file import Config, ProjectConfig, SignConfig, TrustConfig
from buildtool.config.project import choose_platforms
from buildtool.core.errors import (
    BuildtoolError,
    ConfigError,
    EngineError,
    FileAccessError,
    SigningKeyError,
    UsageError,
)
from buildtool.core.platforms import PLATFORMS
from buildtool.core.process import Completed, Runner, public_environment
from buildtool.image.archive import ARCHIVE_EPOCH, SourceArchive
from buildtool.image.docker.build import ImageRequest, build_image, parse_output
from buildtool.image.docker.buildx import BuildxRequest, Secret, build_argv, find_step_error, run_build
from buildtool.image.dockerfile import Dockerfile
from buildtool.image.result import BuiltImage
from buildtool.signing.keys import generate_key


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingRunner(Runner):
    """Answers like a docker client whose programs fail with *stderr*, except those in *working*."""

    stderr: bytes = b""
    working: tuple[str, ...] = ()
    stdout: bytes = b""

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        """Fail, or not."""
        good = any(word in argv for word in self.working)
        return Completed(returncode=0 if good else 1, stdout=self.stdout, stderr=self.stderr)


ARCHIVE = SourceArchive(data=b"sources")
TEXT = "FROM scratch\n"


def make_dockerfile() -> Dockerfile:
    """Make a Dockerfile with an archive."""
    return Dockerfile(text=TEXT, archive=ARCHIVE)


def buildx_request(**changes: Any) -> BuildxRequest:
    """Make a request for one platform."""
    return BuildxRequest(dockerfile=make_dockerfile, context=Path(), platforms=("linux/arm64",), **changes)


def image_request(root: Path, **changes: Any) -> ImageRequest:
    """Make a request for one platform."""
    return ImageRequest(
        dockerfile=make_dockerfile, root=root, platforms=(PLATFORMS["arm64"],), epoch=0, **changes
    )


def test_command_names_secrets_and_never_holds_them() -> None:
    """A secret is a path or a variable; its text and the passphrase are not in the arguments."""
    secrets = (Secret(name="signing-key", variable="BUILDTOOL_SIGNING_KEY"),)
    request = buildx_request(secrets=secrets, environment={"P": "hunter2"}, tags=("x:1",))
    argv = build_argv(request)
    assert "id=signing-key,env=BUILDTOOL_SIGNING_KEY" in argv
    assert "hunter2" not in " ".join(argv)
    assert "hunter2" not in repr(request)


def test_secret_path_cannot_set_other_fields() -> None:
    """A path with a comma is quoted by the rules of CSV."""
    option = Secret(name="signing-key", path=Path('/k,src=/etc/shadow"')).option
    assert option == 'id=signing-key,"src=/k,src=/etc/shadow"""'


PLAIN = """\
#12 [signer-amd64 1/1] RUN ["python3", "-m", "buildtool", "sign"]
#12 0.412 buildtool: error: old words
#12 0.500 buildtool: error: {message}
#12 0.500 buildtool: hint: do that
#12 ERROR: process "python3 -m buildtool sign" did not complete successfully: exit code: {code}
------
 > [signer-amd64 1/1] RUN ["python3", "-m", "buildtool", "sign"]:
0.500 buildtool: error: {message}
0.500 buildtool: hint: do that
------
ERROR: failed to solve: process "python3 -m buildtool sign" did not complete successfully: exit code: {code}
"""


@pytest.mark.parametrize(("code", "ours"), [(1, 1), (2, 2), (3, 3), (137, 1), (0, 1)])
def test_error_of_a_step_is_the_builds_error(code: int, ours: int) -> None:
    """The last error and hint of buildtool in the output, and the exit code, if it is one of buildtool's."""
    text = PLAIN.format(message="image.attach: p=eth0: no object has a program p", code=code)
    for said in (text, text.replace("\n", "\r\n"), f"\x1b[1A\x1b[0m{text}".replace("0.500", "\x1b[31m0.500")):
        error = find_step_error(said.encode())
        assert error is not None
        assert error.message == "image.attach: p=eth0: no object has a program p"
        assert (error.hint, error.exit_code) == ("do that", ours)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ERROR: failed to solve: 127.0.0.1:9/none: connection refused\n",
        "#9 1.0 E: apt\nERROR: did not complete successfully: exit code: 100\n",
        "#9 1.0 buildtool: error: x\n#9 CANCELED\nERROR: failed to solve: Unavailable\n",
    ],
)
def test_other_failures_of_the_builder_stay_buildkits(text: str) -> None:
    """Without an error of a buildtool step that ended, BuildKit's own words count."""
    assert find_step_error(text.encode()) is None


def test_lines_of_other_steps_are_not_the_error() -> None:
    """A compiler can print lines of our form in a step that succeeds, and then another step fails."""
    text = (
        "#9 0.4 buildtool: error: printed by a source\n#9 0.4 buildtool: hint: run this\n#9 DONE 1.0s\n"
        "#12 1.0 E: apt\n"
        '#12 ERROR: process "apt" did not complete successfully: exit code: 3\n'
        "------\n > [base 2/2] RUN apt:\n1.0 E: apt\n------\n"
        'ERROR: failed to solve: process "apt" did not complete successfully: exit code: 3\n'
    )
    assert find_step_error(text.encode()) is None


def test_a_line_of_many_blanks_takes_no_time() -> None:
    """The time to read a line grows with its length; the square of this one would be hours."""
    text = PLAIN.format(message="x", code=1).replace("hint: do that", f"hint: {' ' * 250_000}x{' ' * 9}")
    error = find_step_error(text.encode())
    assert error is not None
    assert error.hint == " " * 250_000 + "x"


def test_docker_without_buildx_is_an_error(tmp_path: Path) -> None:
    """An engine's client without BuildKit gives one clear error."""
    with pytest.raises(EngineError, match="buildx is missing") as caught:
        run_build(buildx_request(), runner=FailingRunner(working=("x",)))
    assert caught.value.hint


def test_unreachable_engine_is_said() -> None:
    """The client works, the engine doesn't answer."""
    runner = FailingRunner(
        working=("version",), stderr=b"Cannot connect to the Docker daemon at unix:///x.\n"
    )

    class Sometimes(FailingRunner):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            code = 0 if argv[-1] == "version" else 1
            return Completed(returncode=code, stdout=b"", stderr=runner.stderr)

    with pytest.raises(EngineError, match="no Docker engine answers: cannot connect to the Docker daemon"):
        run_build(buildx_request(), runner=Sometimes())


def test_failed_dockerfile_kills_docker_without_a_word(tmp_path: Path) -> None:
    """If rendering the Dockerfile fails, the docker process, which started before, is killed."""
    mark = tmp_path / "mark"

    def fail() -> bytes:
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        Runner().run(["sh", "-c", f"cat; touch {mark}"], stdin=fail)
    assert not mark.exists()


def test_archive_is_there_before_the_dockerfile(tmp_path: Path) -> None:
    """The build context `archive` holds the archive alone, with a fixed time; the project gets no file."""
    seen: list[Path] = []

    class Reading(FailingRunner):
        def run(self, argv: Sequence[str], **more: Any) -> Completed:
            option = argv[list(argv).index("--build-context") + 1]
            place = Path(option.removeprefix("archive="))
            assert list(place.iterdir()) == []
            assert more["stdin"]() == TEXT.encode()
            (found,) = place.iterdir()
            assert (found.name, found.read_bytes()) == (ARCHIVE.name, b"sources")
            assert found.stat().st_mtime_ns == ARCHIVE_EPOCH * 10**9
            seen.append(place)
            return Completed(returncode=0, stdout=b"", stderr=b"")

    run_build(replace(buildx_request(), context=tmp_path), runner=Reading())
    assert seen
    assert not seen[0].exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", ["-", "type=oci,dest=-", 'type=oci,"dest=a"', "type=", "dest=x", "a=b=c,"])
def test_output_that_cannot_be_is_a_usage_error(spec: str) -> None:
    """Standard output as destination and incomplete specifications are usage errors."""
    with pytest.raises(UsageError):
        parse_output(spec)


def test_existing_output_file_is_kept(tmp_path: Path) -> None:
    """Without --force, an existing file stays, and docker is not started."""
    target = tmp_path / "x.tar"
    target.write_text("mine")
    request = image_request(tmp_path, output=f"type=oci,dest={target}")
    with pytest.raises(FileAccessError, match="already exists"):
        build_image(request, runner=FailingRunner())
    assert target.read_text() == "mine"


def test_failed_build_leaves_no_output_file(tmp_path: Path) -> None:
    """A failed build leaves neither the file nor its temporary directory."""
    request = image_request(tmp_path, output=f"type=oci,dest={tmp_path}/x.tar")
    with pytest.raises(EngineError):
        build_image(request, runner=FailingRunner())
    assert list(tmp_path.iterdir()) == []


def test_output_in_missing_directory_is_said_before_building(tmp_path: Path) -> None:
    """The directory must be there."""
    request = image_request(tmp_path, output=f"type=oci,dest={tmp_path}/no/x.tar")
    with pytest.raises(FileAccessError, match="cannot write"):
        build_image(request, runner=FailingRunner())


def write_key(path: Path, passphrase: bytes | None = None) -> str:
    """Write a new key and return its key id."""
    key = generate_key()
    path.write_bytes(key.to_pem(passphrase))
    path.chmod(0o600)
    path.with_suffix(".pub").write_bytes(key.public.pem)
    return key.key_id


def project(root: Path, **changes: Any) -> Config:
    """Make a project with one source."""
    (root / "bpf").mkdir(exist_ok=True)
    (root / "bpf/x.bpf.c").write_text("int x;\n")
    return Config(root=root, project=ProjectConfig(name="demo"), **changes)


def test_key_option_goes_over_environment_over_file(tmp_path: Path) -> None:
    """Command line, then BUILDTOOL_SIGNING_KEY, then sign.key."""
    first, second, third = (write_key(tmp_path / name) for name in ("a.pem", "b.pem", "c.pem"))
    config = project(tmp_path, sign=SignConfig(key=tmp_path / "c.pem"))
    environ = {"BUILDTOOL_SIGNING_KEY": (tmp_path / "b.pem").read_text()}
    assert pipeline.find_key(tmp_path / "a.pem", config, environ).load_public().key_id == first
    found = pipeline.find_key(None, config, environ)
    assert found.load_public().key_id == second
    assert found.secrets == (Secret(name="signing-key", variable="BUILDTOOL_SIGNING_KEY"),)
    assert pipeline.find_key(None, config, {}).load_public().key_id == third


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_an_empty_variable_is_no_reason_for_another_key(tmp_path: Path, text: str) -> None:
    """CI systems set the variable of a secret that a fork may not have; its own key must not sign instead."""
    write_key(tmp_path / "c.pem")
    config = project(tmp_path, sign=SignConfig(key=tmp_path / "c.pem"))
    with pytest.raises(SigningKeyError, match="BUILDTOOL_SIGNING_KEY: the variable is empty"):
        pipeline.find_key(None, config, {"BUILDTOOL_SIGNING_KEY": text})


def test_no_key_is_said(tmp_path: Path) -> None:
    """A build without a key is an error."""
    with pytest.raises(UsageError, match="no signing key"):
        pipeline.find_key(None, project(tmp_path), {})


@pytest.mark.parametrize("answer", [None, "wrong"])
def test_encrypted_key_needs_its_passphrase(tmp_path: Path, answer: str | None) -> None:
    """A missing or wrong passphrase is an error."""
    write_key(tmp_path / "a.pem", b"right")
    with pytest.raises(SigningKeyError, match="passphrase"):
        pipeline.find_key(tmp_path / "a.pem", project(tmp_path), {}, lambda _: answer).load_private()


def test_passphrase_is_a_secret_in_the_environment(tmp_path: Path) -> None:
    """BuildKit reads it by the variable's name; it is in no repr."""
    write_key(tmp_path / "a.pem", b"right")
    found = pipeline.find_key(tmp_path / "a.pem", project(tmp_path), {"BUILDTOOL_KEY_PASSPHRASE": "right"})
    assert found.load_private().key_id == found.load_public().key_id
    assert found.environment == {"BUILDTOOL_KEY_PASSPHRASE": "right"}
    assert [secret.name for secret in found.secrets] == ["signing-key", "signing-key-passphrase"]
    assert "right" not in repr(found)
    assert "PRIVATE" not in repr(found)


def render(config: Config, key: pipeline.KeySource, arch: str = "amd64") -> str:
    """Return the text of the Dockerfile."""
    made = pipeline.make_dockerfile(config, (PLATFORMS[arch],), key, environ=os.environ, runner=Runner())
    return made.text


def test_dockerfile_is_the_same_for_private_and_public_key(tmp_path: Path) -> None:
    """The .pub file and the private key give the same Dockerfile."""
    write_key(tmp_path / "a.pem")
    config = project(tmp_path)
    texts = {render(config, pipeline.find_key(tmp_path / name, config, {})) for name in ("a.pem", "a.pub")}
    assert len(texts) == 1
    assert "BEGIN PRIVATE" not in texts.pop()


def test_key_among_the_sources_is_refused(tmp_path: Path) -> None:
    """A key in a directory of sources is refused, because the directory is sent to the builder."""
    config = project(tmp_path)
    write_key(tmp_path / "bpf/a.pem")
    key = pipeline.find_key(tmp_path / "bpf/a.pem", config, {})
    with pytest.raises(ConfigError, match="sent to the builder"):
        render(config, key)


def test_trust_without_the_signing_key_is_refused(tmp_path: Path) -> None:
    """A trust store without the signing key or with threshold 2 would refuse the image's own objects."""
    write_key(tmp_path / "a.pem")
    write_key(tmp_path / "b.pem")
    both = (tmp_path / "a.pub", tmp_path / "b.pub")
    for trust in (
        TrustConfig(keys=both[1:]),
        TrustConfig(keys=both, threshold=2),
        TrustConfig(keys=both[:1] * 2),
    ):
        config = project(tmp_path, trust=trust)
        key = pipeline.find_key(tmp_path / "a.pem", config, {})
        with pytest.raises(ConfigError, match=r"its own objects|signs with one key|is listed twice"):
            render(config, key)


def test_unknown_architecture_is_a_usage_error(tmp_path: Path) -> None:
    """The message has the name."""
    with pytest.raises(UsageError, match="vax"):
        choose_platforms(("vax",), project(tmp_path))
    with pytest.raises(UsageError, match="unknown architecture ''"):
        choose_platforms(("amd64,",), project(tmp_path))
    both = choose_platforms(("s390x,amd64", "arm64"), project(tmp_path))
    assert [platform.arch for platform in both] == ["amd64", "arm64", "s390x"]


def test_without_a_name_the_architecture_is_this_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer's first build runs where it was made; a machine outside the table must name one."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert choose_platforms((), project(tmp_path)) == (PLATFORMS["arm64"],)
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(UsageError, match="vax: this machine's architecture is not supported"):
        choose_platforms((), project(tmp_path))


def test_builder_image_has_not_every_architecture(tmp_path: Path) -> None:
    """Docker's error names the engine that can."""
    key = pipeline.KeySource(pem=b"", path=tmp_path / "none.pub")
    with pytest.raises(UsageError, match="loong64") as caught:
        render(project(tmp_path), key, "loong64")
    assert "--engine local" in str(caught.value.hint)


def build_without_engine(config: Config, environ: Mapping[str, str], **options: Any) -> BuiltImage:
    """Call build with an engine that never answers."""
    wanted = pipeline.BuildOptions(platforms=(PLATFORMS["amd64"],), engine="docker", **options)
    return pipeline.build(config, wanted, environ=environ, runner=FailingRunner(stderr=b"Cannot connect"))


def test_build_needs_a_private_key_and_a_tag_to_push(tmp_path: Path) -> None:
    """A public key, and --push without a tag, are errors before any program starts."""
    write_key(tmp_path / "a.pem")
    config = project(tmp_path)
    with pytest.raises(SigningKeyError, match="cannot sign"):
        build_without_engine(config, {}, key=tmp_path / "a.pub")
    with pytest.raises(UsageError, match="--push requires an image name"):
        build_without_engine(config, {}, key=tmp_path / "a.pem", push=True)
    with pytest.raises(BuildtoolError):
        build_without_engine(config, {}, key=tmp_path / "a.pem")


def test_git_decides_the_time_only_without_source_date_epoch(tmp_path: Path) -> None:
    """A project without commits has time 0."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    from buildtool.config.sourcedate import source_date

    assert source_date({}, tmp_path) == 0
    assert source_date({"SOURCE_DATE_EPOCH": "7"}, tmp_path) == 7


def test_key_of_any_variable_reaches_buildkit_by_name(tmp_path: Path) -> None:
    """Programs that are started have no private key in their environment, but for the one that reads it."""
    write_key(tmp_path / "a.pem")
    text = (tmp_path / "a.pem").read_text()
    found = pipeline.find_key("env:RELEASE", project(tmp_path), {"RELEASE": text})
    assert found.secrets == (Secret(name="signing-key", variable="RELEASE"),)
    assert found.environment == {"RELEASE": text}
    assert found.load_public() == found.load_private().public
    assert public_environment({"RELEASE": text, "BUILDTOOL_KEY_PASSPHRASE": "x", "A": "b"}) == {"A": "b"}


def test_other_signers_sign_on_the_host_only(tmp_path: Path) -> None:
    """A builder has no agent, no token and no key service; render needs none of them there."""
    write_key(tmp_path / "a.pem")
    (tmp_path / "signer").write_text(f"#!/bin/sh\ncat {tmp_path}/a.pub\n")
    (tmp_path / "signer").chmod(0o755)
    config = project(tmp_path)
    with pytest.raises(UsageError, match="signer exec:signer: cannot sign in a builder"):
        build_without_engine(config, {}, key=f"exec:{tmp_path}/signer")
    with pytest.raises(EngineError):
        build_without_engine(config, {}, key=f"exec:{tmp_path}/signer", sign_on="host")
    key = pipeline.find_key(f"exec:{tmp_path}/signer", config, {})
    text = render(config, key)
    assert key.load_public().key_id in text
