// SPDX-License-Identifier: Apache-2.0

//! The numbered steps of spec/sig-section.md, section 7.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::object::Object;
use crate::record::Record;
use crate::statement::Statement;
use crate::trust::{to_hex, Trust, TrustedKey};
use crate::{code, denied, malformed, maps, refuse, strict, Reason, Result};

const CLOCK_TOLERANCE_SECONDS: i64 = 24 * 60 * 60;

/// The platform that a verification requires.
#[derive(Clone, Copy, Debug, Default)]
pub enum Platform<'a> {
    /// The platform that this program was compiled for.
    #[default]
    Host,
    /// Objects of every platform. Only the byte order is compared.
    Any,
    /// An OCI platform, for example `linux/arm64`.
    Named(&'a str),
}

/// Returns the highest version of an object of a project that was accepted before, or 0.
pub type VersionSeen<'a> = &'a dyn Fn(&str, &str) -> u64;

/// The circumstances of a verification. The default is the strict choice: this machine's platform and clock,
/// and no versions seen before.
#[derive(Default)]
pub struct Options<'a> {
    /// The required platform.
    pub platform: Platform<'a>,
    /// The time to which validities are compared, in seconds since 1970. None: the present time.
    pub now: Option<i64>,
    /// Without the function, only the policy's `minimumVersion` refuses an old release.
    pub version_seen: Option<VersionSeen<'a>>,
}

/// Return the OCI platform that this program was compiled for. An architecture that the specification does
/// not list gives the empty string, which no statement of a writer has.
pub(crate) fn host_platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        "arm" => "linux/arm/v7",
        "riscv64" => "linux/riscv64",
        "s390x" => "linux/s390x",
        "powerpc64" if cfg!(target_endian = "little") => "linux/ppc64le",
        "loongarch64" => "linux/loong64",
        _ => "",
    }
}

pub(crate) fn too_large<T>(trust: &Trust) -> Result<T> {
    refuse(Reason::TooLarge, format!("larger than {} bytes", trust.max_object_bytes))
}

/// Return the statement of an object that may be loaded. The first step that fails decides the reason.
///
/// # Errors
///
/// `Error::Refused`, with the reason.
pub fn verify(data: &[u8], trust: &Trust, options: &Options) -> Result<Statement> {
    // A clock before 1970 counts as 1970: it is not set.
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs() as i64);
    let now = options.now.unwrap_or_else(clock).max(trust.earliest);
    // (1)
    if data.len() > trust.max_object_bytes {
        return too_large(trust);
    }
    // (2)
    let object = Object::parse(data)?;
    // (3)
    if object.sig_count == 0 {
        return refuse(Reason::Unsigned, "no section .sig");
    }
    // (4)
    let sig = object.check_sig()?;
    // (5)
    let record = Record::parse(object.contents(&sig))?;
    // (6)
    check_signatures(&record, trust)?;
    // (7)
    let counted = check_threshold(&record, trust, now)?;
    // (8)
    let mut statement = match Statement::parse(record.statement) {
        Ok(statement) => statement,
        Err(problem) => return malformed(problem),
    };
    // (9)
    statement.digest = object.digest(&sig);
    if to_hex(&statement.digest) != statement.stated_digest {
        return refuse(Reason::DigestMismatch, "the file is not the one that was signed");
    }
    // (10)
    check_platform(&object, &statement, options.platform)?;
    // (11)
    check_validity(&statement, trust, &counted, now)?;
    // (12)
    check_policy(&object, &statement, trust)?;
    // (13)
    check_version(&statement, trust, options)?;
    statement.key_ids = counted.iter().map(|key| key.id).collect();
    Ok(statement)
}

/// Do step 6: a bad signature under a trusted key refuses the object, even if another signature is valid.
fn check_signatures(record: &Record, trust: &Trust) -> Result<()> {
    let input = record.signing_input();
    for entry in &record.entries {
        if let Some(key) = trust.find(&entry.key_id) {
            if !strict::verify(&key.public, &input, &entry.signature) {
                let id = to_hex(&entry.key_id);
                return refuse(Reason::BadSignature, format!("the signature of trusted key {id} does not verify"));
            }
        }
    }
    Ok(())
}

/// Do step 7 and return the keys that counted: only keys that are valid now. Of the other keys' problems, the
/// first in this order is the reason.
fn check_threshold<'a>(record: &Record, trust: &'a Trust, now: i64) -> Result<Vec<&'a TrustedKey>> {
    let mut counted = Vec::new();
    let (mut revoked, mut past, mut before) = (false, false, false);
    for key in record.entries.iter().filter_map(|entry| trust.find(&entry.key_id)) {
        if key.revoked {
            revoked = true;
        } else if key.not_after.is_some_and(|until| now > until) {
            past = true;
        } else if key.not_before.is_some_and(|from| now < from) {
            before = true;
        } else {
            counted.push(key);
        }
    }
    if counted.len() >= trust.threshold {
        return Ok(counted);
    }
    if !counted.is_empty() {
        let text = format!("{} of {} trusted keys signed", counted.len(), trust.threshold);
        return refuse(Reason::BelowThreshold, text);
    }
    if revoked {
        return refuse(Reason::Revoked, "signed with a revoked key");
    }
    if past {
        return refuse(Reason::Expired, "signed with a key past its validity");
    }
    if before {
        return refuse(Reason::NotYetValid, "signed with a key that is not valid yet");
    }
    refuse(Reason::UnknownKey, "no trusted key signed")
}

/// Do step 10. linux/s390x is the only big-endian platform.
fn check_platform(object: &Object, statement: &Statement, wanted: Platform) -> Result<()> {
    let platform = statement.platform.as_str();
    let wanted = match wanted {
        Platform::Host => Some(host_platform()),
        Platform::Any => None,
        Platform::Named(name) => Some(name),
    };
    if let Some(wanted) = wanted.filter(|wanted| *wanted != platform || wanted.is_empty()) {
        return refuse(Reason::WrongPlatform, format!("signed for {}, this is {wanted}", shown(platform)));
    }
    if object.big_endian != (platform == "linux/s390x") {
        return refuse(Reason::WrongPlatform, "the byte order is not that of the platform");
    }
    Ok(())
}

/// Do step 11: a clock that is not set (1970) cannot show that a validity has ended.
fn check_validity(statement: &Statement, trust: &Trust, counted: &[&TrustedKey], now: i64) -> Result<()> {
    if statement.not_after.is_some_and(|until| now > until) {
        return refuse(Reason::Expired, "past the notAfter of its statement");
    }
    let limited = statement.not_after.is_some() || counted.iter().any(|key| key.not_after.is_some());
    if limited && !trust.clock_unset_ok && now < statement.created - CLOCK_TOLERANCE_SECONDS {
        return refuse(Reason::NotYetValid, "the clock is not set, and the validity is limited");
    }
    Ok(())
}

/// Do step 12. code.rs has its rules about instructions, maps.rs its rules about maps.
fn check_policy(object: &Object, statement: &Statement, trust: &Trust) -> Result<()> {
    if trust.project.as_ref().is_some_and(|project| *project != statement.project) {
        return denied(format!("signed for project {}", statement.project));
    }
    if trust.platforms.as_ref().is_some_and(|allowed| !allowed.contains(&statement.platform)) {
        return denied(format!("platform {} is not allowed", shown(&statement.platform)));
    }
    for program in &statement.programs {
        if !trust.allows_type(&program.kind) {
            return denied(format!(
                "program {} of type {} is not allowed",
                shown(&program.name),
                shown(&program.kind)
            ));
        }
    }
    for map in &statement.maps {
        if map.kind == maps::STRUCT_OPS && !trust.allows_type(maps::STRUCT_OPS) {
            return denied(format!("map {} of type {} is not allowed", shown(&map.name), maps::STRUCT_OPS));
        }
    }
    code::check(object, statement, trust)?;
    maps::check(object, trust)
}

/// Do step 13.
fn check_version(statement: &Statement, trust: &Trust, options: &Options) -> Result<()> {
    let (name, version) = (statement.name.as_str(), statement.version);
    let least = trust.minimums.get(name).copied().unwrap_or_default();
    if version < least {
        return refuse(Reason::RolledBack, format!("version {version} of {name} is older than {least}"));
    }
    if let Some(version_seen) = options.version_seen.filter(|_| !trust.allow_rollback) {
        let seen = version_seen(&statement.project, name);
        if version < seen {
            let text = format!("version {version} of {name} is older than {seen}, accepted before");
            return refuse(Reason::RolledBack, text);
        }
    }
    Ok(())
}

/// Return the beginning of a text from an object, without control characters, for one line.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}
