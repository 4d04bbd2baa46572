import multiprocessing
import time

import pytest

from orbitdiff.errors import OrbitDiffError
from orbitdiff.training.lock import only_writer


def hold(folder, seconds, ready):
    with only_writer(folder):
        ready.set()
        time.sleep(seconds)


def holder(folder, seconds):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(folder, seconds, ready))
    process.start()
    assert ready.wait(20)
    return process


def test_a_second_writer_is_refused_by_name(tmp_path):
    process = holder(tmp_path, 60)
    with (
        pytest.raises(OrbitDiffError, match=f"pid {process.pid}"),
        only_writer(tmp_path, patience=0.3),
    ):
        pytest.fail("two writers")
    process.kill()
    process.join()
    with only_writer(tmp_path, patience=5):
        assert (
            f"pid {multiprocessing.current_process().pid}" in (tmp_path / "writer.lock").read_text()
        )


def test_a_writer_that_ends_lets_the_next_one_in(tmp_path):
    process = holder(tmp_path, 0.5)
    with only_writer(tmp_path, patience=20):
        pass
    process.join()
    assert process.exitcode == 0
