// SPDX-License-Identifier: Apache-2.0

//! The profile of ELF (spec/sig-section.md, section 1), and the digest (section 3).

use sha2::{Digest, Sha256};

use crate::{malformed, Result};

const HEADER_SIZE: u64 = 64;
const SECTION_SIZE: u64 = 64;
const MAX_SECTIONS: u64 = 65279;
const MACHINE_BPF: u64 = 247;
/// Bytes of a name; the kernel's own are no longer.
pub const MAX_TEXT: usize = 512;

pub const TYPE_NULL: u64 = 0;
pub const TYPE_PROGBITS: u64 = 1;
pub const TYPE_SYMBOL_TABLE: u64 = 2;
pub const TYPE_STRING_TABLE: u64 = 3;
pub const TYPE_NOBITS: u64 = 8;
pub const TYPE_RELOCATIONS: u64 = 9;

/// An object of the profile; it borrows the bytes.
pub struct Object<'a> {
    pub data: &'a [u8],
    pub big_endian: bool,
    pub sections: u64,
    /// Sections named `.sig`.
    pub sig_count: usize,
    table: u64,
    names: u64,
    sig_index: u64,
}

#[derive(Clone, Copy, Default)]
pub struct Section {
    pub name: u64,
    pub kind: u64,
    pub flags: u64,
    pub addr: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u64,
    pub info: u64,
    pub entry_size: u64,
}

impl Section {
    /// Return whether the section has contents in the file.
    pub fn occupies(&self) -> bool {
        self.kind != TYPE_NULL && self.kind != TYPE_NOBITS
    }
}

/// Compare without a sum, which could wrap.
fn inside(offset: u64, size: u64, total: u64) -> bool {
    offset <= total && size <= total - offset
}

/// Compare two ranges inside the file, so no sum wraps.
fn overlap(a: u64, a_size: u64, b: u64, b_size: u64) -> bool {
    a_size > 0 && b_size > 0 && a < b + b_size && b < a + a_size
}

impl<'a> Object<'a> {
    /// Parse an object by section 1, without the rules for `.sig`.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let mut o =
            Object { data, big_endian: false, sections: 0, sig_count: 0, table: 0, names: 0, sig_index: 0 };
        o.parse_header()?;
        let total = o.total();
        let index = o.get(62, 2);
        if index < 1 || index >= o.sections {
            return malformed("no section name table");
        }
        let names = o.section(index);
        if names.kind != TYPE_STRING_TABLE
            || names.size == 0
            || !inside(names.offset, names.size, total)
            || o.get(names.offset + names.size - 1, 1) != 0
        {
            return malformed("bad section name table");
        }
        o.names = names.offset;
        if o.section(0).kind != TYPE_NULL {
            return malformed("section 0 is not empty");
        }
        let mut end = o.table + o.sections * SECTION_SIZE;
        for i in 0..o.sections {
            let s = o.section(i);
            if s.name >= names.size {
                return malformed(format!("section {i}: name outside the table"));
            }
            if s.occupies() {
                if !inside(s.offset, s.size, total) {
                    return malformed(format!("section {i}: outside the file"));
                }
                end = end.max(s.offset + s.size);
            }
            // The table ends in a zero byte, so every name in it has an end.
            if o.section_name(&s) == Some(b".sig") {
                if o.sig_count == 0 {
                    o.sig_index = i;
                }
                o.sig_count += 1;
            }
        }
        if end != total {
            return malformed("data after the end that the headers describe");
        }
        Ok(o)
    }

    fn parse_header(&mut self) -> Result<()> {
        let data = self.data;
        if data.len() < HEADER_SIZE as usize || !data.starts_with(b"\x7fELF") {
            return malformed("not an ELF file");
        }
        if data[4] != 2 || (data[5] != 1 && data[5] != 2) || data[6] != 1 {
            return malformed("not a 64-bit ELF file of version 1");
        }
        self.big_endian = data[5] == 2;
        if self.get(16, 2) != 1 || self.get(18, 2) != MACHINE_BPF || self.get(20, 4) != 1 {
            return malformed("not a relocatable eBPF object");
        }
        if self.get(52, 2) != HEADER_SIZE || self.get(56, 2) != 0 || self.get(58, 2) != SECTION_SIZE {
            return malformed("wrong ELF header or entry sizes");
        }
        self.table = self.get(40, 8);
        self.sections = self.get(60, 2);
        if self.sections < 2 || self.sections > MAX_SECTIONS {
            return malformed(format!("{} sections", self.sections));
        }
        if self.table < HEADER_SIZE || !inside(self.table, self.sections * SECTION_SIZE, self.total()) {
            return malformed("section header table outside the file");
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.data.len() as u64
    }

    /// Read an integer in the byte order of the file; the caller checks the bounds.
    pub fn get(&self, at: u64, width: usize) -> u64 {
        let part = &self.data[at as usize..at as usize + width];
        let join = |value, octet: &u8| value << 8 | u64::from(*octet);
        if self.big_endian {
            part.iter().fold(0, join)
        } else {
            part.iter().rev().fold(0, join)
        }
    }

    /// Return an entry of the table; the caller checks the index.
    pub fn section(&self, index: u64) -> Section {
        let at = self.table + index * SECTION_SIZE;
        Section {
            name: self.get(at, 4),
            kind: self.get(at + 4, 4),
            flags: self.get(at + 8, 8),
            addr: self.get(at + 16, 8),
            offset: self.get(at + 24, 8),
            size: self.get(at + 32, 8),
            link: self.get(at + 40, 4),
            info: self.get(at + 44, 4),
            entry_size: self.get(at + 56, 8),
        }
    }

    /// Return the sections in their order.
    pub fn each_section(&self) -> impl Iterator<Item = Section> + '_ {
        (0..self.sections).map(|index| self.section(index))
    }

    /// Return the bytes from an offset up to the next zero byte, or None if they are more than `MAX_TEXT`.
    /// A zero byte follows every offset that callers give.
    pub fn text(&self, at: u64) -> Option<&'a [u8]> {
        let part = &self.data[at as usize..];
        let part = &part[..part.len().min(MAX_TEXT + 1)];
        part.iter().position(|octet| *octet == 0).map(|end| &part[..end])
    }

    /// Return the beginning of a section's name, cut after `MAX_TEXT` + 1 bytes, which no known name has.
    pub fn section_name_cut(&self, s: &Section) -> &'a [u8] {
        let part = &self.data[(self.names + s.name) as usize..];
        let part = &part[..part.len().min(MAX_TEXT + 1)];
        &part[..part.iter().position(|octet| *octet == 0).unwrap_or(part.len())]
    }

    /// Return the name of a section, or None if it is too long.
    pub fn section_name(&self, s: &Section) -> Option<&'a [u8]> {
        self.text(self.names + s.name)
    }

    /// Check the rules for `.sig` of an object that has one, and return the section.
    pub fn check_sig(&self) -> Result<Section> {
        let sig = self.section(self.sig_index);
        if self.sig_count != 1 {
            return malformed(format!("{} sections named .sig", self.sig_count));
        }
        let attributes = [sig.flags, sig.addr, sig.link, sig.info, sig.entry_size];
        if sig.kind != TYPE_PROGBITS || attributes.iter().any(|value| *value != 0) {
            return malformed("section .sig: wrong type or attributes");
        }
        if overlap(sig.offset, sig.size, 0, HEADER_SIZE)
            || overlap(sig.offset, sig.size, self.table, self.sections * SECTION_SIZE)
        {
            return malformed("section .sig overlaps the headers");
        }
        for i in 1..self.sections {
            let s = self.section(i);
            if i != self.sig_index && s.occupies() && overlap(sig.offset, sig.size, s.offset, s.size) {
                return malformed(format!("section .sig overlaps section {i}"));
            }
        }
        Ok(sig)
    }

    /// Return the contents of a section that occupies a range.
    pub fn contents(&self, s: &Section) -> &'a [u8] {
        &self.data[s.offset as usize..(s.offset + s.size) as usize]
    }

    /// Return the SHA-256 of the file, with the contents of `.sig` as zero bytes.
    pub fn digest(&self, sig: &Section) -> [u8; 32] {
        let zeros = [0; 4096];
        let mut hash = Sha256::new();
        hash.update(&self.data[..sig.offset as usize]);
        let mut left = sig.size as usize;
        while left > 0 {
            let n = left.min(zeros.len());
            hash.update(&zeros[..n]);
            left -= n;
        }
        hash.update(&self.data[(sig.offset + sig.size) as usize..]);
        hash.finalize().into()
    }
}
