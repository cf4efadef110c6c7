// SPDX-License-Identifier: Apache-2.0

//! The signature record (spec/sig-section.md, section 2), and the signing input (section 4).

use crate::strict::SIGNATURE_SIZE;
use crate::{malformed, Result};

const MAGIC: &[u8] = b"\x7fBPFSIG\0";
const HEADER_SIZE: usize = 32;
const ENTRY_SIZE: usize = 96;
const UNIT: usize = 1024;
const MAX_RECORD_BYTES: usize = 524_288;
const MAX_STATEMENT_BYTES: usize = 262_144;
const MAX_SIGNATURES: usize = 16;
/// A record always has room for this many signatures.
const RESERVED: usize = 4;
pub const KEY_ID_SIZE: usize = 32;

/// One signature of a record.
pub struct Entry {
    pub key_id: [u8; KEY_ID_SIZE],
    pub signature: [u8; SIGNATURE_SIZE],
}

/// A record; it borrows the section's bytes.
pub struct Record<'a> {
    pub statement: &'a [u8],
    pub entries: Vec<Entry>,
}

fn is_zero(data: &[u8]) -> bool {
    data.iter().all(|octet| *octet == 0)
}

impl<'a> Record<'a> {
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        let size = data.len();
        if size < HEADER_SIZE || !data.starts_with(MAGIC) {
            return malformed("signature record: wrong magic");
        }
        let word =
            |at: usize| data[at..at + 4].iter().rev().fold(0, |value, octet| value << 8 | usize::from(*octet));
        if word(8) != 1 {
            return malformed(format!("signature record: unknown version {}", word(8)));
        }
        if word(12) != size || size % UNIT != 0 || size > MAX_RECORD_BYTES {
            return malformed("signature record: wrong section size");
        }
        let (length, count) = (word(16), word(20));
        if !(1..=MAX_STATEMENT_BYTES).contains(&length) {
            return malformed("signature record: wrong statement size");
        }
        if !(1..=MAX_SIGNATURES).contains(&count) {
            return malformed("signature record: wrong signature count");
        }
        if !is_zero(&data[24..HEADER_SIZE]) {
            return malformed("signature record: reserved bytes not zero");
        }
        // At most 32 + 262144 + 16 * 96: no sum wraps.
        let first = HEADER_SIZE + length;
        let used = first + count * ENTRY_SIZE;
        if size < used || size < first + RESERVED * ENTRY_SIZE {
            return malformed("signature record: section too small");
        }
        if !is_zero(&data[used..]) {
            return malformed("signature record: padding not zero");
        }
        let mut entries = Vec::with_capacity(count);
        for part in data[first..used].chunks_exact(ENTRY_SIZE) {
            let mut entry = Entry { key_id: [0; KEY_ID_SIZE], signature: [0; SIGNATURE_SIZE] };
            entry.key_id.copy_from_slice(&part[..KEY_ID_SIZE]);
            entry.signature.copy_from_slice(&part[KEY_ID_SIZE..]);
            entries.push(entry);
        }
        if entries.windows(2).any(|pair| pair[0].key_id >= pair[1].key_id) {
            return malformed("signature record: key ids not ascending");
        }
        Ok(Record { statement: &data[HEADER_SIZE..first], entries })
    }

    /// Return the bytes that are signed.
    pub fn signing_input(&self) -> Vec<u8> {
        let head = format!("DSSEv1 28 application/vnd.in-toto+json {} ", self.statement.len());
        [head.as_bytes(), self.statement].concat()
    }
}
