# SPDX-License-Identifier: Apache-2.0
"""
Writes vectors.json, or with --check compares the file with the output.

    python tests/vectors/generate.py [--check]

Both verifiers run every vector: `file` (base64) with the files of trust store `trust`, for `platform`, at the
time `now`; `expect` is `accepted` or the reason. The stores of `badTrust` are configuration errors (exit code
2). `signatures` are Ed25519 signatures without an object: `key`, `message` and `signature` in hex; `expect`
is `good`, `bad-signature`, or `weak-key` for a key that is an error with every signature.
"""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from labs.vectors.builder import ALICE  # noqa: E402 - this folder is not a package
from labs.vectors.cases import cases  # noqa: E402
from labs.vectors.signatures import Signature, signatures  # noqa: E402
from labs.vectors.trust import BAD_TRUST, NOW, TRUST  # noqa: E402

VECTORS = HERE / "vectors.json"
TEST_KEY = HERE.parent / "keys" / "TEST-KEY-alice.pem"


def make_vectors() -> str:
    """Return the text of vectors.json."""
    vectors = [
        {
            "name": case.name,
            "expect": case.expect,
            "trust": case.trust,
            "platform": case.platform,
            "file": b64encode(case.bytes).decode(),
        }
        for case in cases()
    ]
    names = [vector["name"] for vector in vectors]
    assert len(set(names)) == len(names), "a name is there twice"
    assert {vector["trust"] for vector in vectors} == set(TRUST), "a trust store that no vector uses"
    head = {"comment": "Made by generate.py from TEST KEYS; do not edit.", "now": NOW}
    lines = [f' "{name}": {json.dumps(value)},' for name, value in head.items()]
    for name, table in (("trust", TRUST), ("badTrust", BAD_TRUST)):
        rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(files)}" for key, files in table.items())
        lines.append(f' "{name}": {{\n{rows}\n }},')
    rows = ",\n".join(f"  {json.dumps(_signature_row(item))}" for item in signatures())
    lines.append(f' "signatures": [\n{rows}\n ],')
    rows = ",\n".join(f"  {json.dumps(vector)}" for vector in vectors)
    return "{\n" + "\n".join(lines) + f'\n "vectors": [\n{rows}\n ]\n}}\n'


def _signature_row(item: Signature) -> dict[str, str]:
    return {
        "name": item.name,
        "expect": item.expect,
        "key": item.key.hex(),
        "message": item.message.hex(),
        "signature": item.signature.hex(),
    }


def main() -> int:
    """Write vectors.json, or compare it."""
    files = {VECTORS: make_vectors(), TEST_KEY: ALICE.pem}
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in files.items() if not path.exists() or path.read_text() != text]
        if stale:
            sys.stderr.write(f"stale, run tests/vectors/generate.py: {' '.join(stale)}\n")
        return 1 if stale else 0
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
