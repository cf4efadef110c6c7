// SPDX-License-Identifier: Apache-2.0

//! Answer many questions of a test to the verifier, in one process. loader/fuzz/check.c of the repository lists
//! the questions and the answers.

use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sigverify::strict::{self, KEY_SIZE, SIGNATURE_SIZE};
use sigverify::{verify, Error, Options, Platform, Trust};

const MAX_QUESTION_BYTES: usize = 128 << 20;

#[derive(Default)]
struct Session {
    trust: Option<Trust>,
    platform: String,
    now: i64,
}

fn main() -> io::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, io::stdin().lock());
    let mut output = BufWriter::new(io::stdout().lock());
    let mut session = Session::default();
    loop {
        let mut kind = [0];
        if input.read(&mut kind)? == 0 {
            return output.flush();
        }
        let mut size = [0; 4];
        input.read_exact(&mut size)?;
        let size = u32::from_le_bytes(size) as usize;
        if size > MAX_QUESTION_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a question"));
        }
        let mut data = vec![0; size];
        input.read_exact(&mut data)?;
        if let Some(line) = session.answer(kind[0], &data)? {
            writeln!(output, "{line}")?;
        }
        // The other side waits for the answer, unless it has sent more questions.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn describe(store: Result<Trust, Error>) -> String {
    store.map_or("bad-trust".to_string(), |trust| trust.to_string())
}

impl Session {
    fn answer(&mut self, kind: u8, data: &[u8]) -> io::Result<Option<String>> {
        let text = || String::from_utf8_lossy(data).into_owned();
        match kind {
            b'T' => {
                self.trust = Trust::open(Path::new(OsStr::from_bytes(data))).ok();
                Ok(Some(if self.trust.is_some() { "trust" } else { "bad-trust" }.to_string()))
            }
            b'P' => {
                self.platform = text();
                Ok(None)
            }
            b'N' => {
                self.now = text().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a time"))?;
                Ok(None)
            }
            b'O' => Ok(Some(self.verify(data))),
            b'Y' => Ok(Some(describe(Trust::from_policy(data)))),
            b'K' => Ok(Some(describe(Trust::from_keys(&[data])))),
            b'V' | b'M' => Ok(Some(self.setting(data, kind == b'M'))),
            b'S' => Ok(Some(check_signature(data))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a question")),
        }
    }

    fn verify(&self, data: &[u8]) -> String {
        let Some(trust) = &self.trust else {
            return "error: no trust store".to_string();
        };
        let platform = if self.platform.is_empty() { Platform::Any } else { Platform::Named(&self.platform) };
        match verify(data, trust, &Options { platform, now: Some(self.now), version_seen: None }) {
            Ok(statement) => {
                let ids = statement.key_ids.iter().map(|id| format!(" {}", hex(id))).collect::<String>();
                format!("accepted {}{ids}", hex(&statement.digest))
            }
            Err(error) => {
                error.reason().map_or_else(|| format!("error: {error}"), |reason| reason.word().to_string())
            }
        }
    }
}

impl Session {
    /// Answer whether the signers of an object allow NAME=VALUE, the line before it.
    fn setting(&self, data: &[u8], is_size: bool) -> String {
        let Some(trust) = &self.trust else {
            return "error: no trust store".to_string();
        };
        let end = data.iter().position(|octet| *octet == b'\n').unwrap_or(data.len());
        let line = String::from_utf8_lossy(&data[..end]).into_owned();
        let (name, value) = line.split_once('=').unwrap_or((&line, ""));
        let options = Options { platform: Platform::Any, now: Some(self.now), version_seen: None };
        let settable = match verify(data.get(end + 1..).unwrap_or_default(), trust, &options) {
            Ok(statement) => statement.settable.unwrap_or_default(),
            Err(error) => {
                return error
                    .reason()
                    .map_or_else(|| format!("error: {error}"), |reason| reason.word().to_string())
            }
        };
        let allowed = if is_size {
            value.parse().is_ok_and(|entries| settable.allows_entries(name, entries))
        } else {
            settable.allows_value(name, value)
        };
        if allowed { "allowed" } else { "denied" }.to_string()
    }
}

fn check_signature(data: &[u8]) -> String {
    let parts = data.split_at(data.len().min(KEY_SIZE + SIGNATURE_SIZE));
    let key: Option<[u8; KEY_SIZE]> = parts.0.get(..KEY_SIZE).and_then(|key| key.try_into().ok());
    let signature: Option<[u8; SIGNATURE_SIZE]> = parts.0.get(KEY_SIZE..).and_then(|part| part.try_into().ok());
    match (key, signature) {
        (Some(key), Some(signature)) if strict::is_key(&key) => {
            if strict::verify(&key, parts.1, &signature) { "good" } else { "bad-signature" }.to_string()
        }
        (Some(_), Some(_)) => "weak-key".to_string(),
        _ => "error: too short".to_string(),
    }
}
