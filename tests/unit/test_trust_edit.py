# SPDX-License-Identifier: Apache-2.0
"""The one form of a policy file."""

from __future__ import annotations

from labs.sig import test_key

from buildtool.trust.edit import format_policy, policy_entry


def test_form_of_a_policy() -> None:
    """Sorted names, two spaces, ASCII, a line feed at the end: a diff shows only changed lines."""
    key = test_key().public
    entry = policy_entry(key, name="\u00e4", not_before=0, not_after=86400)
    text = format_policy({"threshold": 1, "policyVersion": 1, "keys": [entry]}).decode("ascii")
    assert text.splitlines() == [
        "{",
        '  "keys": [',
        "    {",
        '      "name": "\\u00e4",',
        '      "notAfter": "1970-01-02T00:00:00Z",',
        '      "notBefore": "1970-01-01T00:00:00Z",',
        f'      "publicKey": "{entry["publicKey"]}"',
        "    }",
        "  ],",
        '  "policyVersion": 1,',
        '  "threshold": 1',
        "}",
    ]
    assert text.endswith("}\n")
