"""Prompts: short ones per second, and long ones against stock robocrys, equal texts, one core.

Crystals are the first of the Perov-5 and MP-20 test rows by the sha256 of their id, half each.
Seconds are those of the processor, so that a busy machine slows neither side; tables are read
before the clock starts. Bars: 1,000 short prompts a second from prepared rows, long ones at least
3 times faster with the same text (`canonical_text`: stock robocrys writes some lists in an order
of chance). Writes results/prompts_cpu.json.
"""

import argparse
import csv
import gzip
import statistics
import sys
import time
import warnings
from hashlib import sha256
from importlib.metadata import version

import torch
from pymatgen.core import Structure
from record import hardware, write
from robocrys import StructureCondenser, StructureDescriber

from orbitdiff.data.cif import parse_crystal, to_structure
from orbitdiff.data.crystals import crystal_schema, crystal_to_row
from orbitdiff.data.long_prompts import condenser, describe
from orbitdiff.data.prompts import (
    KINDS,
    canonical_text,
    field_columns,
    fields_to_row,
    prompt,
    prompt_fields,
    rows_to_fields,
)
from orbitdiff.data.sources import data_root
from pipelines.stages.text_crystals.prompts import ready_texts

FILES = {
    "perov_5": ("perov_5/test",),
    "mp_20": ("mp_20/test_other", "mp_20_binary_ternary/test"),
}


def first_rows(dataset, count):
    """Pairs (id, cif), the first by hash."""
    csv.field_size_limit(sys.maxsize)
    found = []
    for name in FILES[dataset]:
        with gzip.open(data_root() / "crystals" / f"{name}.csv.gz", "rt", newline="") as file:
            found += [(row["material_id"], row["cif"]) for row in csv.DictReader(file)]
    return sorted(found, key=lambda row: sha256(row[0].encode()).digest())[:count]


def timed(function, argument):
    """Value and processor seconds."""
    start = time.process_time()
    value = function(argument)
    return value, time.process_time() - start


def short(rows, copies):
    """Prompts per second from prepared rows, and from crystals (symmetry included)."""
    import pyarrow as pa

    crystals = [parse_crystal(id, cif, max_atoms=20) for id, cif in rows]
    numbers = {"formation_energy_per_atom": -0.31476, "band_gap": 0.0, "e_above_hull": 0.01}
    fields, seconds = timed(lambda found: [prompt_fields(x, numbers) for x in found], crystals)
    made = [
        crystal_to_row(crystal) | fields_to_row(one)
        for crystal, one in zip(crystals, fields, strict=True)
    ]
    columns = {field.name: field.type for field in crystal_schema()}
    schema = pa.schema(list({**columns, **field_columns()}.items()))
    table = pa.Table.from_pylist(made * copies, schema=schema)
    found = {"symmetry_ms_per_crystal": round(1e3 * seconds / len(crystals), 2)}
    for kind in KINDS[:2]:

        def from_rows(table, kind=kind):
            return [prompt(one, kind, seed=0) for one in rows_to_fields(table)]

        _, seconds = timed(from_rows, table)
        found[f"{kind}_per_second"] = round(len(table) / seconds)
    return found


def long(dataset, rows):
    """Seconds of stock robocrys and ours, in turn, and how many texts are equal."""
    stock = StructureCondenser()
    writer = StructureDescriber(describe_oxidation_states=False, fmt="raw")
    ready = ready_texts(dataset)
    times, same, prepared, as_ready = [], 0, 0, 0
    for id, cif in rows:
        structure = Structure.from_str(cif, fmt="cif")
        theirs, slow = timed(lambda one: writer.describe(stock.condense_structure(one)), structure)
        theirs = canonical_text(theirs)
        ours, fast = timed(describe, structure)
        times.append((slow, fast))
        same += theirs == ours
        prepared += describe(to_structure(parse_crystal(id, cif, max_atoms=20))) == theirs
        as_ready += ready.get(id) == theirs
        print(f"{id}: {slow:.2f} s, {fast:.2f} s, equal {theirs == ours}", flush=True)
    slow, fast = (sum(column) for column in zip(*times, strict=True))
    return {
        "crystals": len(rows),
        "stock_s_per_crystal": round(slow / len(rows), 3),
        "ours_s_per_crystal": round(fast / len(rows), 3),
        "times": round(slow / fast, 2),
        "times_median": round(statistics.median(x / y for x, y in times), 2),
        "equal_texts": same,
        "equal_from_the_prepared_cell": prepared,
        "equal_to_ready_texts": as_ready,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crystals", type=int, default=50)
    parser.add_argument("--short-copies", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    state = hardware(torch.device("cpu"))
    rows = {name: first_rows(name, max(1, arguments.crystals // 2)) for name in FILES}
    _, start = timed(lambda _: condenser(), None)
    describe(Structure.from_str(rows["perov_5"][0][1], fmt="cif"))
    content = {
        "what": __doc__.splitlines()[0],
        **state,
        "config": vars(arguments),
        "software": {name: version(name) for name in ("robocrys", "pymatgen-core", "matminer")},
        "bars": {"short_per_second": 1000, "long_times": 3},
        "short": short([row for found in rows.values() for row in found], arguments.short_copies),
        "tables_s": round(start, 2),
        "long": {name: long(name, found) for name, found in rows.items()},
    }
    write("prompts_cpu", content)


if __name__ == "__main__":
    main()
