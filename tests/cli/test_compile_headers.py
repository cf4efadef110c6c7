# SPDX-License-Identifier: Apache-2.0
"""`compile` reads the carried headers alone: the target's `asm/`, the same bytes on every machine."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from labs.headers import run_hidden

from buildtool.cli.main import run
from buildtool.compile.headers import HEADERS_VARIABLE
from buildtool.compile.record import read_compile_record
from buildtool.compile.sources import hash_sources
from buildtool.core.platforms import PLATFORMS
from buildtool.objects.elf import parse_object

pytestmark = [pytest.mark.tools, pytest.mark.usefixtures("clang")]

Capture = pytest.CaptureFixture[str]

# What differs between architectures: sizes, byte order of bit fields, registers; and clang's own headers.
SOURCE = """\
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/bpf.h>
#include <linux/ip.h>
#include <asm/bitsperlong.h>
#include <asm/byteorder.h>
#include <asm/posix_types.h>
#include <asm/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>
char LICENSE[] SEC("license") = "GPL";
#if defined(__LITTLE_ENDIAN_BITFIELD)
#define ORDER 1234
#elif defined(__BIG_ENDIAN_BITFIELD)
#define ORDER 4321
#endif
const volatile uint32_t facts[] = {
	__BITS_PER_LONG, ORDER, sizeof(__kernel_size_t), __cpu_to_be16(0x1234) == bpf_htons(0x1234), 4 << 4 | 5,
};
const volatile struct iphdr header = { .version = 4, .ihl = 5 };
SEC("xdp") int program(struct xdp_md *c)
{
	return facts[0] + header.ihl + sizeof(bool) + offsetof(struct iphdr, id);
}
SEC("kprobe/f") int BPF_KPROBE(probe, long first) { return first; }
"""
USDT = "<bpf/bpf_tracing.h>\n#include <bpf/usdt.bpf.h>"
ALL = [word for arch in PLATFORMS for word in ("--arch", arch)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a project with that program, as the working directory."""
    directory = tmp_path / "project"
    (directory / "bpf").mkdir(parents=True)
    (directory / "bpf/x.bpf.c").write_text(SOURCE)
    monkeypatch.chdir(directory)
    return directory


def read_objects(project: Path) -> dict[str, bytes]:
    """Return the object of each architecture."""
    return {arch: (project / "build" / arch / "x.bpf.o").read_bytes() for arch in PLATFORMS}


def refuse(capsys: Capture, *arguments: str, code: int = 1) -> str:
    """Return what `compile` says when it fails."""
    assert run(["compile", *arguments]) == code
    return capsys.readouterr().err


@pytest.mark.parametrize("clang_name", ["", "ziglang"])
def test_each_architecture_reads_its_own_asm(
    project: Path, monkeypatch: pytest.MonkeyPatch, clang_name: str
) -> None:
    """A long has 64 bits for eBPF, and a bit field the target's byte order, whatever machine compiles."""
    monkeypatch.setenv("BUILDTOOL_CLANG", clang_name)
    assert run(["compile", *ALL]) == 0
    for arch, data in read_objects(project).items():
        obj = parse_object(data)
        (rodata,) = (obj.contents(section) for section in obj.sections if section.name == b".rodata")
        little = PLATFORMS[arch].little_endian
        numbers = struct.Struct("<5I" if little else ">5I")
        facts = numbers.unpack_from(rodata, rodata.index(numbers.pack(64, 0, 0, 0, 0)[:4]))
        assert facts == (64, 1234 if little else 4321, 8, 1, 0x45), arch
        # The first byte of an IPv4 header is 0x45 on the wire, on each machine.
        assert b"\x45" + bytes(19) in rodata, arch


@pytest.mark.usefixtures("as_root")
def test_the_bytes_are_the_same_without_a_header_on_the_machine(
    project: Path, carried_headers: Path, tmp_path: Path
) -> None:
    """Objects of all architectures, compiled where the machine has headers, and where it has none."""
    # A function of a header, whose name stands in BTF.
    (project / "bpf/x.bpf.c").write_text(SOURCE.replace("<bpf/bpf_tracing.h>", USDT))
    assert run(["compile", *ALL]) == 0
    bare = tmp_path / "bare"
    shutil.copytree(project / "bpf", bare / "bpf")
    done = run_hidden(["compile", *ALL], bare, **{HEADERS_VARIABLE: str(carried_headers)})
    assert done.returncode == 0, done.stderr
    assert read_objects(bare) == read_objects(project)
    for data in read_objects(project).values():
        assert b"/usr/include/bpf/usdt.bpf.h" in data
        assert str(carried_headers).encode() not in data


def test_headers_that_want_a_socket_address_compile(project: Path) -> None:
    """<linux/icmp.h> is in many a packet filter, and includes the C library's <sys/socket.h>."""
    (project / "bpf/x.bpf.c").write_text(
        "#include <linux/icmp.h>\n#include <linux/icmpv6.h>\n#include <linux/if_arp.h>\n"
        "char size[sizeof(struct sockaddr) == 16 ? sizeof(struct icmphdr) : -1];\n"
    )
    assert run(["compile", *ALL]) == 0


C_LIBRARY = """\
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <uapi/linux/bpf.h>
#include <uapi/linux/ptrace.h>
#include <bpf/bpf_helpers.h>
SEC("socket") int copies(struct __sk_buff *packet)
{
	struct sockaddr_in6 to, from = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
	memcpy(&to, &from, sizeof(to));
	memset(&from, 0, sizeof(from));
	pid_t pid = packet->len + from.sin6_port;
	return to.sin6_port == ntohs(80) ? -ENOTSUP : pid + SIGKILL;
}
char LICENSE[] SEC("license") = "GPL";
"""


def test_parts_of_the_c_library_are_carried(project: Path) -> None:
    """Sources with the C library's usual headers compile for each architecture, without calls."""
    (project / "bpf/x.bpf.c").write_text(C_LIBRARY)
    assert run(["compile", *ALL]) == 0
    for data in read_objects(project).values():
        # A call would be a relocation against the function.
        assert not [section for section in parse_object(data).sections if section.name == b".relsocket"]


def test_parts_of_the_c_library_agree_with_the_kernel_s_types(project: Path) -> None:
    """vmlinux.h has the same types; a source may include both."""
    (project / "bpf/vmlinux.h").write_text(
        "typedef int pid_t;\ntypedef unsigned int uid_t;\n"
        "typedef unsigned char u_int8_t;\ntypedef long ssize_t;\n"
    )
    (project / "bpf/x.bpf.c").write_text(
        '#include "vmlinux.h"\n#include <string.h>\n#include <errno.h>\n#include <sys/types.h>\n'
        "int x = ENOTSUP;\n"
    )
    assert run(["compile", *ALL]) == 0


def test_vmlinux_h_is_made_by_a_command(project: Path, capsys: Capture) -> None:
    """The header that most projects generate has a hint of its own."""
    (project / "bpf/x.bpf.c").write_text('#include "vmlinux.h"\n')
    said = refuse(capsys, "--arch=amd64")
    assert said.splitlines()[-1] == (
        "buildtool: hint: buildtool vmlinux --arch amd64 makes it;"
        ' include = ["vmlinux/amd64"] in [compile.amd64] finds it'
    )


def test_a_header_of_the_machine_is_not_found(project: Path, capsys: Capture) -> None:
    """The C library is this machine's: the hint names the key that lets clang search it."""
    (project / "bpf/x.bpf.c").write_text("#include <sys/mman.h>\n")
    assert Path("/usr/include/linux").is_dir()
    said = refuse(capsys, "--arch=amd64")
    assert "'sys/mman.h' file not found" in said
    assert said.splitlines()[-1] == (
        "buildtool: hint: sys/mman.h is no header of Linux or libbpf:"
        " copy it into a directory of compile.include; compile.system-headers = true searches this machine's"
    )


TRACING = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
SEC("usdt") int BPF_USDT(tick, int i) { return i; }
char L[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize(
    ("text", "header", "name"),
    [
        (f"#include <linux/ptrace.h>\n{TRACING}", "<stdbool.h>", "bool"),
        (f"#include <stdbool.h>\n{TRACING}", "<linux/ptrace.h>", "pt_regs"),
        ("__u64 x;\n", "<linux/types.h>", "__u64"),
    ],
)
def test_types_that_headers_of_libbpf_need(
    project: Path, capsys: Capture, text: str, header: str, name: str
) -> None:
    """The hint names the header of Linux, with which the source compiles."""
    source = project / "bpf/x.bpf.c"
    source.write_text(text)
    said = refuse(capsys, "--arch=amd64")
    assert f"hint: #include {header} first: it has {name}; vmlinux.h has it, too" in said
    source.write_text(f"#include {header}\n{text}")
    assert run(["compile", "--arch=amd64"]) == 0


def test_a_header_in_a_subfolder_is_named_with_its_directory(project: Path, capsys: Capture) -> None:
    """The nearest directory from which the name leads to the file; with it the source compiles."""
    (project / "bpf/x.bpf.c").write_text('#include "lab/types.h"\nint x = SIZE;\n')
    for place in ("bpf/include/lab", "bpf/include/other/deep/lab", ".hidden/lab", "bpf/include/mylab"):
        (project / place).mkdir(parents=True)
        (project / place / "types.h").write_text("#define SIZE 4\n")
    said = refuse(capsys, "--arch=amd64")
    assert said.splitlines()[-1] == (
        'buildtool: hint: include = ["bpf/include"] in [compile], or --include bpf/include, finds lab/types.h'
    )
    assert run(["compile", "--arch=amd64", "--include", "bpf/include"]) == 0
    (project / "types/arm64").mkdir(parents=True)
    (project / "types/arm64/own.h").touch()
    (project / "bpf/x.bpf.c").write_text('#include "own.h"\n')
    assert 'include = ["types/arm64"] in [compile.arm64], or' in refuse(capsys, "--arch=amd64,arm64")
    (project / "bpf/x.bpf.c").write_text('#include "lab/types.h"\n#include "deep/lab/types.h"\n')
    said = refuse(capsys, "--arch=amd64", "--include", "bpf/include")
    assert 'include = ["bpf/include", "bpf/include/other"] in [compile]' in said


def test_a_header_of_the_project_comes_first(project: Path) -> None:
    """compile.include may replace a header of Linux, and one that this tool carries is no other's source."""
    (project / "own/linux").mkdir(parents=True)
    (project / "own/linux/types.h").write_text("typedef unsigned short __u32;\n")
    (project / "bpf/x.bpf.c").write_text("#include <linux/types.h>\n__u32 x[sizeof(__u32) == 2 ? 1 : -1];\n")
    assert run(["compile", "--arch=s390x", "--include", "own"]) == 0
    record = read_compile_record(project / "build/s390x")["x.bpf.o"]
    assert record.source.sha256 == hash_sources(["bpf/x.bpf.c"], ["own/linux/types.h"], project)


def test_headers_below_the_project_are_not_its_sources(
    project: Path, carried_headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a checkout of this tool its headers lie below the root; bytes and digests are those of elsewhere."""
    assert run(["compile", "--arch=arm64"]) == 0
    before = read_compile_record(project / "build/arm64")
    data = (project / "build/arm64/x.bpf.o").read_bytes()
    shutil.copytree(carried_headers, project / "a/headers")
    monkeypatch.setenv(HEADERS_VARIABLE, "a/headers")
    assert run(["compile", "--arch=arm64"]) == 0
    assert read_compile_record(project / "build/arm64") == before
    assert (project / "build/arm64/x.bpf.o").read_bytes() == data


def test_the_record_names_the_packages_of_the_headers(project: Path) -> None:
    """Of this machine's headers no version is known."""
    from buildtool.runtime.packagelock import read_lock

    assert run(["compile", "--arch=amd64"]) == 0
    (record,) = read_compile_record(project / "build/amd64").values()
    assert set(record.headers) == {"libbpf-dev", "linux-libc-dev"}
    lock = read_lock()
    locked = {name: lock.find("trixie", "amd64", name) for name in record.headers}
    assert record.headers == {name: found.version for name, found in locked.items() if found}
    (project / "bpf/x.bpf.c").write_text("int x;\n")
    assert run(["compile", "--arch=amd64", "--system-headers"]) == 0
    (record,) = read_compile_record(project / "build/amd64").values()
    assert record.headers == {}


def test_a_changed_header_is_refused(
    project: Path, carried_headers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A file that clang read and that is not as listed leaves no object; others are not looked at."""
    copy = tmp_path / "headers"
    shutil.copytree(carried_headers, copy)
    monkeypatch.setenv(HEADERS_VARIABLE, str(copy))
    (copy / "arm64/asm/ptrace.h").write_text("struct user_pt_regs { long regs[40]; };\n")
    assert run(["compile", "--arch=amd64"]) == 0
    capsys.readouterr()
    said = refuse(capsys, "--arch=arm64")
    assert f"buildtool: error: {copy}/arm64/asm/ptrace.h: not the file that headers.json lists\n" in said
    assert not (project / "build/arm64").exists()


def test_system_headers_are_never_those_of_another_architecture(
    project: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own asm/ would compile, to other code: this is an error with the package to install."""
    (project / "bpf/x.bpf.c").write_text("#include <linux/types.h>\n__u32 x;\n")
    (project / "buildtool.toml").write_text('[project]\nname = "x"\n[compile]\nsystem-headers = true\n')
    foreign = "s390x" if os.uname().machine != "s390x" else "arm64"
    triple = PLATFORMS[foreign].triple
    if Path(f"/usr/include/{triple}/asm").exists() or Path(f"/usr/{triple}/include/asm").exists():
        pytest.skip("needs-tool: a machine without headers of another architecture")
    said = refuse(capsys, f"--arch={foreign}")
    assert f"buildtool: error: headers of Linux for {foreign}: not on this machine\n" in said
    package = f"linux-libc-dev-{PLATFORMS[foreign].debian}-cross"
    assert f"hint: Debian: apt install {package}; or remove compile.system-headers" in said
    monkeypatch.setenv("BUILDTOOL_CLANG", "ziglang")
    said = refuse(capsys, "--arch=amd64", code=2)
    assert "system headers: not supported by the compiler of ziglang" in said


def test_without_headers_one_line_says_how_to_get_them(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """An installation from a checkout, on a machine that is not Debian's."""
    monkeypatch.setattr("buildtool.runtime.headers.carried_headers", lambda: tmp_path / "none")
    monkeypatch.setattr("buildtool.runtime.headers.find_system_mirror", lambda: find_no_mirror(tmp_path))
    monkeypatch.delenv(HEADERS_VARIABLE)
    monkeypatch.setenv("BUILDTOOL_CACHE", str(tmp_path / "cache"))
    said = refuse(capsys, "--arch=amd64")
    assert "error: headers for programs: cannot fetch them: no packages linux-libc-dev, libbpf-dev:" in said
    assert "this is not a Debian system" in said
    assert "hint: install a release, whose wheel carries them" in said
    assert not (project / "build").exists()


def find_no_mirror(root: Path) -> str:
    """Look for a mirror where there is no Debian."""
    from buildtool.runtime.debian import find_system_mirror

    return find_system_mirror(root, root / "os-release")
