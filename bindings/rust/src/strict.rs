// SPDX-License-Identifier: Apache-2.0

//! Ed25519 by the rules of spec/sig-section.md, section 5.

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity;
use ed25519_dalek::{Signature, VerifyingKey};

/// The size of a public key in bytes.
pub const KEY_SIZE: usize = 32;
/// The size of a signature in bytes.
pub const SIGNATURE_SIZE: usize = 64;

/// Return whether a public key is the canonical encoding of a point of the prime-order subgroup other than
/// the identity.
pub fn is_key(key: &[u8; KEY_SIZE]) -> bool {
    let encoding = CompressedEdwardsY(*key);
    match encoding.decompress() {
        // The library decodes encodings that are not canonical, but writes canonical ones.
        Some(point) => point.compress() == encoding && !point.is_identity() && point.is_torsion_free(),
        None => false,
    }
}

/// Return whether a signature over the message is valid. `is_key` accepted the key before.
///
/// `verify_strict` checks that S < L, that R is not of small order, and that the bytes of R are the encoding
/// of \[S\]B - \[k\]A. With A of prime order, that point has prime order, and the encoding is canonical.
pub fn verify(key: &[u8; KEY_SIZE], message: &[u8], signature: &[u8; SIGNATURE_SIZE]) -> bool {
    match VerifyingKey::from_bytes(key) {
        Ok(key) => key.verify_strict(message, &Signature::from_bytes(signature)).is_ok(),
        Err(_) => false,
    }
}
