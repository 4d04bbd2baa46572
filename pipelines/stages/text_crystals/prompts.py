"""Prompts of many crystals: short ones at once, long ones in parallel, cached and resumable."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from orbitdiff.data.cif import Crystal, to_structure
from orbitdiff.data.prompts import KINDS, PromptFields, canonical_text, prompt
from orbitdiff.data.text_crystals import Prompt
from orbitdiff.errors import BadInput, MissingExtra
from pipelines.stages.base import Executor
from pipelines.stages.isolated import Ended, Isolated
from pipelines.stages.text_crystals.text_cache import Kept, keeping, kept_texts, software, text_key

__all__ = ["Prompt", "build_prompts", "ready_texts"]

CHUNK = 32
"""Crystals per task: some ten seconds of Perov-5, thirty of MP-20."""

MAX_SECONDS = 600
"""For one long text; the slowest crystals of 20 atoms take some ten seconds of an idle core."""

PRELOAD = ("orbitdiff.data.long_prompts",)

READY = {
    "perov_5": ("perov_5_train_head1024", "perov_5_val", "perov_5_test"),
    "mp_20": ("mp_20_train", "mp_20_test500"),
}
READY_SOFTWARE = {
    "robocrys": "0.2.13",
    "pymatgen-core": "2026.10.16",
    "openbabel": "none",
    "openbabel-wheel": "none",
}
"""What the ready texts were made with; others would give other texts."""


def build_prompts(
    fields: Sequence[PromptFields],
    kind: str,
    *,
    seed: int,
    executor: Executor,
    structures: Mapping[str, Crystal | str] | None = None,
    cache: Path | None = None,
    ready: Mapping[str, str] | None = None,
) -> list[Prompt]:
    """Write the prompts of crystals; of long ones, print how many fell back to the short one.

    A long text is written to the cache when it is finished, so that the same call after a kill
    computes only what is missing. A crystal that robocrys refuses is cached as such; one that
    took too long or crashed its process is tried again by the next call.

    Parameters
    ----------
    fields : sequence of PromptFields
    kind : str
        short, composition or long.
    seed : int
        Draws the order of sentences.
    executor : Executor
        Writes chunks of long texts in parallel.
    structures : mapping, optional
        What long texts describe, by crystal id: a CIF text or a Crystal. Both are the same crystal,
        yet robocrys numbers the sites of one in twenty in another way.
    cache : Path, optional
        Folder of long texts. It belongs outside the outputs of a stage.
    ready : mapping, optional
        Texts of CIFs that are at hand, by crystal id; see `ready_texts`.

    Returns
    -------
    list of Prompt
        In the order of the fields.

    Raises
    ------
    BadInput
        Unknown kind; kind long without a cache or without the structure of a crystal; full disk.
    MissingExtra
        Kind long without robocrys.
    """
    if kind not in KINDS:
        raise BadInput(f"expected a kind of prompt among {list(KINDS)}, got {kind!r}")
    if kind != "long":
        return [Prompt(one.id, prompt(one, kind, seed=seed)) for one in fields]
    if cache is None:
        raise BadInput("expected a folder that keeps long prompts, got none; give cache=")
    absent = [one.id for one in fields if one.id not in (structures or {})]
    if structures is None or absent:
        raise BadInput(f"expected the structure of each crystal, got none of {absent[:5]}")
    described = [(one.id, structures[one.id]) for one in fields]
    texts = long_texts(described, cache.absolute(), executor=executor, ready=ready or {})
    prompts = [
        Prompt(one.id, kept.text)
        if not kept.reason
        else Prompt(one.id, prompt(one, "short", seed=seed), kept.reason)
        for one, kept in zip(fields, texts, strict=True)
    ]
    fallen = Counter(one.fallback for one in prompts if one.fallback)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(fallen.items()))
    print(
        f"long prompts: {len(prompts)} crystals, {sum(fallen.values())} with the short prompt "
        "instead" + (f" ({reasons})" if reasons else "")
    )
    return prompts


def long_texts(
    described: Sequence[tuple[str, Crystal | str]],
    cache: Path,
    *,
    executor: Executor,
    ready: Mapping[str, str],
) -> list[Kept]:
    """Take long texts from the cache or the ready ones, and compute what is missing."""
    versions = software()
    keys = [text_key(structure, versions) for _, structure in described]
    rows = {key: row for key, row in zip(keys, described, strict=True)}
    known = kept_texts(cache)
    at_hand = {
        key: Kept(ready[id], "")
        for key, (id, structure) in rows.items()
        if id in ready and isinstance(structure, str) and key not in known
    }
    if at_hand:
        with keeping(cache) as keep:
            for key, kept in at_hand.items():
                keep(key, kept)
        known |= at_hand
    missing = [(key, structure) for key, (_, structure) in rows.items() if key not in known]
    if missing:
        if find_spec("robocrys") is None:
            raise MissingExtra.naming("robocrys", "text")
        chunks = [tuple(missing[start : start + CHUNK]) for start in range(0, len(missing), CHUNK)]
        found = executor.map(partial(write_chunk, cache=cache), chunks, description="long prompts")
        for part in found:
            known |= part
    return [known[key] for key in keys]


def write_chunk(rows: Sequence[tuple[str, Crystal | str]], *, cache: Path) -> dict[str, Kept]:
    """Describe crystals one by one in a process of their own, each kept when it is finished."""
    found = {}
    with (
        Isolated(describe_structure, max_seconds=MAX_SECONDS, preload=PRELOAD) as isolated,
        keeping(cache) as keep,
    ):
        for key, structure in rows:
            outcome = isolated(structure)
            if not isinstance(outcome, Ended):
                found[key] = Kept(outcome, "")
            elif outcome.reason == "error":
                found[key] = Kept("", f"robocrys {outcome.detail.partition(':')[0]}")
            else:
                found[key] = Kept("", outcome.reason)
                continue
            keep(key, found[key])
    return found


def describe_structure(structure: Crystal | str) -> str:
    """Return Robocrystallographer's text of a crystal or a CIF text."""
    from pymatgen.core import Structure

    from orbitdiff.data.long_prompts import describe

    if isinstance(structure, str):
        return describe(Structure.from_str(structure, fmt="cif"))
    return describe(to_structure(structure))


def ready_texts(dataset: str) -> dict[str, str]:
    """Long texts of CIFs that come with the data, by id; none with other software than made them.

    Parameters
    ----------
    dataset : str
        `perov_5` or `mp_20`; others have none. Ids of a user's own table may be the same.

    Raises
    ------
    BadInput
        A damaged file.
    """
    from orbitdiff.data.sources import data_root

    root, installed = data_root(), software()
    if root is None or any(installed[name] != made for name, made in READY_SOFTWARE.items()):
        return {}
    found: dict[str, str] = {}
    for name in READY.get(dataset, ()):
        path = root / "crystals" / "long_prompts" / f"{name}.jsonl.gz"
        if not path.is_file():
            continue
        try:
            lines = io.StringIO(gzip.decompress(path.read_bytes()).decode())
            rows = [json.loads(line) for line in lines]
            found |= {row["material_id"]: canonical_text(row["text"]) for row in rows}
        except (EOFError, OSError, ValueError, KeyError) as error:
            raise BadInput(f"{path} is damaged ({error}); copy it again") from error
    return found
