# SPDX-License-Identifier: Apache-2.0
"""
Signer `ssh-agent:NAME`: an ssh-ed25519 identity of the running ssh-agent.

NAME is a key id (16 or more digits), an OpenSSH fingerprint (SHA256:...) or a comment. Without a
name, the agent must hold exactly one such identity.

Source: draft-ietf-sshm-ssh-agent, sections 3.5 and 3.6.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
from base64 import b64encode
from dataclasses import dataclass

from buildtool.core.errors import SigningKeyError, system_reason
from buildtool.signing.keys import KeyId, PublicKey, public_key_from_der
from buildtool.signing.signers.signer import SignerContext

KEY_TYPE = b"ssh-ed25519"
MAX_ANSWER_BYTES = 256 * 1024
_REQUEST_IDENTITIES, _IDENTITIES_ANSWER = 11, 12
_SIGN_REQUEST, _SIGN_RESPONSE = 13, 14
_KEY_ID_PREFIX = re.compile(r"[0-9a-fA-F]{16,64}")
_AGENT_HINT = "SSH_AUTH_SOCK must name the socket of an ssh-agent: ssh-add -l shows whether it answers"
_HINT = "ssh-add -l lists what the agent holds; ssh-keygen -t ed25519 makes a key, ssh-add adds it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent that listens on Unix socket *path*."""

    path: str
    timeout_seconds: float

    def request(self, kind: int, body: bytes, answer_kind: int) -> bytes:
        """
        Return the body of the answer to request *kind* with *body*. The answer's type is *answer_kind*.

        Raises: SigningKeyError.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self.timeout_seconds)
                connection.connect(self.path)
                connection.sendall(struct.pack(">IB", len(body) + 1, kind) + body)
                size = int.from_bytes(_receive(connection, 4), "big")
                if not 1 <= size <= MAX_ANSWER_BYTES:
                    raise SigningKeyError(f"ssh-agent: an answer of {size} bytes", hint=_AGENT_HINT)
                answer = _receive(connection, size)
        except TimeoutError as error:
            raise SigningKeyError(
                f"ssh-agent: no answer in {self.timeout_seconds:g} seconds",
                hint="confirm the signature where the agent asks, or raise --signer-timeout",
            ) from error
        except OSError as error:
            reason = system_reason(error)
            raise SigningKeyError(
                f"ssh-agent {self.path}: {reason}",
                hint="start ssh-agent, and let SSH_AUTH_SOCK name its socket",
            ) from error
        if answer[0] != answer_kind:
            raise SigningKeyError(
                "ssh-agent: refused", hint=f"unlock the agent (ssh-add -X), or confirm the signature; {_HINT}"
            )
        return answer[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSigner:
    """An identity of an agent."""

    agent: Agent
    public: PublicKey

    @property
    def key_id(self) -> KeyId:
        """The key id."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """
        Return the agent's signature over *message*.

        Raises: SigningKeyError.
        """
        body = _string(_blob(self.public.raw)) + _string(message) + struct.pack(">I", 0)
        answer = self.agent.request(_SIGN_REQUEST, body, _SIGN_RESPONSE)
        (signature,) = _strings(answer, 1)
        kind, raw = _strings(signature, 2)
        if kind != KEY_TYPE:
            raise SigningKeyError(f"ssh-agent: a signature of kind {kind!r}", hint=_AGENT_HINT)
        return raw


def open_signer(name: str, context: SignerContext) -> AgentSigner:
    """
    Return the identity *name* of the agent that SSH_AUTH_SOCK names.

    Raises: SigningKeyError, ConfigError.
    """
    path = context.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise SigningKeyError("ssh-agent: SSH_AUTH_SOCK is not set", hint='eval "$(ssh-agent)" starts one')
    agent = Agent(path=path, timeout_seconds=context.timeout_seconds)
    found = [identity for identity in _identities(agent) if not name or _is_named(identity, name)]
    if len(found) != 1:
        count = "no" if not found else f"{len(found)}"
        what = f"identities called {name!r}" if name else "ssh-ed25519 identities"
        raise SigningKeyError(f"ssh-agent: it holds {count} {what}", hint=_HINT)
    public = found[0]
    named = public_key_from_der(public.der, f"ssh-agent:{name}", name=f"ssh-agent:{public.name}")
    return AgentSigner(agent=agent, public=named)


def _identities(agent: Agent) -> list[PublicKey]:
    """Return the agent's Ed25519 keys, each named after its comment."""
    answer = agent.request(_REQUEST_IDENTITIES, b"", _IDENTITIES_ANSWER)
    count = int.from_bytes(answer[:4], "big")
    if count > MAX_ANSWER_BYTES // 8:
        raise SigningKeyError("ssh-agent: a damaged answer", hint=_AGENT_HINT)
    strings = _strings(answer[4:], 2 * count)
    keys = []
    for blob, comment in zip(strings[::2], strings[1::2], strict=True):
        # Skip keys of other types. A FIDO security key (sk-ssh-ed25519) signs a longer message.
        if blob.startswith(_string(KEY_TYPE)):
            _, raw = _strings(blob, 2)
            keys.append(PublicKey(raw=raw, name=comment.decode("utf-8", "replace")))
    return keys


def _is_named(key: PublicKey, name: str) -> bool:
    fingerprint = "SHA256:" + b64encode(hashlib.sha256(_blob(key.raw)).digest()).decode().rstrip("=")
    by_id = _KEY_ID_PREFIX.fullmatch(name) is not None and key.key_id.startswith(name.lower())
    return by_id or name in (fingerprint, key.name)


def _blob(raw: bytes) -> bytes:
    return _string(KEY_TYPE) + _string(raw)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _strings(data: bytes, count: int) -> list[bytes]:
    """Return the *count* strings of which *data* consists. Raises: SigningKeyError."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 + size:
            raise SigningKeyError("ssh-agent: a damaged answer", hint=_AGENT_HINT)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    if data:
        raise SigningKeyError("ssh-agent: a damaged answer", hint=_AGENT_HINT)
    return found


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise SigningKeyError("ssh-agent: it closed the connection", hint=_AGENT_HINT)
        data += chunk
    return data
