import pytest

from orbitdiff.errors import BadInput, NonFiniteLoss
from pipelines.distributed.progress import follow
from pipelines.distributed.ray_executor import check_workers
from pipelines.distributed.refusal import (
    clear_refusal,
    find_refusal,
    raise_refusal,
    write_refusal,
)


def test_a_refusal_comes_back_in_its_class(tmp_path):
    assert not find_refusal(tmp_path)
    write_refusal(tmp_path, NonFiniteLoss("loss is not finite at step 7"))
    write_refusal(tmp_path, BadInput("a later one"))
    with pytest.raises(NonFiniteLoss, match="at step 7"):
        raise_refusal(tmp_path)
    clear_refusal(tmp_path)
    assert not find_refusal(tmp_path)


def test_appended_lines_are_shown_once_and_whole(tmp_path, capsys):
    path = tmp_path / "progress.log"
    path.write_text("of an earlier run\n")
    with follow(path), path.open("a") as file:
        file.write("step 1\nste")
        file.flush()
        file.write("p 2\n")
    assert capsys.readouterr().out == "step 1\nstep 2\n"


def test_more_workers_than_devices_are_refused():
    check_workers(2, {"CPU": 2.0}, use_gpu=False)
    check_workers(1, {"CPU": 2.0, "GPU": 1.0}, use_gpu=True)
    with pytest.raises(BadInput, match=r"Ray has 2 CPUs.*num_workers=2"):
        check_workers(3, {"CPU": 2.0}, use_gpu=False)
    with pytest.raises(BadInput, match=r"Ray has 1 GPUs.*num_workers=1"):
        check_workers(2, {"CPU": 8.0, "GPU": 1.0}, use_gpu=True)
