"""`orbitdiff generate | evaluate | prepare backbones` on a tiny untrained model."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("biotite")
pytest.importorskip("tmtools")

from orbitdiff.data.protein_files import pdb_text, read_trace
from orbitdiff.data.proteins import read_traces
from orbitdiff.nn.backbone_transformer import BackboneTransformerConfig
from orbitdiff.seeding import stream
from orbitdiff.tasks.backbones import build_network
from orbitdiff.training import checkpoint as store
from pipelines import cli

CHAINS = Path(__file__).parents[2] / "orbitdiff" / "data" / "resources" / "demo_chains.npz"
MODEL = {
    "hidden": 16, "layers": 1, "heads": 2, "pair_width": 8, "registers": 2, "radial": 6,
    "time_dim": 8,
}  # fmt: skip


@pytest.fixture
def orbitdiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORBITDIFF_EXECUTOR", "local")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    network = build_network(BackboneTransformerConfig(**MODEL), generator=stream(0))
    about = {"task": "backbones", "model": MODEL, "kernel": {}, "sampler": {"steps": 3}}
    store.save(tmp_path / "model", network.state_dict(), about)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["orbitdiff", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_lengths_become_pdb_files(orbitdiff, tmp_path: Path) -> None:
    """One length draws the same chains as a list that holds it."""
    code, said = orbitdiff(
        "generate", "backbones", "--length", "9", "-n", "2", "-o", "one", "--checkpoint", "model"
    )
    assert code == 0, said
    assert "wrote 2 PDB files" in said
    code, said = orbitdiff(
        "generate",
        "backbones",
        "--lengths",
        "12,9",
        "-n",
        "2",
        "-o",
        "two",
        "--checkpoint",
        "model",
    )
    assert code == 0, said
    names = [path.name for path in sorted((tmp_path / "two").iterdir())]
    assert names == ["009_000.pdb", "009_001.pdb", "012_000.pdb", "012_001.pdb"]
    for name in names[:2]:
        one, two = (read_trace(tmp_path / folder / name) for folder in ("one", "two"))
        assert one.shape == (9, 3)
        np.testing.assert_allclose(one, two, atol=2e-3)


def test_lengths_that_the_model_has_not_seen_are_noted(orbitdiff, tmp_path: Path) -> None:
    weights, about = store.load_model(tmp_path / "model")
    store.save(tmp_path / "model", weights, {**about, "lengths": [8, 10]})
    words = ("generate", "backbones", "--checkpoint", "model", "-o", "out", "--lengths")
    for lengths, noted in (("8,10", False), ("8,11", True), ("7", True)):
        code, said = orbitdiff(*words, lengths)
        assert code == 0, said
        assert ("note: the model was trained on chains of 8 to 10 residues" in said) == noted


def test_own_files_are_prepared_and_evaluated(orbitdiff, tmp_path: Path) -> None:
    (tmp_path / "pdb").mkdir()
    for chain in read_traces(CHAINS)[:8]:
        (tmp_path / "pdb" / f"{chain.id}.pdb").write_text(pdb_text(chain.ca, chain.sequence))
    code, said = orbitdiff(
        "prepare", "backbones", "--from", "pdb", "--out", "data", "--max-length", "60"
    )
    assert code == 0, said
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["limits"]["max_length"] == 60
    assert sum(manifest["counts"].values()) + sum(manifest["rejected"].values()) == 8
    code, said = orbitdiff(
        "evaluate", "backbones", "--generated", "pdb", "--reference", "pdb", "--out", "r",
        "--designs", "0",
    )  # fmt: skip
    assert code == 0, said
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["dihedral_divergence"] < 1e-9
    assert metrics["novelty"]["mean_max_tm"] == pytest.approx(1, abs=1e-6)
    assert metrics["designability"]["designable"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "backbones", "-o", "o"), "either --length"),
        (("generate", "backbones", "-o", "o", "--length", "5", "--lengths", "6"), "either --length"),
        (("generate", "backbones", "-o", "o", "--lengths", "6,x", "--checkpoint", "model"), "6,x"),
        (("generate", "backbones", "-o", "o", "--length", "-3", "--checkpoint", "model"), "-3"),
        (("generate", "backbones", "-o", "o", "--length", "3", "-n", "0", "--checkpoint", "model"),
         "n of at least 1"),
        (("generate", "backbones", "-o", "o", "--length", "3", "--checkpoint", "no"), "no"),
        (("prepare", "backbones", "--from", "nowhere", "--out", "d"), "found none"),
        (("prepare", "backbones", "--from", "nowhere", "--out", "d", "--min-length", "300"),
         "min_length"),
        (("evaluate", "backbones", "--generated", "nowhere", "--reference", "pdb"), "found none"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_clear_line(orbitdiff, words: tuple[str, ...], message: str) -> None:
    code, said = orbitdiff(*words)
    assert code == 2
    assert message in said
    assert "Traceback" not in said


def test_the_served_model_gives_a_pdb_text_per_chain(orbitdiff, tmp_path: Path) -> None:
    """Its chains are those that the command line draws; a bad request is refused with its reason."""
    pandas = pytest.importorskip("pandas")
    exceptions = pytest.importorskip("mlflow.exceptions")
    from pipelines.tracking.generators.backbones import BackboneGenerator

    model = BackboneGenerator()
    model.load_context(SimpleNamespace(artifacts={"model": str(tmp_path / "model")}))
    asked = pandas.DataFrame({"lengths": ["9,12", "9"], "n": [2, 1], "seed": [0, 5]})
    found = model.predict(None, asked)
    assert found["lengths"].tolist() == ["9,12"] * 4 + ["9"]
    texts = found["pdb"].tolist()
    assert [text.count(" CA ") for text in texts] == [9, 9, 12, 12, 9]
    assert texts[4] != texts[0]
    code, said = orbitdiff(
        "generate", "backbones", "--lengths", "9", "-n", "2", "-o", "o", "--checkpoint", "model"
    )
    assert code == 0, said
    (tmp_path / "served.pdb").write_text(texts[0])
    drawn, served = read_trace(tmp_path / "o" / "009_000.pdb"), read_trace(tmp_path / "served.pdb")
    np.testing.assert_allclose(drawn, served, atol=2e-3)
    with pytest.raises(exceptions.MlflowException, match="60,80,100"):
        model.predict(None, pandas.DataFrame({"lengths": ["long"]}))
    with pytest.raises(exceptions.MlflowException, match="at most 256 samples .* got 300"):
        model.predict(None, pandas.DataFrame({"lengths": [",".join(["9"] * 300)]}))
