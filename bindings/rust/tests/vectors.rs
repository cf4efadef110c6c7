// SPDX-License-Identifier: Apache-2.0

//! The vectors of the specification, which all implementations pass, and what they cannot show.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sigverify::{
    strict, verify, verify_file, Error, Options, Platform, Reason, Statement, Trust, MAX_OBJECT_BYTES,
};

const NOW: i64 = 1_780_272_000; // 2026-06-01T00:00:00Z

fn index() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/vectors.json");
    let index: Value = serde_json::from_slice(&fs::read(path).expect("a checkout of the repository")).unwrap();
    assert_eq!(index["now"], "2026-06-01T00:00:00Z");
    index
}

/// A directory of this test's own, which is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sigverify-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn store(&self, name: &str, files: &Value) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        for (name, text) in files.as_object().unwrap() {
            fs::write(path.join(name), text.as_str().unwrap()).unwrap();
        }
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn decode(text: &str) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0u32, 0, Vec::new());
    for letter in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | letters.iter().position(|other| *other == letter).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn vector(index: &Value, name: &str) -> Vec<u8> {
    let found = index["vectors"].as_array().unwrap().iter().find(|vector| vector["name"] == name).unwrap();
    decode(found["file"].as_str().unwrap())
}

fn alice(index: &Value) -> Trust {
    Trust::from_keys(&[index["trust"]["alice"]["alice.pub"].as_str().unwrap().as_bytes()]).unwrap()
}

fn options(platform: Platform) -> Options {
    Options { platform, now: Some(NOW), version_seen: None }
}

fn decide(result: &Result<Statement, Error>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(error) => error.reason().expect("a reason").word(),
    }
}

#[test]
fn vectors() {
    let index = index();
    let directory = Directory::new("vectors");
    let stores: BTreeMap<&String, Trust> = index["trust"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, files)| (name, Trust::open(&directory.store(name, files)).unwrap()))
        .collect();
    let all = index["vectors"].as_array().unwrap();
    assert!(all.len() > 500);
    for vector in all {
        let trust = &stores[&vector["trust"].as_str().unwrap().to_string()];
        let platform = Platform::Named(vector["platform"].as_str().unwrap());
        let result = verify(&decode(vector["file"].as_str().unwrap()), trust, &options(platform));
        assert_eq!(decide(&result), vector["expect"], "{}", vector["name"]);
    }
}

#[test]
fn bad_trust_stores_are_errors() {
    let index = index();
    let directory = Directory::new("bad");
    let bad = index["badTrust"].as_object().unwrap();
    assert!(bad.len() > 80);
    for (name, files) in bad {
        assert!(matches!(Trust::open(&directory.store(name, files)), Err(Error::Trust(_))), "{name}");
    }
    assert!(matches!(Trust::from_keys(&[]), Err(Error::Trust(_))));
}

#[test]
fn signatures() {
    let index = index();
    let all = index["signatures"].as_array().unwrap();
    assert!(all.len() > 40);
    for vector in all {
        let key: [u8; 32] = unhex(&vector["key"]).try_into().unwrap();
        let signature: [u8; 64] = unhex(&vector["signature"]).try_into().unwrap();
        let found = match strict::is_key(&key) {
            false => "weak-key",
            true if strict::verify(&key, &unhex(&vector["message"]), &signature) => "good",
            true => "bad-signature",
        };
        assert_eq!(found, vector["expect"], "{}", vector["name"]);
    }
}

#[test]
fn an_acceptance_has_the_facts() {
    let index = index();
    let found = verify(&vector(&index, "plain"), &alice(&index), &options(Platform::Any)).unwrap();
    let facts = (found.name.as_str(), found.project.as_str(), found.version, found.platform.as_str());
    assert_eq!(facts, ("x.bpf.o", "demo", 3, "linux/amd64"));
    assert_eq!((found.license.as_str(), found.key_ids.len()), ("GPL", 1));
}

#[test]
fn the_default_is_strict() {
    let index = index();
    let data = vector(&index, "plain");
    let result = verify(&data, &alice(&index), &Options::default());
    assert_eq!(result.is_ok(), cfg!(target_arch = "x86_64"), "{result:?}");
    let result = verify(&data, &alice(&index), &options(Platform::Named("linux/riscv64")));
    assert_eq!(decide(&result), "wrong-platform");
    // The time of the default is the present, when this policy's key has expired.
    let policy = index["trust"]["policy-64-keys"]["policy.json"].as_str().unwrap();
    let ended = "{\"name\":\"alice\",\"notAfter\":\"2020-01-01T00:00:00Z\",";
    let trust = Trust::from_policy(policy.replacen("{\"name\":\"alice\",", ended, 1).as_bytes()).unwrap();
    let result = verify(&data, &trust, &Options { platform: Platform::Any, ..Options::default() });
    assert_eq!(decide(&result), "expired");
}

#[test]
fn versions_are_the_callers() {
    let index = index();
    for (seen, expect) in [(0, "accepted"), (3, "accepted"), (4, "rolled-back")] {
        let version_seen = |project: &str, object: &str| {
            assert_eq!((project, object), ("demo", "x.bpf.o"));
            seen
        };
        let asked = Options { version_seen: Some(&version_seen), ..options(Platform::Any) };
        assert_eq!(decide(&verify(&vector(&index, "plain"), &alice(&index), &asked)), expect);
    }
}

#[test]
fn files_are_read_once_and_bounded() {
    let index = index();
    let directory = Directory::new("files");
    let (trust, any) = (alice(&index), options(Platform::Any));
    let path = directory.0.join("x.bpf.o");
    fs::write(&path, vector(&index, "plain")).unwrap();
    assert_eq!(verify_file(&path, &trust, &any).unwrap().0, vector(&index, "plain"));
    fs::File::create(&path).unwrap().set_len(MAX_OBJECT_BYTES as u64 + 1).unwrap();
    assert_eq!(verify_file(&path, &trust, &any).unwrap_err().reason(), Some(Reason::TooLarge));
    for (path, problem) in [
        (directory.0.clone(), "not a regular file"),
        (PathBuf::from("/dev/zero"), "not a regular file"),
        (PathBuf::from("/gone"), "no such file or directory"),
    ] {
        let error = verify_file(&path, &trust, &any).unwrap_err();
        assert_eq!(error.to_string(), format!("object {}: {problem}", path.display()));
    }
}

#[test]
fn a_policy_that_cannot_be_read_is_not_skipped() {
    let index = index();
    let directory = Directory::new("links");
    for name in ["policy.json", "gone.pub"] {
        let path = directory.store(name, &index["trust"]["alice"]);
        std::os::unix::fs::symlink("gone", path.join(name)).unwrap();
        let Err(error) = Trust::open(&path) else { panic!("{name} was skipped") };
        let want = format!("trust store {}: {name}: no such file or directory", path.display());
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn targets_are_attach_points() {
    let index = index();
    let policy = index["trust"]["policy-64-keys"]["policy.json"].as_str().unwrap();
    let rule = "\"attachPoints\":[\"xdp\",\"fentry/do_*\"],\"keys\":";
    let trust = Trust::from_policy(policy.replacen("\"keys\":", rule, 1).as_bytes()).unwrap();
    let asked = ["xdp", "xdp/eth0", "fentry/do_unlinkat", "fentry/do_/../x", "fentry"];
    assert_eq!(asked.map(|point| trust.allows_point(point)), [true, false, true, false, false]);
    assert!(alice(&index).allows_point("anything"));
}
