# SPDX-License-Identifier: Apache-2.0
"""`build --engine local` makes the image that BuildKit makes of the same project, file by file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from labs.engine import (
    REPOSITORY,
    docker,
    export_parts,
    has_image,
    import_odd_base,
    inspect,
    remove_images,
    with_tools,
)
from labs.image import flat, read_image
from labs.layout import OBJECTS, PLACES, write_layout
from labs.linked import OBJECTS as LINKED
from labs.linked import write_linked
from labs.project import Project, make_project
from labs.registry import pushed, run_registry

from buildtool.image.docker.prepare import BASE_IMAGE, BUILDER_IMAGE
from buildtool.objects.capabilities import FILE_ATTRIBUTE, file_attribute
from buildtool.objects.elf import parse_object
from buildtool.oci.read import StoredImage
from buildtool.oci.tree import Tree
from buildtool.signing.statement import read_statement

FACTS = """\
#include <stdbool.h>
#include <stdint.h>
#include <linux/bpf.h>
#include <linux/ip.h>
#include <asm/bitsperlong.h>
#include <asm/ptrace.h>
#include <asm/unistd.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>
#include <buildtool/metrics.bpf.h>
uint64_t calls METRIC_COUNTER(facts_total, "", "Facts");
const volatile struct iphdr header = { .version = 4, .ihl = __BITS_PER_LONG / 8 };
const volatile uint32_t facts[] = { __NR_bpf, __BITS_PER_LONG };
SEC("kprobe/f") int BPF_KPROBE(probe, long first) { return first + header.ihl + facts[0] + calls++; }
char LICENSE[] SEC("license") = "GPL";
"""
ARCHITECTURES = ("amd64", "arm64")
ARCH_OPTIONS = ("--arch", "amd64", "--arch", "arm64")
# 2023 is before the base was made, 2026 is after everything was made.
EPOCHS = ("1700000000", "1780000000")


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    """Run a registry for base and images."""
    with run_registry() as address:
        yield address


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, prepared_images: object, registry: str
) -> Iterator[Project]:
    """Make a project whose base is in the registry, by digest, and export its image's loader and tini."""
    assert prepared_images
    made = make_project(tmp_path_factory.mktemp("local"))
    parts = export_parts(made, tmp_path_factory.mktemp("parts"), ARCHITECTURES)
    tag = f"{registry}/base:1"
    docker("tag", BASE_IMAGE, tag)
    docker("push", tag)
    docker("image", "rm", tag)
    environment = {
        "BUILDTOOL_BASE_IMAGE": f"{tag}@{pushed('1')[0]}",
        "BUILDTOOL_BUILDER_IMAGE": BUILDER_IMAGE,
        "BUILDTOOL_LOADERS": str(parts),
        "BUILDTOOL_CACHE": str(tmp_path_factory.mktemp("cache")),
        "BUILDTOOL_CLANG": shutil.which("clang-19") or "clang",
    }
    yield Project(root=made.root, environment=environment)
    remove_images(f"{REPOSITORY}/local")


def build_archive(project: Project, path: Path, *options: str, **environment: str) -> dict[str, Any]:
    """Build an archive, of both architectures unless *options* name some; return the output of --json."""
    platforms = () if "--arch" in options else ARCH_OPTIONS
    return project.build(*platforms, *options, "--output", f"type=oci,dest={path}", **environment)


@pytest.fixture(scope="module")
def archive(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the project with the embedded engine once."""
    path = tmp_path_factory.mktemp("archive") / "local.tar"
    build_archive(project, path, "--engine", "local")
    return path


def compare_engines(
    project: Project, work: Path, architectures: Sequence[str], **environment: str
) -> dict[str, Tree]:
    """Build with both engines, compare all results, and return the trees."""
    images: dict[str, dict[str, tuple[StoredImage, Tree]]] = {}
    options = [word for arch in architectures for word in ("--arch", arch)]
    for engine in ("docker", "local"):
        path = work / f"{engine}.tar"
        build_archive(project, path, "--engine", engine, *options, **environment)
        images[engine] = read_image(path)
    assert list(images["local"]) == [f"linux/{arch}" for arch in architectures]
    assert images["local"].keys() == images["docker"].keys()
    for platform, (theirs, their_tree) in images["docker"].items():
        ours, our_tree = images["local"][platform]
        assert flat(our_tree) == flat(their_tree)
        assert ours.diff_ids == theirs.diff_ids
        for key in ours.config.keys() | theirs.config.keys():
            if key != "history":  # names the engine
                assert ours.config.get(key) == theirs.config.get(key), key
    return {platform: tree for platform, (_, tree) in images["local"].items()}


@pytest.mark.parametrize(
    ("user", "epoch", "architectures"),
    [
        ("0", EPOCHS[0], ARCHITECTURES),
        ("0", EPOCHS[1], ARCHITECTURES),
        ("65532:65532", EPOCHS[0], ARCHITECTURES),
        ("65532:65532", EPOCHS[1], ("arm64",)),
    ],
)
def test_image_is_that_of_buildkit(
    project: Project, tmp_path: Path, epoch: str, user: str, architectures: Sequence[str]
) -> None:
    """Both engines give the same files, with modes, owners, times and attributes, and diff_ids."""
    environment = {"SOURCE_DATE_EPOCH": epoch, "BUILDTOOL_USER": user}
    for tree in compare_engines(project, tmp_path, architectures, **environment).values():
        assert {"usr/sbin/tini", "usr/lib/buildtool/objects/two.bpf.o"} < set(tree)
        assert "usr/bin/ebpf-pins" not in tree
        # A user other than root gets the capabilities from the loader's file.
        assert set(tree["usr/bin/verify-and-load"].xattrs) == ({FILE_ATTRIBUTE} if user != "0" else set())


def test_projects_of_another_layout_are_the_same_in_both_engines(project: Project, tmp_path: Path) -> None:
    """Names, folders, flags with quotes and $, settings by source, headers outside and at the top."""
    root = write_layout(tmp_path)
    shutil.copytree(project.root / "keys", root / "keys")
    other = Project(root=root, environment=project.environment)
    for tree in compare_engines(other, tmp_path, ARCHITECTURES).values():
        place = "usr/lib/buildtool/objects/"
        found = {path.removeprefix(place) for path in tree if path.startswith(place)}
        assert found == OBJECTS.keys()
        assert all(text.encode() in tree[f"{place}six.o"].data for text in PLACES)
        (program,) = read_statement(parse_object(tree[f"{place}top.o"].data)).programs
        assert (program.section, program.type, program.declared) == ("socket1", "socket_filter", "socket")


def test_linked_objects_are_the_same_in_both_engines(
    project: Project, probes: Path, carried_headers: Path, tmp_path: Path
) -> None:
    """The builder's linker and that of this machine write the same bytes, also for another byte order."""
    root = write_linked(tmp_path / "linked")
    shutil.copytree(project.root / "keys", root / "keys")
    more = {"BUILDTOOL_PROBES": str(probes), "BUILDTOOL_HEADERS": str(carried_headers)}
    other = Project(root=root, environment={**project.environment, **more})
    for tree in compare_engines(other, tmp_path, ARCHITECTURES).values():
        place = "usr/lib/buildtool/objects/"
        assert sorted(path.removeprefix(place) for path in tree if path.startswith(place)) == [*LINKED]
    rebuilt = other.run("rebuild", "--check", "--objects-only", tmp_path / "docker.tar")
    assert rebuilt.code == 0, rebuilt.stdout + rebuilt.stderr
    assert "linux/arm64  agent-3.bpf.o  equal\n" in rebuilt.stdout


def test_objects_read_the_same_headers_in_both_engines(project: Project, tmp_path: Path) -> None:
    """Both engines compile with the carried headers, not with this machine's."""
    shutil.copytree(project.root, tmp_path / "copy")
    (tmp_path / "copy/bpf/facts.bpf.c").write_text(FACTS)
    copy = Project(root=tmp_path / "copy", environment=project.environment)
    for tree in compare_engines(copy, tmp_path, ARCHITECTURES).values():
        facts = tree["usr/lib/buildtool/objects/facts.bpf.o"].data
        assert b"/usr/include/bpf/usdt.bpf.h" in facts
        assert b"metric: facts_total counter  help Facts" in facts
        assert b"spec = bpf_map_lookup_elem(&__bpf_usdt_specs, &spec_id);" in facts


def test_image_with_tools_is_that_of_buildkit(project: Project, tmp_path: Path) -> None:
    """Both engines add ebpf-pins with the capabilities that it needs."""
    path = project.root / "buildtool.toml"
    text = path.read_text()
    more = 'capabilities = ["BPF", "NET_ADMIN", "NET_RAW", "SYS_PTRACE"]\n'
    try:
        path.write_text(text.replace("[image]\n", f"[image]\n{more}"))
        with with_tools(project):
            (tree,) = compare_engines(project, tmp_path, ("amd64",), BUILDTOOL_USER="65532:65532").values()
            rebuilt = project.run("rebuild", "--check", tmp_path / "local.tar", BUILDTOOL_USER="65532:65532")
    finally:
        path.write_text(text)
    loader, pins = tree["usr/bin/verify-and-load"], tree["usr/bin/ebpf-pins"]
    given = ("BPF", "NET_ADMIN", "NET_RAW", "SYS_PTRACE")
    assert dict(loader.xattrs) == {FILE_ATTRIBUTE: file_attribute(given)}
    assert dict(pins.xattrs) == {FILE_ATTRIBUTE: file_attribute(("BPF", "NET_ADMIN"))}
    assert pins.mode == loader.mode
    assert pins.data != loader.data
    assert rebuilt.code == 0, rebuilt.stdout + rebuilt.stderr
    assert "/usr/bin/ebpf-pins  equal" in rebuilt.stdout


@pytest.mark.parametrize("epoch", EPOCHS)
def test_image_on_an_odd_base_is_that_of_buildkit(
    project: Project, registry: str, tmp_path: Path, epoch: str
) -> None:
    """Links, unusual modes and owners, and settings of the base have the same result in both engines."""
    tag = f"{registry}/odd:{epoch}"
    import_odd_base(tag)
    docker("push", tag)
    docker("image", "rm", tag)
    base = f"{tag}@{pushed(epoch)[0]}"
    (tree,) = compare_engines(
        project, tmp_path, ("amd64",), SOURCE_DATE_EPOCH=epoch, BUILDTOOL_BASE_IMAGE=base
    ).values()
    assert tree["own/sbin/tini"].data.startswith(b"\x7fELF")


@pytest.mark.parametrize("engine_name", ["docker", "local"])
def test_base_by_tag_gives_a_warning(project: Project, tmp_path: Path, engine_name: str) -> None:
    """A base by tag gives a warning, a base by digest or of `images prepare` none."""
    named = project.environment["BUILDTOOL_BASE_IMAGE"]
    tag = named.partition("@")[0]
    warning = f"buildtool: base image {tag} has no digest, so it may be another one tomorrow: add @sha256:"
    bases = {named: 0, tag: 1, **({BASE_IMAGE: 0} if engine_name == "docker" else {})}
    for number, (base, times) in enumerate(bases.items()):
        output = f"type=oci,dest={tmp_path / str(number)}"
        options = ("--engine", engine_name, "--arch", "amd64", "--output", output)
        done = project.run("build", *options, BUILDTOOL_BASE_IMAGE=base)
        assert (done.code, done.stderr.count(warning)) == (0, times), done.stderr
        assert done.stderr.count("has no digest") == times


def test_engine_runs_what_was_made_without_it(project: Project) -> None:
    """Docker loads the image with the printed digest, and the image verifies its objects."""
    tag = f"{REPOSITORY}/local:run"
    built = project.build("--engine", "local", "--arch", "amd64", "--tag", tag, "--output", "type=docker")
    assert built["engine"] == "local"
    assert inspect(tag)["Id"] == built["digest"]
    docker("run", "--rm", "--network", "none", "--cap-drop", "ALL", "--read-only", tag, "--verify-only")


@pytest.mark.parametrize("maker", ["docker", "local"])
def test_replaced_image_is_named(project: Project, maker: str) -> None:
    """A message names the image that loses its tag to a new release; the same image again gives none."""
    tag = f"{REPOSITORY}/local:name-{maker}"
    options = ("--engine", maker, "--arch", "amd64", "--tag", tag, "--output", "type=docker")
    for release in ("1", "1", "2"):
        before = inspect(tag)["Id"] if has_image(tag) else ""
        done = project.run("build", *options, "--json", BUILDTOOL_RELEASE=release)
        assert done.code == 0, done.stderr
        lost = before if release == "2" else ""
        assert json.loads(done.stdout)["replaced"] == lost
        line = f"buildtool: {tag}: replaced image {before.removeprefix('sha256:')[:12]} in the engine\n"
        assert (line in done.stderr) is (release == "2")
    docker("image", "rm", tag)


@pytest.mark.parametrize("maker", ["docker", "local"])
def test_images_of_the_engine_are_what_the_sources_give(project: Project, maker: str) -> None:
    """`rebuild` finds images of Docker's store equal, whichever engine made them."""
    tag = f"{REPOSITORY}/local:rebuild-{maker}"
    project.build("--engine", maker, "--arch", "amd64", "--tag", tag, "--output", "type=docker")
    done = project.run("rebuild", "--check", tag)
    assert done.code == 0, done.stdout + done.stderr
    assert [line.split("  ")[1:] for line in done.stdout.splitlines()] == [
        [what, "equal"]
        for what in ("number.bpf.o", "two.bpf.o", "/usr/bin/verify-and-load", "/sbin/tini", "configuration")
    ]


def test_pushed_image_is_complete(project: Project, registry: str) -> None:
    """Docker pulls and runs both pushed platforms, and a second push is equal."""
    tag = f"{registry}/plant/local:7"
    for _ in range(2):
        built = project.build(*ARCH_OPTIONS, "--engine", "local", "--tag", tag, "--push")
        digest, index = pushed("7")
        assert digest == built["digest"]
        assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
    docker("pull", tag)
    docker("run", "--rm", "--network", "none", "--cap-drop", "ALL", tag, "--verify-only")
    docker("image", "rm", tag)


def test_archive_is_the_same_elsewhere(project: Project, archive: Path, tmp_path: Path) -> None:
    """Another directory, umask, time zone, locale and hash seed, without a cache, give the same bytes."""
    other = tmp_path / "another place"
    shutil.copytree(project.root, other)
    moved = Project(root=other, environment=project.environment)
    previous = os.umask(0o077)
    try:
        build_archive(
            moved,
            tmp_path / "b.tar",
            "--engine",
            "local",
            "--no-cache",
            TZ="Asia/Kathmandu",
            LC_ALL="tr_TR.UTF-8",
            PYTHONHASHSEED="7",
            BUILDTOOL_CACHE=str(tmp_path / "cache"),
        )
    finally:
        os.umask(previous)
    assert (tmp_path / "b.tar").read_bytes() == archive.read_bytes()


def test_layout_directory_holds_what_the_archive_does(
    project: Project, archive: Path, tmp_path: Path
) -> None:
    """tar=false writes the same images into a directory, which only --force replaces."""
    output = f"type=oci,tar=false,dest={tmp_path / 'layout'}"
    options = ("--engine", "local", *ARCH_OPTIONS, "--output", output)
    built = project.build(*options)
    assert read_image(tmp_path / "layout") == read_image(archive)
    assert (
        json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]["digest"] == built["digest"]
    )
    refused = project.run("build", *options)
    assert refused.code == 1
    assert "already exists" in refused.stderr
    assert project.build(*options, "--force")["digest"] == built["digest"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layout"]


def test_another_key_gives_other_objects_despite_the_cache(project: Project, tmp_path: Path) -> None:
    """A rotated key signs again, and the compiled objects are reused."""
    made = project.run("keygen", "next")
    assert made.code == 0, made.stderr
    first = build_archive(project, tmp_path / "a.tar", "--engine", "local")
    second = build_archive(project, tmp_path / "b.tar", "--engine", "local", "--key", "keys/next.pem")
    assert first["keyId"] != second["keyId"]
    a, b = (read_image(tmp_path / name)["linux/amd64"][1] for name in ("a.tar", "b.tar"))
    changed = {path for path in a if a[path] != b[path]}
    assert {Path(path).name for path in changed} == {"number.bpf.o", "two.bpf.o", "policy.json"}
