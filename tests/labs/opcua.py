# SPDX-License-Identifier: Apache-2.0
"""Frames, valid and malformed, with the counts that opcua_monitor must have for each."""

from __future__ import annotations

import struct
from enum import IntEnum

from labs import frames as f

TCP, UDP = 6, 17
HOPOPTS, ROUTING, FRAGMENT, AH, DSTOPTS, NONE = 0, 43, 44, 51, 60, 59


class Count(IntEnum):
    """Keys of the map opcua_counts: bpf/opcua_monitor.h."""

    HEL = 0
    ACK = 1
    ERR = 2
    RHE = 3
    OPN = 4
    MSG = 5
    CLO = 6
    UADP = 7
    OTHER = 8
    SHORT_HEADER = 9
    BAD_CHUNK = 10
    BAD_SIZE = 11
    BAD_TYPE = 12
    NOT_FOLLOWED = 13
    UADP_VERSION = 14
    UADP_EMPTY = 15
    FRAGMENT = 16
    PACKET_SHORT = 17
    PACKET_MALFORMED = 18
    PACKET_TOO_DEEP = 19


Counts = dict[Count, tuple[int, int]]


def tcp4(payload: bytes) -> bytes:
    """Return a frame with *payload* on its way to an OPC UA server."""
    return f.ethernet(f.ipv4(f.tcp(payload), TCP), f.ETH_IPV4)


def udp4(payload: bytes) -> bytes:
    """Return a frame with *payload* on its way to a UADP subscriber."""
    return f.ethernet(f.ipv4(f.udp(payload), UDP), f.ETH_IPV4)


def deep6(*headers: bytes, first: int) -> bytes:
    """Return a frame with a HEL behind IPv6 extension *headers*."""
    return f.ethernet(f.ipv6(b"".join(headers) + f.tcp(HELLO), first), f.ETH_IPV6)


HELLO = f.hello()
MESSAGES = {
    Count.HEL: HELLO,
    Count.ACK: f.acknowledge(),
    Count.ERR: f.message(b"ERR", struct.pack("<II", 0x80000000, 0)),
    Count.RHE: f.message(b"RHE", bytes(8)),
    Count.OPN: f.message(b"OPN", bytes(124)),
    Count.MSG: f.message(b"MSG", bytes(100)),
    Count.CLO: f.message(b"CLO", bytes(49)),
}
UADP = b"\xf1" + bytes(40)
ONE_HEL: Counts = {Count.HEL: (1, len(HELLO))}

# Each frame with its expected counts. A frame with an empty dict is not counted.
SOUND: dict[str, tuple[bytes, Counts]] = {
    **{kind.name: (tcp4(data), {kind: (1, len(data))}) for kind, data in MESSAGES.items()},
    "intermediate chunk": (tcp4(f.message(b"MSG", bytes(9), chunk=b"C")), {Count.MSG: (1, 17)}),
    "aborting chunk": (tcp4(f.message(b"MSG", bytes(9), chunk=b"A")), {Count.MSG: (1, 17)}),
    "header alone": (tcp4(f.message(b"MSG")), {Count.MSG: (1, 8)}),
    "longer than the segment": (tcp4(f.message(b"MSG", bytes(9), size=70000)), {Count.MSG: (1, 70000)}),
    "largest size": (tcp4(f.message(b"MSG", size=0xFFFFFFFF)), {Count.MSG: (1, 0xFFFFFFFF)}),
    "from the server": (
        f.ethernet(f.ipv4(f.tcp(HELLO, source=4840, destination=50000), TCP), f.ETH_IPV4),
        ONE_HEL,
    ),
    "two in one segment": (
        tcp4(HELLO + MESSAGES[Count.MSG]),
        {Count.HEL: (1, len(HELLO)), Count.MSG: (1, 108)},
    ),
    "eight in one segment": (tcp4(f.message(b"MSG") * 8), {Count.MSG: (8, 64)}),
    "nine in one segment": (
        tcp4(f.message(b"MSG") * 9),
        {Count.MSG: (8, 64), Count.NOT_FOLLOWED: (1, 8)},
    ),
    "TCP options": (f.ethernet(f.ipv4(f.tcp(HELLO, options=bytes(40)), TCP), f.ETH_IPV4), ONE_HEL),
    "IPv4 options": (f.ethernet(f.ipv4(f.tcp(HELLO), TCP, options=b"\1" * 40), f.ETH_IPV4), ONE_HEL),
    "VLAN": (f.ethernet(f.ipv4(f.tcp(HELLO), TCP), f.ETH_IPV4, (f.ETH_8021Q, 5)), ONE_HEL),
    "two VLAN tags": (
        f.ethernet(f.ipv4(f.tcp(HELLO), TCP), f.ETH_IPV4, (f.ETH_8021AD, 5), (f.ETH_8021Q, 6)),
        ONE_HEL,
    ),
    "IPv6": (deep6(first=TCP), ONE_HEL),
    "IPv6 in a VLAN": (f.ethernet(f.ipv6(f.tcp(HELLO), TCP), f.ETH_IPV6, (f.ETH_8021Q, 5)), ONE_HEL),
    "IPv6 hop-by-hop, routing, destination": (
        deep6(f.extension(ROUTING), f.extension(DSTOPTS, 24), f.extension(TCP, 16), first=HOPOPTS),
        ONE_HEL,
    ),
    "IPv6 authentication header": (deep6(f.authentication(TCP), first=AH), ONE_HEL),
    "IPv6 six extensions": (
        deep6(*[f.extension(DSTOPTS)] * 5, f.extension(TCP), first=DSTOPTS),
        ONE_HEL,
    ),
    "IPv6 atomic fragment": (deep6(f.fragment6(TCP, 0, more=False), first=FRAGMENT), ONE_HEL),
    "IPv6 first fragment": (deep6(f.fragment6(TCP, 0, more=True), first=FRAGMENT), ONE_HEL),
    "IPv4 first fragment": (
        f.ethernet(f.ipv4(f.tcp(HELLO), TCP, fragment=f.MORE_FRAGMENTS), f.ETH_IPV4),
        ONE_HEL,
    ),
    "UADP": (udp4(UADP), {Count.UADP: (1, 41)}),
    "UADP of one byte": (udp4(b"\x01"), {Count.UADP: (1, 1)}),
    "UADP over IPv6": (f.ethernet(f.ipv6(f.udp(UADP), UDP), f.ETH_IPV6), {Count.UADP: (1, 41)}),
    "UADP first fragment": (
        f.ethernet(f.ipv4(f.udp(UADP, length=3008), UDP, fragment=f.MORE_FRAGMENTS), f.ETH_IPV4),
        {Count.UADP: (1, 3000)},
    ),
    "no payload": (tcp4(b""), {}),
    "no payload, padded": (f.padded(tcp4(b"")), {}),
    "another port": (f.ethernet(f.ipv4(f.tcp(HELLO, destination=4841), TCP), f.ETH_IPV4), {}),
    "another UDP port": (f.ethernet(f.ipv4(f.udp(UADP, destination=4841), UDP), f.ETH_IPV4), {}),
    "ICMP": (f.ethernet(f.ipv4(bytes(8), 1), f.ETH_IPV4), {}),
    "IPv6 without next header": (f.ethernet(f.ipv6(b"", NONE), f.ETH_IPV6), {}),
    "ARP": (f.ethernet(bytes(28), 0x0806), {}),
}


def fault(what: Count, frame: bytes) -> tuple[bytes, Counts]:
    """Return a *frame* that is counted whole as *what*."""
    return frame, {what: (1, len(frame))}


IPV4_HELLO = f.ethernet(f.ipv4(f.tcp(HELLO), TCP), f.ETH_IPV4)
FAULTY: dict[str, tuple[bytes, Counts]] = {
    # Payload that is no message
    "continuation": (tcp4(bytes(100)), {Count.OTHER: (1, 100)}),
    "two bytes": (tcp4(b"ME"), {Count.OTHER: (1, 2)}),
    "five other bytes": (tcp4(b"GET /"), {Count.OTHER: (1, 5)}),
    "type only": (tcp4(b"MSG"), {Count.SHORT_HEADER: (1, 3)}),
    "seven bytes of a header": (tcp4(f.message(b"HEL")[:7]), {Count.SHORT_HEADER: (1, 7)}),
    "padding is no header": (f.padded(tcp4(b"MSG")), {Count.SHORT_HEADER: (1, 3)}),
    "chunk of a Hello": (tcp4(f.message(b"HEL", chunk=b"C")), {Count.BAD_CHUNK: (1, 8)}),
    "chunk of an OpenSecureChannel": (tcp4(f.message(b"OPN", chunk=b"A")), {Count.BAD_CHUNK: (1, 8)}),
    "unknown chunk": (tcp4(f.message(b"MSG", chunk=b"X")), {Count.BAD_CHUNK: (1, 8)}),
    "size 7": (tcp4(f.message(b"MSG", size=7)), {Count.BAD_SIZE: (1, 8)}),
    "size 0": (tcp4(f.message(b"ACK", size=0)), {Count.BAD_SIZE: (1, 8)}),
    "big-endian size": (tcp4(b"MSGF\0\0\0\x08"), {Count.MSG: (1, 0x08000000)}),
    "garbage after a message": (
        tcp4(f.message(b"MSG") + b"garbage!"),
        {Count.MSG: (1, 8), Count.BAD_TYPE: (1, 8)},
    ),
    "four bytes after a message": (
        tcp4(f.message(b"MSG") + b"none"),
        {Count.MSG: (1, 8), Count.BAD_TYPE: (1, 4)},
    ),
    "header split after a message": (
        tcp4(f.message(b"MSG") + b"MSGF"),
        {Count.MSG: (1, 8), Count.SHORT_HEADER: (1, 4)},
    ),
    "one byte after a message": (
        tcp4(f.message(b"MSG") + b"M"),
        {Count.MSG: (1, 8), Count.SHORT_HEADER: (1, 1)},
    ),
    "second message of a bad size": (
        tcp4(f.message(b"MSG") + f.message(b"CLO", size=1)),
        {Count.MSG: (1, 8), Count.BAD_SIZE: (1, 8)},
    ),
    "UADP version 2": (udp4(b"\xf2" + bytes(9)), {Count.UADP_VERSION: (1, 10)}),
    "UADP version 0": (udp4(bytes(10)), {Count.UADP_VERSION: (1, 10)}),
    "empty UDP": (udp4(b""), {Count.UADP_EMPTY: (1, 0)}),
    "empty UDP, padded": (f.padded(udp4(b"")), {Count.UADP_EMPTY: (1, 0)}),
    # Packets that cannot be looked into
    "IPv4 later fragment": fault(
        Count.FRAGMENT, f.ethernet(f.ipv4(f.tcp(HELLO), TCP, fragment=3), f.ETH_IPV4)
    ),
    "IPv6 later fragment": fault(Count.FRAGMENT, deep6(f.fragment6(TCP, 3, more=False), first=FRAGMENT)),
    "frame ends in the VLAN tag": fault(Count.PACKET_SHORT, f.ethernet(b"", f.ETH_8021Q)),
    "frame ends in IPv4": fault(Count.PACKET_SHORT, IPV4_HELLO[: 14 + 19]),
    "frame ends in IPv6": fault(Count.PACKET_SHORT, deep6(first=TCP)[: 14 + 39]),
    "frame ends in an extension": fault(
        Count.PACKET_SHORT, deep6(f.extension(TCP), first=DSTOPTS)[: 14 + 47]
    ),
    "frame ends in TCP": fault(Count.PACKET_SHORT, f.ethernet(f.ipv4(f.tcp(b"")[:19], TCP), f.ETH_IPV4)),
    "frame ends in UDP": fault(Count.PACKET_SHORT, f.ethernet(f.ipv4(f.udp(b"")[:7], UDP), f.ETH_IPV4)),
    "IPv4 longer than the frame": fault(Count.PACKET_MALFORMED, IPV4_HELLO[:-1]),
    "IPv6 longer than the frame": fault(Count.PACKET_MALFORMED, deep6(first=TCP)[:-1]),
    "IPv4 version": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(HELLO), TCP, version=5), f.ETH_IPV4)
    ),
    "IPv6 version": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv6(f.tcp(HELLO), TCP, version=4), f.ETH_IPV6)
    ),
    "IPv4 header of 16 bytes": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(HELLO), TCP, header_words=4), f.ETH_IPV4)
    ),
    "IPv4 shorter than its header": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(HELLO), TCP, total=19), f.ETH_IPV4)
    ),
    "extension longer than the packet": fault(
        Count.PACKET_MALFORMED, deep6(bytes([TCP, 255]) + bytes(6), first=DSTOPTS)
    ),
    "TCP header of 16 bytes": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(HELLO, header_words=4), TCP), f.ETH_IPV4)
    ),
    "TCP header longer than the packet": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(b"", header_words=15), TCP), f.ETH_IPV4)
    ),
    "TCP in the padding": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.tcp(HELLO), TCP, total=20), f.ETH_IPV4)
    ),
    "UDP shorter than its header": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.udp(UADP, length=7), UDP), f.ETH_IPV4)
    ),
    "UDP longer than the packet": fault(
        Count.PACKET_MALFORMED, f.ethernet(f.ipv4(f.udp(UADP, length=50), UDP), f.ETH_IPV4)
    ),
    "three VLAN tags": fault(
        Count.PACKET_TOO_DEEP,
        f.ethernet(f.ipv4(f.tcp(HELLO), TCP), f.ETH_IPV4, *[(f.ETH_8021Q, 5)] * 3),
    ),
    "IPv6 seven extensions": fault(
        Count.PACKET_TOO_DEEP, deep6(*[f.extension(DSTOPTS)] * 6, f.extension(TCP), first=DSTOPTS)
    ),
}
CASES = {**SOUND, **FAULTY}
