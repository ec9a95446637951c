"""Test files run side by side, so no process may take all cores: idle OpenMP threads spin."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on time, however busy the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
