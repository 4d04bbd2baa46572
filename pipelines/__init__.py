"""Pipelines around the library."""

import os
import platform

if platform.machine() in ("x86_64", "AMD64"):
    # read when numpy is loaded: with one kernel, prepared crystals have the same bytes on every
    # processor, and DVC finds what was trained on them elsewhere
    os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
