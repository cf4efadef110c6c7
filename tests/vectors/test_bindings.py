# SPDX-License-Identifier: Apache-2.0
"""The verifiers of bindings/: the same answers on every vector, and their own tests, where a toolchain is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import TOP
from labs.bindings import (
    BUILT,
    GO,
    OLDEST_CARGO,
    OLDEST_GO,
    RUST,
    build_verifier,
    download_modules,
    find_go,
    go_environment,
    run_cargo,
    run_go,
)
from labs.compile import compile_sample
from labs.pages import read_blocks
from labs.run import run
from labs.sig import sign, test_key, unsigned
from labs.vectors.index import INDEX, write_store
from labs.verifiers import Verifier, python_store

from buildtool.core.platforms import host_platform
from buildtool.core.strictjson import parse_time
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object

pytestmark = pytest.mark.tools

# What the examples print of the object of labs/compile.py.
SAMPLE = """\
accepted x.bpf.o of demo, version 3
program pass XDP
program second XDP
program trace TracePoint
"""

# aya knows no section that begins with a question mark.
SOURCE = """
#define SEC(name) __attribute__((section(name), used))
struct { int (*type)[2]; int (*max_entries)[1]; int *key; long *value; } counts SEC(".maps");
static void *(*lookup)(void *map, const void *key) = (void *)1;
SEC("xdp") int pass(void *ctx) { int key = 0; return lookup(&counts, &key) ? 2 : 1; }
char LICENSE[] SEC("license") = "GPL";
"""


def host_arch() -> str:
    """Return this machine's architecture, for which the examples require objects."""
    own = host_platform(os.uname().machine)
    assert own is not None
    return own.arch


def ask(program: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """Return exit code, output and errors of a program."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", params=["go", pytest.param("rust", marks=pytest.mark.network)])
def binding(request: pytest.FixtureRequest, clang: Path) -> Iterator[Verifier]:
    """Give the verifier of each language, running."""
    with Verifier(build_verifier(request.param, clang)) as running:
        running.setting("N", str(parse_time(INDEX["now"])).encode())
        yield running


@pytest.mark.parametrize("vector", INDEX["vectors"], ids=lambda vector: str(vector["name"]))
def test_vector(vector: dict[str, str], binding: Verifier, stores: Path) -> None:
    """The verifier says what the vector expects."""
    assert binding.ask("T", bytes(stores / vector["trust"])) == "trust"
    binding.setting("P", vector["platform"].encode())
    assert binding.ask("O", b64decode(vector["file"])).split()[0] == vector["expect"]


@pytest.mark.parametrize("name", INDEX["badTrust"])
def test_bad_trust_store_is_an_error(name: str, binding: Verifier, tmp_path: Path) -> None:
    """Nothing is verified with a store that breaks a rule."""
    path = write_store(tmp_path / "store", INDEX["badTrust"][name])
    assert binding.ask("T", bytes(path)) == "bad-trust"


def test_trust_stores_are_read_alike(binding: Verifier, tmp_path: Path) -> None:
    """Digest, threshold, limits, times and keys are those that Python reads."""
    count = 0
    for files in (*INDEX["trust"].values(), *INDEX["badTrust"].values()):
        for name, text in files.items():
            path = tmp_path / ("x.pub" if name.endswith(".pub") else "policy")
            path.write_bytes(text.encode())
            is_key = path.name == "x.pub"
            assert binding.ask("K" if is_key else "Y", text.encode()) == python_store(path, is_key=is_key)
            count += 1
    assert count > 130


def test_the_go_module_passes_its_own_tests() -> None:
    """`go test` alone runs the vectors with the standard library alone; gofmt and vet find nothing."""
    assert run(find_go().with_name("gofmt"), "-l", GO) == ""
    run_go("vet", "./...", GOPROXY="off")
    assert "FAIL" not in run_go("test", "./...", GOPROXY="off")
    assert run_go("list", "-m", "all", GOPROXY="off").split() == ["buildtool/sigverify"]


AGENT = """\
package main

import (
	"fmt"
	"os"

	"buildtool/sigverify"
)

func main() {
	trust, err := sigverify.OpenTrust(os.Args[1])
	if err != nil {
		panic(err)
	}
	_, statement, err := sigverify.VerifyFile(os.Args[2], trust, sigverify.Options{Platform: "linux/amd64"})
	fmt.Println(statement != nil, err)
}
"""


def test_commands_of_the_page_add_the_module(tmp_path: Path) -> None:
    """A copy of the folder in an agent's repository needs nothing else, and no network."""
    (block,) = read_blocks(TOP / "docs/how-to/verify-in-a-go-agent.md")
    shutil.copytree(GO, tmp_path / "third_party/sigverify")
    (tmp_path / "go.mod").write_text("module agent\n\ngo 1.21\n")
    (tmp_path / "main.go").write_text(AGENT)
    environment = go_environment(GOPROXY="off", PATH=f"{find_go().parent}:{os.environ['PATH']}")
    argv = ["bash", "-ec", block.text]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "alice.pub").write_bytes(test_key().public.pem)
    for data, said in (
        (sign(), "true <nil>"),
        (unsigned(), "false refused: unsigned: no section .sig"),
        (sign(arch="arm64"), 'false refused: wrong-platform: signed for "linux/arm64", this is linux/amd64'),
    ):
        (tmp_path / "x.bpf.o").write_bytes(data)
        assert ask(tmp_path / "agent", tmp_path / "alice.pub", tmp_path / "x.bpf.o") == (0, said + "\n", "")


@pytest.mark.network
@pytest.mark.root
@pytest.mark.timeout(900)  # compiles aya
def test_aya_loads_the_bytes_that_the_crate_verified(as_root: None, tmp_path: Path) -> None:
    """
    The example of the crate hands an accepted object to aya, and no refused one.

    aya takes a minute to compile, so that only FULL=1 runs the example. Other runs check its types.
    """
    if os.environ.get("FULL") != "1":
        run_cargo("check", directory=RUST / "example")
        return
    run_cargo("build", directory=RUST / "example")
    program, trust = BUILT / "rust/debug/sigverify-example", tmp_path / "alice.pub"
    trust.write_bytes(test_key().public.pem)
    signed = tmp_path / "x.bpf.o"
    obj = parse_object(compile_sample(tmp_path, source=SOURCE).read_bytes())
    signed.write_bytes(sign(obj, arch=host_arch()))
    assert ask(program, trust, signed) == (
        0,
        "accepted x.bpf.o of demo, version 3\nprogram pass\n",
        "",
    )
    signed.write_bytes(signed.read_bytes().replace(b"GPL", b"GPM", 1))
    reason = "digest-mismatch: the file is not the one that was signed"
    assert ask(program, trust, signed) == (3, "", f"refused: {reason}\n")


@pytest.mark.network
def test_the_crate_passes_its_own_tests() -> None:
    """`cargo test` alone runs the vectors; rustfmt and the compiler find nothing."""
    if shutil.which("rustfmt"):
        run("rustfmt", "--check", *sorted(RUST.glob("*/*.rs")), RUST / "example/src/main.rs")
    done = run_cargo("test", "--release", "--lib", "--tests")
    assert re.findall(r"test result: (\w+)\. (\d+) passed", done) == [("ok", "3"), ("ok", "9")]


def test_the_oldest_toolchains_are_those_of_the_manifests() -> None:
    """A machine with an older toolchain skips the tests, and users read the same versions."""
    assert f"\ngo {'.'.join(map(str, OLDEST_GO))}\n" in (GO / "go.mod").read_text()
    version = ".".join(map(str, OLDEST_CARGO))
    assert f'rust-version = "{version}"\n' in (RUST / "Cargo.toml").read_text()
    assert f"Rust {version} or newer" in (RUST / "README.md").read_text()


def test_every_binding_has_the_limit_of_the_specification() -> None:
    """The largest size of an object is one constant in each language."""
    size = MAX_OBJECT_BYTES >> 20
    assert f"MaxObjectBytes = {size} << 20\n" in (GO / "sigverify.go").read_text()
    assert f"MAX_OBJECT_BYTES: usize = {size} << 20;\n" in (RUST / "src/lib.rs").read_text()


@pytest.mark.network
def test_cilium_opens_the_bytes_that_the_go_module_verified(tmp_path: Path) -> None:
    """The example of the Go module hands an accepted object to cilium/ebpf, and no refused one."""
    download_modules(GO / "example")
    program, trust = tmp_path / "example", tmp_path / "alice.pub"
    run_go("build", "-o", program, ".", directory=GO / "example", GOPROXY="off")
    trust.write_bytes(test_key().public.pem)
    signed = tmp_path / "x.bpf.o"
    signed.write_bytes(sign(parse_object(compile_sample(tmp_path).read_bytes()), arch=host_arch()))
    assert ask(program, trust, signed) == (0, SAMPLE, "")
    tampered = bytearray(signed.read_bytes())
    tampered[tampered.index(b"Dual BSD/GPL")] ^= 1
    signed.write_bytes(tampered)
    reason = "digest-mismatch: the file is not the one that was signed"
    assert ask(program, trust, signed) == (3, "", f"refused: {reason}\n")
    assert ask(program, tmp_path / "gone", signed) == (
        1,
        "",
        f"trust store {tmp_path}/gone: no such file or directory\n",
    )
