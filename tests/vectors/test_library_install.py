# SPDX-License-Identifier: Apache-2.0
"""libsigverify as installed: header, static and shared library, pkg-config file; and programs with them."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from labs import TOP
from labs.compile import compile_sample, find_tool
from labs.run import run
from labs.sig import sign, test_key, unsigned
from labs.vectors.index import INDEX

from buildtool import __version__
from buildtool.core.strictjson import parse_time
from buildtool.objects.elf import MAX_OBJECT_BYTES, parse_object

LOADER = TOP / "loader"
MESSAGE_BYTES = 512
SONAME = "libsigverify.so.0"
pytestmark = pytest.mark.tools


def install(clang: Path, *settings: str) -> None:
    """Run `make install` with *settings*."""
    run("make", "-C", LOADER, "install", f"CLANG={clang}", *settings)


@pytest.fixture(scope="module")
def prefix(clang: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the directory that the library was installed to."""
    directory = tmp_path_factory.mktemp("prefix")
    install(clang, f"PREFIX={directory}")
    return directory


def ask_pkg_config(prefix: Path, *arguments: str) -> list[str]:
    """Return what pkg-config prints of the installed library."""
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    argv = [find_tool("pkg-config", "pkgconf"), *arguments]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def build(clang: Path, source: str, prefix: Path, output: Path, *options: str) -> Path:
    """Compile an example against the installed files alone, with what pkg-config prints for *options*."""
    flags = ask_pkg_config(prefix, "--cflags", "--libs", *options)
    more = ["-static"] if "--static" in options else []
    run(clang, "-Wall", "-Wextra", "-Werror", *more, LOADER / "verify" / source, *flags, "-o", output)
    return output


def ask(program: Path, *arguments: str | Path, libraries: Path | None = None) -> tuple[int, str, str]:
    """Return exit code, output and errors of a program, which finds shared libraries in *libraries*."""
    environment = os.environ | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})
    argv = [program, *arguments]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def declared() -> set[str]:
    """Return the names of the public header."""
    return set(re.findall(r"\b(sigverify__\w+)\(", (LOADER / "include/sigverify.h").read_text()))


def test_installed_files(prefix: Path) -> None:
    """The links lead from the name for linking to the soname, and from there to the version."""
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    assert files == {
        "include/sigverify.h",
        "lib/libsigverify.a",
        "lib/libsigverify.so",
        f"lib/{SONAME}",
        f"lib/libsigverify.so.{__version__}",
        "lib/pkgconfig/libsigverify.pc",
    }
    assert (prefix / "lib/libsigverify.so").readlink() == Path(SONAME)
    assert (prefix / "lib" / SONAME).readlink() == Path(f"libsigverify.so.{__version__}")
    assert ask_pkg_config(prefix, "--modversion", "libsigverify") == [__version__]


def test_a_package_is_installed_into_a_directory(clang: Path, tmp_path: Path) -> None:
    """DESTDIR stands before each path and in no file; LIBDIR moves the libraries; PREFIX is absolute."""
    settings = ("PREFIX=/usr", "LIBDIR=/usr/lib/x86_64-linux-gnu", "SHA256=sodium")
    install(clang, f"DESTDIR={tmp_path}", *settings)
    text = (tmp_path / "usr/lib/x86_64-linux-gnu/pkgconfig/libsigverify.pc").read_text()
    assert "prefix=/usr\n" in text
    assert "libdir=/usr/lib/x86_64-linux-gnu\n" in text
    assert "Requires.private: libsodium jansson >= 2.11\n" in text
    assert not re.search("crypto|@", text)
    listed = run("readelf", "--dynamic", tmp_path / "usr/lib/x86_64-linux-gnu/libsigverify.so")
    assert "libsodium" in listed
    assert "libcrypto" not in listed
    argv = ["make", "-C", LOADER, "install", "PREFIX=usr", f"DESTDIR={tmp_path}/"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "PREFIX: not an absolute path: usr" in done.stderr


def test_the_shared_library_shows_the_header_alone(prefix: Path) -> None:
    """Its names have the version of the soname; it is hardened like the loader."""
    library = prefix / "lib/libsigverify.so"
    listed = run("nm", "-D", "--defined-only", library).splitlines()
    names = {line.split()[-1] for line in listed if " A " not in line}
    assert names == {f"{name}@@LIBSIGVERIFY_0" for name in declared()}
    dynamic = run("readelf", "--dynamic", "--program-headers", "--wide", library)
    assert f"[{SONAME}]" in dynamic
    assert "BIND_NOW" in dynamic
    assert "GNU_RELRO" in dynamic
    assert "RWE" not in dynamic


@pytest.mark.parametrize("kind", ["shared", "static"])
def test_example_with_the_installed_library(kind: str, clang: Path, prefix: Path, tmp_path: Path) -> None:
    """pkg-config alone tells how to link; the program accepts, and refuses with the reason."""
    options = ("--static",) if kind == "static" else ()
    program = build(clang, "example.c", prefix, tmp_path / "example", *options, "libsigverify")
    needed = run("readelf", "--dynamic", program)
    assert (f"[{SONAME}]" in needed) == (kind == "shared")
    assert ("NEEDED" in needed) == (kind == "shared")
    trust, path = tmp_path / "alice.pub", tmp_path / "x.bpf.o"
    trust.write_bytes(test_key().public.pem)
    for data, wanted, said in (
        (sign(), 0, r"accepted x\.bpf\.o of demo, version 3\n"),
        (unsigned(), 3, r"refused: unsigned: .+\n"),
        (bytes(MAX_OBJECT_BYTES + 1), 3, r"refused: too-large: .+\n"),
    ):
        path.write_bytes(data)
        code, output, errors = ask(program, trust, path, libraries=prefix / "lib")
        assert (code, errors) == (wanted, "")
        assert re.fullmatch(said, output)


def test_libbpf_opens_the_accepted_bytes(clang: Path, prefix: Path, tmp_path: Path) -> None:
    """The example for libbpf lists the programs of an accepted object, and opens no refused one."""
    program = build(clang, "example_load.c", prefix, tmp_path / "load", "libsigverify", "libbpf")
    trust, path = tmp_path / "alice.pub", tmp_path / "x.bpf.o"
    trust.write_bytes(test_key().public.pem)
    signed = sign(parse_object(compile_sample(tmp_path).read_bytes()))
    path.write_bytes(signed)
    code, output, errors = ask(program, "linux/amd64", trust, path, libraries=prefix / "lib")
    assert code == 0, errors
    assert re.fullmatch(r"(libbpf: elf: skipping unrecognized data section\(\d+\) \.sig\n)?", errors)
    assert output.splitlines() == [
        "accepted x.bpf.o of demo, version 3",
        "program pass, section xdp",
        "program second, section xdp",
        "program trace, section tracepoint/net/net_dev_queue",
    ]
    path.write_bytes(signed.replace(b"Dual BSD/GPL", b"Dual BSD/GPM", 1))
    code, output, errors = ask(program, "linux/amd64", trust, path, libraries=prefix / "lib")
    assert (code, output) == (3, "")
    assert re.fullmatch(r"refused: digest-mismatch: .+\n", errors)
    for arguments, code in (
        ((path, path), 2),
        ((tmp_path / "gone", path), 2),
        ((trust, tmp_path / "gone"), 1),
    ):
        assert ask(program, "linux/amd64", *arguments, libraries=prefix / "lib")[:2] == (code, "")


def test_the_header_is_one_of_cplusplus_too(clang: Path, tmp_path: Path) -> None:
    """An agent in C++ links the C names."""
    source = tmp_path / "agent.cc"
    source.write_text("#include <sigverify.h>\nint main() { return sigverify__is_accepted(nullptr); }\n")
    run(clang, "-Wall", "-Werror", f"-I{LOADER / 'include'}", "-c", source, "-o", tmp_path / "agent.o")
    assert " U sigverify__is_accepted\n" in run("nm", tmp_path / "agent.o")


class Question(ctypes.Structure):
    """struct sigverify_question of the header."""

    _fields_ = (
        ("platform", ctypes.c_char_p),
        ("now", ctypes.c_int64),
        ("version_seen", ctypes.c_void_p),
        ("context", ctypes.c_void_p),
    )


def load_library(path: Path) -> Any:
    """Load a shared libsigverify, with the types of the functions that the test calls."""
    library = ctypes.CDLL(str(path))
    library.sigverify__open.restype = ctypes.c_void_p
    library.sigverify__open.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p)
    library.sigverify__verify.restype = ctypes.c_void_p
    library.sigverify__verify.argtypes = (
        ctypes.c_void_p,
        ctypes.POINTER(Question),
        ctypes.c_char_p,
        ctypes.c_size_t,
    )
    library.sigverify__reason.restype = ctypes.c_char_p
    library.sigverify__allows_point.restype = ctypes.c_bool
    library.sigverify__allows_point.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    library.sigverify__allows_value.restype = library.sigverify__allows_entries.restype = ctypes.c_bool
    library.sigverify__allows_value.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
    library.sigverify__allows_entries.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)
    library.sigverify__max_object_bytes.restype = ctypes.c_size_t
    for name in ("reason", "free", "close", "max_object_bytes"):
        getattr(library, f"sigverify__{name}").argtypes = (ctypes.c_void_p,)
    return library


def open_store(library: Any, data: bytes) -> Any:
    """Open a store, or return None."""
    return library.sigverify__open(data, len(data), ctypes.create_string_buffer(MESSAGE_BYTES))


def test_vectors_on_the_installed_library(prefix: Path) -> None:
    """Another language calls the shared library and gets the answer of each vector."""
    library = load_library(prefix / "lib" / SONAME)
    stores = {
        name: open_store(library, next(iter(files.values())).encode())
        for name, files in INDEX["trust"].items()
        if len(files) == 1
    }
    assert all(stores.values())
    count = 0
    for vector in INDEX["vectors"]:
        if vector["trust"] not in stores:
            continue
        data = b64decode(vector["file"])
        question = Question(vector["platform"].encode(), parse_time(INDEX["now"]), None, None)
        verdict = library.sigverify__verify(stores[vector["trust"]], ctypes.byref(question), data, len(data))
        assert verdict
        reason = library.sigverify__reason(verdict)
        assert (reason or b"accepted").decode() == vector["expect"], vector["name"]
        library.sigverify__free(verdict)
        count += 1
    assert count >= len(INDEX["vectors"]) - 10
    for store in stores.values():
        library.sigverify__close(store)


def test_a_store_tells_bounds_and_points(prefix: Path) -> None:
    """A caller asks for the bound of a read, and about a target that it chooses; NULL allows nothing."""
    library = load_library(prefix / "lib" / SONAME)
    text = test_key().public.pem.decode().split("\n")[1]
    policy = (
        f'{{"policyVersion":1,"threshold":1,"keys":[{{"name":"a","publicKey":"{text}"}}],'
        '"attachPoints":["xdp","fentry/do_*"],"maxObjectBytes":4096}'
    )
    bounded, plain = open_store(library, policy.encode()), open_store(library, test_key().public.pem)
    assert library.sigverify__max_object_bytes(bounded) == 4096
    assert library.sigverify__max_object_bytes(plain) == MAX_OBJECT_BYTES
    assert library.sigverify__max_object_bytes(None) == 0
    points = (b"xdp", b"fentry/do_unlinkat", b"fentry", b"xdp/eth0", b"fentry/do_/../x", None)
    allowed = [library.sigverify__allows_point(bounded, point) for point in points]
    assert allowed == [True, True, False, False, False, False]
    assert library.sigverify__allows_point(plain, b"anything")
    assert not library.sigverify__allows_point(None, b"xdp")
    for store in (bounded, plain):
        library.sigverify__close(store)


def test_a_verdict_tells_what_may_be_set(prefix: Path) -> None:
    """A caller asks about a value of a constant and a size of a map; a refusal and NULL allow nothing."""
    library = load_library(prefix / "lib" / SONAME)
    vectors = {vector["name"]: vector for vector in INDEX["vectors"]}

    def verify(name: str) -> Any:
        data, vector = b64decode(vectors[name]["file"]), vectors[name]
        store = open_store(library, next(iter(INDEX["trust"][vector["trust"]].values())).encode())
        question = Question(vector["platform"].encode(), parse_time(INDEX["now"]), None, None)
        kept.append(data)
        return library.sigverify__verify(store, ctypes.byref(question), data, len(data))

    kept: list[bytes] = []  # a verdict borrows from the data
    verdict = verify("settable-all-kinds")
    values: dict[bytes, tuple[tuple[bytes | None, ...], tuple[bytes | None, ...]]] = {
        b"rate": (
            (b"1", b"1000", b"0x3e8"),
            (b"0", b"1001", b"-1", b"", b"1 ", b"18446744073709551617", None),
        ),
        b"mode": ((b"-1", b"0", b"2", b"-0"), (b"1", b"-2", b"0x", b"2a")),
        b"verbose": ((b"true", b"false"), (b"1", b"True", b"")),
        b"label": ((b"", b"a" * 15, b"a=b: c"), (b"a" * 16, b"a\n", b"\xc3\xa4", b"\x7f")),
        b"counts": ((), (b"1",)),
    }
    for name, (good, bad) in values.items():
        assert [value for value in good if not library.sigverify__allows_value(verdict, name, value)] == []
        assert [value for value in bad if library.sigverify__allows_value(verdict, name, value)] == []
    entries = [library.sigverify__allows_entries(verdict, b"counts", count) for count in (0, 1, 65536, 65537)]
    assert entries == [False, True, True, False]
    for refused in (None, verify("expired"), verify("plain")):
        assert not library.sigverify__allows_value(refused, b"verbose", b"true")
        assert not library.sigverify__allows_entries(refused, b"counts", 1)
    assert not library.sigverify__allows_value(verdict, None, b"true")
    assert not library.sigverify__allows_entries(verdict, None, 1)
