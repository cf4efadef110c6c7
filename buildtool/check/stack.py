# SPDX-License-Identifier: Apache-2.0
"""
Measure instructions and stack of each program together with the functions that it calls.

The results serve warnings. Code that hides its use of the stack is found by the kernel verifier
only, which follows each path.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from buildtool.core.errors import ObjectFormatError
from buildtool.objects.elf import ElfObject, LinkTables
from buildtool.objects.tables import SHF_EXECINSTR, SHT_PROGBITS, Relocation

FRAME_BYTES = 512  # MAX_BPF_STACK, the limit of a function and of a call chain
MAX_FRAMES = 8
_SLOT_BYTES = 8
_MAX_DEPTH = 64  # far above the kernel's limit of frames, far below Python's recursion limit
_ROUNDING = 16  # of a frame in a chain since Linux 6.10 with a JIT; 32 before
_FRAME_POINTER = 10
_CALL, _LOAD_ADDRESS, _MOVE, _ADD, _ADD_REGISTER = 0x85, 0x18, 0xBF, 0x07, 0x0F
_PSEUDO_CALL = 1
_CALLER_SAVED = range(6)
_ARGUMENTS = range(1, 6)
_MAX_STEPS = 1_000_000  # of all walks of an object: a thousand programs with a thousand calls each
_CLASS = 0x07
_LOAD, _STORES, _ALU = 1, (2, 3), (4, 7)

Place = tuple[int, int]  # section and slot


# Opcode, destination, source, offset and immediate. A named tuple costs three times as much.
_Instruction = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """
    A function: its code in *slots* of 8 bytes, its own *stack* in bytes, and the functions that it *calls*.

    *varies* is true if the function uses the stack at a variable offset.
    """

    name: str
    slots: int
    stack: int
    varies: bool
    calls: frozenset[Place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """
    The code and stack of a program with all functions that it calls.

    *frame* is the largest frame in bytes. *chain* is the deepest call chain in bytes, and *frames*
    its number of frames. *varies* is true if an offset is not constant, and *recursive* if a
    function calls itself or the chain has no end.
    """

    instructions: int
    frame: int
    chain: int
    frames: int
    varies: bool
    recursive: bool


@dataclass(slots=True, kw_only=True)
class _Walk:
    """
    A walk over the call graph of one program, of at most *steps* functions and calls.

    *open* holds the functions on the present path.
    """

    functions: Mapping[Place, Function]
    steps: int
    depths: dict[Place, tuple[int, int]] = field(default_factory=dict)
    open: set[Place] = field(default_factory=set)
    recursive: bool = False

    def depth(self, place: Place) -> tuple[int, int]:
        """Return bytes and frames of the deepest call chain from the function at *place*."""
        if place in self.depths:
            return self.depths[place]
        if place in self.open or len(self.open) > _MAX_DEPTH:
            self.recursive = True
            return 0, 0
        function = self.functions.get(place)
        if function is None:
            return 0, 0
        self.steps -= 1 + len(function.calls)
        if self.steps < 0:
            raise ObjectFormatError("programs that reach too many functions")
        self.open.add(place)
        below = [self.depth(callee) for callee in sorted(function.calls)]
        self.open.discard(place)
        own = max(function.stack, 1) + -max(function.stack, 1) % _ROUNDING
        self.depths[place] = (
            own + max((size for size, _ in below), default=0),
            1 + max((frames for _, frames in below), default=0),
        )
        return self.depths[place]


def read_functions(obj: ElfObject, tables: LinkTables) -> dict[Place, Function]:
    """Return the functions of *obj* by section and slot."""
    starts: dict[int, dict[int, str]] = {}
    for symbol in tables.symbols:
        if symbol.is_function and 0 < symbol.section < len(obj.sections):
            slot = symbol.value // _SLOT_BYTES
            # A damaged symbol may point outside its section.
            if slot < obj.sections[symbol.section].size // _SLOT_BYTES:
                starts.setdefault(symbol.section, {})[slot] = symbol.name
    found = {}
    for index, names in starts.items():
        section = obj.sections[index]
        if section.type != SHT_PROGBITS or not section.flags & SHF_EXECINSTR:
            continue
        code = obj.contents(section)
        relocations = {r.offset: r for r in tables.relocations.get(index, ())}
        ends = [*sorted(names), len(code) // _SLOT_BYTES]
        for start, end in pairwise(ends):
            body = code[start * _SLOT_BYTES : end * _SLOT_BYTES]
            calls = frozenset(_calls(index, start, _decode(body, obj.order), relocations, tables))
            stack, varies = _stack(_decode(body, obj.order))
            found[index, start] = Function(
                name=names[start], slots=end - start, stack=stack, varies=varies, calls=calls
            )
    return found


class Meter:
    """Measures the programs of one object with *functions*."""

    def __init__(self, functions: Mapping[Place, Function]) -> None:
        """Index *functions* by section and name."""
        self._functions = functions
        self._starts: dict[tuple[int, str], Place] = {}
        for place, function in functions.items():
            self._starts.setdefault((place[0], function.name), place)
        self._steps = _MAX_STEPS

    def measure(self, name: str, section: int) -> Usage | None:
        """
        Return the usage of program *name* in section number *section*, or None if it is missing.

        Raises: ObjectFormatError, if the programs of the object together reach too many functions.
        """
        start = self._starts.get((section, name))
        if start is None:
            return None
        walk = _Walk(functions=self._functions, steps=self._steps)
        chain, frames = walk.depth(start)
        self._steps = walk.steps
        reached = [self._functions[place] for place in walk.depths]
        return Usage(
            instructions=sum(function.slots for function in reached),
            frame=max(function.stack for function in reached),
            chain=chain,
            frames=frames,
            varies=any(function.varies for function in reached),
            recursive=walk.recursive,
        )


def _decode(code: bytes, order: str) -> Iterator[_Instruction]:
    code = code[: len(code) // _SLOT_BYTES * _SLOT_BYTES]
    for opcode, registers, offset, immediate in struct.iter_unpack(f"{order}BBhi", code):
        low, high = registers & 0xF, registers >> 4
        # The two register fields are C bit fields, so their halves of the byte depend on the byte order.
        destination, source = (low, high) if order == "<" else (high, low)
        yield opcode, destination, source, offset, immediate


def _calls(
    section: int,
    start: int,
    body: Iterator[_Instruction],
    relocations: dict[int, Relocation],
    tables: LinkTables,
) -> Iterator[Place]:
    """Yield the target of each call and of each function address (libbpf: bpf_object__reloc_code)."""
    for slot, (opcode, _, source, _, immediate) in enumerate(body, start):
        is_call = opcode == _CALL and source == _PSEUDO_CALL
        if not is_call and opcode != _LOAD_ADDRESS:
            continue
        relocation = relocations.get(slot * _SLOT_BYTES)
        if relocation is not None and relocation.symbol < len(tables.symbols):
            symbol = tables.symbols[relocation.symbol]
            addend = immediate + 1 if is_call else immediate // _SLOT_BYTES
            yield symbol.section, symbol.value // _SLOT_BYTES + addend
        elif is_call:
            yield section, slot + immediate + 1


def _stack(body: Iterator[_Instruction]) -> tuple[int, bool]:
    """Return the bytes of stack that *body* uses, and whether it uses a variable offset."""
    pointers = {_FRAME_POINTER: 0}
    lowest, varies = 0, False
    for opcode, destination, source, offset, immediate in body:
        kind = opcode & _CLASS
        base = source if kind == _LOAD else destination
        if kind in (_LOAD, *_STORES) and base in pointers:
            lowest = min(lowest, pointers[base] + offset)
        if opcode == _MOVE and source in pointers and offset == 0:
            pointers[destination] = pointers[source]
        elif opcode == _ADD and destination in pointers:
            # An address alone uses no stack: code may compute one below the frame and add to it again.
            pointers[destination] += immediate
        elif opcode == _CALL:
            for register in _CALLER_SAVED:
                address = pointers.pop(register, 0)
                lowest = min(lowest, address if register in _ARGUMENTS else 0)
        elif kind in (0, _LOAD, *_ALU) and destination != _FRAME_POINTER:
            gone = pointers.pop(destination, None)
            if gone is not None and opcode == _ADD_REGISTER:
                # An array that is indexed begins here, as far as the code shows.
                lowest, varies = min(lowest, gone), True
    return -lowest, varies
