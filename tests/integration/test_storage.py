"""Checkpoints of Ray Train below an S3 URL; the server is moto's, a process of its own on loopback."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ray = pytest.importorskip("ray")
s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")


from orbitdiff.training import checkpoint as store
from orbitdiff.training.worker import Worker
from pipelines.distributed.ray_executor import RayExecutor
from pipelines.distributed.storage import STORAGE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]
STEPS = 8


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of an empty bucket; the environment tells every process where its server is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        limit = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < limit
                time.sleep(0.3)
        s3fs.S3FileSystem().mkdir("orbitdiff")
        yield "s3://orbitdiff/runs"
        process.terminate()
        process.wait()


def counting(worker: Worker, config: dict[str, Any]) -> dict[str, Any]:
    """Count to STEPS, a checkpoint each; break off once."""
    start = 0
    with worker.restore() as folder:
        if folder is not None:
            start = int(store.load_trainer(folder)["step"])
    notes = Path(config["notes"])
    with (notes / "starts").open("a") as file:
        file.write(f"{start}\n")
    for step in range(start + 1, STEPS + 1):
        folder = notes / f"step-{step}"
        store.save(folder, {"x": torch.tensor([float(step)])}, {}, trainer={"step": step})
        worker.report({"step": step}, folder)
        if step == 5 and start == 0:
            time.sleep(3)  # the driver polls
            raise RuntimeError("stands for a machine that went away")
    return {"start": start}


@pytest.mark.slow
def test_checkpoints_go_to_the_url_and_come_back(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv(STORAGE, bucket)
    storage = tmp_path / "run"
    storage.mkdir()
    (storage / "fingerprint.json").write_text("these numbers")
    try:
        executor = RayExecutor(num_cpus=1)
        fit = {"name": "ray", "storage": storage, "num_workers": 1}
        executor.fit(counting, {"notes": str(tmp_path)}, **fit)
        starts = [int(x) for x in (tmp_path / "starts").read_text().split()]
        assert len(starts) == 2
        assert 0 < starts[1] <= 5
        s3 = s3fs.S3FileSystem()
        kept = sorted(s3.glob("orbitdiff/runs/run-*/ray/checkpoint_2*"))
        assert len(kept) == 2, "two are kept"
        assert not list(storage.rglob("checkpoint_*"))
        # one that is cut is passed over, in the bucket too
        with s3.open(f"{kept[-1]}/trainer.pt", "wb") as file:
            file.write(b"cut")
        assert executor.fit(counting, {"notes": str(tmp_path)}, **fit)["start"] == STEPS - 1
        # other numbers under the same name start from nothing
        (storage / "fingerprint.json").write_text("other numbers")
        (tmp_path / "starts").unlink()
        executor.fit(counting, {"notes": str(tmp_path)}, **fit)
        assert (tmp_path / "starts").read_text().split()[0] == "0"
    finally:
        ray.shutdown()
