# SPDX-License-Identifier: Apache-2.0
"""
What can sign: a key file, an environment variable, a token, an agent, a program.

It imports the rest of `signing` and what stands below; each module alone imports the library that
it needs. To add a signer, write a module with `open_signer` and name its scheme in `resolve.py` and
in `core/validate.py`.
"""
