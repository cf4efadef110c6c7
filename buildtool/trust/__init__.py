# SPDX-License-Identifier: Apache-2.0
"""
Trust stores, policies, verification of objects, and the versions that a state directory has seen.

It imports `signing` and what stands below. A new rule starts in spec/trust-policy.md; then come
`verify.py`, loader/verify and a vector that both agree on.
"""
