# SPDX-License-Identifier: Apache-2.0
"""
The shared helpers of the tests, in one file for each subject. A test imports `labs.SUBJECT`.

A helper of two test files belongs in this package. A helper of one test file stays in that file. Fixtures are
in the `conftest.py` of their tier.
"""

from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
