# SPDX-License-Identifier: Apache-2.0
"""Contents of state files that both verifiers must refuse (spec/trust-policy.md, "State")."""

from __future__ import annotations

DAMAGED = {
    "empty": "",
    "array": "[]",
    "version-2": '{"projects":{},"stateVersion":2}',
    "version-true": '{"projects":{},"stateVersion":true}',
    "unknown-member": '{"projects":{},"stateVersion":1,"x":1}',
    "member-twice": '{"projects":{},"projects":{},"stateVersion":1}',
    "project-name": '{"projects":{"a b":{}},"stateVersion":1}',
    "project-list": '{"projects":{"a":[]},"stateVersion":1}',
    "object-name": '{"projects":{"a":{"../x":1}},"stateVersion":1}',
    "negative": '{"projects":{"a":{"x":-1}},"stateVersion":1}',
    "fraction": '{"projects":{"a":{"x":1.5}},"stateVersion":1}',
    "too-large": '{"projects":{},"stateVersion":1}' + " " * 1024 * 1024,
}
