# SPDX-License-Identifier: Apache-2.0
"""Types of kernels without BTF in an image: `load.btf`, signed files of `buildtool btf`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from labs.cli import BUILD, check_error
from labs.image import read_image
from labs.vectors.maps import Btf, plain

from buildtool.cli.main import run

ARCHIVE = Path("agent-1.2.0.oci.tar")
NAME = "5.4.0-150-generic.btf.o"
FILE = Path("types/amd64") / NAME
PLACE = f"usr/lib/buildtool/btf/{NAME}"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def types(project: Path, capsys: Capture) -> Path:
    """Give a project whose image holds the signed types of a kernel; return their file."""
    Path("5.4.0-150-generic.btf").write_bytes(plain(Btf()).part().data)
    assert run(["btf", "--whole", "--arch", "amd64", "--output", "types/amd64", "5.4.0-150-generic.btf"]) == 0
    sign()
    write_key()
    capsys.readouterr()
    return project / FILE


def sign(*more: str) -> None:
    """Sign the types for the project."""
    assert run(["sign", "--force", "--arch", "amd64", *more, str(FILE)]) == 0


def write_key(text: str = 'btf = "types"') -> None:
    """Add *text* to the table [load]."""
    path = Path("buildtool.toml")
    path.write_text(path.read_text() + f"\n[load]\n{text}\n")


def test_the_image_holds_and_uses_the_types(types: Path, capsys: Capture) -> None:
    """The file is in the image as it was signed, and the loader is started with its directory."""
    assert run([*BUILD]) == 0, capsys.readouterr().err
    assert "/btf:ro" not in capsys.readouterr().out
    ((image, tree),) = read_image(ARCHIVE).values()
    assert tree[PLACE].data == types.read_bytes()
    entrypoint = image.config["config"]["Entrypoint"]
    assert entrypoint[entrypoint.index("--btf") + 1] == "/usr/lib/buildtool/btf"
    assert len(image.layers) == 6  # one more than without types


def test_an_image_is_verified_with_its_types(types: Path, capsys: Capture) -> None:
    """`verify IMAGE` reads the types as the loader would, and a bill of materials lists them."""
    assert types.is_file()
    assert run([*BUILD]) == 0
    assert run(["keygen", "other"]) == 0
    public = load_pem_private_key(Path("keys/dev.pem").read_bytes(), None).public_key()
    Path("keys/dev.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    capsys.readouterr()
    for key, code in (("dev", 0), ("other", 3)):
        assert run(["verify", str(ARCHIVE), "--trust", f"keys/{key}.pub", "--objects-only"]) == code
        captured = capsys.readouterr()
        assert NAME in captured.out + captured.err
    assert run(["sbom", str(ARCHIVE)]) == 0
    assert NAME in capsys.readouterr().out


def test_another_file_is_noticed_by_a_rebuild(types: Path, capsys: Capture) -> None:
    """`rebuild --check` compares the types with those of the project."""
    assert run([*BUILD]) == 0
    capsys.readouterr()
    assert run(["rebuild", "--check", str(ARCHIVE)]) in (0, 1)
    assert "another file than here" not in capsys.readouterr().out
    sign("--object-version", "9")
    assert types.is_file()
    capsys.readouterr()
    assert run(["rebuild", "--check", str(ARCHIVE)]) == 1
    assert f"{NAME}: another file than here" in capsys.readouterr().out


def test_types_that_no_start_would_accept(types: Path, capsys: Capture) -> None:
    """An unsigned file, one of another key or name, and one with programs end the build, with the reason."""
    signed = types.read_bytes()
    assert run(["btf", "--whole", "--arch", "amd64", "--output", "types/amd64", "5.4.0-150-generic.btf"]) == 0
    capsys.readouterr()
    assert run([*BUILD]) == 2
    check_error(capsys, f"load.btf: types/amd64/{NAME}: unsigned: ")
    types.write_bytes(signed)
    types.rename(types.with_name("6.1.0.btf.o"))
    assert run([*BUILD]) == 2
    check_error(capsys, f"load.btf: types/amd64/6.1.0.btf.o: signed as {NAME}")
    types.with_name("6.1.0.btf.o").unlink()
    assert run([*BUILD]) == 2
    check_error(capsys, "load.btf: types/amd64: no file RELEASE.btf.o")
    assert run(["compile", "--arch", "amd64"]) == 0
    types.write_bytes(Path("build/amd64/answer.bpf.o").read_bytes())
    sign()
    capsys.readouterr()
    assert run([*BUILD]) == 2
    check_error(capsys, f"load.btf: types/amd64/{NAME}: holds more than types")
    assert not ARCHIVE.exists()


def test_two_places_of_types(types: Path, capsys: Capture) -> None:
    """Types in the image and a directory of the host exclude each other."""
    assert types.is_file()
    path = Path("buildtool.toml")
    path.write_text(path.read_text() + '[loader]\nbtf = "/btf"\n')
    assert run([*BUILD]) == 2
    check_error(capsys, "load.btf and loader.btf exclude each other")


def test_the_dockerfile_has_the_types_in_its_archive(
    types: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The folder holds the signed file, and the form without an archive is refused."""
    monkeypatch.setenv("BUILDTOOL_BASE_IMAGE", "base:1")
    assert run(["render", "--arch", "amd64", "-o", "rendered"]) == 0, capsys.readouterr().err
    text = Path("rendered/Dockerfile").read_text()
    assert "COPY --from=sources /sources/types/amd64/ /\n" in text
    assert "COPY --link --from=types /*.o /usr/lib/buildtool/btf/\n" in text
    (archive,) = Path("rendered").glob("*.tar")
    assert types.read_bytes() in archive.read_bytes()
    assert run(["render", "--arch", "amd64", "-o", "."]) == 0, capsys.readouterr().err
    (archive,) = (path for path in Path().glob("*.tar") if path.name != "base.tar")
    assert types.read_bytes() in archive.read_bytes()
    capsys.readouterr()
    assert run(["render", "--arch", "amd64"]) == 2
    check_error(capsys, "load.btf: the text of a Dockerfile cannot hold the types")
