// SPDX-License-Identifier: Apache-2.0

//! The rules about instructions (spec/trust-policy.md, Reading the code).

use std::collections::{BTreeMap, BTreeSet};

use crate::object::{Object, Section, TYPE_PROGBITS, TYPE_RELOCATIONS, TYPE_STRING_TABLE, TYPE_SYMBOL_TABLE};
use crate::sections::program_type;
use crate::statement::Statement;
use crate::trust::Trust;
use crate::verify::shown;
use crate::{denied, Result};

const FLAG_EXECUTE: u64 = 4;
const SLOT_SIZE: u64 = 8;
const SYMBOL_SIZE: u64 = 24;
const RELOCATION_SIZE: u64 = 16;
/// Bytes. The time for a file of nothing else stays that of an honest one.
const MAX_CODE: u64 = 16 << 20;
const MAX_SYMBOLS: u64 = 131_072;
const MAX_RELOCATIONS: u64 = 262_144;
const OPCODE_CALL: u64 = 0x85;
const SOURCE_HELPER: u64 = 0;
const SOURCE_LOCAL: u64 = 1;

struct Reader<'a> {
    object: &'a Object<'a>,
    trust: &'a Trust,
    /// Calls that the statement lists.
    helpers: BTreeSet<u64>,
    kfuncs: BTreeSet<&'a [u8]>,
    /// By section without its `?`, the names by which the section's programs are loaded.
    programs: BTreeMap<&'a [u8], Vec<&'a [u8]>>,
    /// Of size 0 when there are none.
    symbols: Section,
    names: Section,
}

fn unreadable<T>(why: &str) -> Result<T> {
    denied(format!("the code cannot be read: {why}"))
}

/// Return a name from the file for a message.
pub(crate) fn name_of(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}

fn is_code(s: &Section) -> bool {
    s.kind == TYPE_PROGBITS && s.flags & FLAG_EXECUTE != 0 && s.size > 0
}

pub fn check(object: &Object, statement: &Statement, trust: &Trust) -> Result<()> {
    if !trust.reads_code() {
        return Ok(());
    }
    let mut programs = BTreeMap::<_, Vec<_>>::new();
    for program in &statement.programs {
        let section = program.section.strip_prefix('?').unwrap_or(&program.section);
        let loaded = program.declared.as_deref().unwrap_or(section);
        // Each name once, as thousands of sections may have this name.
        let names = programs.entry(section.as_bytes()).or_default();
        if !names.contains(&loaded.as_bytes()) {
            names.push(loaded.as_bytes());
        }
    }
    let mut reader = Reader {
        object,
        trust,
        helpers: statement.helpers.iter().copied().collect(),
        kfuncs: statement.kfuncs.iter().map(String::as_bytes).collect(),
        programs,
        symbols: Section::default(),
        names: Section::default(),
    };
    reader.find_symbols()?;
    // Refuse sections that overlap: an attacker could make the verifier read 65,000 of the largest size, for
    // hours. Each range lies inside the file, and the first sum above its size ends the loop.
    let total = object.data.len() as u64;
    let (mut code, mut relocations) = (0, 0);
    for s in object.each_section() {
        if is_code(&s) {
            reader.check_name(&s)?;
            code += s.size;
            if code > total {
                return unreadable("sections of code that overlap");
            }
            if code > MAX_CODE {
                return unreadable("more than 16 MiB of code");
            }
            reader.check_instructions(&s)?;
        } else if let Some(target) = reader.relocated(&s) {
            relocations += s.size;
            if relocations > total {
                return unreadable("tables of relocations that overlap");
            }
            if relocations > MAX_RELOCATIONS * RELOCATION_SIZE {
                return unreadable("more than 262144 relocations");
            }
            reader.check_relocations(&s, &target)?;
        }
    }
    Ok(())
}

/// Cut `name___flavour` at the last such place, because libbpf looks for such a name under `name`.
pub(crate) fn without_flavour(name: &[u8]) -> &[u8] {
    let is_flavour = |at: &usize| {
        name[at - 1] != b'_' && name[*at..].starts_with(b"___") && name.get(at + 3).is_some_and(|c| *c != b'_')
    };
    (1..name.len()).rev().find(is_flavour).map_or(name, |at| &name[..at])
}

fn is_table(s: &Section, entry_size: u64) -> bool {
    s.entry_size == entry_size && s.size % entry_size == 0
}

impl Reader<'_> {
    fn find_symbols(&mut self) -> Result<()> {
        let object = self.object;
        let mut found = false;
        for s in object.each_section().filter(|s| s.kind == TYPE_SYMBOL_TABLE) {
            if found || s.link >= object.sections || !is_table(&s, SYMBOL_SIZE) {
                return unreadable("more than one symbol table, or a damaged one");
            }
            if s.size > MAX_SYMBOLS * SYMBOL_SIZE {
                return unreadable("more than 131072 symbols");
            }
            found = true;
            self.symbols = s;
            self.names = object.section(s.link);
            if self.names.kind != TYPE_STRING_TABLE || object.contents(&self.names).last() != Some(&0) {
                return unreadable("a symbol table without names");
            }
        }
        Ok(())
    }

    /// Do rules 5 and 6.
    fn check_name(&self, s: &Section) -> Result<()> {
        let Some(name) = self.object.section_name(s) else {
            return unreadable("a section with too long a name");
        };
        if name == b".text" {
            return Ok(());
        }
        let name = name.strip_prefix(b"?").unwrap_or(name); // libbpf loads such a program only on request
        let own = [name];
        // Only a name that libbpf does not know can be declared. Each program of the section counts.
        let loaded = match self.programs.get(name) {
            Some(found) if program_type(name) == "unspec" => found.as_slice(),
            _ => &own,
        };
        for loaded in loaded {
            let kind = program_type(loaded);
            if !self.trust.allows_type(kind) {
                return denied(format!("section {} of type {kind} is not allowed", name_of(name)));
            }
            if !self.trust.allows_point_bytes(loaded) {
                return denied(format!("attach point {} is not allowed", name_of(loaded)));
            }
        }
        Ok(())
    }

    fn is_call(&self, at: u64) -> bool {
        self.object.get(at, 1) == OPCODE_CALL
    }

    fn check_instructions(&self, s: &Section) -> Result<()> {
        if s.size % SLOT_SIZE != 0 {
            return unreadable("half an instruction");
        }
        for at in (s.offset..s.offset + s.size).step_by(SLOT_SIZE as usize).filter(|at| self.is_call(*at)) {
            // The two register fields are bit fields, which change places with the byte order.
            let registers = self.object.get(at + 1, 1);
            let source = if self.object.big_endian { registers & 0xf } else { registers >> 4 };
            if source > SOURCE_LOCAL {
                return unreadable("a kernel function called by its number");
            }
            if source == SOURCE_HELPER {
                self.check_helper(self.object.get(at + 4, 4))?;
            }
        }
        Ok(())
    }

    /// Do rule 7.
    fn check_helper(&self, number: u64) -> Result<()> {
        let Some(forbidden) = &self.trust.denied_helpers else {
            return Ok(());
        };
        if !self.helpers.contains(&number) {
            return denied(format!("the code calls helper {number}, which its statement does not list"));
        }
        if forbidden.contains(&number) {
            return denied(format!("the code calls helper {number}"));
        }
        Ok(())
    }

    /// Do rule 8.
    fn check_kfunc(&self, name: &[u8]) -> Result<()> {
        let Some(forbidden) = &self.trust.denied_kfuncs else {
            return Ok(());
        };
        let function = || format!("the code calls kernel function {}", name_of(name));
        if !self.kfuncs.contains(name) {
            return denied(format!("{}, which its statement does not list", function()));
        }
        // A name that is not UTF-8 is in no policy, because policies are.
        let is_denied = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| forbidden.contains(name));
        if is_denied(name) || is_denied(without_flavour(name)) {
            return denied(function());
        }
        Ok(())
    }

    /// Return the code section that a section relocates.
    fn relocated(&self, s: &Section) -> Option<Section> {
        if s.kind != TYPE_RELOCATIONS || s.info >= self.object.sections {
            return None;
        }
        Some(self.object.section(s.info)).filter(is_code)
    }

    fn check_relocations(&self, s: &Section, code: &Section) -> Result<()> {
        if !is_table(s, RELOCATION_SIZE) {
            return unreadable("a damaged table of relocations");
        }
        for at in (s.offset..s.offset + s.size).step_by(RELOCATION_SIZE as usize) {
            self.check_relocation(code, at)?;
        }
        Ok(())
    }

    /// Find calls of undefined symbols, which are calls of kernel functions.
    fn check_relocation(&self, code: &Section, at: u64) -> Result<()> {
        let object = self.object;
        let (offset, number) = (object.get(at, 8), object.get(at + 8, 8) >> 32);
        if offset % SLOT_SIZE != 0 || offset >= code.size || number >= self.symbols.size / SYMBOL_SIZE {
            return unreadable("a relocation of what is not there");
        }
        let symbol = self.symbols.offset + number * SYMBOL_SIZE;
        if !self.is_call(code.offset + offset) || object.get(symbol + 6, 2) != 0 {
            return Ok(());
        }
        let name = object.get(symbol, 4);
        if name >= self.names.size {
            return unreadable("a symbol with a name outside the table");
        }
        match object.text(self.names.offset + name) {
            Some(name) => self.check_kfunc(name),
            None => unreadable("a symbol with too long a name"),
        }
    }
}
