# SPDX-License-Identifier: Apache-2.0
"""Test mutants of `signing` and `trust`: the tests that run a mutant's lines, the fastest first."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labs import TOP
from mutation.checkout import copy_checkout, run_pytest
from mutation.mutants import Mutant
from mutation.pysource import make_mutants

FOLDERS = ("buildtool/signing", "buildtool/trust")
# Tests of keys, signers, signing, verification and policies, without those of whole builds.
TESTS = (
    *(f"tests/unit/test_{name}.py" for name in ("calls", "dsse", "ed25519", "keys", "policy", "record")),
    *(
        f"tests/unit/test_{name}.py"
        for name in ("sign", "statement", "trust_edit", "trust_lint", "trust_store", "versions")
    ),
    *(
        f"tests/cli/test_{name}.py"
        for name in ("sign", "signers", "signers_devices", "stale", "trust", "verify", "keygen")
    ),
    *(f"tests/cli/test_{name}.py" for name in ("inspect", "messages", "signer_examples")),
    *(f"tests/vectors/test_{name}.py" for name in ("vectors_python", "signatures", "signers_e2e")),
    *("tests/assurance/test_standard_verifiers.py",),
)
# The library of tokens is loaded in processes of their own, whose lines are not counted.
_IN_PROCESSES = {"buildtool/signing/signers/pkcs11.py": "tests/cli/test_signers_devices.py"}
_MARKS = "not (root or vm or docker)"
_MEASURE_SECONDS = 1800.0
# A mutant's tests may take so long, beside five times their usual time.
_SECONDS = 20.0


class PythonMutants:
    """A copy of the checkout, the lines that each test runs, and the seconds that the test takes."""

    def __init__(self) -> None:
        self._copy = copy_checkout("python")
        self._serve()
        files = [str(self._copy / folder / "*") for folder in FOLDERS]
        found = self._ask({"kind": "measure", "files": files, "seconds": _MEASURE_SECONDS})
        if found["outcome"] != "measured" or found["failed"]:
            raise RuntimeError(f"a test fails without any mutant: {found.get('failed') or found['by']}")
        self._seconds: dict[str, float] = found["seconds"]
        self._tests = {
            (str(Path(file).relative_to(self._copy)), int(line)): {
                test for test in tests if test in self._seconds
            }
            for file, lines in found["lines"].items()
            for line, tests in lines.items()
        }

    def mutants(self) -> Iterator[Mutant]:
        """Yield all mutants, of one file after another."""
        for folder in FOLDERS:
            for path in sorted((self._copy / folder).rglob("*.py")):
                yield from make_mutants(str(path.relative_to(self._copy)), path.read_text())

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Return the outcome of *mutant*, and what killed it."""
        path = self._copy / mutant.file
        try:
            compile(mutant.text, mutant.file, "exec")
        except SyntaxError:
            return "invalid", ""
        tests = self._tests_of(mutant)
        if not tests:
            return "survived", "no test runs this line"
        seconds = _SECONDS + 5 * sum(self._seconds[test] for test in tests)
        # Some tests start the commands as processes, which read the file.
        path.write_text(mutant.text)
        try:
            request = {"kind": "test", "file": str(path), "old": mutant.source, "new": mutant.text}
            answer = self._ask({**request, "tests": tests, "seconds": seconds})
            if answer["outcome"] == "import":
                return run_pytest(self._copy, seconds, *tests).outcome()
            return answer["outcome"], answer["by"]
        finally:
            path.write_text(mutant.source)

    def _tests_of(self, mutant: Mutant) -> list[str]:
        """
        Return the tests that run a line of *mutant*, the fastest first.

        Code that runs when the module is imported ran before its tests: all tests of the module
        may notice.
        """
        lines = range(mutant.line, mutant.last_line + 1)
        found = {
            test
            for (file, line), tests in self._tests.items()
            if file == mutant.file and (line in lines or not mutant.in_function)
            for test in tests
        }
        if mutant.file in _IN_PROCESSES:
            found |= {test for test in self._seconds if test.startswith(_IN_PROCESSES[mutant.file])}
        return sorted(found, key=lambda test: (self._seconds[test], test))

    def _serve(self) -> None:
        requests, answers = os.pipe(), os.pipe()
        argv = [TOP / ".venv/bin/python", self._copy / "tests/mutation/server.py", str(requests[0])]
        argv += [str(answers[1]), "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
        environment = os.environ | {"PYTHONPATH": str(self._copy)}
        log = (self._copy / ".cache/server.log").open("wb")
        self._server = subprocess.Popen(
            [*argv, "-m", _MARKS, *TESTS],
            cwd=self._copy,
            env=environment,
            pass_fds=(requests[0], answers[1]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        os.close(requests[0])
        os.close(answers[1])
        self._requests, self._answers = os.fdopen(requests[1], "w"), os.fdopen(answers[0])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError(f"the tests do not start: see {self._copy / '.cache/server.log'}")
        answer: dict[str, Any] = json.loads(line)
        return answer
