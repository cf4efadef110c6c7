# SPDX-License-Identifier: Apache-2.0
"""
The helpers of the tests, each in one place; a test imports them as `labs.SUBJECT`.

A helper that two test files need belongs here, in the file of its subject. A helper that one test file needs
stays in that file. Fixtures are in the `conftest.py` of their tier.
"""

from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
