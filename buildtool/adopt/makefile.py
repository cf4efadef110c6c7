# SPDX-License-Identifier: Apache-2.0
"""
Read Makefiles: variables, conditionals, includes, and the rules that compile eBPF sources.

A subset of GNU make, without a shell. A value that this subset cannot tell becomes UNKNOWN, and reaches no
configuration. A variable that nothing sets is empty, as in make. The environment does not count.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from buildtool.adopt.model import ARCH, ARCH_NAMES, AUTOMATIC, UNKNOWN, Found, Generated, Linked, Recipe
from buildtool.adopt.tree import Tree, folder_of, join
from buildtool.adopt.words import compiles_bpf, sources_of, split_commands, split_words
from buildtool.config.compiling import matches

MAX_MAKEFILES = 400
MAX_INCLUDED = 50
MAX_DEPTH = 40
MAX_TEXT = 64 * 1024
MAX_STEPS = 200_000  # of expansion, for each Makefile: variables that double each other need no text
_ASSIGN = re.compile(
    r"^\s*(?:export\s+|override\s+|private\s+)*([\w.%/$(){}-]+?)\s*(\?=|:::=|::=|:=|\+=|!=|=)\s*(.*)$",
    re.DOTALL,
)
_TARGET_SET = re.compile(r"^\s*(?:export\s+)?([\w.-]+)\s*(\+=|:=|\?=|=)\s*(.*)$", re.DOTALL)
_FLAGS = re.compile(r"FLAGS|INC|DEF|OPT", re.IGNORECASE)
_ARCH = re.compile(ARCH_NAMES)
_AUTOMATIC = re.compile(r"[@<^+?*%|][DF]?")
# Programs that a generated file or make itself names.
_USUAL = {"CLANG": "clang", "CC": "cc", "LLC": "llc", "BPF_CLANG": "clang"}
_OUTPUT = re.compile(r"OUTPUT|OUT_?DIR|BUILD_?DIR|OBJ_?DIR|DESTDIR|O", re.IGNORECASE)


def find_makefiles(tree: Tree) -> list[str]:
    """Return the Makefiles of the project, those of the upper folders first."""
    names = [
        name
        for name in tree.files
        if re.fullmatch(r"(?:GNU)?[Mm]akefile(?:[.-][\w.-]+)?|Kbuild|[\w.-]+\.mk", name.rpartition("/")[2])
        and not tree.is_foreign(name)
        and not name.endswith((".in", ".am", ".py", ".c", ".h"))
    ]
    return sorted(names, key=lambda name: (name.count("/"), name))[:MAX_MAKEFILES]


@dataclass(slots=True)
class _Rule:
    """A rule: *targets* and *prerequisites*, not expanded yet, and the *lines* of its recipe."""

    place: str
    targets: str
    prerequisites: str
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Branch:
    """A conditional: whether this branch *holds* and any was *taken*, and its text if it is *unknown*."""

    holds: bool
    taken: bool = False
    unknown: str = ""

    def __post_init__(self) -> None:
        self.taken = self.taken or self.holds


@dataclass(slots=True)
class Makefile:
    """The variables and rules of a Makefile in *directory*, with the files that it includes."""

    tree: Tree
    directory: str
    variables: dict[str, str] = field(default_factory=dict)
    rules: list[_Rule] = field(default_factory=list)
    settings: list[tuple[str, str, str, str]] = field(default_factory=list)
    undecided: list[tuple[str, str]] = field(default_factory=list)
    included: int = 0
    steps: int = 0

    def read(self, name: str) -> None:
        """Read file *name*, and the files that it includes."""
        rule: _Rule | None = None
        branches: list[_Branch] = []
        defining = 0
        for number, line in _logical_lines(self.tree.read(name)):
            if len(line) > MAX_TEXT:
                continue
            stripped = line.strip()
            if defining:
                defining += stripped.startswith("define ") - (stripped == "endef")
                continue
            if line.startswith("\t"):
                if rule and all(branch.holds for branch in branches):
                    rule.lines.append(line[1:])
                continue
            text = re.sub(r"(?<!\\)#.*", "", line).rstrip() if "#" in line else line.rstrip()
            word, _, rest = text.strip().partition(" ")
            if word.startswith(("if", "else", "endif")) and self._branch(word, rest.strip(), branches):
                continue
            if not all(branch.holds for branch in branches) or not word:
                self._note_skipped(name, text, branches)
            elif word == "define":
                defining = 1
            elif word in ("include", "-include", "sinclude"):
                self._include(name, rest, is_needed=word == "include")
            else:
                rule = self._statement(f"{name}:{number}", text, rule)

    def _branch(self, word: str, rest: str, branches: list[_Branch]) -> bool:
        """Enter or leave a conditional. Return whether the line is one."""
        word, _, more = word.partition("(")
        rest = f"({more} {rest}" if more else rest
        if word in ("ifeq", "ifneq", "ifdef", "ifndef"):
            branches.append(self._decide(word, rest))
        elif word == "else" and branches:
            before = branches[-1]
            inner, _, more = rest.partition(" ")
            branch = self._decide(inner, more.strip()) if inner.startswith("if") else _Branch(holds=True)
            branch.holds = branch.holds and not before.taken
            branch.taken = branch.holds or before.taken
            branch.unknown = branch.unknown or before.unknown
            branches[-1] = branch
        elif word == "endif" and branches:
            branches.pop()
        else:
            return False
        return True

    def _note_skipped(self, name: str, text: str, branches: list[_Branch]) -> None:
        """Remember a condition that nobody can tell, if it decides about flags."""
        found = _ASSIGN.match(text)
        unknown = next((branch.unknown for branch in branches if branch.unknown), "")
        if found and unknown and _FLAGS.search(found[1]):
            self.undecided.append((name, unknown))

    def _statement(self, place: str, text: str, rule: _Rule | None) -> _Rule | None:
        if found := _ASSIGN.match(text):
            self._assign(self.expand(found[1]), found[2], found[3])
            return None
        targets, colon, rest = _split_rule(text)
        if colon and targets.strip():
            if setting := _TARGET_SET.match(rest):
                self.settings.append((self.expand(targets), setting[1], setting[2], setting[3]))
                return None
            prerequisites, _, command = rest.partition(";")
            rule = _Rule(place=place, targets=targets, prerequisites=prerequisites)
            if command:
                rule.lines.append(command)
            self.rules.append(rule)
        return rule

    def _assign(self, name: str, kind: str, value: str) -> None:
        if kind == "?=" and name in self.variables:
            return
        if kind == "!=":
            value = UNKNOWN
        if kind in (":=", "::=", ":::="):
            value = self.expand(value).replace("$", "$$")
        if kind == "+=" and name in self.variables:
            # A reference to itself would not end, so += joins the texts.
            value = f"{self.variables[name]} {value}"
        self.variables[name] = value[:MAX_TEXT]

    def _include(self, name: str, text: str, *, is_needed: bool) -> None:
        for word in self.expand(text).split():
            places = (join(base, word) for base in (self.directory, folder_of(name)))
            target = next((place for place in places if place in self.tree.files), "")
            if target and self.included < MAX_INCLUDED:
                self.included += 1
                self.read(target)
            elif is_needed and not target and not {UNKNOWN, ARCH, AUTOMATIC} & set(word):
                self.undecided.append((name, f"include {word}"))

    def _decide(self, word: str, rest: str) -> _Branch:
        """Return a branch that tells whether a conditional holds, and its text if that is unknown."""
        if word in ("ifdef", "ifndef"):
            is_set = bool(self.variables.get(self.expand(rest).strip()))
            return _Branch(holds=is_set == (word == "ifdef"))
        found = re.match(r"\((.*),(.*)\)\s*$", rest, re.DOTALL) or re.match(
            r"""["'](.*?)["']\s+["'](.*?)["']\s*$""", rest, re.DOTALL
        )
        if found is None:
            return _Branch(holds=False)
        left, right = self.expand(found[1]).strip(), self.expand(found[2]).strip()
        if {UNKNOWN, ARCH} & set(left + right):
            return _Branch(holds=False, unknown=f"{word} {rest}")
        return _Branch(holds=(left == right) == (word == "ifeq"))

    def expand(self, text: str, depth: int = 0, local: dict[str, str] | None = None) -> str:
        """Return *text* with its variables and functions replaced."""
        if "$" not in text:
            return text
        self.steps += 1
        if depth > MAX_DEPTH or self.steps > MAX_STEPS or len(text) > MAX_TEXT:
            return UNKNOWN
        parts, at = [], 0
        size = 0
        while (start := text.find("$", at)) >= 0:
            parts.append(text[at:start])
            mark = text[start + 1 : start + 2]
            if mark in ("(", "{"):
                end = _closing(text, start + 1)
                parts.append(self._reference(text[start + 2 : end], depth, local or {}))
                at = end + 1
            elif mark == "$":
                parts.append("$")
                at = start + 2
            else:
                parts.append(AUTOMATIC if mark in "@<^+?*|%" else self._value(mark, depth, local or {}))
                at = start + 2
            size += len(parts[-1])
            if size > MAX_TEXT:
                return UNKNOWN
        return ("".join(parts) + text[at:])[:MAX_TEXT]

    def _reference(self, inside: str, depth: int, local: dict[str, str]) -> str:
        def more(text: str) -> str:
            return self.expand(text, depth + 1, local)

        name, blank, rest = inside.partition(" ")
        if blank and name in _FUNCTIONS:
            words = [more(each) for each in _arguments(rest)]
            return _FUNCTIONS[name](self, words)
        if name in ("shell", "call", "eval", "foreach", "file", "value", "error", "warning", "info", "guile"):
            return self._unknown_function(name, more(rest))
        if name in ("if", "or", "and") and blank:
            return self._choose(name, [more(each) for each in _arguments(rest)])
        if _AUTOMATIC.fullmatch(inside) or (blank and name.isalpha() and inside not in self.variables):
            # A function that this reader does not know has a blank, which no usual name of a variable has.
            return UNKNOWN if blank else AUTOMATIC
        variable, colon, change = inside.partition(":")
        if colon and "=" in change:
            old, _, new = (more(each) for each in change.partition("="))
            old, new = (each if "%" in each else f"%{each}" for each in (old, new))
            return _substitute(old, new, self._value(more(variable), depth, local))
        return self._value(more(inside), depth, local)

    def _unknown_function(self, name: str, text: str) -> str:
        if name in ("eval", "error", "warning", "info"):
            return ""
        if name == "shell" and (
            re.search(r"\buname\s+-m\b|dpkg-architecture|\barch\b", text)
            or text.strip(" \n").startswith(ARCH)
        ):
            return ARCH
        if name == "shell" and (
            found := re.match(r"(?:realpath|readlink -f|cd)\s+([\w./-]+)\s*(?:&&\s*pwd)?$", text.strip())
        ):
            return found[1]
        if name == "shell" and text.strip() in ("pwd", "pwd -P"):
            return "."
        if name == "call" and text.startswith(("msg", "QUIET", "quiet")):
            return ""
        return UNKNOWN

    def _choose(self, name: str, words: list[str]) -> str:
        if name == "or":
            return next((word for word in words if word), "")
        if name == "and":
            return words[-1] if all(words) else ""
        if UNKNOWN in words[0]:
            return UNKNOWN
        return words[1] if words[0].strip() and len(words) > 1 else "".join(words[2:3])

    def _value(self, name: str, depth: int, local: dict[str, str]) -> str:
        if name in local:
            return self.expand(
                local[name], depth + 1, {key: text for key, text in local.items() if key != name}
            )
        if _ARCH.fullmatch(name):
            return ARCH
        if name in ("CURDIR", "PWD"):
            return "."
        if name not in self.variables:
            # Directories of products, which a wrapper gives, have no headers before the build.
            return AUTOMATIC if _OUTPUT.fullmatch(name) else _USUAL.get(name, "")
        return self.expand(self.variables[name], depth + 1, local)


def read_makefiles(tree: Tree, found: Found) -> None:
    """Add the recipes of the project's Makefiles to *found*, each of its own directory."""
    done: set[tuple[str, tuple[str, ...], str]] = set()
    for name in find_makefiles(tree):
        if name.endswith(".mk"):
            continue
        makefile = Makefile(tree=tree, directory=folder_of(name))
        try:
            makefile.read(name)
        except RecursionError:
            found.note(name, "too deep to read; the flags of its rules are missing")
            continue
        recipes = list(_find_recipes(makefile, found))
        for place, condition in makefile.undecided if recipes else ():
            what = (
                "not there yet: configure the project first"
                if condition.startswith("include ")
                else ("taken as false, because only the machine of a build tells")
            )
            found.note(place, f"{condition}: {what}")
        for recipe in recipes:
            key = (recipe.directory, recipe.words, " ".join(recipe.sources))
            if key not in done:
                done.add(key)
                found.recipes.append(recipe)


def read_variables(tree: Tree) -> dict[str, str]:
    """Return the variables of all Makefiles, for commands that get them by the environment."""
    values: dict[str, str] = {}
    for name in find_makefiles(tree):
        if name.endswith(".mk"):
            continue
        makefile = Makefile(tree=tree, directory=folder_of(name))
        try:
            makefile.read(name)
        except RecursionError:
            continue
        for key, value in makefile.variables.items():
            values.setdefault(key, makefile.expand(value))
        for _, key, _, value in makefile.settings:
            values.setdefault(key, makefile.expand(value))
    return values


def _find_recipes(makefile: Makefile, found: Found) -> Iterable[Recipe]:
    for rule in makefile.rules:
        if not rule.lines:
            continue
        yield from _compiling(makefile, rule, {}, ())
        for target, name, kind, value in makefile.settings:
            sources = _sources_of_target(makefile, rule, target)
            if sources and "%" not in target and _uses(rule, name):
                old = makefile.variables.get(name, "")
                text = f"{old} {value}" if kind == "+=" else value
                yield from _compiling(makefile, rule, {name: text}, sources)
        if generated := _generating(makefile, rule):
            found.generated.append(generated)
        for linked in _linking(makefile, rule):
            if linked not in found.linked:
                found.linked.append(linked)


def _sources_of_target(makefile: Makefile, rule: _Rule, target: str) -> tuple[str, ...]:
    """Return the sources that *rule* compiles to *target*."""
    stem = target.rpartition("/")[2].partition(".")[0]
    names = re.compile(rf"{re.escape(stem)}(?:[._]\w+)*\.c")
    return tuple(
        name
        for pattern in _of_rule(makefile, rule)
        for name in sorted(makefile.tree.files)
        if names.fullmatch(name.rpartition("/")[2]) and matches(pattern, name)
    )


def _uses(rule: _Rule, name: str) -> bool:
    return any(re.search(rf"\$[({{]{re.escape(name)}[)}}]", line) for line in rule.lines)


def _compiling(
    makefile: Makefile, rule: _Rule, local: dict[str, str], sources: tuple[str, ...]
) -> Iterable[Recipe]:
    for line in rule.lines:
        whole = makefile.expand(line, 0, local)
        for command in split_commands(whole.lstrip("@-+ ")):
            words = split_words(command.lstrip("@-+ "))
            if not compiles_bpf(words, whole):
                continue
            named = [join(makefile.directory, word) for word in sources_of(words)]
            patterns = tuple(each for each in named if not each.startswith("..")) or _of_rule(makefile, rule)
            yield Recipe(
                place=rule.place,
                directory=makefile.directory,
                words=words,
                sources=sources or patterns,
            )


def _of_rule(makefile: Makefile, rule: _Rule) -> tuple[str, ...]:
    """Return the sources of *rule*: the C files among its prerequisites, patterns with * for %."""
    words = makefile.expand(rule.prerequisites).partition("|")[0].split()
    sources = [word for word in words if word.endswith(".c") and not {UNKNOWN, ARCH, AUTOMATIC} & set(word)]
    patterns = [word for word in sources if "%" in word]
    found = [join(makefile.directory, word.replace("%", "*")) for word in patterns or sources]
    targets = makefile.expand(rule.targets)
    if not found and "%" not in rule.targets + rule.prerequisites and targets.strip():
        # A static rule: prerequisites that only the target's name tells.
        stems = [word.rpartition("/")[2].removesuffix(".o") for word in targets.split()]
        base = makefile.directory
        found = [name for name in (join(base, f"{stem}.c") for stem in stems) if name in makefile.tree.files]
    # ./% alone says nothing about the sources.
    return tuple(each for each in found if not each.startswith(".."))


def _linking(makefile: Makefile, rule: _Rule) -> Iterable[Linked]:
    """Yield objects that *rule* links by `bpftool gen object OUTPUT INPUT...`, if all sources are known."""
    targets = makefile.expand(rule.targets).split()
    inputs = [word for word in makefile.expand(rule.prerequisites).split() if word.endswith(".o")]
    for line in rule.lines:
        for command in split_commands(makefile.expand(line).lstrip("@-+ ")):
            words = split_words(command)
            at = next((at for at, pair in enumerate(pairwise(words)) if pair == ("gen", "object")), None)
            if at is None:
                continue
            output, *given = [*words[at + 2 :], ""]
            name = targets[0] if AUTOMATIC in output and len(targets) == 1 else output
            objects = inputs if any(AUTOMATIC in word for word in given) else given[:-1]
            sources = [_source_of(makefile, word) for word in objects]
            if len(sources) > 1 and all(sources) and name and AUTOMATIC not in name:
                base = posixpath.basename(name)
                yield Linked(place=rule.place, name=base, sources=tuple(dict.fromkeys(sources)))


def _source_of(makefile: Makefile, name: str) -> str:
    """Return the source of object *name*: a C file of its name beside it, or the only one of the project."""
    source = posixpath.basename(name).removesuffix(".o") + ".c"
    near = join(makefile.directory, posixpath.join(posixpath.dirname(name), source))
    here = join(makefile.directory, source)
    found = [each for each in (near, here) if each in makefile.tree.files] or makefile.tree.named(source)
    return found[0] if found and (len(found) == 1 or found[0] in (near, here)) else ""


_SIMPLE = re.compile(r"[\w./+=:,@-]+")


def _generating(makefile: Makefile, rule: _Rule) -> Generated | None:
    """Return the header that *rule* makes, if it makes one: NAME.h: …, with a command or without."""
    targets = makefile.expand(rule.targets).split()
    if len(targets) != 1 or not targets[0].endswith(".h") or "%" in targets[0] or "skel" in targets[0]:
        return None
    if {UNKNOWN, ARCH, AUTOMATIC} & set(targets[0]):
        return None
    output = join(makefile.directory, targets[0])
    lines = [makefile.expand(line).strip().lstrip("@-+ ") for line in rule.lines]
    lines = [line.replace(AUTOMATIC, "$@") for line in lines if line.strip()]
    command: tuple[str, ...] = ()
    if len(lines) == 1 and (made := re.fullmatch(r"([^<>|&;]+)>\s*\S+", lines[0])):
        words = split_words(made[1])
        if words and all(_SIMPLE.fullmatch(word) for word in words) and not makefile.directory:
            command = words
    return Generated(place=rule.place, output=output, command=command)


def _logical_lines(text: str) -> Iterable[tuple[int, str]]:
    """Yield the lines of *text* with their numbers, after joining those that end in a backslash."""
    parts: list[str] = []
    start = 1
    for number, line in enumerate(text.split("\n"), start=1):
        parts.append(line)
        if line.endswith("\\"):
            parts[-1] = line[:-1].rstrip() + " "
            if len(parts) > 1:
                parts[-1] = parts[-1].lstrip()
            continue
        if len(parts) > 1:
            parts[-1] = parts[-1].lstrip()
        yield start, "".join(parts)
        parts, start = [], number + 1
    if parts:
        yield start, "".join(parts)


def _split_rule(text: str) -> tuple[str, str, str]:
    """Return *text* before and behind its first colon outside brackets, with the colon."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character in "({") - (character in ")}")
        if character == ":" and depth == 0:
            return text[:at], ":", text[at + 1 :].removeprefix(":")
    return text, "", ""


def _closing(text: str, start: int) -> int:
    """Return the place of the bracket that closes the one at *start*, or the end of *text*."""
    opening = text[start]
    closing = ")" if opening == "(" else "}"
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == opening) - (text[at] == closing)
        if depth == 0:
            return at
    return len(text)


def _arguments(text: str) -> list[str]:
    """Return the arguments of a function: *text*, cut at commas outside brackets."""
    found, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "({") - (character in ")}")
        if character == "," and depth == 0:
            found.append(text[start:at])
            start = at + 1
    return [*found, text[start:]]


def _substitute(old: str, new: str, text: str) -> str:
    """Return the words of *text*, with *new* for those that match *old*, where % stands for any text."""
    before, percent, after = old.partition("%")
    words = []
    for word in text.split():
        fits = word.startswith(before) and word.endswith(after) and len(word) >= len(before) + len(after)
        if percent and fits:
            words.append(new.replace("%", word[len(before) : len(word) - len(after)], 1))
        else:
            words.append(new if word == old else word)
    return " ".join(words)


def _each(change: Callable[[str], str]) -> Callable[[Makefile, list[str]], str]:
    return lambda _, words: " ".join(change(word) for word in words[0].split())


def _wildcard(makefile: Makefile, words: list[str]) -> str:
    found = []
    for pattern in words[0].split():
        wanted = join(makefile.directory, pattern)
        names = fnmatch.filter(makefile.tree.files, wanted) + fnmatch.filter(makefile.tree.folders, wanted)
        top = makefile.directory
        found += [
            posixpath.relpath(name or ".", top or ".")
            for name in sorted(names)
            if name.count("/") == wanted.count("/")
        ]
    return " ".join(found)


def _filter(keep: bool) -> Callable[[Makefile, list[str]], str]:  # noqa: FBT001 - two functions of make
    def apply(_: Makefile, words: list[str]) -> str:
        patterns = [each.replace("%", "*") for each in words[0].split()]
        texts = words[-1].split()
        return " ".join(
            word for word in texts if any(fnmatch.fnmatchcase(word, each) for each in patterns) == keep
        )

    return apply


def _folder(word: str) -> str:
    return posixpath.dirname(word) + "/" if "/" in word else "./"


_FUNCTIONS: dict[str, Callable[[Makefile, list[str]], str]] = {
    "abspath": _each(posixpath.normpath),
    "realpath": _each(posixpath.normpath),
    "dir": _each(_folder),
    "notdir": _each(posixpath.basename),
    "basename": _each(lambda word: posixpath.splitext(word)[0]),
    "suffix": _each(lambda word: posixpath.splitext(word)[1]),
    "strip": _each(str),
    "sort": lambda _, words: " ".join(sorted(set(words[0].split()))),
    "firstword": lambda _, words: "".join(words[0].split()[:1]),
    "lastword": lambda _, words: "".join(words[0].split()[-1:]),
    "addprefix": lambda _, words: " ".join(words[0] + word for word in words[-1].split()),
    "addsuffix": lambda _, words: " ".join(word + words[0] for word in words[-1].split()),
    "patsubst": lambda _, words: _substitute(words[0].strip(), words[1].strip(), words[-1]),
    "subst": lambda _, words: words[-1].replace(words[0], words[1]) if words[0] else words[-1],
    "filter": _filter(keep=True),
    "filter-out": _filter(keep=False),
    "wildcard": _wildcard,
    "findstring": lambda _, words: words[0] if words[0] in words[-1] else "",
    "origin": lambda makefile, words: "file" if words[0] in makefile.variables else "undefined",
}
