# SPDX-License-Identifier: Apache-2.0
"""
Prints which lines of the C verifier the vectors and the fuzzers' inputs reach.

    python tests/fuzz/cover.py [--show]      --show lists the lines that were not reached
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from base64 import b64decode
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from campaign import write_seeds  # noqa: E402
from differential import ANY_PLATFORM, NOW, PLATFORM  # noqa: E402
from labs.compile import find_clang  # noqa: E402
from labs.vectors.index import INDEX, write_store  # noqa: E402
from labs.verifiers import BUILT, Verifier, build_c_verifier  # noqa: E402 - this folder is not a package


def replay_vectors(c: Verifier, stores: Path) -> int:
    """Ask about every vector and return how many there are."""
    for vector in INDEX["vectors"]:
        c.ask("T", bytes(stores / vector["trust"]))
        c.setting("P", vector["platform"].encode())
        c.ask("O", b64decode(vector["file"]))
    for item in INDEX["signatures"]:
        c.ask("S", b"".join(bytes.fromhex(item[name]) for name in ("key", "signature", "message")))
    for kind in ("trust", "badTrust"):
        for number, files in enumerate(INDEX[kind].values()):
            directory = stores.parent / f"{kind}-{number}"
            c.ask("T", bytes(write_store(directory, files)))
    return sum(len(INDEX[name]) for name in ("vectors", "signatures", "trust", "badTrust"))


def replay_corpus(c: Verifier, stores: Path) -> int:
    """Ask about every input that fuzzing has kept and return how many there are."""
    count, paths = 0, sorted(stores.iterdir())
    for path in sorted((BUILT / "corpus").glob("*/*")):
        data, count = path.read_bytes(), count + 1
        if not data:
            continue
        if path.parent.name.endswith("policy"):
            c.ask("K" if data[0] & 1 else "Y", data[1:])
            continue
        c.ask("T", bytes(paths[(data[0] & ~ANY_PLATFORM) % len(paths)]))
        c.setting("P", b"" if data[0] & ANY_PLATFORM else PLATFORM.encode())
        c.ask("O", data[1:])
    return count


def main() -> int:
    """Replay everything and print the report of llvm-cov."""
    clang = find_clang()
    program = build_c_verifier(clang, "check-cover")
    # clang-19 needs llvm-profdata-19.
    suffix = clang.name.removeprefix("clang")
    with tempfile.TemporaryDirectory() as work:
        raw, merged, stores = Path(work) / "raw", Path(work) / "merged", Path(work) / "stores"
        os.environ["LLVM_PROFILE_FILE"] = str(raw)
        write_seeds(Path(work) / "seeds", stores)
        with Verifier(program) as c:
            c.setting("N", str(NOW).encode())
            asked = replay_vectors(c, stores), replay_corpus(c, stores)
        subprocess.run([f"llvm-profdata{suffix}", "merge", "-o", merged, raw], check=True)
        view = ["show", "-show-line-counts-or-regions", "-show-branches=count"]
        view = view if "--show" in sys.argv[1:] else ["report"]
        argv = [shutil.which(f"llvm-cov{suffix}") or "llvm-cov", *view, program, f"-instr-profile={merged}"]
        argv += ["-ignore-filename-regex=fuzz/|state.c|file.c"]
        sys.stdout.write(f"{asked[0]} vectors, {asked[1]} inputs kept by the fuzzers\n")
        sys.stdout.flush()
        return subprocess.run(argv, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
