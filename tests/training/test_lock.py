import os
import subprocess
import sys

import pytest

from orbitdiff.errors import OrbitDiffError
from orbitdiff.training.lock import only_writer

HOLD = """
import sys, time
from pathlib import Path
from orbitdiff.training.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(folder, seconds):
    """A process that holds the lock by now."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_by_name_until_the_first_is_killed(tmp_path):
    process = holder(tmp_path, 60)
    with (
        pytest.raises(OrbitDiffError, match=f"pid {process.pid}"),
        only_writer(tmp_path, patience=0.3),
    ):
        pytest.fail("two writers")
    process.kill()
    process.wait()
    with only_writer(tmp_path, patience=5):
        assert (tmp_path / "writer.lock").read_text() == f"pid {os.getpid()}\n"


def test_a_writer_that_ends_lets_the_next_one_in(tmp_path):
    process = holder(tmp_path, 0.5)
    with only_writer(tmp_path, patience=20):
        pass
    assert process.wait() == 0
