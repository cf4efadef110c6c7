# SPDX-License-Identifier: Apache-2.0
"""A source with constants of all types, and maps of some."""

from __future__ import annotations

SOURCE = """\
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
typedef unsigned short u16;
enum mode { OFF, ON = 5 };
enum sign { MINUS = -1, PLUS = 1 };
const volatile _Bool flag = 0;
const volatile signed char s8 = -1;
const volatile u16 port = 16;
static const volatile int s32 = -32;
const volatile unsigned long long u64 = 64;
const volatile enum mode mode = OFF;
const volatile enum sign sign = MINUS;
const volatile long wide SEC(".rodata.more") = 7;
const volatile char label[8] = "ab";
const volatile int table[2] = { 1, 2 };
const volatile struct { int a; } pair = { 3 };
const unsigned folded = 1;
unsigned plain = 1;
struct { __uint(type, 1); __uint(max_entries, 16); __type(key, int); __type(value, long); }
    counts SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, 24); __uint(max_entries, 0); __uint(map_flags, 1); __type(key, int);
    __type(value, long); } sockets SEC(".maps");
struct inner { __uint(type, 1); __uint(max_entries, 4); __type(key, int); __type(value, int); };
struct { __uint(type, 12); __uint(max_entries, 2); __type(key, int); __array(values, struct inner); }
    outer SEC(".maps");
SEC("socket") int number(void *c)
{
    return flag + s8 + port + s32 + u64 + mode + sign + wide + label[0] + table[1] + pair.a + folded + plain;
}
char LICENSE[] SEC("license") = "GPL";
"""
# A map of maps that does not define the maps inside it, which no kernel creates.
BARE = """\
struct { __uint(type, 12); __uint(max_entries, 2); __type(key, int); __type(value, int); } bare SEC(".maps");
"""
