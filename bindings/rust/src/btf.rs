// SPDX-License-Identifier: Apache-2.0

//! The reader of BTF (spec/trust-policy.md, Reading the maps).

use crate::object::{Object, Section};

const HEADER_SIZE: u64 = 24;
const HEAD_SIZE: u64 = 12; // of a type
const MAGIC: u64 = 0xeb9f;
const INFO_MASK: u64 = 0x9f00_ffff; // libbpf 1.8 gives others of the bits a meaning
const KINDS: u64 = 19;
const CHAIN_MAX: usize = 32;
// The kernel's own limits, BTF_MAX_TYPE and BTF_MAX_NAME_OFFSET: it loads no BTF with more.
const MAX_TYPES: usize = 0xf_ffff;
const MAX_NAMES: u64 = 16 << 20;

pub const KIND_POINTER: u64 = 2;
pub const KIND_ARRAY: u64 = 3;
pub const KIND_STRUCT: u64 = 4;
pub const KIND_VAR: u64 = 14;
pub const KIND_GROUP: u64 = 15;

/// Return the bytes that follow the three integers of a type, and the bytes for each that it counts.
fn sizes(kind: u64) -> (u64, u64) {
    match kind {
        1 | 14 | 17 => (4, 0),      // integer, variable, tag of a declaration
        3 => (12, 0),               // array
        4 | 5 | 15 | 19 => (0, 12), // struct, union, group of variables, enumeration of 64 bits
        6 | 13 => (0, 8),           // enumeration, prototype of a function
        _ => (0, 0),
    }
}

/// The types of an object.
pub struct Types<'a> {
    object: &'a Object<'a>,
    /// Offsets in the file.
    start: u64,
    end: u64,
    names: u64,
    names_end: u64,
    /// Of each type after `start`, by its number less 1.
    offsets: Vec<u32>,
}

#[derive(Clone, Copy)]
pub struct Type {
    /// Where in the file the three integers end.
    at: u64,
    pub name: u64,
    pub value: u64,
    pub kind: u64,
    pub count: u64,
}

impl<'a> Types<'a> {
    /// Read the contents of a section. Memory grows with the section, never with a number in it.
    pub fn parse(object: &'a Object, s: &Section) -> Option<Self> {
        let (at, section_end) = (s.offset, s.offset + s.size);
        if s.size < HEADER_SIZE || object.get(at, 2) != MAGIC || object.get(at + 2, 1) != 1 {
            return None;
        }
        // No sum of an offset in the file and three 32-bit numbers wraps.
        let length = object.get(at + 4, 4);
        let start = at + length + object.get(at + 8, 4);
        let end = start + object.get(at + 12, 4);
        let names = at + length + object.get(at + 16, 4);
        let names_end = names + object.get(at + 20, 4);
        if length < HEADER_SIZE
            || end > section_end
            || names_end > section_end
            || names == names_end
            || names_end - names > MAX_NAMES
            || object.get(names_end - 1, 1) != 0
        {
            return None;
        }
        let mut types = Types { object, start, end, names, names_end, offsets: Vec::new() };
        let mut at = start;
        while at < end {
            let (_, next) = types.read(at).filter(|_| types.offsets.len() < MAX_TYPES)?;
            types.offsets.push((at - start) as u32);
            at = next;
        }
        Some(types)
    }

    /// Return the type at an offset, and where the next one begins.
    fn read(&self, at: u64) -> Option<(Type, u64)> {
        if self.end - at < HEAD_SIZE {
            return None;
        }
        let info = self.object.get(at + 4, 4);
        let found = Type {
            at: at + HEAD_SIZE,
            name: self.object.get(at, 4),
            value: self.object.get(at + 8, 4),
            kind: info >> 24 & 0x1f,
            count: info & 0xffff,
        };
        if info & !INFO_MASK != 0 || !(1..=KINDS).contains(&found.kind) {
            return None;
        }
        let (fixed, each) = sizes(found.kind);
        let next = found.at + fixed + each * found.count;
        (next <= self.end).then_some((found, next))
    }

    /// Return the number of the last type; the first is 1.
    pub fn count(&self) -> u64 {
        self.offsets.len() as u64
    }

    pub fn find(&self, number: u64) -> Option<Type> {
        let offset = self.offsets.get(number.checked_sub(1)? as usize)?;
        self.read(self.start + u64::from(*offset)).map(|(found, _)| found)
    }

    /// Return the type behind type definitions, qualifiers and tags of types.
    pub fn resolve(&self, mut number: u64) -> Option<Type> {
        for _ in 0..CHAIN_MAX {
            let found = self.find(number)?;
            if !matches!(found.kind, 8..=11 | 18) {
                return Some(found);
            }
            number = found.value;
        }
        None
    }

    /// Return an integer of those that follow a type; the caller stays within the type's count.
    pub fn word(&self, of: &Type, index: u64) -> u64 {
        self.object.get(of.at + 4 * index, 4)
    }

    /// Return a name that is not too long. The names end in a zero byte, so every one of them ends.
    pub fn name(&self, offset: u64) -> Option<&'a [u8]> {
        if offset >= self.names_end - self.names {
            return None;
        }
        self.object.text(self.names + offset)
    }
}
