# SPDX-License-Identifier: Apache-2.0
"""
Keys, statements, signature records, envelopes; signing and co-signing.

It imports `compile` and what stands below; it alone imports cryptography. To add a signer, see
`signers`.
"""
