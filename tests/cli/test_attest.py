# SPDX-License-Identifier: Apache-2.0
"""Bills of materials and provenance: valid, the same bytes each time, and what `verify` makes of them."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from labs.cli import check_error
from labs.image import make_programs_image
from labs.registry import ReferrersRegistry, SmallRegistry, fill, run_registry
from labs.sig import copy_test_key, other_key, sign
from labs.sig import test_key as alice
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from buildtool.cli.main import run
from buildtool.oci.registry import Client, parse_reference
from buildtool.oci.tarwriter import TarEntry
from buildtool.oci.write import ImageSet, write_archive
from buildtool.publish.bundle import MEDIA_BUNDLE, make_statement
from buildtool.publish.inventory import MAX_PACKAGES, ListedPackage
from buildtool.publish.named import BUILD_TYPE, PREDICATE_TYPE
from buildtool.publish.sbom import package_url
from buildtool.publish.sign import signed_manifests, write_statement
from buildtool.signing.keys import SigningKey

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
TRUST = ("--trust", "alice.pub")
KEY = ("--key", "alice.pem")
STATUS = b"Package: tzdata\nVersion: 2026f-0+deb13u1\nArchitecture: all\nDescription: zones\n of the world\n"
CYCLONEDX, SPDX = "https://cyclonedx.org/bom", "https://spdx.dev/Document"


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_test_key(tmp_path)
    Path("alice.pub").write_bytes(alice().public.pem)


@pytest.fixture(params=[SmallRegistry, ReferrersRegistry], ids=["fallback tag", "referrers API"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a registry of each of the two kinds."""
    with run_registry(request.param) as found:
        yield found


def image() -> ImageSet:
    """Return an image with two objects of alice's, and a package of Debian's."""
    package = TarEntry(path="var/lib/dpkg/status.d/tzdata", data=STATUS)
    return make_programs_image({"x.bpf.o": sign(), "y.bpf.o": sign()}, ["amd64"], package)


def statements(kind: str) -> list[dict[str, Any]]:
    """Return the statements of *kind* in the bundles of the registry."""
    found = []
    for name, (_, data) in SmallRegistry.manifests.items():
        content = json.loads(data)
        if ":" in name and content.get("artifactType") == MEDIA_BUNDLE:
            bundle = json.loads(SmallRegistry.blobs[content["layers"][0]["digest"]])
            found.append(json.loads(b64decode(bundle["dsseEnvelope"]["payload"])))
    return [statement for statement in found if statement["predicateType"] == kind]


def test_cyclonedx(capsys: Capture) -> None:
    """The schema accepts it; each object has its digest, its sources and its compiler; two runs are equal."""
    write_archive(Path("image.tar"), image(), "demo:1")
    for name in ("a.json", "b.json"):
        assert run(["sbom", "image.tar", "-o", name]) == 0
    text = Path("a.json").read_text()
    assert Path("b.json").read_text() == text
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    parts = {part["name"]: part for part in found["components"]}
    assert set(parts) == {"x.bpf.o", "y.bpf.o", "tzdata"}
    assert parts["tzdata"]["purl"] == "pkg:deb/debian/tzdata@2026f-0%2Bdeb13u1?arch=all"
    properties = {each["name"]: each["value"] for each in parts["x.bpf.o"]["properties"]}
    assert properties["buildtool:platform"] == "linux/amd64"
    assert properties["buildtool:object-version"] == "3"
    assert capsys.readouterr().out == ""
    for more in ((), ("-o", "-")):
        assert run(["sbom", "image.tar", *more]) == 0
        assert capsys.readouterr().out == text
    assert not Path("-").exists()


def test_spdx() -> None:
    """The library's validator finds nothing, and the image contains each part."""
    write_archive(Path("image.tar"), image(), "demo:1")
    assert run(["sbom", "image.tar", "--format", "spdx", "-o", "a.spdx.json"]) == 0
    assert validate_full_spdx_document(parse_file("a.spdx.json")) == []
    found = json.loads(Path("a.spdx.json").read_text())
    names = {package["name"]: package["SPDXID"] for package in found["packages"]}
    assert {"tzdata", "x.bpf.o", "y.bpf.o"} < names.keys()
    contained = {
        each["relatedSpdxElement"]
        for each in found["relationships"]
        if each["relationshipType"] == "CONTAINS"
    }
    assert {names["tzdata"], names["x.bpf.o"], names["y.bpf.o"]} == contained


def test_spdx_without_its_library(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The hint names the extra."""
    write_archive(Path("image.tar"), image(), "demo:1")
    monkeypatch.setitem(sys.modules, "spdx_tools.spdx.model", None)
    assert run(["sbom", "image.tar", "--format", "spdx"]) == 1
    output = capsys.readouterr()
    assert "spdx-tools: not installed" in output.err
    assert "pip install 'ebpf-buildtool[spdx]'" in output.err


def test_image_of_somebody_else(capsys: Capture) -> None:
    """Without objects, there is nothing that buildtool knows more of than others."""
    write_archive(Path("image.tar"), make_programs_image({}, ["amd64"]), "demo:1")
    assert run(["sbom", "image.tar"]) == 1
    check_error(capsys, "no objects in /usr/lib/buildtool/objects")


def test_documents_are_attached(address: str, capsys: Capture) -> None:
    """Each document is a signed statement about the image; provenance names the objects; twice is once."""
    images, reference = fill(address, image())
    publish = ["publish", reference, *KEY, "--sbom", "cyclonedx", "--provenance", "--json"]
    for _ in range(2):
        capsys.readouterr()
        assert run(publish) == 0
        assert json.loads(capsys.readouterr().out)["attached"] == [CYCLONEDX, PREDICATE_TYPE]
    for kind in (CYCLONEDX, PREDICATE_TYPE):
        (statement,) = statements(kind)
        assert statement["subject"][0]["digest"]["sha256"] == images.top.digest
    (provenance,) = statements(PREDICATE_TYPE)
    assert [each["name"] for each in provenance["subject"]][1:] == [
        "linux/amd64/x.bpf.o",
        "linux/amd64/y.bpf.o",
    ]
    assert provenance["predicate"]["buildDefinition"]["buildType"] == BUILD_TYPE
    layers = json.loads(SmallRegistry.manifests[f"sha256-{images.top.digest}.att"][1])["layers"]
    assert [layer["annotations"]["predicateType"] for layer in layers] == [CYCLONEDX, PREDICATE_TYPE]
    assert run(["verify", reference, *TRUST, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["provenance"] is True


def attach(
    reference: str, subjects: list[dict[str, Any]], key: SigningKey, build_type: str = BUILD_TYPE
) -> None:
    """Attach provenance about *subjects*, signed by *key*."""
    client = Client(reference=parse_reference(reference), actions="pull,push")
    predicate = {"buildDefinition": {"buildType": build_type}}
    statement = make_statement(subjects, PREDICATE_TYPE, predicate)
    write_statement(client, next(signed_manifests(client)), statement, PREDICATE_TYPE, key)


def test_provenance_of_other_objects_is_refused(address: str, capsys: Capture) -> None:
    """A trusted key's provenance that lacks an object of the image contradicts the image."""
    images, reference = fill(address, image())
    assert run(["publish", reference, *KEY]) == 0
    subject = {"name": "image", "digest": {"sha256": images.top.digest}}
    attach(reference, [subject], alice())
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "digest-mismatch"


@pytest.mark.parametrize("case", ["other key", "other image", "other builder"])
def test_provenance_that_says_nothing(case: str, address: str, capsys: Capture) -> None:
    """That of an untrusted key or of another image counts for nothing; another builder names no objects."""
    images, reference = fill(address, image())
    assert run(["publish", reference, *KEY]) == 0
    digest = "0" * 64 if case == "other image" else images.top.digest
    key = other_key() if case == "other key" else alice()
    kind = "https://example.org/builder" if case == "other builder" else BUILD_TYPE
    attach(reference, [{"name": "image", "digest": {"sha256": digest}}], key, kind)
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["provenance"] is (case == "other builder")


def test_documents_need_a_registry(capsys: Capture) -> None:
    """A file holds the signature of an archive, nothing else."""
    write_archive(Path("image.tar"), image(), "demo:1")
    arguments = ["publish", "image.tar", *KEY, "--bundle", "x", "--sbom", "cyclonedx"]
    assert run(arguments) == 2
    check_error(capsys, "--bundle holds a signature alone")


def test_packages_and_labels_of_a_strange_base(capsys: Capture) -> None:
    """A package without a name is none, and nothing in a document reaches the terminal raw."""
    paragraphs = [
        b"Package: \nVersion: 1",
        b"Package: tz\xc2\x9bdata\nVersion: 1",
        b"Package: libc6\nVersion: 2\nArchitecture: amd64",
        b"Package: libc6\nVersion: 2\nArchitecture: i386",
    ]
    status = b"\n\n".join(paragraphs)
    entry = TarEntry(path="var/lib/dpkg/status", data=status)
    write_archive(Path("image.tar"), make_programs_image({"x.bpf.o": sign()}, ["amd64"], entry), "demo:1")
    for kind in ("cyclonedx", "spdx"):
        assert run(["sbom", "image.tar", "--format", kind]) == 0
        output = capsys.readouterr().out
        assert output.isascii()
        Path("a.spdx.json").write_text(output)
    assert validate_full_spdx_document(parse_file("a.spdx.json")) == []


def test_image_of_ten_thousand_files(capsys: Capture) -> None:
    """A base of many files and packages is listed whole; more packages than the limit are an error."""
    files = [TarEntry(path=f"usr/share/doc/{number}", data=b"") for number in range(10_000)]
    for count, code in ((1_000, 0), (MAX_PACKAGES + 1, 1)):
        names = (f"Package: p{number}\nVersion: 1\nArchitecture: all" for number in range(count))
        status = TarEntry(path="var/lib/dpkg/status", data="\n\n".join(names).encode())
        images = make_programs_image({"x.bpf.o": sign()}, ["amd64"], *files, status)
        write_archive(Path("image.tar"), images, "demo:1", replace=True)
        for kind, member in (("cyclonedx", "components"), ("spdx", "packages")):
            assert run(["sbom", "image.tar", "--format", kind]) == code
            if code:
                check_error(capsys, f"the base has more than {MAX_PACKAGES} packages")
            else:
                found = json.loads(capsys.readouterr().out)[member]
                assert len([each for each in found if each["name"].startswith("p")]) == count


def test_a_vendored_library_has_the_address_of_its_release() -> None:
    """The library libbpf is none of Debian's packages, since its sources are the loader's."""
    package = ListedPackage(name="libbpf", version="1.7.0", vendored=True)
    assert package_url(package).to_string() == "pkg:github/libbpf/libbpf@v1.7.0"
