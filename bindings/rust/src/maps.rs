// SPDX-License-Identifier: Apache-2.0

//! The rules about struct_ops maps and maps that are pinned by name (spec/trust-policy.md, Reading the maps).

use std::collections::BTreeSet;

use crate::btf::{Type, Types, KIND_ARRAY, KIND_GROUP, KIND_POINTER, KIND_STRUCT, KIND_VAR};
use crate::code::{name_of, without_flavour};
use crate::object::{Object, TYPE_PROGBITS};
use crate::trust::Trust;
use crate::{denied, Result};

pub const STRUCT_OPS: &str = "struct_ops";
const STRUCT_OPS_SECTION: &[u8] = b".struct_ops";
const MAPS_SECTION: &[u8] = b".maps";
const TYPE_STRUCT_OPS: u64 = 26; // BPF_MAP_TYPE_STRUCT_OPS
const MAX_ENTRIES: u64 = 65_536; // variables and members: one large struct can be that of many variables

struct Reader<'a> {
    types: Types<'a>,
    trust: &'a Trust,
    entries: u64,
}

fn unreadable<T>(why: &str) -> Result<T> {
    denied(format!("the maps cannot be read: {why}"))
}

fn without_mark(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"?").unwrap_or(name)
}

fn is_struct_ops_section(name: &[u8]) -> bool {
    let name = without_mark(name);
    name == STRUCT_OPS_SECTION || name == b".struct_ops.link"
}

pub fn check(object: &Object, trust: &Trust) -> Result<()> {
    if !trust.reads_maps() {
        return Ok(());
    }
    let mut types = Vec::new();
    let mut has_maps = false;
    let mut wanted = BTreeSet::new();
    for s in object.each_section() {
        let name = object.section_name_cut(&s);
        if name == MAPS_SECTION {
            has_maps = true;
        } else if name == b".BTF" {
            types.push(s);
        } else if without_mark(name).starts_with(STRUCT_OPS_SECTION) {
            if !is_struct_ops_section(name) {
                return unreadable("an unknown kind of struct_ops");
            }
            if !trust.allows_type(STRUCT_OPS) {
                return denied(format!("section {} of type {STRUCT_OPS} is not allowed", name_of(name)));
            }
            wanted.insert(name);
        }
    }
    if wanted.is_empty() && !has_maps {
        return Ok(());
    }
    if types.len() != 1 || types[0].kind != TYPE_PROGBITS {
        return unreadable("not exactly one section .BTF");
    }
    let Some(types) = Types::parse(object, &types[0]) else {
        return unreadable("damaged BTF, or more types or names than the kernel loads");
    };
    let mut reader = Reader { types, trust, entries: 0 };
    for number in 1..=reader.types.count() {
        let Some(group) = reader.types.find(number).filter(|found| found.kind == KIND_GROUP) else {
            continue;
        };
        let Some(name) = reader.types.name(group.name) else {
            return unreadable("a group without a name");
        };
        wanted.remove(name);
        reader.check_group(name, &group)?;
    }
    if !wanted.is_empty() {
        return unreadable("a struct_ops section without a type");
    }
    Ok(())
}

impl Reader<'_> {
    /// Return whether there are no more entries than the limit. At most 65,535 more are counted.
    fn count_entries(&mut self, count: u64) -> bool {
        self.entries += count;
        self.entries <= MAX_ENTRIES
    }

    /// Check the variables of a group, if they are maps.
    fn check_group(&mut self, name: &[u8], group: &Type) -> Result<()> {
        let ops = is_struct_ops_section(name);
        if !ops && name != MAPS_SECTION {
            return Ok(());
        }
        if !self.count_entries(group.count) {
            return unreadable("too many maps");
        }
        for i in 0..group.count {
            self.check_variable(self.types.word(group, 3 * i), ops)?;
        }
        Ok(())
    }

    fn check_variable(&mut self, number: u64, ops: bool) -> Result<()> {
        let Some(variable) = self.types.find(number).filter(|found| found.kind == KIND_VAR) else {
            return unreadable("a group of what is no variable");
        };
        let Some(name) = self.types.name(variable.name).filter(|name| !name.is_empty()) else {
            return unreadable("a map without a name");
        };
        let Some(definition) = self.types.resolve(variable.value).filter(|found| found.kind == KIND_STRUCT) else {
            return unreadable("a map that is not a struct");
        };
        // Read for both kinds, so that what can be read does not depend on the kind.
        let Some(kind) = self.types.name(definition.name).filter(|kind| !ops || !kind.is_empty()) else {
            return unreadable("a struct without a name");
        };
        if ops {
            return self.check_point(b"struct_ops/", without_flavour(kind), name);
        }
        if !self.count_entries(definition.count) {
            return unreadable("too many members");
        }
        if self.is_pinned(&definition)? {
            return self.check_point(b"pin/", name, name);
        }
        Ok(())
    }

    /// Do rule 6.
    fn check_point(&self, kind: &[u8], rest: &[u8], name: &[u8]) -> Result<()> {
        let point = [kind, rest].concat();
        if self.trust.allows_point_bytes(&point) {
            return Ok(());
        }
        denied(format!("map {}: attach point {} is not allowed", name_of(name), name_of(&point)))
    }

    fn is_pinned(&self, definition: &Type) -> Result<bool> {
        let mut pinned = false;
        for i in 0..definition.count {
            let Some(name) = self.types.name(self.types.word(definition, 3 * i)) else {
                return unreadable("a member without a name");
            };
            if name != b"type" && name != b"pinning" {
                continue;
            }
            let Some(number) = self.number(self.types.word(definition, 3 * i + 1)) else {
                return unreadable("a member that is no number");
            };
            // libbpf makes them from the sections alone, and reads a null pointer for any other.
            if name == b"type" && number == TYPE_STRUCT_OPS {
                return unreadable("a struct_ops map in section .maps");
            }
            pinned |= name == b"pinning" && number != 0;
        }
        Ok(pinned)
    }

    /// Return the integer that a member encodes: a pointer to an array of so many elements.
    fn number(&self, member: u64) -> Option<u64> {
        let pointer = self.types.resolve(member).filter(|found| found.kind == KIND_POINTER)?;
        let array = self.types.find(pointer.value).filter(|found| found.kind == KIND_ARRAY)?;
        Some(self.types.word(&array, 2))
    }
}
