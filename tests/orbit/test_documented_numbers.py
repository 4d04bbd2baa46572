"""Tables of docs/estimators.md and docs/evidence.md against the result files they name."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ESTIMATORS = (ROOT / "docs" / "estimators.md").read_text()
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text()
NUMBER = re.compile(r"[-+]?\d*\.?\d+(?:e[-+]?\d+)?")


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}_cpu.json").read_text())


def rows(text, heading):
    """Cells of the table whose first line starts with the heading, by the first cell."""
    block = text[text.index(heading) :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    return {first.split(" (`")[0]: rest for first, *rest in cells[2:]}


def same(cell, value):
    """Whether each printed number is the value rounded to the digits that are printed."""
    printed = NUMBER.findall(cell.replace(",", ""))
    values = value if isinstance(value, tuple) else (value,)
    assert len(printed) == len(values), f"{cell!r} against {values}"
    for text, exact in zip(printed, values, strict=True):
        mantissa, _, exponent = text.lstrip("+-").partition("e")
        places = len(mantissa.partition(".")[2])
        step = 10.0 ** (int(exponent or 0) - places)
        if "." not in text and not exponent:
            # trailing zeros before the point may be rounding to three digits
            step = 10.0 ** max(0, len(mantissa) - 3)
        assert abs(float(text) - exact) <= 0.5001 * step, f"{text} against {exact}"


def check(found, expected):
    assert set(expected) <= set(found), set(expected) - set(found)
    for label, values in expected.items():
        for cell, value in zip(found[label], values, strict=True):
            if value is not None:
                same(cell, value)


def test_rotations():
    data = result("rotation")
    errors = data["rms_error_over_rms_of_x_0_by_sigma"]
    names = {
        "exact": ("exact", "exact_float32"),
        "SNIS, K = 10,000, by the 3x3 statistic": ("statistic", "statistic"),
        "SNIS that rotates 10,000 clouds": ("rotated_clouds", "rotated_clouds"),
    }
    expected = {
        label: (data["median_ms"][time], *(errors[s][error] for s in ("0.1", "1.0", "10.0")))
        for label, (time, error) in names.items()
    }
    check(rows(ESTIMATORS, "| target | median ms | error at sigma"), expected)
    step = result("rotation_step")["networks"]
    for label, network in (("MLP", "mlp"), ("transformer", "transformer_over_atoms")):
        written = re.search(rf"([\d.]+) % to an? {label}", ESTIMATORS)
        assert written is not None
        same(written[1], step[network]["exact_adds_percent"])
    protein = re.search(r"protein of 256 residues costs ([\d.]+) ms", ESTIMATORS)
    same(protein[1], data["protein_256_residues_ms_per_sample"])


def test_automorphisms():
    data = result("automorphisms")
    listed = data["exact_against_rotated_clouds_by_sigma"]
    chain = data["tert_butanol_batch_16_by_sigma"]

    def column(source, *path):
        values = []
        for row in source.values():
            for key in path:
                row = row[key]
            values.append(row)
        return tuple(values)

    first, cubane = listed["4-aminobutan-2-ol"], listed["cubane"]
    expected = {
        "4-aminobutan-2-ol: exact, ms": column(first, "exact_ms"),
        "error of the sampled one": column(first, "rotated_clouds_error"),
        "error of the plain target": column(first, "plain_error"),
        "cubane: exact, ms": column(cubane, "exact_ms"),
    }
    block = "| sigma, angstrom | 0.1 | 0.3 | 1 | 3 | 10 |"
    check(rows(ESTIMATORS, block), expected)
    lines = ESTIMATORS[ESTIMATORS.index(block) :].splitlines()
    faster = [line.strip("|").split("|")[1:] for line in lines if line.startswith("| times faster")]
    for cells, source in zip(faster, (first, cubane), strict=True):
        check({"times": cells}, {"times": column(source, "times")})
    chain = {sigma: row for sigma, row in chain.items() if sigma != "0.1"}
    expected = {
        label: column(chain, name, part)
        for label, name, part in (
            ("error of the plain target", "plain", "error"),
            ("rotations alone", "rotations_only", "error"),
            ("rotations and a chain of 32 moves", "rotations_and_32_moves", "error"),
            ("subgroup", "subgroup_of_216", "error"),
            ("subgroup and 2 moves (default)", "subgroup_and_2_moves", "error"),
            ("subgroup and 8 moves", "subgroup_and_8_moves", "error"),
            ("ms: whole group, exactly", "whole_group", "ms"),
            ("ms: subgroup", "subgroup_of_216", "ms"),
            ("ms: subgroup and 2 moves", "subgroup_and_2_moves", "ms"),
        )
    }
    check(rows(ESTIMATORS, "| sigma, angstrom | 0.3 | 1 | 3 | 10 |"), expected)
    training = data["training_batches_of_qm9"]
    said = re.search(
        r"\(([\d,]+) elements on average\).*?: ([\d.]+) ms a batch in the median,\s+([\d.]+) at "
        r"most; rotations alone take ([\d.]+)",
        ESTIMATORS,
        re.DOTALL,
    )
    values = (
        training["elements_per_batch"],
        training["median_ms"]["automorphism"],
        training["largest_ms"]["automorphism"],
        training["median_ms"]["rotation"],
    )
    for text, value in zip(said.groups(), values, strict=True):
        same(text, value)
    share = data["orders_of_test_molecules"]["share"]
    small, listed_share = re.search(
        r"(\d+) % have at most 48 automorphisms, (\d+) %", ESTIMATORS
    ).groups()
    same(small, 100 * share["<= 48"])
    same(listed_share, 100 * share["<= 720"])


def test_torus():
    data = result("target")
    times, slower = data["milliseconds"], data["times_slower_than_exact"]["median"]
    names = {
        "`torus` (exact)": "exact",
        "`plain`": "plain",
        "`isir`, K = 64": "isir_64",
        "OrbDiff_U, K = 1000, our estimator": "orbdiff_u",
        "OrbDiff_WN, K = 1000, our estimator": "orbdiff_wn",
        "OrbDiff_U written as published, K = 1000": "as_published_uniform",
        "OrbDiff_WN written as published, K = 1000": "as_published_wrapped_normal",
    }
    expected = {
        label: (times[name]["median_ms"], times[name]["min_ms"], slower.get(name))
        for label, name in names.items()
    }
    check(rows(ESTIMATORS, "| target | median ms | fastest ms"), expected)
    errors = data["rms_error_over_rms_of_plain_by_sigma"]
    names = {
        "`plain`": "plain",
        "uniform, K = 1000, without the true element": "uniform_without_truth",
        "OrbDiff_U as published, K = 1000": "as_published_uniform",
        "OrbDiff_WN as published, K = 1000": "as_published_wrapped_normal",
        "wrapped normal, weights per axis, K = 64": "orbdiff_wn_per_axis",
        "`isir`, K = 64": "isir_64",
    }
    expected = {label: tuple(e[name] for e in errors.values()) for label, name in names.items()}
    check(rows(ESTIMATORS, "| error at sigma = |"), expected)


def test_published_settings():
    data, times = result("published"), ("0.2", "0.4", "0.6", "0.8", "0.9")
    own, aligned = data["independent_coupling"], data["aligned_coupling"]
    names = {
        "ESS, 200 rotations x automorphisms, temperature 1": (own, "ess_at_temperature_1"),
        "ESS with the published temperature": (own, "ess_published"),
        "ESS, 10,000 rotations of a backbone": (data["backbones"], "ess_with_truth"),
        "independent coupling: plain target to the exact mean": (own, "to_exact_plain"),
        "all rotations with isotropic weights to the exact mean": (own, "to_exact_isotropic"),
        "published estimator to the exact mean": (own, "to_exact_published"),
        "aligned coupling: published estimator to the exact permutation mean": (
            aligned,
            "published_to_exact_permutations_sigma_0.0",
        ),
        "velocity: conditional, distance to the mean velocity over its size": (
            own,
            "velocity_noise_conditional",
        ),
        "velocity: published": (own, "velocity_noise_published"),
        "velocity: published form with the exact mean of x_0 inside": (
            own,
            "velocity_noise_published_form_with_exact_mean",
        ),
    }
    expected = {
        label: tuple(source[t][name] for t in times) for label, (source, name) in names.items()
    }
    check(rows(ESTIMATORS, "| t (0 data, 1 noise) |"), expected)


def test_theorem_1():
    data = result("theorem1")["results"]
    columns = [("molecules", s) for s in ("0.5", "2.0", "9.0")]
    columns += [("proteins", s) for s in ("0.6", "2.5", "10.0")]
    columns += [("crystals", s) for s in ("0.05", "0.2", "0.3")]
    names = {
        "SNIS, K = 64, without the true element": "snis_64_without_truth",
        "SNIS, K = 64": "snis_64",
        "SNIS, K = 1024": "snis_1024",
        "i-SIR, K = 16 (around the mode)": "i_sir_16",
        "exact over the orbit": "exact",
        "full (all data the network cannot tell apart)": "full",
    }
    expected = {
        label: tuple(data[s]["trained"][level]["trace_over_plain"][name] for s, level in columns)
        for label, name in names.items()
    }
    check(rows(EVIDENCE, "| | molecules, sigma = 0.5"), expected)
    said = re.search(
        r"after training is up to (\d+) times\s+\(molecules\), (\d+) times \(proteins\) and (\d+) "
        r"times \(crystals; (\d+) at the start\)",
        EVIDENCE,
    )
    stages = [(system, "trained") for system in ("molecules", "proteins", "crystals")]
    for text, (system, stage) in zip(said.groups(), [*stages, ("crystals", "start")], strict=True):
        levels = data[system][stage].values()
        same(text, max(one["trace_over_plain"]["snis_64_without_truth"] for one in levels))


def test_the_chain_of_theorem_1_holds():
    for stages in result("theorem1")["order"].values():
        for links in stages.values():
            for link in links.values():
                assert link["holds_within_interval"] == link["levels"]
                assert link["strict"] >= 3


def test_learning():
    data = result("learning")["final_error"]
    names = {
        "plain (with random orientations)": "plain",
        "SNIS, K = 64, without the true element": "snis_64_without_truth",
        "SNIS, K = 64": "snis_64",
        "SNIS, K = 1024": "snis_1024",
        "i-SIR around the mode, K = 16": "laplace_16",
        "exact": "exact",
        "exact with conformers": "exact_conformers",
    }

    def final(network, name):
        row = data[network]["trained"][name]
        paired = row["paired_to_plain"], row["its_standard_error"]
        error = row["mean"], row["standard_deviation"]
        return error, (None if name == "plain" else paired)

    expected = {
        label: (
            *final("mlp", name),
            data["mlp"]["held_out"][name]["mean"],
            *final("equivariant", name),
        )
        for label, name in names.items()
    }
    check(rows(EVIDENCE, "| target | MLP, 8,000 steps"), expected)


@pytest.mark.parametrize("text", [ESTIMATORS, EVIDENCE])
def test_named_benchmarks_and_results_exist(text):
    for name in re.findall(r"benchmarks/bench_\w+\.py", text):
        assert (ROOT / name).is_file()
    for name in re.findall(r"results/(\w+\.(?:json|png))", text):
        assert (ROOT / "benchmarks" / "results" / name).is_file()
