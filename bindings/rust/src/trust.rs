// SPDX-License-Identifier: Apache-2.0

//! Trust stores (spec/trust-policy.md): keys and policies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha2::{Digest, Sha256};

use crate::json::{self, Value};
use crate::members::{
    array, boolean, integer, integer_set, is_object_name, object, project, text, text_set, texts, time, Fields,
};
use crate::record::KEY_ID_SIZE;
use crate::strict::{self, KEY_SIZE};
use crate::{Error, MAX_OBJECT_BYTES};

const MAX_KEYS: usize = 64;
const MAX_THRESHOLD: u64 = 16;
const MAX_POINTS: usize = 256;
pub(crate) const MAX_POLICY_BYTES: usize = 1 << 20;
pub(crate) const MAX_KEY_BYTES: usize = 4096;
const DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const DER_SIZE: usize = DER_PREFIX.len() + KEY_SIZE;
const BASE64_SIZE: usize = 60; // of DER_SIZE bytes, with one letter of padding
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
const PEM_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// A key that is valid from `not_before` to `not_after`, both included, unless it is revoked.
pub(crate) struct TrustedKey {
    pub id: [u8; KEY_ID_SIZE],
    pub public: [u8; KEY_SIZE],
    pub not_before: Option<i64>,
    pub not_after: Option<i64>,
    pub revoked: bool,
}

/// The trusted keys and the rules of a policy. A store never changes, so threads may share it.
///
/// A rule that the policy lacks is None. An empty list is a rule that allows nothing.
pub struct Trust {
    pub(crate) keys: Vec<TrustedKey>,
    pub(crate) threshold: usize,
    pub(crate) max_object_bytes: usize,
    pub(crate) project: Option<String>,
    pub(crate) minimums: BTreeMap<String, u64>,
    pub(crate) platforms: Option<Vec<String>>,
    pub(crate) program_types: Option<Vec<String>>,
    pub(crate) attach_points: Option<Vec<String>>,
    pub(crate) denied_helpers: Option<BTreeSet<u64>>,
    pub(crate) denied_kfuncs: Option<BTreeSet<String>>,
    pub(crate) allow_rollback: bool,
    pub(crate) clock_unset_ok: bool,
    pub(crate) earliest: i64,
    ignores_image: bool,
    digest: [u8; 32],
}

fn policy_version(value: Value) -> Option<u64> {
    integer(value).filter(|number| *number == 1)
}

fn threshold(value: Value) -> Option<usize> {
    integer(value).filter(|number| (1..=MAX_THRESHOLD).contains(number)).map(|number| number as usize)
}

fn object_bytes(value: Value) -> Option<usize> {
    let largest = MAX_OBJECT_BYTES as u64;
    integer(value).filter(|number| (1..=largest).contains(number)).map(|number| number as usize)
}

/// Attach points contain `*` only at their ends.
fn patterns(value: Value) -> Option<Vec<String>> {
    let is_pattern = |text: &String| !text.is_empty() && text.find('*').map_or(true, |at| at == text.len() - 1);
    texts(value).filter(|items| items.len() <= MAX_POINTS && items.iter().all(is_pattern))
}

/// Return whether the word is the second of two, which are all that a member may be.
fn choose(value: Value, first: &str, second: &str) -> Option<bool> {
    text(value).filter(|word| word == first || word == second).map(|word| word == second)
}

fn clock(value: Value) -> Option<bool> {
    choose(value, "required", "unset-ok")
}

fn image_rules(value: Value) -> Option<bool> {
    choose(value, "combine", "ignore")
}

/// Decode the base64 of 44 bytes, with its padding and unused bits of zero.
fn decode_der(encoded: &[u8]) -> Option<[u8; DER_SIZE]> {
    let (digits, padding) = encoded.split_at(encoded.len().min(BASE64_SIZE - 1));
    if encoded.len() != BASE64_SIZE || padding != b"=" {
        return None;
    }
    let mut der = [0; DER_SIZE];
    let (mut bits, mut count, mut filled) = (0u32, 0, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            der[filled] = (bits >> count) as u8;
            bits &= (1 << count) - 1;
            filled += 1;
        }
    }
    (bits == 0).then_some(der)
}

impl Trust {
    fn new() -> Self {
        Trust {
            keys: Vec::new(),
            threshold: 1,
            max_object_bytes: MAX_OBJECT_BYTES,
            project: None,
            minimums: BTreeMap::new(),
            platforms: None,
            program_types: None,
            attach_points: None,
            denied_helpers: None,
            denied_kfuncs: None,
            allow_rollback: false,
            clock_unset_ok: false,
            earliest: 0,
            ignores_image: false,
            digest: [0; 32],
        }
    }

    /// Return the store of public keys, each the text of one `.pub` file. Each key alone may sign any object.
    ///
    /// # Errors
    ///
    /// `Error::Trust`, for a key that is not Ed25519, that is weak or given twice, and for no key at all.
    pub fn from_keys(pems: &[&[u8]]) -> Result<Self, Error> {
        let named = pems.iter().map(|pem| (String::new(), pem.to_vec()));
        Trust::from_named_keys(named.collect()).map_err(Error::Trust)
    }

    /// The same, with names for messages.
    pub(crate) fn from_named_keys(pems: Vec<(String, Vec<u8>)>) -> Result<Self, String> {
        let mut trust = Trust::new();
        for (name, pem) in pems {
            let name = if name.is_empty() { name } else { format!("{name}: ") };
            trust.add_pem(&pem).map_err(|problem| format!("{name}{problem}"))?;
        }
        trust.check_keys()?;
        trust.keys.sort_by_key(|key| key.id);
        let mut hash = Sha256::new();
        for key in &trust.keys {
            hash.update(key.id);
        }
        trust.digest = hash.finalize().into();
        Ok(trust)
    }

    /// Return the store of a policy, the text of a `policy.json`.
    ///
    /// # Errors
    ///
    /// `Error::Trust`, for a policy that breaks a rule of spec/trust-policy.md.
    pub fn from_policy(data: &[u8]) -> Result<Self, Error> {
        Trust::read_policy(data).map_err(Error::Trust)
    }

    pub(crate) fn read_policy(data: &[u8]) -> Result<Self, String> {
        if data.len() > MAX_POLICY_BYTES {
            return Err("too large".to_string());
        }
        let mut trust = Trust::new();
        let mut policy = Fields::of("policy", json::parse(data)?);
        policy.required("policyVersion", policy_version)?;
        trust.threshold = policy.required("threshold", threshold)?;
        let keys = policy.required("keys", array)?;
        trust.project = policy.optional("project", project)?;
        trust.platforms = policy.optional("platforms", texts)?;
        let minimums = policy.optional("objects", object)?.unwrap_or_default();
        trust.program_types = policy.optional("programTypes", texts)?;
        trust.attach_points = policy.optional("attachPoints", patterns)?;
        trust.denied_helpers = policy.optional("deniedHelpers", integer_set)?.map(BTreeSet::from_iter);
        trust.denied_kfuncs = policy.optional("deniedKfuncs", text_set)?.map(BTreeSet::from_iter);
        if let Some(largest) = policy.optional("maxObjectBytes", object_bytes)? {
            trust.max_object_bytes = largest;
        }
        trust.allow_rollback = policy.optional("allowRollback", boolean)?.unwrap_or_default();
        trust.clock_unset_ok = policy.optional("clock", clock)?.unwrap_or_default();
        trust.earliest = policy.optional("earliest", time)?.unwrap_or_default();
        trust.ignores_image = policy.optional("imageRules", image_rules)?.unwrap_or_default();
        policy.finish()?;
        for (name, value) in minimums {
            if !is_object_name(&name) {
                return Err("objects: not an object name".to_string());
            }
            let mut fields = Fields::new("objects", value)?;
            trust.minimums.insert(name, fields.required("minimumVersion", integer)?);
            fields.finish()?;
        }
        for value in keys {
            trust.read_key(value)?;
        }
        trust.check_keys()?;
        trust.digest = Sha256::digest(data).into();
        Ok(trust)
    }

    fn check_keys(&self) -> Result<(), String> {
        if self.keys.is_empty() {
            return Err("no public key in it".to_string());
        }
        Ok(())
    }

    fn read_key(&mut self, value: Value) -> Result<(), String> {
        let mut fields = Fields::new("key", value)?;
        fields.required("name", text)?;
        let encoded = fields.required("publicKey", text)?;
        let not_before = fields.optional("notBefore", time)?;
        let not_after = fields.optional("notAfter", time)?;
        let revoked = fields.optional("revoked", boolean)?.unwrap_or_default();
        fields.finish()?;
        self.add_key(encoded.as_bytes(), not_before, not_after, revoked)
    }

    fn add_key(
        &mut self,
        encoded: &[u8],
        not_before: Option<i64>,
        not_after: Option<i64>,
        revoked: bool,
    ) -> Result<(), String> {
        if self.keys.len() == MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        let der = decode_der(encoded).filter(|der| der.starts_with(&DER_PREFIX));
        let der = der.ok_or("publicKey: not an Ed25519 public key")?;
        let mut public = [0; KEY_SIZE];
        public.copy_from_slice(&der[DER_PREFIX.len()..]);
        if !strict::is_key(&public) {
            return Err("a weak Ed25519 public key".to_string());
        }
        let id = Sha256::digest(der).into();
        if self.find(&id).is_some() {
            return Err("a key that is there twice".to_string());
        }
        self.keys.push(TrustedKey { id, public, not_before, not_after, revoked });
        Ok(())
    }

    /// Accept one PEM block and nothing else; its lines may end in CR LF.
    fn add_pem(&mut self, data: &[u8]) -> Result<(), String> {
        let problem = || "not a PEM public key".to_string();
        if data.len() > MAX_KEY_BYTES {
            return Err(problem());
        }
        let text = std::str::from_utf8(data).map_err(|_| problem())?.trim_matches(PEM_SPACE);
        let body = text.strip_prefix(PEM_BEGIN).ok_or_else(problem)?;
        let body = body.strip_prefix('\r').unwrap_or(body);
        let body = body.strip_prefix('\n').and_then(|body| body.strip_suffix(PEM_END)).ok_or_else(problem)?;
        let encoded: Vec<u8> = body.bytes().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
        self.add_key(&encoded, None, None, false)
    }

    pub(crate) fn find(&self, id: &[u8; KEY_ID_SIZE]) -> Option<&TrustedKey> {
        self.keys.iter().find(|key| key.id == *id)
    }

    /// Return the policy digest of decision lines: SHA-256 of the policy, or of the sorted key ids.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Return the size of the largest object that the store accepts, to bound the read of a file.
    pub fn max_object_bytes(&self) -> usize {
        self.max_object_bytes
    }

    /// Return whether the policy allows an attach point. Ask for `SECTION/TARGET` before a program is attached
    /// to a target that its section does not name (spec/trust-policy.md, Targets).
    pub fn allows_point(&self, point: &str) -> bool {
        self.allows_point_bytes(point.as_bytes())
    }

    pub(crate) fn allows_point_bytes(&self, point: &[u8]) -> bool {
        let Some(patterns) = &self.attach_points else {
            return true;
        };
        // A path with /../ could match a pattern's directory and lead out of it.
        if point.windows(4).any(|part| part == b"/../") {
            return false;
        }
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => point.starts_with(start.as_bytes()),
            None => point == pattern.as_bytes(),
        })
    }

    pub(crate) fn allows_type(&self, kind: &str) -> bool {
        self.program_types.as_ref().map_or(true, |types| types.iter().any(|allowed| allowed == kind))
    }

    /// Return whether a rule requires reading the code.
    pub(crate) fn reads_code(&self) -> bool {
        self.reads_maps() || self.denied_helpers.is_some() || self.denied_kfuncs.is_some()
    }

    pub(crate) fn reads_maps(&self) -> bool {
        self.program_types.is_some() || self.attach_points.is_some()
    }
}

/// One line that describes the store. Each implementation of the specification has the same line.
impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.digest)?;
        let project = self.project.as_deref().unwrap_or("*");
        let clock = if self.clock_unset_ok { "unset-ok" } else { "required" };
        write!(f, " {} {} {project} {} {clock}", self.threshold, self.max_object_bytes, self.earliest)?;
        if self.allow_rollback {
            f.write_str(" rollback")?;
        }
        if self.ignores_image {
            f.write_str(" ignores-image")?;
        }
        for key in &self.keys {
            f.write_str(" ")?;
            write_hex(f, &key.id)?;
            if let Some(from) = key.not_before {
                write!(f, ",from={from}")?;
            }
            if let Some(until) = key.not_after {
                write!(f, ",until={until}")?;
            }
            if key.revoked {
                f.write_str(",revoked")?;
            }
        }
        Ok(())
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, data: &[u8]) -> fmt::Result {
    data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// Return the lower-case hexadecimal digits of the data.
pub(crate) fn to_hex(data: &[u8]) -> String {
    data.iter().map(|octet| format!("{octet:02x}")).collect()
}
