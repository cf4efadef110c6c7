# SPDX-License-Identifier: Apache-2.0
"""Names, labels, annotations and the metadata file of `build`, and what is said of wrong ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.cli import BUILD, check_error, left
from labs.image import read_image
from labs.registry import FaultyRegistry, faulty, pushed, run_registry

from buildtool.cli.main import run
from buildtool.core.errors import UsageError
from buildtool.core.platforms import PLATFORMS, find_platform
from buildtool.core.process import Runner
from buildtool.image.docker.caches import check_cache, explain_caches
from buildtool.oci.annotations import parse_annotation
from buildtool.signing.keys import load_signing_key_pem

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
TWO = (*BUILD, "--arch", "arm64")


def index_of(path: str) -> Iterator[dict[str, Any]]:
    """Yield index.json of a layout, then the index or manifest that it names, then each manifest in that."""
    place = Path(path)
    index = json.loads((place / "index.json").read_text())
    yield index
    top = read_document(place, index["manifests"][0])
    yield top
    for entry in top.get("manifests", ()):
        yield read_document(place, entry)


def read_document(place: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the document of descriptor *entry*."""
    found: dict[str, Any] = json.loads((place / "blobs" / entry["digest"].replace(":", "/")).read_bytes())
    return found


def test_labels_are_added_to_each_platform(project: Path, capsys: Capture) -> None:
    """A label of the option replaces that of the configuration; any printable text can be its value."""
    with Path("buildtool.toml").open("a") as file:
        file.write('[image]\nlabels = { "org.example.team" = "plant", "org.example.site" = "one" }\n')
    given = ["--label", 'org.example.team=hall "B" $HOME `x`', "--label", "org.example.empty="]
    assert run([*TWO, *given, "--output", "x.tar"]) == 0
    images = read_image(Path("x.tar"))
    assert len(images) == 2
    for image, _ in images.values():
        labels = image.config["config"]["Labels"]
        assert labels["org.example.team"] == 'hall "B" $HOME `x`'
        assert labels["org.example.site"] == "one"
        assert labels["org.example.empty"] == ""


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--label", "buildtool.key-id=0", "labels of buildtool.* are set by the build"),
        ("--label", "org.example.team", "not KEY=VALUE"),
        ("--label", "org.example.team=a\nb", "control characters"),
        pytest.param("--label", "org.example.team=" + "x" * 5000, "longer than 4096 bytes", id="long"),
        ("--label", "a b=c", "not a label key"),
        ("--annotation", "org.example.team", "not KEY=VALUE"),
        ("--annotation", "nowhere:org.example.team=a", "'nowhere': no place of annotations"),
        ("--annotation", "manifest[linux/vax]:org.example.team=a", "unknown architecture 'linux/vax'"),
        ("--annotation", "manifest[linux/arm64]:org.example.team=a", "the image is not for linux/arm64"),
        ("--annotation", "index:org.example.team=a", "an image of one platform has no index"),
        ("--annotation", "index[linux/amd64]:org.example.team=a", "an index is of all platforms"),
        ("--tag", "Not A Tag", "not an image tag"),
        ("--platform", "linux/amd64/v3", "unknown architecture 'linux/amd64/v3'"),
        ("--platform", "windows/amd64", "unknown architecture 'windows/amd64'"),
    ],
)
def test_wrong_values_are_one_line(
    project: Path, capsys: Capture, option: str, value: str, text: str
) -> None:
    """The line says what is wrong with the value; nothing is built."""
    assert run([*BUILD, option, value]) == 2
    check_error(capsys, text)
    assert left(project) == []


def test_annotations_of_all_places(project: Path) -> None:
    """Manifests, index and the descriptors of both have theirs; a platform's own replaces that of all."""
    given = [
        "org.example.all=1",
        "manifest[linux/arm64]:org.example.all=2",
        "index,manifest:org.example.both=3",
        "manifest-descriptor:org.example.entry=4",
        "index-descriptor:org.example.top=5",
    ]
    options = [word for text in given for word in ("--annotation", text)]
    assert run([*TWO, *options, "--output", "type=oci,tar=false,dest=x"]) == 0
    outer, index, *manifests = index_of("x")
    assert outer["manifests"][0]["annotations"]["org.example.top"] == "5"
    assert index["annotations"] == {"org.example.both": "3"}
    assert [entry["annotations"] for entry in index["manifests"]] == [{"org.example.entry": "4"}] * 2
    assert [manifest["annotations"] for manifest in manifests] == [
        {"org.example.all": "1", "org.example.both": "3"},
        {"org.example.all": "2", "org.example.both": "3"},
    ]
    assert len(read_image(Path("x"))) == 2


def test_annotations_of_one_platform(project: Path) -> None:
    """The descriptor of the only manifest is in index.json."""
    given = ["--annotation", "manifest,manifest-descriptor:org.example.all=1"]
    assert run([*BUILD, *given, "--output", "type=oci,tar=false,dest=x"]) == 0
    outer, manifest = index_of("x")
    assert outer["manifests"][0]["annotations"]["org.example.all"] == "1"
    assert manifest["annotations"] == {"org.example.all": "1"}


def test_metadata_names_what_was_pushed(project: Path, capsys: Capture) -> None:
    """The file has buildx's members. With several names, each is written, and each repository is signed."""
    with run_registry() as address:
        names = [f"{address}/agent:5", f"{address}/agent:latest", f"{address}/mirror/agent:5"]
        tags = [word for name in names for word in ("--tag", name)]
        assert run([*TWO, *tags, "--push", "--metadata-file", "meta.json", "--json"]) == 0
        built = json.loads(capsys.readouterr().out)
        assert (built["reference"], built["tags"]) == (names[0], names)
        digest, _ = pushed("5")
        assert pushed("latest")[0] == digest == built["digest"]
        metadata = json.loads(Path("meta.json").read_text())
        assert metadata["containerimage.digest"] == digest
        assert metadata["containerimage.descriptor"]["digest"] == digest
        assert metadata["image.name"] == ",".join(names)
        private = load_signing_key_pem(Path("keys/dev.pem").read_bytes(), "dev", None)
        Path("dev.pub").write_bytes(private.public.pem)
        for name in names:
            assert run(["verify", name, "--trust", "dev.pub"]) == 0


def test_names_of_an_archive(project: Path) -> None:
    """Each name is an entry, so that an engine gives all of them."""
    assert (
        run([*BUILD, "--tag", "a:1", "--tag", "b:2", "--tag", "a:1", "--output", "type=oci,tar=false,dest=x"])
        == 0
    )
    outer, _ = index_of("x")
    names = [entry["annotations"]["io.containerd.image.name"] for entry in outer["manifests"]]
    assert names == ["docker.io/library/a:1", "docker.io/library/b:2"]
    assert len(read_image(Path("x"))) == 1


def test_no_tag_without_all_blobs(project: Path, capsys: Capture) -> None:
    """The first of two registries gets its tag only when the second one has all blobs."""
    with faulty("") as address:
        push = [*BUILD, "--tag", f"{address}/a:1", "--tag", f"{address}/b:1", "--push", "--no-sign-image"]
        assert run(push) == 0
        tags = [text for text in FaultyRegistry.requests if text.startswith("PUT") and text.endswith("/1")]
        assert FaultyRegistry.requests[-2:] == tags
    capsys.readouterr()


def test_metadata_file_is_checked_first(project: Path, capsys: Capture) -> None:
    """A place that cannot be written ends the command before it builds; a failed build leaves no file."""
    Path("bpf/answer.bpf.c").write_text("this does not compile")
    assert run([*BUILD, "--metadata-file", "none/meta.json"]) == 1
    check_error(capsys, "none/meta.json: cannot write: ")
    assert run([*BUILD, "--metadata-file", "bpf"]) == 1
    check_error(capsys, "bpf: not a regular file but a directory")
    assert run([*BUILD, "--metadata-file", "meta.json"]) == 1
    assert left(project) == []


def test_metadata_file_replaces_nothing_else(project: Path, capsys: Capture) -> None:
    """Neither the image that the build writes, nor any file but metadata of an earlier build."""
    given = [*BUILD, "--output", "image.tar", "--metadata-file"]
    assert run([*given, "./image.tar"]) == 2
    check_error(capsys, "image.tar: --metadata-file and --output are one file")
    for name in ("buildtool.toml", "keys/dev.pem"):
        kept = Path(name).read_bytes()
        assert run([*given, name]) == 1
        check_error(capsys, f"{name}: already exists, and is no metadata of a build")
        assert Path(name).read_bytes() == kept
    assert not Path("image.tar").exists()
    for force in ([], ["--force"]):
        assert run([*given, "meta.json", *force]) == 0
    assert "containerimage.digest" in json.loads(Path("meta.json").read_text())


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("linux/arm64", "arm64"),
        ("linux/arm64/v8", "arm64"),
        ("linux/aarch64", "arm64"),
        ("linux/x86_64", "amd64"),
        ("linux/arm/v7", "arm"),
        ("linux/arm", "arm"),
        ("s390x", "s390x"),
    ],
)
def test_platforms_as_buildx_spells_them(name: str, arch: str) -> None:
    """A variant that is the only one of its architecture may be named or left out."""
    assert find_platform(name) is PLATFORMS[arch]


def test_platforms_in_one_option(project: Path) -> None:
    """Commas separate platforms, as for buildx."""
    build = [word for word in BUILD if word not in ("--arch", "amd64")]
    assert run([*build, "--platform", "linux/amd64,linux/arm64/v8", "--output", "x.tar"]) == 0
    assert set(read_image(Path("x.tar"))) == {"linux/amd64", "linux/arm64"}


@pytest.mark.parametrize("option", ["--cache-from", "--cache-to"])
def test_caches_are_of_buildkit(project: Path, capsys: Capture, option: str) -> None:
    """The local engine refuses them in one line, which names its own."""
    assert run([*BUILD, option, "type=registry,ref=registry.example/cache:1"]) == 2
    output = capsys.readouterr()
    assert f"{option} requires --engine docker: the local engine has a cache of its own" in output.err
    assert "BUILDTOOL_CACHE" in output.err
    assert left(project) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("type=ftp", "type is missing or unknown"),
        ("ref=registry.example/x", "type is missing or unknown"),
        ("type=registry", "ref is missing"),
        ("type=local", "src or dest is missing"),
        ("", "not a cache"),
        ("a b", "not an image reference"),
    ],
)
def test_caches_that_are_none(text: str, problem: str) -> None:
    """The value is compared with the types that BuildKit has."""
    with pytest.raises(UsageError, match=problem):
        check_cache(text)


@pytest.mark.parametrize(
    "text",
    ["type=registry,ref=r.example/c:1,mode=max", "type=local,src=cache", "type=gha,scope=x", "r.example/c:1"],
)
def test_caches_of_buildx(text: str) -> None:
    """Values go to buildx as they are."""
    assert check_cache(text) == text


def test_cache_of_github_needs_its_variables() -> None:
    """Without them, buildx leaves such a cache out without a word."""
    caches = ["type=gha,scope=x"]
    assert "ACTIONS_RUNTIME_TOKEN" in next(explain_caches(caches, {}))
    assert "ACTIONS_RESULTS_URL" in next(explain_caches(caches, {"ACTIONS_RUNTIME_TOKEN": "x"}))
    both = {"ACTIONS_RUNTIME_TOKEN": "x", "ACTIONS_CACHE_URL": "https://cache.example"}
    assert list(explain_caches(caches, both)) == []
    assert list(explain_caches(["type=local,src=x"], {})) == []


def test_option_is_what_was_read() -> None:
    """What the embedded engine writes and what buildx is told are the same."""
    texts = ["manifest:a=b", "manifest[linux/arm64]:a=b=c:d", "index-descriptor:a="]
    assert [item.option for text in texts for item in parse_annotation(text)] == texts
    assert [item.option for item in parse_annotation("a=b")] == ["manifest:a=b"]


@pytest.mark.parametrize("field", ["secret_access_key", "access_key_id", "session_token", "token"])
def test_secrets_of_caches_are_shown_nowhere(field: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in an error nor in the command line that -v logs."""
    for text in (f"type=s33,{field}=HUNTER2", f"type=registry,{field}=HUNTER2", f"{field}=HUNTER2\x1b"):
        with pytest.raises(UsageError) as caught:
            check_cache(text)
        assert "HUNTER2" not in str(caught.value)
    with caplog.at_level("DEBUG", logger="buildtool.core.process"):
        Runner().run(["true", "--cache-to", f"type=s3,{field}=HUNTER2,bucket=b"])
    assert "bucket=b" in caplog.text
    assert "HUNTER2" not in caplog.text
