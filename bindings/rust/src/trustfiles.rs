// SPDX-License-Identifier: Apache-2.0

//! Read trust stores and objects from files, each once and bounded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::trust::{MAX_KEY_BYTES, MAX_POLICY_BYTES};
use crate::verify::{too_large, verify, Options};
use crate::{Error, Statement, Trust};

const POLICY_NAME: &str = "policy.json";
const MAX_ENTRIES: usize = 1024; // of a directory of keys
/// The flag of open(2) that keeps a FIFO from waiting for a writer, on every platform of the specification.
const NONBLOCK: i32 = 0o4000;

/// Why a file was not read.
enum Unread {
    TooLarge,
    Problem(String),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        // The number of the error is of no use to people.
        Unread::Problem(text.split(" (os error").next().unwrap_or_default().to_lowercase())
    }
}

impl Unread {
    fn text(self) -> String {
        match self {
            Unread::TooLarge => "too large".to_string(),
            Unread::Problem(text) => text,
        }
    }
}

/// Read a regular file of at most the limit.
fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, Unread> {
    let not_regular = || Err(Unread::Problem("not a regular file".to_string()));
    // Check the type before opening, because opening a device can act.
    if !fs::metadata(path)?.is_file() {
        return not_regular();
    }
    let file: File = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return not_regular();
    }
    if found.len() > limit as u64 {
        return Err(Unread::TooLarge);
    }
    // Read one byte more than the limit, to notice a file that grows during the read.
    let mut data = Vec::with_capacity(found.len() as usize + 1);
    file.take(limit as u64 + 1).read_to_end(&mut data)?;
    if data.len() > limit {
        return Err(Unread::TooLarge);
    }
    Ok(data)
}

/// Read a file once, with the store's bound, and verify the bytes. Load the returned bytes, and do not open
/// the path again.
///
/// # Errors
///
/// `Error::Refused` with the reason, or `Error::Unreadable`.
pub fn verify_file(path: &Path, trust: &Trust, options: &Options) -> Result<(Vec<u8>, Statement), Error> {
    let data = match read_file(path, trust.max_object_bytes) {
        Ok(data) => data,
        Err(Unread::TooLarge) => return too_large(trust),
        Err(problem) => return Err(Error::Unreadable(format!("object {}: {}", path.display(), problem.text()))),
    };
    let statement = verify(&data, trust, options)?;
    Ok((data, statement))
}

impl Trust {
    /// Read a trust store: a directory of `.pub` files or with a `policy.json`, one `.pub` file, or a policy
    /// of any other name. An attacker who can write the store can accept any object.
    ///
    /// # Errors
    ///
    /// `Error::Trust`, for a store that cannot be read or breaks a rule of spec/trust-policy.md.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let problem = |text: String| Error::Trust(format!("trust store {}: {text}", path.display()));
        match fs::metadata(path) {
            Err(error) => Err(problem(Unread::from(error).text())),
            Ok(found) if found.is_dir() => open_directory(path).map_err(problem),
            Ok(_) if is_key_name(path) => {
                let data = read_file(path, MAX_KEY_BYTES).map_err(|error| problem(error.text()))?;
                Trust::from_named_keys(vec![(String::new(), data)]).map_err(problem)
            }
            Ok(_) => open_policy(path).map_err(problem),
        }
    }
}

fn is_key_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b".pub")
}

fn open_policy(path: &Path) -> Result<Trust, String> {
    let data = read_file(path, MAX_POLICY_BYTES).map_err(Unread::text)?;
    Trust::read_policy(&data)
}

/// Use the keys only if no policy exists: an unreadable policy must not be skipped.
fn open_directory(path: &Path) -> Result<Trust, String> {
    let policy = path.join(POLICY_NAME);
    match fs::symlink_metadata(&policy) {
        Ok(_) => return open_policy(&policy).map_err(|problem| format!("{POLICY_NAME}: {problem}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Unread::from(error).text()),
    }
    let mut count = 0;
    let mut pems = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| Unread::from(error).text())? {
        let name = entry.map_err(|error| Unread::from(error).text())?.file_name();
        // Names of editors' temporary files and of Kubernetes' links (..data) begin with a dot.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        count += 1;
        if count > MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} files in it"));
        }
        if !is_key_name(Path::new(&name)) {
            continue;
        }
        let shown = name.to_string_lossy().into_owned();
        let data = read_file(&path.join(&name), MAX_KEY_BYTES).map_err(|e| format!("{shown}: {}", e.text()))?;
        pems.push((shown, data));
    }
    Trust::from_named_keys(pems)
}
