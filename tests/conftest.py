"""Test files run side by side, so no process may take all cores: idle OpenMP threads spin."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
