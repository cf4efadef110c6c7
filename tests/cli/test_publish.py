# SPDX-License-Identifier: Apache-2.0
"""`publish` and `verify IMAGE`: what is written, accepted and refused, and what a registry does wrong."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs.cli import check_error
from labs.image import make_base, make_programs_image
from labs.registry import (
    FaultyRegistry,
    ReferrersRegistry,
    SmallRegistry,
    faulty,
    fill,
    log_in,
    run_registry,
)
from labs.sig import copy_test_key, other_key, sign, unsigned
from labs.sig import test_key as alice

from buildtool.cli.main import run
from buildtool.image.metadata import OBJECTS_DIRECTORY
from buildtool.oci.tarwriter import TarEntry
from buildtool.oci.write import ImageSet, write_archive
from buildtool.publish.bundle import MEDIA_BUNDLE
from buildtool.publish.simplesigning import MEDIA_PAYLOAD, SIGNATURE

pytestmark = pytest.mark.usefixtures("quick_registry")
Capture = pytest.CaptureFixture[str]
TRUST = ("--trust", "alice.pub")
KEY = ("--key", "alice.pem")


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_test_key(tmp_path)
    other = other_key()
    Path("alice.pub").write_bytes(alice().public.pem)
    Path("other.pub").write_bytes(other.public.pem)
    Path("other.pem").write_bytes(other.to_pem(None))
    Path("other.pem").chmod(0o600)


@pytest.fixture(params=[SmallRegistry, ReferrersRegistry], ids=["fallback tag", "referrers API"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a registry of each of the two kinds."""
    with run_registry(request.param) as found:
        yield found


def image_of(**objects: bytes) -> ImageSet:
    """Return an image for amd64 with *objects*, by default with one that alice signed."""
    named = {f"{name}.bpf.o": data for name, data in objects.items()} or {"x.bpf.o": sign()}
    return make_programs_image(named, ["amd64"])


def two_platforms() -> ImageSet:
    """Return an index of two images without objects."""
    return make_programs_image({}, ["amd64", "arm64"])


def manifests(suffix: str) -> dict[str, Any]:
    """Return the manifests whose tag ends in *suffix*."""
    return {
        name: json.loads(data) for name, (_, data) in SmallRegistry.manifests.items() if name.endswith(suffix)
    }


def bundles() -> list[dict[str, Any]]:
    """Return all manifests of bundles in the registry."""
    found = (json.loads(data) for name, (_, data) in SmallRegistry.manifests.items() if ":" in name)
    return [content for content in found if content.get("artifactType") == MEDIA_BUNDLE]


def decisions(capsys: Capture) -> list[tuple[str, str]]:
    """Return what was decided about the image, then about each object."""
    lines = json.loads(capsys.readouterr().out)
    return [
        (line.get("object", "image"), line.get("reason", line.get("decision", "error"))) for line in lines
    ]


def test_signatures_of_index_and_platforms(address: str, capsys: Capture) -> None:
    """Each manifest has a payload that names it, and a bundle whose subject is it; both verify by the key."""
    images, reference = fill(address, two_platforms())
    assert run(["publish", reference, *KEY, "--json"]) == 0
    digests = [f"sha256:{document.digest}" for document in (images.top, *images.manifests)]
    told = json.loads(capsys.readouterr().out)
    assert (told["signed"], told["written"], told["keyId"]) == (digests, 6, alice().key_id)
    signed = manifests(".sig")
    assert set(signed) == {f"{digest.replace(':', '-')}.sig" for digest in digests}
    for name, content in signed.items():
        (layer,) = content["layers"]
        assert layer["mediaType"] == MEDIA_PAYLOAD
        payload = SmallRegistry.blobs[layer["digest"]]
        critical = json.loads(payload)["critical"]
        assert critical["image"]["docker-manifest-digest"].replace(":", "-") == name.removesuffix(".sig")
        assert critical["identity"]["docker-reference"] == f"{address}/base"
        assert alice().public.verifies(b64decode(layer["annotations"][SIGNATURE]), payload)
    found = bundles()
    assert sorted(content["subject"]["digest"] for content in found) == sorted(digests)
    for content in found:
        bundle = json.loads(SmallRegistry.blobs[content["layers"][0]["digest"]])
        assert bundle["verificationMaterial"]["tlogEntries"] == []
        envelope = bundle["dsseEnvelope"]
        statement = b64decode(envelope["payload"])
        message = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(statement), statement)
        assert alice().public.verifies(b64decode(envelope["signatures"][0]["sig"]), message)
        assert (
            f"sha256:{json.loads(statement)['subject'][0]['digest']['sha256']}"
            == content["subject"]["digest"]
        )


def test_only_a_registry_without_the_api_gets_the_fallback_tag() -> None:
    """The tag lists the bundle for clients; where the registry lists it, no tag is made."""
    for kind, expected in ((SmallRegistry, 1), (ReferrersRegistry, 0)):
        with run_registry(kind) as address:
            images, reference = fill(address, image_of())
            assert run(["publish", reference, *KEY]) == 0
            index = manifests(f"sha256-{images.top.digest}")
            assert len(index) == expected
            for content in index.values():
                (entry,) = content["manifests"]
                assert entry["artifactType"] == MEDIA_BUNDLE


def test_publish_again_changes_nothing(address: str, capsys: Capture) -> None:
    """The second run finds its own signatures. The registry has the same documents."""
    _, reference = fill(address, image_of())
    assert run(["publish", reference, *KEY]) == 0
    before = dict(SmallRegistry.manifests)
    capsys.readouterr()
    assert run(["publish", reference, *KEY]) == 0
    assert "no new signature" in capsys.readouterr().out
    assert SmallRegistry.manifests == before


def test_publish_finishes_what_failed(capsys: Capture) -> None:
    """A run that ended after the payload adds the bundle only."""
    with run_registry() as address:
        _, reference = fill(address, image_of())
        assert run(["publish", reference, *KEY]) == 0
        for name in [
            name for name in SmallRegistry.manifests if name.startswith("sha256-") and "." not in name
        ]:
            del SmallRegistry.manifests[name]
        capsys.readouterr()
        assert run(["publish", reference, *KEY, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["written"] == 1


def test_two_keys_sign(address: str, capsys: Capture) -> None:
    """The second signer's payload stands beside the first one's. A threshold of two accepts both only."""
    _, reference = fill(address, image_of())
    assert run(["publish", reference, *KEY]) == 0
    assert run(["trust", "add", "alice.pub", "--policy", "policy.json"]) == 0
    assert run(["trust", "add", "other.pub", "--policy", "policy.json"]) == 0
    policy = json.loads(Path("policy.json").read_text()) | {"threshold": 2}
    Path("policy.json").write_text(json.dumps(policy))
    capsys.readouterr()
    verify = ["verify", reference, "--trust", "policy.json", "--json"]
    assert run(verify) == 3
    assert decisions(capsys) == [("image", "below-threshold")]
    assert run(["publish", reference, "--key", "other.pem"]) == 0
    assert [len(content["layers"]) for content in manifests(".sig").values()] == [2]
    capsys.readouterr()
    assert run(verify) == 3
    # The object has alice's signature alone.
    assert decisions(capsys) == [("image", "accepted"), ("x.bpf.o", "below-threshold")]


def test_verify_accepts_image_and_objects(address: str, capsys: Capture) -> None:
    """By tag and by digest; each object of each platform has a line."""
    images = image_of(x=sign(), y=sign())
    _, reference = fill(address, images)
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    for name in (reference, f"{address}/base:1"):
        assert run(["verify", name, *TRUST]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].endswith(f": accepted  key {alice().key_id[:16]}  sha256:{images.top.digest}")
        assert [line.split(": ")[1] for line in lines[1:]] == [
            "linux/amd64 x.bpf.o",
            "linux/amd64 y.bpf.o",
        ]


def test_unsigned_image_is_refused(address: str, capsys: Capture) -> None:
    """Signed objects do not replace the signature of the image, unless they are all that is asked for."""
    _, reference = fill(address, image_of())
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert decisions(capsys) == [("image", "unsigned")]
    assert run(["verify", reference, *TRUST, "--json", "--objects-only"]) == 0
    assert decisions(capsys) == [("x.bpf.o", "accepted")]


def test_other_key_is_refused(address: str, capsys: Capture) -> None:
    """A signature of a key that is not trusted counts for nothing."""
    _, reference = fill(address, image_of())
    assert run(["publish", reference, "--key", "other.pem"]) == 0
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert decisions(capsys) == [("image", "unknown-key")]


def test_unsigned_object_is_refused(address: str, capsys: Capture) -> None:
    """A valid signature of the image does not cover an object without its own, nor one by another key."""
    _, reference = fill(address, image_of(x=sign(), y=unsigned(), z=sign(key=other_key())))
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert decisions(capsys) == [
        ("image", "accepted"),
        ("x.bpf.o", "accepted"),
        ("y.bpf.o", "unsigned"),
        ("z.bpf.o", "unknown-key"),
    ]


def test_object_of_another_platform_is_refused(address: str, capsys: Capture) -> None:
    """Each object is verified for the platform of its image."""
    images = make_programs_image({"x.bpf.o": sign()}, ["amd64", "arm64"])
    _, reference = fill(address, images)
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert decisions(capsys) == [
        ("image", "accepted"),
        ("x.bpf.o", "accepted"),
        ("x.bpf.o", "wrong-platform"),
    ]


def test_link_in_place_of_an_object_is_an_error(address: str, capsys: Capture) -> None:
    """What cannot be verified is not passed over."""
    place = OBJECTS_DIRECTORY.strip("/")
    link = TarEntry(path=f"{place}/y.bpf.o", kind=b"2", target="/tmp/y", mode=0o777)
    _, reference = fill(address, make_programs_image({"x.bpf.o": sign()}, ["amd64"], link))
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 1
    assert decisions(capsys) == [("image", "accepted"), ("y.bpf.o", "error"), ("x.bpf.o", "accepted")]


def move_signatures(old: str, new: str) -> None:
    """Copy everything that belongs to the image of digest *old* to that of *new*, as an attacker would."""
    for name in [name for name in SmallRegistry.manifests if name.startswith(f"sha256-{old}")]:
        SmallRegistry.manifests[name.replace(old, new)] = SmallRegistry.manifests[name]
    for name, (kind, data) in list(SmallRegistry.manifests.items()):
        content = json.loads(data)
        if content.get("subject", {}).get("digest") == f"sha256:{old}":
            content["subject"]["digest"] = f"sha256:{new}"
            changed = json.dumps(content).encode()
            digest = f"sha256:{hashlib.sha256(changed).hexdigest()}"
            SmallRegistry.manifests[digest] = (kind, changed)
            index = SmallRegistry.manifests.get(f"sha256-{new}")
            if index:
                text = index[1].replace(name.encode(), digest.encode())
                SmallRegistry.manifests[f"sha256-{new}"] = (index[0], text)


def test_signatures_of_another_image_are_refused(address: str, capsys: Capture) -> None:
    """Who may write to the repository puts a release's signatures beside another image."""
    good, reference = fill(address, image_of())
    assert run(["publish", reference, *KEY]) == 0
    other, reference = fill(address, image_of(x=sign(), old=sign()))
    move_signatures(good.top.digest, other.top.digest)
    capsys.readouterr()
    assert run(["verify", reference, *TRUST, "--json"]) == 3
    assert decisions(capsys) == [("image", "digest-mismatch")]
    assert run(["verify", reference, *TRUST]) == 3
    assert "hint: somebody copied signatures" in capsys.readouterr().err


def test_no_hint_lets_foreign_images_be_signed(address: str, capsys: Capture) -> None:
    """Signing what nobody trusted vouches for would make the next verification accept it."""
    _, reference = fill(address, image_of())
    write_archive(Path("image.tar"), image_of(), "demo:1")
    assert run(["publish", "image.tar", *KEY, "--bundle", "image.sig"]) == 0
    write_archive(Path("other.tar"), image_of(x=sign(), y=sign()), "demo:1")
    assert run(["verify", reference, *TRUST]) == 3
    assert "buildtool publish IMAGE --key SIGNER adds" in capsys.readouterr().err
    assert run(["publish", reference, "--key", "other.pem"]) == 0
    capsys.readouterr()
    for arguments, hint in (
        ([reference], "--trust names the public keys of the signers"),
        (["other.tar", "--bundle", "image.sig"], "name the bundle that was written for this image"),
        (["image.tar"], "--bundle FILE names the signature of a file"),
    ):
        assert run(["verify", *arguments, *TRUST]) == 3
        errors = capsys.readouterr().err
        assert f"hint: {hint}" in errors
        assert "--key SIGNER" not in errors


def test_inspect_reads_registries(address: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As verify and sbom do; an engine is asked first, if one answers."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    _, reference = fill(address, image_of())
    capsys.readouterr()
    assert run(["inspect", reference, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["image"], told["objects"][0]["name"]) == (reference, "x.bpf.o")
    assert run(["inspect", reference, "--capabilities"]) == 0
    capsys.readouterr()
    assert run(["inspect", f"{address}/base:none"]) == 1
    check_error(capsys, "not found (404)")


def test_either_form_suffices(address: str, capsys: Capture) -> None:
    """Payload or bundle alone is a signature: other tools write one of them."""
    images, reference = fill(address, image_of())
    assert run(["publish", reference, *KEY]) == 0
    tag = f"sha256-{images.top.digest}.sig"
    kept = SmallRegistry.manifests.pop(tag)
    capsys.readouterr()
    assert run(["verify", reference, *TRUST]) == 0
    SmallRegistry.manifests[tag] = kept
    for name, (_, data) in list(SmallRegistry.manifests.items()):
        if json.loads(data).get("subject") or name == f"sha256-{images.top.digest}":
            del SmallRegistry.manifests[name]
    assert run(["verify", reference, *TRUST]) == 0


def damage(what: str, digest: str) -> None:
    """Replace a part of the signatures of the image of *digest* by something else."""
    tag = f"sha256-{digest}.sig"
    kind, data = SmallRegistry.manifests[tag]
    content = json.loads(data)
    layer = content["layers"][0]
    if what == "signature":
        layer["annotations"][SIGNATURE] = b64encode(bytes(64)).decode()
    elif what == "text":
        layer["annotations"][SIGNATURE] = "é"
    elif what == "no layers":
        content["layers"] = 7
    elif what == "payload":
        SmallRegistry.blobs[layer["digest"]] = b"x" * layer["size"]
    elif what == "large":
        large = b"{" + b" " * 70_000 + b"}"
        layer["digest"] = f"sha256:{hashlib.sha256(large).hexdigest()}"
        SmallRegistry.blobs[layer["digest"]] = large
    SmallRegistry.manifests[tag] = (kind, json.dumps(content).encode() if what != "list" else b"[]")
    for name, (_, document) in list(SmallRegistry.manifests.items()):
        if name.startswith("sha256:") and (found := json.loads(document)).get("subject"):
            SmallRegistry.blobs[found["layers"][0]["digest"]] = b"no bundle"


@pytest.mark.parametrize("what", ["signature", "text", "no layers", "payload", "large", "list"])
def test_damaged_signatures_count_for_nothing(what: str, address: str, capsys: Capture) -> None:
    """No damage is a traceback, and none an acceptance."""
    images, reference = fill(address, image_of())
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    damage(what, images.top.digest)
    # A manifest that is none at all is the registry's fault; the others are no signatures of a trusted key.
    assert run(["verify", reference, *TRUST]) == (1 if what == "list" else 3)
    output = capsys.readouterr()
    assert "accepted" not in output.out
    expected = {"list": "not a manifest", "signature": "unknown-key"}.get(what, "unsigned")
    assert expected in output.out + output.err


def test_foreign_signatures_stay(address: str) -> None:
    """A payload of another tool, with annotations of its own, is kept when ours is added."""
    images, reference = fill(address, image_of())
    blob = b'{"critical":{}}'
    digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    SmallRegistry.blobs[digest] = blob
    foreign = {"mediaType": MEDIA_PAYLOAD, "digest": digest, "size": len(blob), "annotations": {"a": "b"}}
    tag = f"sha256-{images.top.digest}.sig"
    body = json.dumps({"schemaVersion": 2, "layers": [foreign]}).encode()
    SmallRegistry.manifests[tag] = ("application/vnd.oci.image.manifest.v1+json", body)
    assert run(["publish", reference, *KEY]) == 0
    layers = manifests(tag)[tag]["layers"]
    assert layers[0] == foreign
    assert len(layers) == 2


def test_archive_with_its_bundle(capsys: Capture) -> None:
    """An archive holds no signature: a file beside it does. Of another archive it is refused."""
    write_archive(Path("image.tar"), image_of(), "demo:1")
    write_archive(Path("other.tar"), image_of(x=sign(), y=sign()), "demo:1")
    assert run(["publish", "image.tar", *KEY, "--bundle", "image.sig"]) == 0
    capsys.readouterr()
    assert run(["verify", "image.tar", *TRUST, "--bundle", "image.sig", "--json"]) == 0
    assert decisions(capsys) == [("image", "accepted"), ("x.bpf.o", "accepted")]
    assert run(["verify", "other.tar", *TRUST, "--bundle", "image.sig", "--json"]) == 3
    assert decisions(capsys) == [("image", "digest-mismatch")]
    assert run(["verify", "image.tar", *TRUST, "--json"]) == 3
    assert decisions(capsys) == [("image", "unsigned")]
    assert run(["verify", "image.tar", *TRUST, "--objects-only"]) == 0
    capsys.readouterr()
    assert run(["publish", "image.tar", *KEY, "--bundle", "image.sig"]) == 1
    assert "hint: --force replaces it" in capsys.readouterr().err
    assert run(["publish", "image.tar", *KEY, "--bundle", "image.sig", "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["publish", "image.tar", *KEY], 2, "a file, which has no place for a signature"),
        (["publish", "demo:1", *KEY], 2, "demo:1: no such file, and not REGISTRY/NAME:TAG"),
        (["publish", "demo:1", *KEY, "--bundle", "a.sig"], 2, "demo:1: no such file, and not"),
        (["publish", "none.tar", *KEY, "--bundle", "a.sig"], 2, "none.tar: no such file, and not"),
        (["publish", "x.bpf.o", *KEY], 2, "x.bpf.o: an object, not an image"),
        (["publish", "x.bpf.o", *KEY, "--bundle", "a.sig"], 2, "x.bpf.o: an object, not an image"),
        (["publish", "image.tar", *KEY, "--bundle", "-"], 2, "'-': cannot write there"),
        (["sbom", "none.tar"], 2, "none.tar: no such file, and not REGISTRY/NAME:TAG"),
        (["publish", "image.tar", *KEY, "--bundle", "alice.pub"], 1, "alice.pub: already exists"),
        (["verify", "demo:1", *TRUST], 2, "demo:1: no such file, and not REGISTRY/NAME:TAG"),
        (["verify", "image.tar", "image.tar", *TRUST, "--bundle", "alice.pub"], 2, "one image"),
        (["verify", "image.tar", *TRUST, "--bundle", "alice.pub"], 1, "alice.pub: not a bundle"),
        (["verify", "image.tar", *TRUST, "--platform", "arm64"], 2, "--platform is for objects"),
        (["verify", "image.tar", *TRUST, "--state", "state"], 2, "--state is for objects"),
    ],
)
def test_usage(arguments: list[str], code: int, text: str, capsys: Capture) -> None:
    """What contradicts itself is one line, before anything is written."""
    write_archive(Path("image.tar"), image_of(), "demo:1")
    Path("x.bpf.o").write_bytes(sign())
    assert run(arguments) == code
    check_error(capsys, text)


def test_image_without_objects(address: str, capsys: Capture) -> None:
    """An image of others has nothing that buildtool could vouch for."""
    _, reference = fill(address, two_platforms())
    assert run(["publish", reference, *KEY]) == 0
    capsys.readouterr()
    assert run(["verify", reference, *TRUST]) == 1
    check_error(capsys, "no objects in /usr/lib/buildtool/objects")


def test_registry_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """429 is no answer. Retry-After is obeyed, up to a minute."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    with faulty("429", times=2) as address:
        _, reference = fill(address, image_of())
        assert run(["publish", reference, *KEY]) == 0
    assert len(pauses) == 2
    pauses.clear()
    monkeypatch.setattr(FaultyRegistry, "_misbehave", busy)
    with faulty("429", times=1) as address:
        _, reference = fill(address, image_of())
        assert run(["publish", reference, *KEY]) == 0
    assert pauses == [7]


def busy(self: FaultyRegistry) -> bool:
    """Answer that there are too many requests."""
    self._body()
    self._answer(429, Retry_After="7")
    return False


@pytest.mark.parametrize("fault", ["403", "405", "500", "cut"])
def test_signature_that_cannot_be_written(
    fault: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line says what the registry answered."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with faulty(fault, after=4) as address:
        _, reference = fill(address, image_of())
        assert run(["publish", reference, *KEY]) == 1
    check_error(capsys, f"registry {address}: ")


def test_login_is_used(tmp_path: Path) -> None:
    """Who published is who logged in; the password goes to no other place."""
    with faulty("bearer") as address:
        log_in(tmp_path, address)
        _, reference = fill(address, image_of())
        assert run(["publish", reference, *KEY]) == 0
        assert run(["verify", reference, *TRUST]) == 0


def test_key_of_the_configuration(address: str, capsys: Capture) -> None:
    """publish.key comes before sign.key, and --key before both."""
    Path("buildtool.toml").write_text('[sign]\nkey = "alice.pem"\n[publish]\nkey = "other.pem"\n')
    _, reference = fill(address, image_of())
    assert run(["publish", reference]) == 0
    capsys.readouterr()
    assert run(["verify", reference, "--trust", "other.pub", "--json"]) == 3
    assert decisions(capsys) == [("image", "accepted"), ("x.bpf.o", "unknown-key")]


OBJECTS = OBJECTS_DIRECTORY.strip("/")


@pytest.mark.parametrize(
    "entries",
    [
        [TarEntry(path=f"{OBJECTS}/evil", data=unsigned())],
        [
            TarEntry(path="x", kind=b"2", target=OBJECTS, mode=0o777),
            TarEntry(path="x/evil.bpf.o", data=unsigned()),
        ],
        [
            TarEntry(path="mine/objects/evil.bpf.o", data=unsigned()),
            TarEntry(path="usr/lib/buildtool", kind=b"2", target="/mine", mode=0o777),
        ],
    ],
    ids=["another name", "through a link", "a link above"],
)
def test_what_the_loader_reads_is_verified(entries: list[TarEntry], capsys: Capture) -> None:
    """Every file in the loader's directory counts, by whichever path a layer puts it there."""
    images = make_programs_image({"x.bpf.o": sign()}, ["amd64"], *entries)
    write_archive(Path("image.tar"), images, "demo:1")
    # A link in place of the directory hides all objects: the loader would read somebody else's.
    hidden = entries[-1].path == "usr/lib/buildtool"
    assert run(["verify", "image.tar", *TRUST, "--objects-only"]) == (1 if hidden else 3)
    output = capsys.readouterr()
    assert f"{OBJECTS_DIRECTORY}: error" in output.out if hidden else "evil" in output.out


def test_loader_that_takes_other_objects(capsys: Capture) -> None:
    """An entrypoint with a directory or keys of its own is not the loader that was verified for."""
    place = TarEntry(path=f"{OBJECTS}/x.bpf.o", data=sign())
    for option in ("--objects", "--trust=/mine"):
        command = ["/sbin/tini", "-g", "--", "/usr/bin/verify-and-load", option, "/mine"]
        write_archive(Path("image.tar"), make_base([place], ["amd64"], command), "demo:1")
        assert run(["verify", "image.tar", *TRUST, "--objects-only"]) == 1
        assert f"its loader is started with {option}" in capsys.readouterr().out
        Path("image.tar").unlink()


def test_index_whose_digests_are_addresses(address: str, capsys: Capture) -> None:
    """A digest becomes a part of addresses that get the login, so it must be one."""
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": "sha256:x/../../../other/repo/manifests/latest?a=",
        "size": 3,
    }
    data = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    SmallRegistry.manifests["1"] = ("application/vnd.oci.image.index.v1+json", data)
    before = dict(SmallRegistry.manifests)
    assert run(["publish", f"{address}/victim:1", *KEY]) == 1
    check_error(capsys, "not an index of images")
    assert SmallRegistry.manifests == before


@pytest.mark.parametrize("layers", [[{}], 5, [{"digest": "sha256:x", "size": 1}], [7]])
def test_manifest_of_payloads_that_is_none(layers: Any, address: str) -> None:
    """What is no descriptor is left out of the manifest that we write."""
    images, reference = fill(address, image_of())
    tag = f"sha256-{images.top.digest}.sig"
    body = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
    SmallRegistry.manifests[tag] = ("application/vnd.oci.image.manifest.v1+json", body)
    assert run(["publish", reference, *KEY]) == 0
    assert len(manifests(tag)[tag]["layers"]) == 1
    assert run(["verify", reference, *TRUST]) == 0


@pytest.mark.parametrize(("before", "reason"), [(15, "accepted"), (16, "unknown-key")])
def test_bundle_with_very_many_signatures(before: int, reason: str, capsys: Capture) -> None:
    """Sixteen of them are looked at, so that who writes a bundle cannot make a verifier work for minutes."""
    write_archive(Path("image.tar"), image_of(), "demo:1")
    assert run(["publish", "image.tar", *KEY, "--bundle", "good.json"]) == 0
    bundle = json.loads(Path("good.json").read_text())
    good = bundle["dsseEnvelope"]["signatures"]
    bad = {"keyid": "", "sig": b64encode(bytes(64)).decode()}
    bundle["dsseEnvelope"]["signatures"] = [bad] * before + good
    Path("many.json").write_text(json.dumps(bundle))
    capsys.readouterr()
    code = 0 if reason == "accepted" else 3
    assert run(["verify", "image.tar", *TRUST, "--bundle", "many.json", "--json"]) == code
    assert decisions(capsys)[0] == ("image", reason)
