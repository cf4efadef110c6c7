# SPDX-License-Identifier: Apache-2.0
"""
Read the kernel verifier's log: its objection, and the line of C.

The log is a trace of source lines ("; C source line"), instructions ("12: (61) r1 = ...") and
register states. The objection and the statistics follow. Since Linux 6.10, a source line ends in
"@ file.c:12". For older kernels, the object's BTF provides file and line (`buildtool.check.lines`).
"""

from __future__ import annotations

import re
from errno import EPERM

from buildtool.check.kernelfacts import helper_since
from buildtool.check.model import LoadVerdict, Outcome, SourceLine
from buildtool.objects.helpers import helper_name

_STATISTICS = re.compile(r"processed (\d+) insns .*?peak_states (\d+)")
_NOISE = re.compile(r"processed \d+ insns|verification time |stack depth |mark_precise|\s*$")
# A line of the trace: an instruction, registers, the target of a jump, or an entered function.
_TRACE = re.compile(
    r"\d+: \([0-9a-f]{2}\)|\d+: R\d|\d+: <|from \d+ to \d+|R\d+(_\w+)?=|\s*R\d|caller:|callee:"
    r"|func#\d+ @|Live regs before|[ \d]+: [.\d]{10} |frame\d+:"
    # Global functions, which the kernel checks one by one before and after the program.
    r"|Validating .*func#\d+\.\.\.|Func#\d+ .*(is safe for any args|is global and (assumed )?valid)"
)
_OBJECTION = re.compile(
    r"R\d+ (!read_ok|type=|invalid|unbounded|pointer|has |is |offset|min|max|must|doesn|expects|bitwise|32)"
)
_SOURCE = re.compile(r"; (.*?)(?: @ (\S+):(\d+))?$")
_UNKNOWN_HELPER = re.compile(r"unknown#(\d+)")
_RETRIED = re.compile(r"Retrying without")  # not the cause: libbpf tries again
_MAX_REASON = 300


def read_verdict(code: int, error: str, log: str, warnings: str) -> LoadVerdict:
    """Return the verdict of a load that ended with errno *code*, from kernel *log* and libbpf *warnings*."""
    found = _STATISTICS.search(log)
    instructions, peak = (int(found[1]), int(found[2])) if found else (0, 0)
    if code == 0:
        return LoadVerdict(outcome=Outcome.LOADS, instructions=instructions, peak_states=peak)
    reason, source = _objection(log)
    if reason:
        return LoadVerdict(
            outcome=Outcome.REFUSED,
            instructions=instructions,
            peak_states=peak,
            reason=_shorten(reason),
            source=source,
            log=log,
        )
    said = next((line for line in warnings.splitlines() if line.strip() and not _RETRIED.search(line)), "")
    text = said.removeprefix("libbpf: ") or error
    if code == EPERM:
        text += " (a capability is missing, or a security module says no)"
    return LoadVerdict(outcome=Outcome.FAILED, reason=_shorten(text), log=log + warnings)


def _objection(log: str) -> tuple[str, SourceLine | None]:
    """Return the objection, which is the first line after the trace, and the last source line before it."""
    lines = [line for line in log.splitlines() if not _NOISE.match(line)]
    last = max((at for at, line in enumerate(lines) if _is_trace(line)), default=-1)
    rest = lines[last + 1 :]
    if not rest:
        return "", None
    texts = [found for line in lines[: last + 1] if (found := _SOURCE.match(line))]
    source = None
    if texts:
        text, file, line = texts[-1].groups()
        source = SourceLine(text=text.strip(), file=file or "", line=int(line or 0))
    return _UNKNOWN_HELPER.sub(_name_helper, rest[0]), source


def _name_helper(found: re.Match[str]) -> str:
    """Return name and first release of a helper that an older kernel reports by number."""
    number = int(found[1])
    since = helper_since(number)
    came = f" (since Linux {since[0]}.{since[1]})" if since else ""
    return f"{helper_name(number)}#{number}{came}"


def _is_trace(line: str) -> bool:
    return bool(_SOURCE.match(line) or (_TRACE.match(line) and not _OBJECTION.match(line)))


def _shorten(text: str) -> str:
    return " ".join(text.split())[:_MAX_REASON]
