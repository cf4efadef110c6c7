# SPDX-License-Identifier: Apache-2.0
"""Make Ethernet frames and OPC UA messages byte by byte, valid ones and malformed ones."""

from __future__ import annotations

import socket
import struct

ETH_IPV4 = 0x0800
ETH_8021Q = 0x8100
ETH_IPV6 = 0x86DD
ETH_8021AD = 0x88A8
OPCUA_PORT = 4840
CLIENT_PORT = 50000
MORE_FRAGMENTS = 0x2000
# The broadcast address, so that no test depends on an address, and a sender that no host has.
TEST_ADDRESSES = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01"

SOURCE4, DESTINATION4 = "10.77.0.1", "10.77.0.2"
SOURCE6, DESTINATION6 = "fd77::1", "fd77::2"


def ethernet(payload: bytes, kind: int, *tags: tuple[int, int]) -> bytes:
    """Return a broadcast frame; *tags* are (ethertype of the tag, VLAN id), outermost first."""
    frame = TEST_ADDRESSES
    for tag, vlan in tags:
        frame += struct.pack(">HH", tag, vlan)
    return frame + struct.pack(">H", kind) + payload


def padded(frame: bytes) -> bytes:
    """Return *frame* as a network card sends it: at least 60 bytes."""
    return frame.ljust(60, b"\0")


def ipv4(
    payload: bytes,
    protocol: int,
    *,
    options: bytes = b"",
    fragment: int = 0,
    version: int = 4,
    header_words: int | None = None,
    total: int | None = None,
) -> bytes:
    """Return an IPv4 packet; *header_words* and *total* state other lengths than the true ones."""
    words = 5 + len(options) // 4 if header_words is None else header_words
    length = 20 + len(options) + len(payload) if total is None else total
    addresses = socket.inet_aton(SOURCE4) + socket.inet_aton(DESTINATION4)
    header = (
        struct.pack(">BBHHHBBH", version << 4 | words, 0, length, 7, fragment, 64, protocol, 0) + addresses
    )
    return header + options + payload


def ipv6(payload: bytes, first: int, *, length: int | None = None, version: int = 6) -> bytes:
    """Return an IPv6 packet whose first next-header is *first*."""
    addresses = socket.inet_pton(socket.AF_INET6, SOURCE6) + socket.inet_pton(socket.AF_INET6, DESTINATION6)
    size = len(payload) if length is None else length
    return struct.pack(">IHBB", version << 28, size, first, 64) + addresses + payload


def extension(following: int, length: int = 8) -> bytes:
    """Return an IPv6 extension header of *length* bytes (hop-by-hop, routing, destination: padding)."""
    return struct.pack(">BB", following, length // 8 - 1) + b"\x01" + bytes([length - 4]) + bytes(length - 4)


def authentication(following: int, words: int = 6) -> bytes:
    """Return an IPv6 authentication header of *words* 4-byte words."""
    return struct.pack(">BB", following, words - 2) + bytes(words * 4 - 2)


def fragment6(following: int, offset: int, *, more: bool) -> bytes:
    """Return an IPv6 fragment header; *offset* in 8 bytes."""
    return struct.pack(">BBHI", following, 0, offset << 3 | more, 7)


def tcp(
    payload: bytes,
    *,
    source: int = CLIENT_PORT,
    destination: int = OPCUA_PORT,
    options: bytes = b"",
    header_words: int | None = None,
) -> bytes:
    """Return a TCP segment; *header_words* states another header length than the true one."""
    words = 5 + len(options) // 4 if header_words is None else header_words
    return (
        struct.pack(">HHIIBBHHH", source, destination, 1, 1, words << 4, 0x18, 512, 0, 0) + options + payload
    )


def udp(
    payload: bytes,
    *,
    source: int = CLIENT_PORT,
    destination: int = OPCUA_PORT,
    length: int | None = None,
) -> bytes:
    """Return a UDP datagram; *length* states another length than the true one."""
    return (
        struct.pack(">HHHH", source, destination, 8 + len(payload) if length is None else length, 0) + payload
    )


def message(kind: bytes, body: bytes = b"", *, chunk: bytes = b"F", size: int | None = None) -> bytes:
    """Return an OPC UA message; *size* states another size than the true one."""
    return kind + chunk + struct.pack("<I", 8 + len(body) if size is None else size) + body


def hello(url: bytes = b"opc.tcp://10.77.0.2:4840") -> bytes:
    """Return a Hello message: version, two buffer sizes, two limits, endpoint URL."""
    return message(b"HEL", struct.pack("<IIIIII", 0, 65536, 65536, 0, 0, len(url)) + url)


def acknowledge() -> bytes:
    """Return an Acknowledge message: version, two buffer sizes, two limits."""
    return message(b"ACK", struct.pack("<IIIII", 0, 65536, 65536, 0, 0))
