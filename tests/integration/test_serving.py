"""`mlflow models serve` of the demo models: files come back, bad requests get 400, kills lose nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from orbitdiff.inference.demo import demo_checkpoint
from pipelines.environment import prepare_environment
from pipelines.tracking.mlflow_tracker import MLflowTracker

prepare_environment()

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]


class Served:
    """One registered model behind MLflow's scoring server, on loopback."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task, self.folder = task, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = (self.folder / "serve.log").open("ab")
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder / 'mlflow.db'}",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri",
             f"models:/orbitdiff-{self.task}@newest", "--env-manager", "local", "--host",
             "127.0.0.1", "--port", str(self.port), "--workers", "1"],
            stdout=log, stderr=log, start_new_session=True, cwd=self.folder, env=environment,
        )  # fmt: skip
        log.close()
        limit = time.monotonic() + 900
        while time.monotonic() < limit:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "serve.log").read_text()
                time.sleep(0.3)
        raise AssertionError((self.folder / "serve.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def post(self, body: bytes) -> tuple[int, str]:
        """Status and text of an answer."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=300) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def draw(self, *rows: list[Any]) -> list[dict[str, str]]:
        """Answer to rows of description, n and seed."""
        columns = [{"crystals": "formula", "conformers": "smiles"}[self.task], "n", "seed"]
        table = {"dataframe_split": {"columns": columns, "data": rows}}
        status, text = self.post(json.dumps(table).encode())
        assert status == 200, text
        found: list[dict[str, str]] = json.loads(text)["predictions"]
        return found


@pytest.fixture
def served(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Served]:
    task = request.param
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with MLflowTracker().run(task, experiment=task, params={}, tags={"stage": "train"}) as run:
        run.model(demo_checkpoint(task), name=f"orbitdiff-{task}")
    server = Served(task, tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("served", ["crystals"], indirect=True)
def test_compositions_become_structures(served: Served) -> None:
    from pymatgen.core import Structure

    first = served.draw(["NaCl", 2, 1], ["BaTiO3", 1, 7])
    formulas = [Structure.from_str(row["cif"], fmt="cif").reduced_formula for row in first]
    assert formulas == ["NaCl", "NaCl", "BaTiO3"]
    status, text = served.post(b'{"dataframe_split": {"columns": ["formula"], "data": [["MgO"]]}}')
    assert (status, len(json.loads(text)["predictions"])) == (200, 1)

    def refused(body: Any, words: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, text = served.post(raw)
        assert (status, words in text) == (400, True), (status, text[:2000])

    def row(formula: Any, n: Any = 1) -> dict[str, Any]:
        return {"dataframe_split": {"columns": ["formula", "n"], "data": [[formula, n]]}}

    refused(row("XxO2"), "expected chemical elements")
    refused(row("Si10000"), "expected at most 64 atoms")
    refused(row("NaCl", 0), "expected n of at least 1")
    refused(row("NaCl", 10**6), "at most 256 samples")
    refused(row("C" * 10 * 2**20), "at most 1000 characters")
    refused(row(""), "expected text in column formula")
    refused(
        {"dataframe_split": {"columns": ["formula"], "data": [["NaCl"]] * 65}}, "at most 64 rows"
    )
    refused({"dataframe_split": {"columns": ["smiles"], "data": [["CCO"]]}}, "formula")
    refused(b'{"dataframe_split": {"columns": ["for', "JSON")
    refused(b"\x80\x04K\x01.", "JSON")  # a pickle

    # many at once: all are answered, and each depends on its seed alone
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: served.draw(["NaCl", 1, seed]), range(32)))
    assert all(len(answer) == 1 for answer in answers)
    assert len({answer[0]["cif"] for answer in answers}) == 32
    # killed and started again: the same model gives the same structures
    served.kill()
    served.start()
    assert served.draw(["NaCl", 2, 1], ["BaTiO3", 1, 7]) == first
    assert served.draw(["NaCl", 1, 5]) == answers[5]


@pytest.mark.parametrize("served", ["conformers"], indirect=True)
def test_molecules_become_conformers(served: Served) -> None:
    from rdkit import Chem

    rows = served.draw(["CCO", 3, 0])
    molecules = [Chem.MolFromMolBlock(row["sdf"], removeHs=False) for row in rows]
    assert [Chem.MolToSmiles(Chem.RemoveHs(molecule)) for molecule in molecules] == ["CCO"] * 3
    assert all(molecule.GetConformer().Is3D() for molecule in molecules)
    status, text = served.post(b'{"dataframe_split": {"columns": ["smiles"], "data": [["C1CC"]]}}')
    assert (status, "C1CC" in text) == (400, True)
