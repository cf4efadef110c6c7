# SPDX-License-Identifier: Apache-2.0
"""Measure publishing: what signing adds to a push, verifying an image against cosign, and a fleet by bake."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common import BUILDTOOL, TOP, make_key, run, write_source
from measure import BenchError, Command, Row, compare, time_pair

sys.path.insert(0, str(TOP / "tests"))
# The tests' helpers get the other tools from Debian's packages.
import pytest
from labs.peers import distribution_registry, unpack

from buildtool.core.platforms import PLATFORMS

OBJECTS, ARCHITECTURES = 5, ("amd64", "arm64")
PUSH_LIMIT, VERIFY_LIMIT, FLEET_LIMIT, LINEAR_LIMIT = 1.0, 0.5, 1.2, 2.2
# The whole fleet needs hours on a small machine, so BENCH_FLEET may name a smaller one.
FLEET = int(os.environ.get("BENCH_FLEET", "200"))
FLEET_ARCHITECTURES = ("amd64", "arm64", "arm", "riscv64")
HAND = """\
target "{name}" {{
  context = "{context}"
  platforms = [{platforms}]
  tags = ["{tag}"]
  attest = ["type=provenance,disabled=true"]
  secret = ["id=signing-key,src={key}"]
  args = {{ SOURCE_DATE_EPOCH = "0" }}
  output = ["type=image,push=true,store=false,oci-mediatypes=true,rewrite-timestamp=true"]
}}
"""


@contextmanager
def _registry(work: Path) -> Iterator[str]:
    """Run Debian's registry, as the tests do. Raises: BenchError, if the mirror lacks it."""
    with _no_skip(), distribution_registry(work) as address:
        yield address


@contextmanager
def _no_skip() -> Iterator[None]:
    """Turn what skips a test into what a benchmark reports."""
    try:
        yield
    except pytest.skip.Exception as error:
        raise BenchError(str(error)) from error


def bench_publish(work: Path) -> list[Row]:
    """Measure a push with and without signature, bill of materials and provenance; then verify the image."""
    root = _write_project(work / "publish", "publish", OBJECTS, make_key(work))
    environment = {"SOURCE_DATE_EPOCH": "0", "BUILDTOOL_CACHE": str(work / "cache-publish")}
    with _registry(work / "registry") as address:
        tag, place = f"{address}/bench/publish:1", work / "publish"
        push: list[str | Path] = [BUILDTOOL, "build", "--engine", "local", "--tag", tag, "--push"]
        push += [word for arch in ARCHITECTURES for word in ("--arch", arch)]

        def forget() -> None:
            """Empty the registry, so that each run writes everything."""
            shutil.rmtree(work / "registry/data", ignore_errors=True)

        signed = Command(argv=push, cwd=root, env=environment, cleanup=forget)
        bare = Command(argv=[*push, "--no-sign-image"], cwd=root, env=environment, cleanup=forget)
        a, b = time_pair(signed, bare, rounds=7)
        name = "push to a registry on this machine: added by signature, bill of materials and provenance"
        note = f"{a.wall:.0f} against {b.wall:.0f} ms; CPU time {a.cpu:.0f} against {b.cpu:.0f} ms"
        rows = [Row(name=name, unit="s", ours=(a.wall - b.wall) / 1000, limit=PUSH_LIMIT, note=note)]
        run("env", *(f"{key}={value}" for key, value in environment.items()), *push, cwd=place)
        with _no_skip():
            cosign = unpack("trixie", ["cosign"]) / "usr/bin/cosign"
        public = make_key(work).with_suffix(".pub")
        verify = f"--insecure-ignore-tlog=true --key {public}"
        script = f"{cosign} verify {verify} {tag} && {cosign} verify-attestation {verify}"
        theirs = Command(
            argv=["sh", "-c", f"{script} --type slsaprovenance1 {tag}"], cwd=place, env={"HOME": str(work)}
        )
        ours = Command(argv=[BUILDTOOL, "verify", tag, "--trust", public], cwd=place, env=environment)
        name = f"verify an image of {OBJECTS * len(ARCHITECTURES)} objects for {len(ARCHITECTURES)} platforms"
        title = f"{name}, against cosign verify and verify-attestation"
        return [*rows, compare(title, ours, theirs, rounds=15, limit=VERIFY_LIMIT)]


def bench_fleet(work: Path) -> list[Row]:
    """Measure a fleet by one bake, cold and warm, against a bake file by hand and half of the fleet."""
    key, top, times = make_key(work), work / "fleet", {}
    with _registry(work / "registry-fleet") as address:
        arch = [word for name in FLEET_ARCHITECTURES for word in ("--arch", name)]
        told = run(BUILDTOOL, "images", "prepare", "--push", f"{address}/tools", "--json", *arch)
        images = json.loads(told)
        table = "".join(
            f'{name} = "{images[name]}@{images[f"{name}_digest"]}"\n' for name in ("builder", "base")
        )
        for number in range(FLEET):
            root = _write_project(top / f"site{number % 4}/p{number:03}", f"p{number:03}", 1, key)
            with root.joinpath("buildtool.toml").open("a", encoding="ascii") as file:
                file.write(f"[images]\n{table}")
        render: list[str | Path] = [BUILDTOOL, "render", "--bake", top, *arch, "-o"]
        variables = ["env", "SOURCE_DATE_EPOCH=0", "PUSH=1", f"REGISTRY={address}/fleet"]
        bake: list[str | Path] = ["docker", "buildx", "bake", f"--allow=fs.read={key.parent}"]
        # The first bake also links the loader, which no later one does.
        for title, hand in (("first", False), ("ours", False), ("theirs", True), ("half", False)):
            # No run has objects of an earlier one.
            _change(top, title)
            place = work / f"fleet-{title}"
            times[f"render {title}"] = _time([*variables, *render, place])
            names = sorted(path.name for path in place.iterdir() if path.is_dir())
            names = names[: {"first": 1, "half": FLEET // 2}.get(title, FLEET)]
            argv = [*variables, *bake]
            if hand:
                (place / "by-hand.hcl").write_text(_by_hand(place, names, address, key), "utf-8")
                argv += ["--file", "by-hand.hcl"]
            times[title] = _time([*argv, *names], place)
            times[f"warm {title}"] = _time([*argv, *names], place)
    count = f"{FLEET} projects x {len(FLEET_ARCHITECTURES)} architectures"
    rendering = times["render ours"]
    note = f"rendering took {rendering:.1f} s and is in ours alone; each project has one program"
    return [
        Row(name=f"{count}, {name}", unit="s", ours=a, theirs=b, limit=limit, note=note)
        for name, a, b, limit in (
            ("cold, against bake by hand", rendering + times["ours"], times["theirs"], FLEET_LIMIT),
            ("warm, against bake by hand", times["warm ours"], times["warm theirs"], FLEET_LIMIT),
            ("cold, against half of the projects", times["ours"], times["half"], LINEAR_LIMIT),
        )
    ]


def _time(argv: Sequence[str | Path], cwd: Path | None = None) -> float:
    """Return the seconds that *argv* runs."""
    start = time.perf_counter()
    run(*argv, cwd=cwd)
    return time.perf_counter() - start


def _write_project(root: Path, name: str, objects: int, key: Path) -> Path:
    for number in range(objects):
        write_source(root / f"bpf/o{number}.bpf.c", programs=1, blocks=5)
    text = f'[project]\nname = "{name}"\nversion = 1\nrelease = "1"\n[sign]\nkey = "{key}"\n'
    root.joinpath("buildtool.toml").write_text(text, encoding="ascii")
    return root


def _change(top: Path, word: str) -> None:
    """Change each source of the fleet, so that no cache has its object."""
    for path in top.rglob("*.bpf.c"):
        text = path.read_text("ascii").partition("\n/* ")[0]
        number = sum(word.encode()) + int(path.parent.parent.name[1:])
        path.write_text(f"{text}\n/* {word} */\nint unique_{word}_{number} = {number};\n", "ascii")


def _by_hand(place: Path, names: list[str], address: str, key: Path) -> str:
    platforms = ", ".join(f'"{PLATFORMS[arch].oci}"' for arch in FLEET_ARCHITECTURES)
    texts = (
        HAND.format(
            name=name, context=place / name, platforms=platforms, tag=f"{address}/hand/{name}:1", key=key
        )
        for name in names
    )
    return "".join(texts)
