# SPDX-License-Identifier: Apache-2.0
"""Images for bpfman and Inspektor Gadget: what `build` and `publish` write, sign and refuse."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.cli import check_error, left
from labs.formats import COUNTER, DISAGREES, LABELS, add_formats, read_documents
from labs.image import BASE, make_base, read_image
from labs.registry import SmallRegistry, fill, pushed, run_registry
from labs.sig import copy_test_key, sign
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.describe import MapInfo, ObjectContents, ProgramInfo
from buildtool.objects.types import MAP_TYPES, SECTION_TYPES
from buildtool.oci.tarwriter import TarEntry, pack_tar
from buildtool.oci.write import ImageSet, gzip_layer, make_image_set, write_archive
from buildtool.publish.bpfman import bytecode_labels
from buildtool.publish.bundle import MEDIA_BUNDLE

Capture = pytest.CaptureFixture[str]
ARCHES = ("--arch", "amd64", "--arch", "arm64")
BUILD = ("build", "--engine", "local", *ARCHES)
OBJECT = "usr/lib/buildtool/objects/counter.bpf.o"
GADGET = "application/vnd.gadget."


@pytest.fixture
def counter(project: Path) -> Path:
    """Let the project have one object and build images of all formats."""
    add_formats(project)
    return project


@pytest.fixture
def address(quick_registry: None) -> Iterator[str]:
    """Run a registry."""
    with run_registry() as found:
        yield found


def digest_of(data: bytes) -> str:
    """Return the digest of *data* as documents write it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def set_config(project: Path, old: str, new: str) -> None:
    """Change a line of buildtool.toml."""
    path = project / "buildtool.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_bytecode_image_of_every_architecture(counter: Path, capsys: Capture) -> None:
    """One manifest for each; the layer has the object of the runtime image and nothing else."""
    write_archive(counter / "base.tar", make_base(architectures=list(PLATFORMS)), "base", replace=True)
    arch = [word for name in PLATFORMS for word in ("--arch", name)]
    assert run(["build", "--engine", "local", *arch, "--output", "out.tar", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == "out.tar"
    assert [(each["format"], each["name"], each["file"]) for each in told["others"]] == [
        ("bpfman", "counter", "out-bpfman-counter.tar"),
        ("gadget", "counter", "out-gadget-counter.tar"),
    ]
    runtime = read_image(Path("out.tar"))
    index, entries = read_documents(Path("out-bpfman-counter.tar"))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert (
        digest_of(json.dumps(index, sort_keys=True, separators=(",", ":")).encode())
        == (told["others"][0]["digest"])
    )
    found = [entry["platform"] for entry in index["manifests"]]
    assert found == [{"architecture": name, "os": "linux"} for name in sorted(PLATFORMS)]
    for arch_name, (manifest, config, (layer,)) in zip(sorted(PLATFORMS), entries, strict=True):
        assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            (member,) = tar.getmembers()
            file = tar.extractfile(member)
            assert file
            data = file.read()
        assert member.name == "counter.bpf.o"
        assert data == runtime[PLATFORMS[arch_name].oci][1][OBJECT].data
        settings = json.loads(config)
        assert (settings["architecture"], settings["os"]) == (arch_name, "linux")
        labels = settings["config"]["Labels"]
        assert {name: labels[name] for name in LABELS} == LABELS
        assert labels["buildtool.object-digest"] == digest_of(data)
        assert labels["org.opencontainers.image.title"] == "plant/agent"
        assert "buildtool.objects" not in labels


def test_gadget_of_the_architectures_that_it_runs_on(
    counter: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    """Two manifests; the layer is the object as it is. Other architectures are named."""
    write_archive(counter / "base.tar", make_base(architectures=list(PLATFORMS)), "base", replace=True)
    arch = [word for name in ("arm64", "s390x", "amd64") for word in ("--arch", name)]
    set_config(
        counter, "[publish]", '[image]\nlabels = { "org.opencontainers.image.url" = "u: #1" }\n[publish]'
    )
    assert run(["build", "--engine", "local", *arch, "--output", "out.tar"]) == 0
    assert "gadget  out-gadget-counter.tar\n" in capsys.readouterr().out
    assert caplog.messages == ["counter.bpf.o: no gadget image for s390x: amd64 and arm64 only"]
    runtime = read_image(Path("out.tar"))
    index, entries = read_documents(Path("out-gadget-counter.tar"))
    annotations = {
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        "org.opencontainers.image.title": "counter",
        "org.opencontainers.image.url": "u: #1",
        "org.opencontainers.image.version": "1.2.0",
    }
    assert index["annotations"] == annotations
    assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    assert all(entry["annotations"] == annotations for entry in index["manifests"])
    for name, (manifest, config, (layer,)) in zip(("amd64", "arm64"), entries, strict=True):
        assert manifest["artifactType"] == GADGET + "v1+binary"
        assert manifest["config"]["mediaType"] == GADGET + "config.v1+yaml"
        assert manifest["config"]["annotations"] == manifest["annotations"] == annotations
        assert manifest["layers"][0]["mediaType"] == GADGET + "ebpf.program.v1+binary"
        assert config == b'name: "counter"\nhomepageURL: "u: #1"\n'
        assert layer == runtime[PLATFORMS[name].oci][1][OBJECT].data
    # `ig image import` finds an image by the whole name.
    with tarfile.open("out-gadget-counter.tar") as tar:
        file = tar.extractfile("index.json")
        assert file
        (entry,) = json.loads(file.read())["manifests"]
    whole = "docker.io/plant/agent:1.2.0-gadget-counter"
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == whole


def test_metadata_of_the_project(counter: Path, capsys: Capture) -> None:
    """gadget.yaml goes into the image byte for byte; without such a file, nothing is built."""
    set_config(counter, "[publish]", '[publish]\ngadget = "gadget.yaml"')
    assert run([*BUILD, "--output", "out.tar"]) == 1
    check_error(capsys, "gadget.yaml: ")
    Path("gadget.yaml").write_bytes(b"\xff")
    assert run([*BUILD, "--output", "out.tar"]) == 2
    check_error(capsys, "publish.gadget: gadget.yaml: not UTF-8")
    text = b"name: counter\ndatasources:\n  totals: {}\n"
    Path("gadget.yaml").write_bytes(text)
    assert run([*BUILD, "--output", "out.tar"]) == 0
    _, entries = read_documents(Path("out-gadget-counter.tar"))
    assert [config for _, config, _ in entries] == [text, text]


def test_layouts_and_the_same_bytes(counter: Path) -> None:
    """Directories hold the same images as archives; a second build gives the same."""
    assert run([*BUILD, "--output", "out.tar"]) == 0
    for _ in range(2):
        assert run([*BUILD, "--output", "type=oci,tar=false,dest=out", "--force"]) == 0
    assert left(counter) == [
        *("out", "out-bpfman-counter", "out-bpfman-counter.tar", "out-gadget-counter"),
        *("out-gadget-counter.tar", "out.tar"),
    ]
    for kind in ("bpfman", "gadget"):
        name = f"out-{kind}-counter"
        assert read_documents(Path(name)) == read_documents(Path(f"{name}.tar"))


def test_existing_files_end_the_build_before_it_begins(counter: Path, capsys: Capture) -> None:
    """Each file is looked at first. With --force, all are replaced."""
    for taken in ("out.tar", "out-bpfman-counter.tar", "out-gadget-counter.tar"):
        Path(taken).write_text("mine")
        assert run([*BUILD, "--output", "out.tar"]) == 1
        check_error(capsys, f"{taken}: already exists")
        assert left(counter) == [taken]
        if taken != "out-gadget-counter.tar":
            Path(taken).unlink()
    assert run([*BUILD, "--output", "out.tar", "--force"]) == 0
    assert len(read_documents(Path("out-gadget-counter.tar"))[1]) == 2


def test_all_files_or_none(counter: Path, capsys: Capture) -> None:
    """Labels that differ between architectures end the build, and what was there stays."""
    assert run([*BUILD, "--output", "out.tar"]) == 0
    before = {name: Path(name).read_bytes() for name in left(counter)}
    capsys.readouterr()
    (counter / "bpf/counter.bpf.c").write_text(DISAGREES)
    set_config(counter, "[publish]", '[build]\nallow-differences = ["counter.bpf.o:pass"]\n[publish]')
    assert run([*BUILD, "--output", "out.tar", "--force"]) == 1
    check_error(
        capsys,
        "counter.bpf.o: io.ebpf.programs differ between architectures:"
        ' amd64 has {"count":"xdp","enter":"tracepoint","pass":"tc"},'
        ' arm64 has {"count":"xdp","enter":"tracepoint","pass":"xdp"}',
    )
    assert {name: Path(name).read_bytes() for name in left(counter)} == before
    set_config(counter, '"bpfman", ', "")
    assert run([*BUILD, "--output", "out.tar", "--force"]) == 1
    check_error(capsys, "counter.bpf.o: programs differ between architectures: amd64 has {")
    assert {name: Path(name).read_bytes() for name in left(counter)} == before


def test_objects_that_bpfman_cannot_attach(project: Path, capsys: Capture) -> None:
    """Such an object gets no bytecode image; if there is no other, that is an error."""
    add_formats(project)
    (project / "bpf/other.bpf.c").write_text(
        COUNTER.replace('"xdp"', '"socket"')
        .replace('"classifier"', '"socket"')
        .replace('"tracepoint/', '"raw_tp/')
    )
    assert run([*BUILD, "--output", "out.tar"]) == 0
    assert [name for name in left(project) if "other" in name] == ["out-gadget-other.tar"]
    (project / "bpf/counter.bpf.c").unlink()
    capsys.readouterr()
    assert run([*BUILD, "--output", "none.tar"]) == 1
    check_error(capsys, "none.tar: no object for a bpfman image")
    assert [name for name in left(project) if "none" in name] == []


def test_other_outputs_have_the_runtime_image_alone(counter: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A build without --output writes its usual archive."""
    assert run([*BUILD]) == 0
    assert left(counter) == ["agent-1.2.0.oci.tar"]
    assert caplog.messages == []


def test_formats_are_checked(project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the known formats, and the runtime image among them."""
    for text, problem in (
        ("runtime,ko", "'ko' is none of runtime, bpfman, gadget"),
        ("bpfman", "runtime is missing"),
    ):
        monkeypatch.setenv("BUILDTOOL_PUBLISH_FORMATS", text)
        assert run([*BUILD, "--output", "out.tar"]) == 2
        check_error(capsys, problem)
    monkeypatch.setenv("BUILDTOOL_PUBLISH_FORMATS", "runtime,runtime")
    assert run([*BUILD, "--output", "out.tar"]) == 0
    assert left(project) == ["out.tar"]


# -- in a registry


def signatures(digest: str) -> tuple[bool, int]:
    """Return whether the image of *digest* has a tag .sig, and how many bundles refer to it."""
    documents = [json.loads(data) for _, data in SmallRegistry.manifests.values()]
    bundles = {
        json.dumps(document)
        for document in documents
        if document.get("artifactType") == MEDIA_BUNDLE and document["subject"]["digest"] == digest
    }
    return f"{digest.replace(':', '-')}.sig" in SmallRegistry.manifests, len(bundles)


def push(address: str, *more: str) -> list[str]:
    """Return the command that builds and pushes."""
    return [*BUILD, "--push", "--tag", f"{address}/plant/agent:1", *more]


def test_pushed_and_signed(address: str, counter: Path, capsys: Capture) -> None:
    """Beside the runtime image; one bundle each, and a tag .sig for all but bpfman."""
    assert run([*push(address), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["reference"] for each in told["others"]] == [
        f"{address}/plant/agent:1-bpfman-counter",
        f"{address}/plant/agent:1-gadget-counter",
    ]
    for each, has_tag in zip(told["others"], (False, True), strict=True):
        digest, index = pushed(each["reference"].rpartition(":")[2])
        assert digest == each["digest"]
        for name in (digest, *(entry["digest"] for entry in index["manifests"])):
            assert signatures(name) == (has_tag, 1)
    assert signatures(told["digest"])[0]


def test_publish_makes_what_is_missing(address: str, counter: Path, capsys: Capture) -> None:
    """From the runtime image alone, which a build without signatures pushed; a second run changes nothing."""
    set_config(counter, "formats", "# formats")
    assert run(push(address, "--no-sign-image")) == 0
    set_config(counter, "# formats", "formats")
    reference = f"{address}/plant/agent:1"
    capsys.readouterr()
    assert run(["publish", reference, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["format"] for each in told["others"]] == ["bpfman", "gadget"]
    before = dict(SmallRegistry.manifests)
    assert run(["publish", reference]) == 0
    out = capsys.readouterr().out
    assert f"bpfman  {reference}-bpfman-counter@{told['others'][0]['digest']}\n" in out
    # An image of another format is signed, and nothing is made of it.
    for each in told["others"]:
        assert run(["publish", each["reference"], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["others"] == []
    assert run(["publish", f"{address}/plant/agent@{told['digest']}"]) == 0
    assert "no tag, so no images of other formats are made" in capsys.readouterr().err
    assert SmallRegistry.manifests == before


@pytest.mark.parametrize(
    ("objects", "problem"),
    [
        (("x.o", "x.bpf.o"), "two objects would have images called x"),
        (("x.bpf.o", "link.bpf.o"), "link.bpf.o: not a file, or too large"),
    ],
)
def test_images_that_cannot_be_taken_apart(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    objects: tuple[str, ...],
    problem: str,
) -> None:
    """Two objects of one name, or one that is a link: no image is made of any."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUILDTOOL_PUBLISH_FORMATS", "runtime,bpfman")
    copy_test_key(tmp_path)
    place = OBJECT.rpartition("/")[0]
    entries = [
        TarEntry(path=f"{place}/{name}", kind=tarfile.SYMTYPE, target="x.bpf.o")
        if name.startswith("link")
        else TarEntry(path=f"{place}/{name}", data=sign())
        for name in objects
    ]
    _, reference = fill(address, make_base([*BASE, *entries], ["amd64"]))
    assert run(["publish", reference, "--key", "alice.pem"]) == 1
    check_error(capsys, problem)
    assert not [name for name in SmallRegistry.manifests if "-bpfman-" in name]


def test_unsigned_when_that_is_said(address: str, counter: Path) -> None:
    """--no-sign-image counts for all formats."""
    assert run(push(address, "--no-sign-image")) == 0
    assert not [name for name in SmallRegistry.manifests if name.endswith(".sig")]
    assert signatures(pushed("1-gadget-counter")[0]) == (False, 0)


def test_a_failure_after_the_push_is_finished_by_publish(
    quick_registry: None, counter: Path, capsys: Capture
) -> None:
    """The error says what is there, and the hint is the command that makes the rest."""
    with run_registry() as address:
        set_config(counter, "formats", "# formats")
        assert run(push(address)) == 0
        set_config(counter, "# formats", "formats")
        (counter / "bpf/counter.bpf.c").write_text(DISAGREES)
        set_config(counter, "[publish]", '[build]\nallow-differences = ["counter.bpf.o:pass"]\n[publish]')
        capsys.readouterr()
        assert run(push(address)) == 1
        error = capsys.readouterr().err
        assert f"{address}/plant/agent:1: pushed, but not as bpfman and gadget: counter.bpf.o: " in error


def test_tags_have_a_length(address: str, counter: Path, capsys: Capture) -> None:
    """The tag of another format is longer than the project's."""
    tag = f"{address}/plant/agent:{'1' * 120}"
    assert run([*BUILD, "--push", "--tag", tag]) == 2
    check_error(capsys, "-bpfman-counter: a tag has at most 128 letters")
    assert SmallRegistry.manifests == {}


def bytecode(*entries: TarEntry, labels: dict[str, str] | None = None) -> ImageSet:
    """Return a bytecode image with *entries* in its layer."""
    layer = gzip_layer(pack_tar(entries))
    settings = {"config": {"Labels": labels or LABELS}, "history": [{}]}
    return make_image_set([(PLATFORMS["amd64"], settings, [layer])])


@pytest.mark.parametrize(
    ("labels", "has_tag"),
    [(LABELS, False), ({"io.ebpf.bpf_function_name": "pass"}, False), ({"org.example": "1"}, True)],
)
def test_no_payload_beside_bytecode(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, labels: dict[str, str], has_tag: bool
) -> None:
    """Bytecode images of other builders get a bundle alone, too."""
    monkeypatch.chdir(tmp_path)
    copy_test_key(tmp_path)
    images, reference = fill(address, bytecode(TarEntry(path="x.o", data=sign()), labels=labels))
    assert run(["publish", reference, "--key", "alice.pem"]) == 0
    assert signatures(f"sha256:{images.top.digest}") == (has_tag, 1)


def test_verify_looks_into_other_formats(
    address: str, counter: Path, capsys: Capture, tmp_path: Path
) -> None:
    """The image's signature, then the object in it as the other tool loads it."""
    assert run(push(address, "--key", str(copy_test_key(tmp_path)))) == 0
    Path("alice.pub").write_bytes(alice().public.pem)
    assert run(["keygen", "other"]) == 0
    for kind in ("bpfman", "gadget"):
        capsys.readouterr()
        reference = f"{address}/plant/agent:1-{kind}-counter"
        assert run(["verify", reference, "--trust", "alice.pub", "--json"]) == 0
        lines = json.loads(capsys.readouterr().out)
        assert [line["decision"] for line in lines] == ["accepted"] * 3
        assert [line["platform"] for line in lines[1:]] == ["linux/amd64", "linux/arm64"]
        assert run(["verify", reference, "--trust", "keys/other.pub"]) == 3


@pytest.mark.parametrize(
    ("images", "code", "problem"),
    [
        (bytecode(TarEntry(path="x.o", data=sign())), 0, ""),
        (bytecode(TarEntry(path="x.o", data=sign()[:-1] + b"x")), 3, ""),
        (bytecode(TarEntry(path="a.o", data=sign()), TarEntry(path="b.o", data=sign())), 1, "with 2 files"),
        (bytecode(TarEntry(path="d", kind=tarfile.DIRTYPE), TarEntry(path="x.o", data=sign())), 1, "2 files"),
    ],
    ids=["signed", "changed", "two objects", "a directory first"],
)
def test_verify_knows_which_object_is_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    images: ImageSet,
    code: int,
    problem: str,
) -> None:
    """Two releases of bpfman choose another file, so there must be one."""
    monkeypatch.chdir(tmp_path)
    Path("alice.pub").write_bytes(alice().public.pem)
    write_archive(Path("x.tar"), images, "x:1")
    arguments: list[Any] = ["verify", "x.tar", "--objects-only", "--trust", "alice.pub"]
    assert run(arguments) == code
    assert problem in capsys.readouterr().err


# -- labels


def contents(sections: dict[str, str], maps: dict[str, str]) -> ObjectContents:
    """Return contents with programs of *sections* and maps of types, by name."""
    return ObjectContents(
        programs=tuple(
            ProgramInfo(name=name, section=section, type="") for name, section in sections.items()
        ),
        maps=tuple(
            MapInfo(name=name, type=kind, key_size=0, value_size=0, max_entries=0)
            for name, kind in maps.items()
        ),
        helpers=(),
        kfuncs=(),
        license="",
    )


def test_labels_of_all_sections() -> None:
    """Each of libbpf's sections has the type that bpfman's own code gives it, or none."""
    names = {name.removesuffix("+") for name in SECTION_TYPES}
    labels = bytecode_labels(contents({name: f"?{name}" for name in names}, {}))
    found = json.loads(labels["io.ebpf.programs"])
    known = {kind: {name for name, other in found.items() if other == kind} for kind in set(found.values())}
    assert set(known) == {
        *("xdp", "tc", "tcx", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe", "fentry", "fexit"),
        "lsm",
    }
    assert known["tc"] == {"tc", "tc/ingress", "tc/egress", "classifier"}
    assert known["tcx"] == {"tcx/ingress", "tcx/egress"}
    assert known["kretprobe"] == {"kretprobe", "kretprobe.multi"}
    assert {"socket", "tp", "raw_tp", "cgroup/skb", "struct_ops", "ksyscall"} <= names - set(found)


def test_labels_of_all_maps() -> None:
    """Maps of one value for each processor are spelt bpfman's way."""
    labels = bytecode_labels(contents({"x": "xdp"}, {kind: kind for kind in MAP_TYPES}))
    changed = {name: kind for name, kind in json.loads(labels["io.ebpf.maps"]).items() if name != kind}
    assert changed == {
        "percpu_hash": "per_cpu_hash",
        "percpu_array": "per_cpu_array",
        "lru_percpu_hash": "lru_per_cpu_hash",
        "percpu_cgroup_storage": "per_cpu_cgroup_storage",
        "insn_array": "insnarray",
    }
