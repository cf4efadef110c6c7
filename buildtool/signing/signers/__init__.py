# SPDX-License-Identifier: Apache-2.0
"""
Signers: a key file, an environment variable, a token, an agent, a program.

This package imports the rest of `signing` and the packages below it. Only the module of a signer
imports the signer's library. To add a signer, write a module with `open_signer`, and name its
scheme in `resolve.py` and in `core/validate.py`.
"""
