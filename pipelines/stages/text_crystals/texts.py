"""Prompts of prepared crystals and their vectors: a folder of crystals that know their text."""

import csv
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbitdiff.data.cif import Crystal, Rejected
from orbitdiff.data.crystals import CrystalDataset, crystal_schema, crystal_to_row
from orbitdiff.data.prompts import PromptFields, prompt_fields, read_properties
from orbitdiff.data.splits import RULES, SPLITS
from orbitdiff.data.text_crystals import PromptRows, write_prompts
from orbitdiff.data.text_vectors import vectors_folder, write_text_vectors
from orbitdiff.errors import BadInput
from orbitdiff.export import read_json
from orbitdiff.nn.text import TextEncoder, load_encoder
from orbitdiff.nn.text_embeddings import embed
from pipelines.stages.base import Executor, Tracker
from pipelines.stages.crystals.prepare import registered_splits
from pipelines.stages.provenance import recorded
from pipelines.stages.text_crystals.prompts import build_prompts, ready_texts

__all__ = ["run", "write_texts"]

CHUNK = 128
LONG_CACHE = Path(".runs/long_prompts")
VECTOR_CACHE = Path(".runs/text_vectors")


def run(
    params: Any,
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    *,
    executor: Executor,
    tracker: Tracker,
) -> None:
    """Write the prompts of a prepared data set, their vectors, and the crystals beside them.

    Parameters
    ----------
    params : RunParams
        `dataset` and `settings.prompts`.
    inputs : mapping
        `raw` and `crystals`, the folders written by `fetch` and by `prepare` of crystals.
    outputs : mapping
        `data`, the folder to write; that of the vectors lies beside it.
    executor : Executor
        Finds fields and writes long texts in parallel.
    tracker : Tracker
        Gets counts and the manifest.
    """
    settings = params.settings.prompts
    encoder = load_encoder(settings.encoder, max_tokens=settings.max_tokens or None)
    write_texts(
        params.dataset, inputs["raw"], inputs["crystals"], outputs["data"], settings=settings,
        encoder=encoder, executor=executor, long_cache=LONG_CACHE, vector_cache=VECTOR_CACHE,
    )  # fmt: skip
    data = outputs["data"]
    with recorded(tracker, params, "texts", data=data, name=params.dataset) as tracked:
        about = json.loads((data / "manifest.json").read_text())
        tracked.metrics({f"crystals.{split}": n for split, n in about["counts"].items()})
        tracked.artifact(data / "manifest.json")


def write_texts(
    dataset: str,
    raw: Path,
    crystals: Path,
    out: Path,
    *,
    settings: Any,
    encoder: TextEncoder,
    executor: Executor,
    long_cache: Path,
    vector_cache: Path,
) -> None:
    """Write the folder, all or nothing, and its vectors; what was computed stays in the caches.

    Parameters
    ----------
    dataset : str
        A registered one, or prototypes.
    raw, crystals, out : Path
        Raw files, prepared crystals, folder to write; the vectors lie beside it.
    settings : PromptsConfig
    encoder : TextEncoder
    executor : Executor
    long_cache, vector_cache : Path

    Raises
    ------
    BadInput
        Missing or damaged files, full disk.
    """
    from tqdm import tqdm

    from orbitdiff.data.store import fresh_directory, write_shards

    manifest = read_json(crystals / "manifest.json", cure="run the prepare stage again")
    properties, cifs = stated_by_rows(dataset, raw, manifest)
    ready = ready_texts(dataset)
    part = settings.parts.get(dataset, {})
    rejected: list[tuple[str, Rejected]] = []
    counts: dict[str, int] = {}
    fallbacks: dict[str, Counter[str]] = {kind: Counter() for kind in settings.kinds}
    cut: Counter[str] = Counter()
    with fresh_directory(vectors_folder(out)) as beside, fresh_directory(out) as folder:
        for split in SPLITS:
            found = part_of(CrystalDataset.load(crystals, split), part.get(split))
            fields, bad = find_fields(found, properties, executor)
            rejected += [(split, one) for one in bad]
            kept = {one.id for one in fields}
            accepted = [crystal for crystal in found if crystal.id in kept]
            structures = {one.id: cifs.get(one.id, one) for one in accepted}
            prompts = {
                kind: build_prompts(
                    fields, kind, seed=settings.seed, executor=executor, structures=structures,
                    cache=long_cache, ready=ready,
                )
                for kind in settings.kinds
            }  # fmt: skip
            for kind, built in prompts.items():
                texts = [one.text for one in built]
                what = f"{split}: vectors of {kind} prompts"
                with tqdm(total=len(set(texts)), desc=what) as bar:
                    vectors = embed(texts, encoder, cache=vector_cache, progress=bar.update)
                write_text_vectors(
                    vectors, texts, beside, f"{kind}-{split}", fingerprint=encoder.fingerprint
                )
                fallbacks[kind] += Counter(one.fallback for one in built if one.fallback)
                cut[kind] += sum(encoder.cut(text)[0] > encoder.max_tokens for text in texts)
            write_prompts(PromptRows(fields, prompts), folder, split)
            rows = map(crystal_to_row, accepted)
            write_shards(rows, folder, schema=crystal_schema(), name=split)
            counts[split] = len(accepted)
        shutil.copy(crystals / "rejected.csv", folder / "rejected.csv")
        with (folder / "rejected.csv").open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([one.id, split, one.reason, one.detail] for split, one in rejected)
        reasons = Counter(manifest["rejected"]) + Counter(one.reason for _, one in rejected)
        about = {
            "kinds": list(settings.kinds),
            "seed": settings.seed,
            "encoder": settings.encoder,
            "fingerprint": encoder.fingerprint,
            "dim": encoder.dim,
            "max_tokens": encoder.max_tokens,
            "over_the_limit": dict(cut),
            "fallbacks": {kind: dict(found) for kind, found in fallbacks.items()},
        }
        content = {**manifest, "counts": counts, "rejected": dict(reasons), "prompts": about}
        if part:
            taken = ", ".join(f"{number} of {split}" for split, number in part.items())
            content["note"] = f"{manifest['note']}, of which the first by sha256 of id: {taken}"
        (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    for kind, number in cut.items():
        total = sum(counts.values())
        print(f"{kind}: {number} of {total} prompts are over {encoder.max_tokens} tokens and cut")


def part_of(dataset: CrystalDataset, most: int | None) -> list[Crystal]:
    """Return the first crystals by the hash of their id, in the order of the data set."""
    if most is None:
        return dataset.crystals
    return [dataset.crystals[row] for row in sorted(dataset.first_k_by_hash(most).tolist())]


def stated_by_rows(
    dataset: str, raw: Path, manifest: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return properties and CIF text by id, none where the crystals were not read from CIFs."""
    if dataset not in RULES:
        return {}, {}
    properties: dict[str, dict[str, float]] = {}
    for name in manifest["sources"]:
        properties |= read_properties(raw / name)
    rows = registered_splits(dataset, raw, manifest["max_atoms"]).rows
    return properties, {id: cif for part in rows.values() for id, cif in part}


def find_fields(
    crystals: Sequence[Crystal], properties: Mapping[str, dict[str, float]], executor: Executor
) -> tuple[list[PromptFields], list[Rejected]]:
    """Return the fields of each crystal, and those crystals that have no space group."""
    rows = [(crystal, properties.get(crystal.id, {})) for crystal in crystals]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    parts = executor.map(fields_of_chunk, chunks, description="fields of prompts")
    found = [one for part in parts for one in part]
    fields = [one for one in found if isinstance(one, PromptFields)]
    return fields, [one for one in found if isinstance(one, Rejected)]


def fields_of_chunk(
    rows: Sequence[tuple[Crystal, dict[str, float]]],
) -> list[PromptFields | Rejected]:
    """Find the fields of some crystals."""
    found: list[PromptFields | Rejected] = []
    for crystal, properties in rows:
        try:
            found.append(prompt_fields(crystal, properties))
        except BadInput as error:
            found.append(Rejected(crystal.id, "no space group", str(error)[:120]))
    return found
