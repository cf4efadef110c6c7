# SPDX-License-Identifier: Apache-2.0
"""
Check single compiler flags of a project against a list of kinds.

A flag must name no file and no other program, because flags come from a configuration, a command line or the
statement of an image. It must also mean the same on each machine. A refused flag's message has its reason.
"""

from __future__ import annotations

import re

from buildtool.core.errors import UsageError

MAX_FLAG_BYTES = 1024
_HINT = "compile.include names directories; docs/reference/configuration.md lists the kinds of flags"
# Each is one argument of clang, without a shell, so the text of a macro may have quotes and blanks.
_MACRO = r"-D[A-Za-z_]\w*(\([A-Za-z_0-9 ,.]*\))?(=[ -~]*)?|-U[A-Za-z_]\w*"
# -W selects warnings only. -Wl, -Wa, and -Wp, pass options to other tools (-Wp,-MD,FILE writes FILE).
_WARNING = r"-W[a-z][A-Za-z0-9+=-]*|-pedantic(-errors)?"
_OPTIMISATION = r"-O[1-3sz]"
_STANDARD = r"-std=(gnu|c)(89|90|99|11|17|18|23|1x|2x|2y)|-ansi"
_PROCESSOR = r"-mcpu=v[1-4]"
# Options of the language and of code generation. None of them names a file.
_CODE = (
    r"-f(no-)?("
    r"ms-extensions|jump-tables|unroll-loops|inline|inline-functions|builtin|builtin-\w+|common|short-enums|"
    r"signed-char|unsigned-char|strict-aliasing|strict-overflow|strict-enums|wrapv|vectorize|slp-vectorize|"
    r"tree-vectorize|omit-frame-pointer|unwind-tables|asynchronous-unwind-tables|gnu89-inline|"
    r"delete-null-pointer-checks|merge-all-constants|zero-initialized-in-bss|function-sections|data-sections|"
    r"plan9-extensions|asm-blocks|exceptions|color-diagnostics|lax-vector-conversions"
    r")|-fno-(stack-protector|pic|PIC|pie|PIE|lto|ident)|-fvisibility=(default|hidden)|"
    r"-ftrivial-auto-var-init=(zero|pattern|uninitialized)|-fstrict-flex-arrays=[0-3]|-fmax-errors=\d{1,4}|"
    r"-ferror-limit=\d{1,4}|-fmacro-backtrace-limit=\d{1,4}|-fbracket-depth=\d{1,5}|-fconstexpr-steps=\d{1,9}"
)
_KINDS = (_MACRO, _WARNING, _OPTIMISATION, _STANDARD, _PROCESSOR, _CODE)
_ALLOWED = re.compile("|".join(_KINDS), re.ASCII)
# Kinds that projects often have, with the reason of the refusal.
_REFUSED = (
    (r"-W[lap],", "passes options to another tool"),
    (r"-X|-mllvm|-mattr", "passes options to a part of clang, which differ between its versions"),
    (r"-I|-isystem|-iquote|-idirafter|-isysroot|--sysroot|-F", "names a directory; use compile.include"),
    (r"-include|-imacros|-ivfs|--config|@", "names a file; write #include in the source"),
    (r"-o|-MD|-MMD|-M[FTQMGPJV]?|--?save-temps|-dep", "names an output, which buildtool chooses"),
    (r"-g|-ggdb", "debug information is always on: BTF is made of it, and DWARF is removed"),
    (r"--?target|-arch|-m(32|64|arch|tune|little-endian|big-endian)", "the target comes from build.arch"),
    (r"-mcpu", "must be -mcpu=v1, v2, v3 or v4, because other names mean another processor elsewhere"),
    (r"-O", "the kernel's verifier cannot follow unoptimised code; use -O1, -O2, -O3, -Os or -Oz"),
    (r"-w$", "would hide the warning about members that clang drops; use -Wno-NAME for single warnings"),
    (r"-[cSE]$|-emit|-fsyntax-only|-x", "selects another output, and buildtool makes objects"),
    (r"-no(stdinc|stdlibinc|builtininc|stdlib)", "always on, because clang searches carried headers"),
    (r"-[lL]|-shared|-static|-r$|-p(ie|thread)", "an option for linking programs of user space"),
    (r"-f(pass-)?plugin|-f(profile|coverage|module|crash|save|lto)", "reads or writes other files"),
    (r"-f(debug|file|macro)-prefix", "the names in objects come from the project's directory"),
    (r"-f(sanitize|stack-protector|pic|PIC|pie|PIE)", "makes code that the eBPF back end does not support"),
    (r"-std", "not a standard of C that clang knows, such as -std=gnu11"),
    (r"-D|-U", "not the form -DNAME, -DNAME=VALUE or -UNAME with printable characters"),
    (r"-f", "not in the list of options that are the same in each version of clang"),
    (r"[^-]|$", "not an option, which begins with -"),
)  # fmt: skip


def check_flag(value: str) -> str:
    """
    Return *value* if it is one flag of an allowed kind.

    Raises: UsageError, with the reason of the refusal.
    """
    if len(value.encode("utf-8", "surrogatepass")) > MAX_FLAG_BYTES:
        raise UsageError(f"{value[:60]!a}: a flag of more than {MAX_FLAG_BYTES} bytes", hint=_HINT)
    if _ALLOWED.fullmatch(value) and not value.startswith(("-Wl,", "-Wa,", "-Wp,")):
        return value
    reason = next(
        (text for kind, text in _REFUSED if re.match(kind, value)), "not in the list of allowed kinds"
    )
    raise UsageError(f"{_show(value)} is not a flag for sources: {reason}", hint=_HINT)


def _show(value: str) -> str:
    return ascii(value if len(value) <= 80 else value[:77] + "...")
