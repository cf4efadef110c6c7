// SPDX-License-Identifier: Apache-2.0

//! The statement (spec/sig-section.md, section 6).

use crate::json::{self, Value};
use crate::members::{
    any, array, boolean, integer, integer_set, object_name, project, sha256, text, text_set, texts, time, Fields,
};
use crate::settable::Settable;

use crate::sections::{declared_type, program_type};

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "urn:buildtool:ebpf-object:v1";
const MAX_RELEASE_BYTES: usize = 128;

/// What the signers of an accepted object stated. Times are in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// The object's name, for policies and messages.
    pub name: String,
    /// SHA-256 of the file, with the contents of `.sig` as zero bytes.
    pub digest: [u8; 32],
    /// For example `linux/amd64`.
    pub platform: String,
    /// The project that signed.
    pub project: String,
    /// The version against rollback.
    pub version: u64,
    /// The version for people.
    pub release: String,
    /// When the statement was made.
    pub created: i64,
    /// The end of its validity, if it has one.
    pub not_after: Option<i64>,
    /// The programs of the object.
    pub programs: Vec<Program>,
    /// The maps of the object.
    pub maps: Vec<Map>,
    /// Numbers of the helpers that the programs call, ascending.
    pub helpers: Vec<u64>,
    /// Kernel functions that the programs call, ascending.
    pub kfuncs: Vec<String>,
    /// The contents of the license section.
    pub license: String,
    /// The compiler, if it is stated.
    pub toolchain: Option<Toolchain>,
    /// The source file, if it is stated.
    pub source: Option<Source>,
    /// What the loading machine may set, if anything.
    pub settable: Option<Settable>,
    /// The keys that counted, ascending. Each is the SHA-256 of a key's DER SubjectPublicKeyInfo.
    pub key_ids: Vec<[u8; 32]>,
    pub(crate) stated_digest: String,
}

/// A program of an object.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Program {
    pub name: String,
    pub section: String,
    /// libbpf's name of the type.
    pub kind: String,
    /// Default targets.
    pub attach: Vec<String>,
    /// The section name by which the program is loaded, if its own is unknown to libbpf.
    pub declared: Option<String>,
}

/// A map of an object.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Map {
    pub name: String,
    pub kind: String,
    pub key_size: u64,
    pub value_size: u64,
    pub max_entries: u64,
    /// Of a struct_ops map.
    pub section: Option<String>,
    /// The kernel's type of a struct_ops map.
    pub struct_name: Option<String>,
    /// The object asks libbpf to pin the map by its name.
    pub pinned: bool,
}

/// The compiler of an object, and its flags.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Toolchain {
    pub compiler: String,
    pub flags: Vec<String>,
}

/// The source file of an object.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Source {
    pub path: String,
    pub sha256: String,
}

fn release(value: Value) -> Option<String> {
    text(value).filter(|text| text.len() <= MAX_RELEASE_BYTES)
}

impl Statement {
    /// Read the bytes that were signed.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, String> {
        let mut root = Fields::of("statement", json::parse(data)?);
        if root.required("_type", text)? != STATEMENT_TYPE
            || root.required("predicateType", text)? != PREDICATE_TYPE
        {
            return Err("statement: unknown type".to_string());
        }
        let mut subjects = root.required("subject", array)?;
        let predicate = root.required("predicate", any)?;
        root.finish()?;
        let subject = subjects.pop().filter(|_| subjects.is_empty());
        let mut subject = Fields::new("subject", subject.ok_or("statement: not exactly one subject")?)?;
        let name = subject.required("name", object_name)?;
        let mut digest = Fields::new("digest", subject.required("digest", any)?)?;
        subject.finish()?;
        let stated_digest = digest.required("sha256", sha256)?;
        digest.finish()?;
        let mut statement = Statement { name, stated_digest, ..Statement::default() };
        statement.read_predicate(Fields::new("predicate", predicate)?)?;
        Ok(statement)
    }

    fn read_predicate(&mut self, mut body: Fields) -> Result<(), String> {
        self.platform = body.required("platform", text)?;
        self.project = body.required("project", project)?;
        self.version = body.required("version", integer)?;
        self.release = body.required("release", release)?;
        self.created = body.required("created", time)?;
        self.not_after = body.optional("notAfter", time)?;
        for item in body.required("programs", array)? {
            self.programs.push(read_program(item)?);
        }
        for item in body.required("maps", array)? {
            self.maps.push(read_map(item)?);
        }
        self.helpers = body.required("helpers", integer_set)?;
        self.kfuncs = body.required("kfuncs", text_set)?;
        self.license = body.required("license", text)?;
        if let Some(value) = body.optional("toolchain", any)? {
            let mut tools = Fields::new("toolchain", value)?;
            let found =
                Toolchain { compiler: tools.required("compiler", text)?, flags: tools.required("flags", texts)? };
            tools.finish()?;
            self.toolchain = Some(found);
        }
        if let Some(value) = body.optional("source", any)? {
            let mut source = Fields::new("source", value)?;
            let found =
                Source { path: source.required("path", text)?, sha256: source.required("sha256", sha256)? };
            source.finish()?;
            self.source = Some(found);
        }
        if let Some(value) = body.optional("settable", any)? {
            self.settable = Some(Settable::parse(value, &self.maps)?);
        }
        body.finish()
    }
}

fn read_program(value: Value) -> Result<Program, String> {
    let mut fields = Fields::new("program", value)?;
    let program = Program {
        name: fields.required("name", text)?,
        section: fields.required("section", text)?,
        kind: fields.required("type", text)?,
        attach: fields.optional("attach", texts)?.unwrap_or_default(),
        declared: fields.optional("declared", text)?,
    };
    fields.finish()?;
    // A declaration must not change what libbpf knows of a section, and must agree with the type.
    if let Some(declared) = &program.declared {
        let section = program.section.strip_prefix('?').unwrap_or(&program.section);
        if declared_type(declared) != Some(program.kind.as_str()) || program_type(section.as_bytes()) != "unspec" {
            return Err("program: declared is wrong".to_string());
        }
    }
    Ok(program)
}

fn read_map(value: Value) -> Result<Map, String> {
    let mut fields = Fields::new("map", value)?;
    let map = Map {
        name: fields.required("name", text)?,
        kind: fields.required("type", text)?,
        key_size: fields.required("keySize", integer)?,
        value_size: fields.required("valueSize", integer)?,
        max_entries: fields.required("maxEntries", integer)?,
        section: fields.optional("section", text)?,
        struct_name: fields.optional("struct", text)?,
        pinned: fields.optional("pinned", boolean)?.unwrap_or_default(),
    };
    fields.finish()?;
    Ok(map)
}
