# SPDX-License-Identifier: Apache-2.0
"""
Signer `pkcs11:...`: a key in a token, named by a URI of RFC 7512.

No other module imports `pkcs11` (python-pkcs11, the extra `pkcs11`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from buildtool.core.errors import FileAccessError, SigningKeyError, ToolMissingError, UsageError
from buildtool.core.files import read_bounded
from buildtool.signing.keys import DER_PREFIX, KeyId, PublicKey, load_public_key, public_key_from_der
from buildtool.signing.signers.signer import SignerContext

if TYPE_CHECKING:
    from pkcs11 import Session

MODULE_VARIABLE = "PKCS11_MODULE"
MAX_PIN_BYTES = 256
_PATH = frozenset(("token", "serial", "object", "id", "type"))
_QUERY = frozenset(("module-path", "pin-source"))
_EDWARDS25519_BYTES = 32
_PROBLEMS = {
    "PinIncorrect": "wrong PIN",
    "PinLenRange": "wrong PIN",
    "PinInvalid": "wrong PIN",
    "PinLocked": "the PIN is locked",
    "TokenNotPresent": "no token in the slot",
    "MechanismInvalid": "the token cannot sign with Ed25519",
    "RuntimeError": "the module refuses",
    "PKCS11Error": "the module refuses",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUri:
    """A parsed URI: the attributes of its *path* (bytes) and of its *query* (text)."""

    path: Mapping[str, bytes]
    query: Mapping[str, str]


class TokenSigner:
    """A private key in a token. The session stays open as long as the signer exists."""

    __slots__ = ("_key", "_session", "key_id", "public")

    def __init__(self, session: Session, key: Any, public: PublicKey) -> None:
        self._session = session
        self._key = key
        self.public = public
        self.key_id: KeyId = public.key_id

    def sign(self, message: bytes) -> bytes:
        """
        Return the token's signature over *message*.

        Raises: SigningKeyError.
        """
        from pkcs11 import Mechanism
        from pkcs11.exceptions import PKCS11Error

        try:
            return bytes(self._key.sign(message, mechanism=Mechanism.EDDSA))
        except PKCS11Error as error:
            raise SigningKeyError(
                f"{self.public.name}: the token did not sign: {_name(error)}",
                hint="pkcs11-tool -M lists what the token can do: it needs EDDSA",
            ) from error


def parse_uri(text: str) -> KeyUri:
    """
    Return the attributes of *text*, a URI without the leading `pkcs11:`.

    Raises: UsageError.
    """
    path_text, _, query_text = text.partition("?")
    path = _attributes(path_text, ";", _PATH)
    query = _attributes(query_text, "&", _QUERY)
    if not path.keys() & {"object", "id"}:
        raise UsageError("pkcs11: the URI names no key", hint="for example pkcs11:token=lab;object=release")
    if path.get("type", b"private") != b"private":
        raise UsageError("pkcs11: type must be private", hint="leave type out of the URI")
    try:
        return KeyUri(path=path, query={name: value.decode() for name, value in query.items()})
    except UnicodeDecodeError as error:
        raise UsageError(
            "pkcs11: an attribute is not UTF-8", hint="percent-encode the bytes of UTF-8"
        ) from error


def open_signer(uri: str, context: SignerContext) -> TokenSigner:
    """
    Return the signer for the key that *uri* names.

    The PIN is in the file of pin-source (file:/PATH). Without pin-source, it is the passphrase.

    Raises: UsageError, SigningKeyError, ToolMissingError, ConfigError.
    """
    parsed = parse_uri(uri)
    module = parsed.query.get("module-path") or context.environ.get(MODULE_VARIABLE, "")
    if not module:
        raise UsageError(
            "pkcs11: no module named",
            hint=f"add ?module-path=/usr/lib/softhsm/libsofthsm2.so for example, or set {MODULE_VARIABLE}",
        )
    try:
        import pkcs11
        from pkcs11.exceptions import PKCS11Error
    except ImportError as error:
        raise ToolMissingError(
            "pkcs11: python-pkcs11 is missing", hint="pip install python-pkcs11"
        ) from error
    name = "pkcs11:" + ";".join(f"{key}={_show(value)}" for key, value in parsed.path.items())
    try:
        token = _only(list(pkcs11.lib(module).get_tokens(**_token_filter(parsed))), "tokens", name)
        session = token.open(user_pin=_find_pin(parsed, name, context))
        key = _only(_find_objects(session, parsed, pkcs11.ObjectClass.PRIVATE_KEY), "private keys", name)
        return TokenSigner(session, key, _find_public(session, parsed, name, context))
    except (PKCS11Error, RuntimeError) as error:
        raise SigningKeyError(f"{name}: {_name(error)}", hint=f"module {module}") from error


def _attributes(text: str, separator: str, known: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for item in filter(None, text.split(separator)):
        name, equals, value = item.partition("=")
        if name == "pin-value":
            # A list of processes would show the PIN to other users. The message does not show it either.
            raise UsageError(
                "pkcs11: no pin-value in a URI", hint="use ?pin-source=file:/PATH or BUILDTOOL_KEY_PASSPHRASE"
            )
        if name not in known or not equals:
            raise UsageError(
                f"pkcs11: unknown attribute {name!r}", hint="choose from " + ", ".join(sorted(known))
            )
        if name in found:
            raise UsageError(f"pkcs11: duplicate attribute {name}", hint="name each attribute once")
        found[name] = unquote_to_bytes(value)
    return found


def _token_filter(uri: KeyUri) -> dict[str, Any]:
    from pkcs11 import TokenFlag

    wanted: dict[str, Any] = {"token_flags": TokenFlag.TOKEN_INITIALIZED}
    if "token" in uri.path:
        wanted["token_label"] = uri.path["token"].decode("utf-8", "replace")
    if "serial" in uri.path:
        wanted["token_serial"] = uri.path["serial"]
    return wanted


def _find_objects(session: Session, uri: KeyUri, kind: Any) -> list[Any]:
    from pkcs11 import Attribute, KeyType

    wanted: dict[Any, Any] = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC_EDWARDS}
    if "object" in uri.path:
        wanted[Attribute.LABEL] = uri.path["object"].decode("utf-8", "replace")
    if "id" in uri.path:
        wanted[Attribute.ID] = uri.path["id"]
    return list(
        session.get_objects(wanted)
    )  # all of them: a search that is open keeps the token from signing


def _find_public(session: Session, uri: KeyUri, name: str, context: SignerContext) -> PublicKey:
    from pkcs11 import Attribute, ObjectClass

    if context.public is not None:
        return load_public_key(context.public)
    key = _only(_find_objects(session, uri, ObjectClass.PUBLIC_KEY), "public keys (try --public)", name)
    point = bytes(key[Attribute.EC_POINT])
    # PKCS #11 3.0 requires an octet string in DER. Some tokens return the bare point.
    raw = point[2:] if point[:2] == bytes((4, _EDWARDS25519_BYTES)) and len(point) == 34 else point
    return public_key_from_der(DER_PREFIX + raw, name, name=name)


def _find_pin(uri: KeyUri, name: str, context: SignerContext) -> str:
    source = uri.query.get("pin-source")
    if source is None:
        pin = context.passphrase(name)
        if pin is None:
            raise SigningKeyError(
                f"{name}: no PIN",
                hint="set BUILDTOOL_KEY_PASSPHRASE, add ?pin-source=file:/PATH, or run on a terminal",
            )
    else:
        path = Path(source.removeprefix("file://").removeprefix("file:"))
        try:
            pin = read_bounded(path, MAX_PIN_BYTES).partition(b"\n")[0].rstrip(b"\r")
        except FileAccessError as error:
            raise SigningKeyError(
                f"pin-source {error.message}",
                hint="pin-source=file:/PATH names a file whose first line is the PIN",
            ) from error
    return pin.decode("utf-8", "replace")


def _only(found: list[Any], what: str, name: str) -> Any:
    if len(found) != 1:
        raise SigningKeyError(f"{name}: {len(found) or 'no'} {what}", hint="pkcs11-tool -O lists objects")
    return found[0]


def _name(error: Exception) -> str:
    """Return in words what *error* of the library says by its class: PinIncorrect is a wrong PIN."""
    name = type(error).__name__
    if "loading" in str(error) or "load module" in str(error):
        return "the module cannot be loaded"
    if name in _PROBLEMS:
        return _PROBLEMS[name]
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name)).lower().replace("pin", "PIN")


def _show(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    return text if text.isprintable() and "�" not in text else value.hex()
