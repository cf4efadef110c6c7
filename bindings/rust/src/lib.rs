// SPDX-License-Identifier: Apache-2.0

//! Decide whether an eBPF object may be loaded, by `spec/sig-section.md` and `spec/trust-policy.md` of
//! buildtool.
//!
//! The crate keeps no state and starts nothing. Load the verified bytes from the same buffer, because a file
//! that is opened again can be another file. README.md lists the duties of the caller.
//!
//! ```no_run
//! let trust = sigverify::Trust::open("/etc/agent/trust".as_ref())?;
//! let (bytes, statement) = sigverify::verify_file("x.bpf.o".as_ref(), &trust, &sigverify::Options::default())?;
//! println!("accepted {}, version {}", statement.name, statement.version);
//! // Load `bytes`: aya::Ebpf::load(&bytes)
//! # Ok::<(), sigverify::Error>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod btf;
mod code;
mod json;
mod maps;
mod members;
mod object;
mod record;
mod sections;
mod settable;
mod statement;
pub mod strict;
mod trust;
mod trustfiles;
mod verify;

use std::fmt;

pub use settable::{Bounds, Settable, SettableMap, SettableVariable};
pub use statement::{Map, Program, Source, Statement, Toolchain};
pub use trust::Trust;
pub use trustfiles::verify_file;
pub use verify::{verify, Options, Platform, VersionSeen};

/// The largest size of an object (spec/sig-section.md, section 1). A policy can lower it.
pub const MAX_OBJECT_BYTES: usize = 64 << 20;

/// The reason of a refusal. The words are an API (spec/sig-section.md, section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    Unsigned,
    Malformed,
    UnknownKey,
    BadSignature,
    DigestMismatch,
    WrongPlatform,
    Expired,
    NotYetValid,
    RolledBack,
    BelowThreshold,
    Revoked,
    DeniedByPolicy,
    TooLarge,
}

impl Reason {
    /// Return the word of the reason, for example `bad-signature`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Unsigned => "unsigned",
            Reason::Malformed => "malformed",
            Reason::UnknownKey => "unknown-key",
            Reason::BadSignature => "bad-signature",
            Reason::DigestMismatch => "digest-mismatch",
            Reason::WrongPlatform => "wrong-platform",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not-yet-valid",
            Reason::RolledBack => "rolled-back",
            Reason::BelowThreshold => "below-threshold",
            Reason::Revoked => "revoked",
            Reason::DeniedByPolicy => "denied-by-policy",
            Reason::TooLarge => "too-large",
        }
    }
}

/// Why an object must not be loaded.
#[derive(Debug)]
pub enum Error {
    /// The verification refused the object; the text is one line for people.
    Refused(Reason, String),
    /// The trust store breaks a rule or cannot be read, so nothing was verified.
    Trust(String),
    /// The object cannot be read.
    Unreadable(String),
}

impl Error {
    /// Return the reason of a refusal.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Error::Refused(reason, _) => Some(*reason),
            Error::Trust(_) | Error::Unreadable(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused(reason, text) => write!(f, "refused: {}: {text}", reason.word()),
            Error::Trust(text) | Error::Unreadable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

type Result<T> = std::result::Result<T, Error>;

fn refuse<T>(reason: Reason, text: impl Into<String>) -> Result<T> {
    Err(Error::Refused(reason, text.into()))
}

fn malformed<T>(text: impl Into<String>) -> Result<T> {
    refuse(Reason::Malformed, text)
}

fn denied<T>(text: impl Into<String>) -> Result<T> {
    refuse(Reason::DeniedByPolicy, text)
}
