"""The trials that the page *How it is tested* counts: ``python -m tests.trust``.

A trial returns its faults, a sentence each. The test suite makes a few trials of each kind.
"""
