# SPDX-License-Identifier: Apache-2.0
"""
Trust stores, policies, verification of objects, and the accepted versions in a state directory.

This package imports `signing` and the packages below it. To add a rule, change
spec/trust-policy.md, then `verify.py` and loader/verify, and add a vector for both.
"""
