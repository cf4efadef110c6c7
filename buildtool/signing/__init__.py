# SPDX-License-Identifier: Apache-2.0
"""
Keys, statements, signature records, envelopes; signing and co-signing.

This package imports `compile` and the packages below it. No other package imports cryptography. To
add a signer, see `signers`.
"""
