// SPDX-License-Identifier: Apache-2.0

//! `sigverify-example TRUST OBJECT`: load an object with aya, after its signatures were verified. TRUST is a
//! directory of `.pub` files, or a policy.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use aya::Ebpf;
use sigverify::{verify_file, Options, Trust};

/// Return the object's programs and maps. No byte of the file is read a second time.
fn load(trust: &Path, object: &Path) -> Result<Ebpf, Box<dyn Error>> {
    let trust = Trust::open(trust)?;
    let (bytes, statement) = verify_file(object, &trust, &Options::default())?;
    println!("accepted {} of {}, version {}", statement.name, statement.project, statement.version);
    Ok(Ebpf::load(&bytes)?)
}

fn main() -> ExitCode {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [trust, object] = paths.as_slice() else {
        eprintln!("usage: sigverify-example TRUST OBJECT");
        return ExitCode::from(2);
    };
    match load(trust.as_ref(), object.as_ref()) {
        Ok(ebpf) => {
            // Continue as usual: ebpf.program_mut("NAME"), then load and attach.
            let mut names: Vec<_> = ebpf.programs().map(|(name, _)| name).collect();
            names.sort_unstable();
            names.iter().for_each(|name| println!("program {name}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            let refused = error.downcast_ref::<sigverify::Error>().and_then(sigverify::Error::reason);
            ExitCode::from(if refused.is_some() { 3 } else { 1 })
        }
    }
}
