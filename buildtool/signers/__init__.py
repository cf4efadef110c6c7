# SPDX-License-Identifier: Apache-2.0
"""What signs: a key file, a variable, a token, an agent or a program, each in a module of its own."""
