"""Shared by all tests: how hypothesis searches."""

from __future__ import annotations

import hypothesis

# The same examples on every machine and in every run; no deadline, as the first call of a session is slow.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
