# SPDX-License-Identifier: Apache-2.0
"""
Read, write and use Ed25519 keys. No other module imports `cryptography`.

Signing keys are PKCS#8 PEM, with or without a passphrase. Public keys are SubjectPublicKeyInfo PEM
(spec/sig-section.md, section 5).
"""

from __future__ import annotations

import hashlib
import re
import stat
from base64 import b64encode
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from buildtool.config.file import CONFIG_NAME, Config
from buildtool.core.errors import ConfigError, FileAccessError, SigningKeyError, UsageError, system_reason
from buildtool.core.files import make_directory, read_bounded, staged_files
from buildtool.core.secrecy import keep_out_of_core_dumps
from buildtool.core.text import quote
from buildtool.signing.ed25519 import IDENTITY_ENCODING, is_strict_point

KeyId = NewType("KeyId", str)
"""SHA-256 of the DER SubjectPublicKeyInfo, 64 lower-case hex digits (spec, "Key id")."""

SHOWN_KEY_DIGITS = 16  # of a key id, in lines for people
MIN_KEY_DIGITS = 8  # that a command accepts instead of a whole key id
MAX_KEY_FILE_BYTES = 4096
_NEW_KEY = "buildtool keygen NAME makes an Ed25519 key"
_PUBLIC_HINT = "buildtool keygen NAME writes NAME.pub, a public key in PEM"
# DER_PREFIX for printf; an OpenSSH key ends in the 32 bytes that follow it.
_PREFIX_TEXT = r"\060\052\060\005\006\003\053\145\160\003\041\000"
_FOREIGN_KEYS = {
    b"SIGSTORE PRIVATE KEY-----": "cosign",
    b"COSIGN PRIVATE KEY-----": "cosign",
    b"BEGIN PGP PRIVATE KEY": "OpenPGP",
    b"untrusted comment: minisign": "minisign",
    b"untrusted comment: signify": "signify",
}
NO_KEY_HINT = (
    "buildtool keygen NAME makes a key; name it by --key, sign.key or BUILDTOOL_KEY,"
    " or put its text into BUILDTOOL_SIGNING_KEY"
)
_NO_FILE_HINT = "buildtool init makes the file; or name a key by --key: buildtool keygen NAME makes one"
DER_PREFIX = bytes.fromhex("302a300506032b6570032100")
_KEY_DIGITS = re.compile(rf"[0-9a-f]{{{MIN_KEY_DIGITS},64}}")
_PEM = re.compile(
    rb"[ \t\r\n]*-----BEGIN PUBLIC KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END PUBLIC KEY-----[ \t\r\n]*"
)


def shorten_key_id(key_id: str) -> str:
    """Return the first digits of *key_id*, for lines for people. `parse_key_digits` accepts them."""
    return key_id[:SHOWN_KEY_DIGITS]


def parse_key_digits(text: str, *, shown_by: str) -> str:
    """
    Return *text*, a key id or the first digits of one, in lower case.

    *shown_by* is the command that shows key ids, for the hint.

    Raises: UsageError.
    """
    digits = text.lower()
    if not _KEY_DIGITS.fullmatch(digits):
        raise UsageError(
            f"{quote(text)} is not a key id",
            hint=f"write at least {MIN_KEY_DIGITS} of its 64 hexadecimal digits; {shown_by} shows them",
        )
    return digits


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public key that satisfies the strict rules: its 32 *raw* bytes, and a *name* for messages."""

    raw: bytes
    name: str = ""

    @property
    def der(self) -> bytes:
        """The 44 bytes of SubjectPublicKeyInfo."""
        return DER_PREFIX + self.raw

    @property
    def key_id(self) -> KeyId:
        """The SHA-256 of `der` in hex."""
        return KeyId(hashlib.sha256(self.der).hexdigest())

    @property
    def pem(self) -> bytes:
        """The text of a .pub file."""
        return b"-----BEGIN PUBLIC KEY-----\n%b\n-----END PUBLIC KEY-----\n" % b64encode(self.der)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """
        Return whether *signature* over *message* is valid under strict verification (spec, section 5).

        OpenSSL checks S < L and compares the encoding of [S]B - [k]A with the bytes of R. A was
        checked to be canonical and of prime order when the key was read. Therefore that point has
        prime order and a canonical encoding. One rule for R remains: R is not the identity.
        """
        if signature[:32] == IDENTITY_ENCODING:
            return False
        try:
            _openssl_key(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key, which is used for signatures and never shown: its *key_id* and *public* half."""

    __slots__ = ("_private", "key_id", "public")

    def __init__(self, private: Ed25519PrivateKey, *, name: str = "") -> None:
        self._private = private
        self.public = PublicKey(raw=private.public_key().public_bytes_raw(), name=name)
        self.key_id = self.public.key_id

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature over *message*."""
        return self._private.sign(message)

    def to_pem(self, passphrase: bytes | None) -> bytes:
        """Return PKCS#8 PEM, encrypted if *passphrase* is not empty."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption(),
        )


def generate_key() -> SigningKey:
    """Return a new key from the system's random source."""
    keep_out_of_core_dumps()
    return SigningKey(Ed25519PrivateKey.generate())


def save_key(key: SigningKey, name: str, directory: Path, passphrase: bytes | None) -> tuple[Path, Path]:
    """
    Write *key* to new files NAME.pem (mode 0600) and NAME.pub in *directory*, and return their paths.

    Raises: FileAccessError. A failure leaves nothing behind.
    """
    private, public = directory / f"{name}.pem", directory / f"{name}.pub"
    make_directory(directory)
    with staged_files([private, public], replace=False) as stage:
        stage.write(private, key.to_pem(passphrase), mode=0o600)
        stage.write(public, key.public.pem)
    return private, public


def missing_key(config: Config) -> UsageError:
    """Return the error for a command without a key. A missing file of the configuration is named first."""
    if config.has_file:
        return UsageError("no signing key", hint=NO_KEY_HINT)
    return UsageError(f"{config.root / CONFIG_NAME}: no such file, and no signing key", hint=_NO_FILE_HINT)


def read_key_file(path: Path) -> bytes:
    """
    Return the bytes of signing key file *path*.

    Raises: SigningKeyError, also if others than the file's owner have access to it.
    """
    keep_out_of_core_dumps()
    try:
        mode = path.stat().st_mode
        data = read_bounded(path, MAX_KEY_FILE_BYTES)
    except (OSError, FileAccessError) as error:
        text = error.message if isinstance(error, FileAccessError) else f"{path}: {system_reason(error)}"
        raise SigningKeyError(f"signing key {text}", hint=NO_KEY_HINT) from error
    # Check the kind before the mode, because a public key may be readable by all.
    refuse_foreign(data, str(path))
    # A key that other users could read is not secret. OpenSSH refuses such keys, too.
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SigningKeyError(
            f"signing key {path}: mode {stat.S_IMODE(mode):04o} lets others use it", hint=f"chmod 600 {path}"
        )
    if len(data) > MAX_KEY_FILE_BYTES:
        raise SigningKeyError(f"signing key {path}: too large for a key file", hint=_NEW_KEY)
    return data


def refuse_foreign(data: bytes, origin: str) -> None:
    """
    Refuse *data*, the text of a key from *origin*, if another tool's key or a public one is what it is.

    Raises: SigningKeyError.
    """
    if b"-----BEGIN PUBLIC KEY-----" in data:
        raise SigningKeyError(
            f"signing key {origin}: this is a public key", hint="name the private key, the .pem file"
        )
    if b"BEGIN OPENSSH PRIVATE KEY-----" in data:
        raise SigningKeyError(
            f"signing key {origin}: a key of OpenSSH, which only its agent signs with",
            hint=f"ssh-add {origin}, then --key ssh-agent:NAME; or {_NEW_KEY}",
        )
    for mark, tool in _FOREIGN_KEYS.items():
        if mark in data:
            raise SigningKeyError(f"signing key {origin}: a key of {tool}", hint=_NEW_KEY)


def load_signing_key(path: Path, passphrase: bytes | None) -> SigningKey:
    """
    Return the key of file *path*.

    Raises: SigningKeyError.
    """
    return load_signing_key_pem(read_key_file(path), str(path), passphrase)


def is_encrypted(data: bytes) -> bool:
    """Return whether PEM text *data* requires a passphrase."""
    return b"ENCRYPTED" in data


def is_private(data: bytes) -> bool:
    """Return whether *data* is PEM text of a private key of any kind."""
    return data.lstrip().startswith(b"-----BEGIN ") and b"PRIVATE KEY-----" in data


def load_signing_key_pem(data: bytes, origin: str, passphrase: bytes | None) -> SigningKey:
    """
    Return the signing key of PEM text *data*. *origin* names the key in messages.

    Raises: SigningKeyError.
    """
    keep_out_of_core_dumps()
    refuse_foreign(data, origin)
    encrypted = is_encrypted(data)
    if encrypted and passphrase is None:
        raise SigningKeyError(
            f"signing key {origin}: encrypted, and no passphrase was given",
            hint="set BUILDTOOL_KEY_PASSPHRASE, or run on a terminal to be asked;"
            " sign takes --passphrase-file and --passphrase-fd, too",
        )
    try:
        private = load_pem_private_key(data, passphrase if encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise SigningKeyError(
                f"signing key {origin}: wrong passphrase, or damaged",
                hint="use BUILDTOOL_KEY_PASSPHRASE, --passphrase-file, --passphrase-fd or a terminal",
            ) from error
        raise SigningKeyError(f"signing key {origin}: not a PKCS#8 PEM private key", hint=_NEW_KEY) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningKeyError(f"signing key {origin}: not an Ed25519 key", hint=_NEW_KEY)
    return SigningKey(private, name=Path(origin).stem)


def load_public_key(path: Path) -> PublicKey:
    """
    Return the key of the .pub file *path*.

    Raises: ConfigError.
    """
    try:
        data = read_bounded(path, MAX_KEY_FILE_BYTES)
    except FileAccessError as error:
        raise ConfigError(error.message, hint=error.hint or _PUBLIC_HINT) from error
    return parse_public_key(data, str(path), name=path.stem)


def parse_public_key(data: bytes, origin: str, *, name: str) -> PublicKey:
    """
    Return the public key of PEM text *data*. *origin* names the key in messages.

    Raises: ConfigError.
    """
    if is_private(data):
        raise ConfigError(f"{origin}: a private key", hint="name its public half, the .pub file")
    if data.startswith(b"ssh-ed25519 "):
        raise ConfigError(
            f"{origin}: a public key of OpenSSH, not PEM",
            hint=f"(printf '{_PREFIX_TEXT}'; cut -d' ' -f2 {origin} | base64 -d | tail -c 32)"
            " | openssl pkey -pubin -inform DER prints it as PEM",
        )
    match = _PEM.fullmatch(data)
    if match is None or len(data) > MAX_KEY_FILE_BYTES:
        raise ConfigError(f"{origin}: not a PEM public key", hint=_PUBLIC_HINT)
    try:
        der = decode_base64(match[1].replace(b"\r", b"").replace(b"\n", b""))
    except ValueError as error:
        raise ConfigError(f"{origin}: not a PEM public key", hint=_PUBLIC_HINT) from error
    return public_key_from_der(der, origin, name=name)


def decode_base64(text: bytes) -> bytes:
    """
    Return the bytes of *text*, the canonical base64 of them.

    Raises: ValueError, also if the unused bits of the last letter are not zero: libraries differ there.
    """
    data = a2b_base64(text, strict_mode=True)
    if b2a_base64(data, newline=False) != text:
        raise ValueError("not the one base64 of its bytes")
    return data


def public_key_from_der(der: bytes, origin: str, *, name: str) -> PublicKey:
    """
    Return the public key of SubjectPublicKeyInfo *der*. *origin* names the key in messages.

    Raises: ConfigError, also if the key breaks the strict rules of the specification.
    """
    if len(der) != len(DER_PREFIX) + 32 or not der.startswith(DER_PREFIX):
        raise ConfigError(
            f"{origin}: not an Ed25519 public key",
            hint=f"keys of cosign and of certificates are ECDSA or RSA: {_NEW_KEY}",
        )
    raw = der[len(DER_PREFIX) :]
    if not is_strict_point(raw):
        raise ConfigError(f"{origin}: a weak Ed25519 public key", hint="buildtool keygen NAME makes a key")
    return PublicKey(raw=raw, name=name)


@lru_cache(maxsize=256)
def _openssl_key(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)
