from contextlib import contextmanager

from orbitdiff.training.checkpoint import file_sha256
from pipelines.params import load
from pipelines.stages.base import LocalExecutor
from pipelines.stages.crystals import prepare
from pipelines.stages.fetch import write_raw
from pipelines.stages.provenance import recorded


class Remembering:
    """A tracker that keeps what it is given."""

    def __init__(self):
        self.runs = {}

    @contextmanager
    def run(self, name, *, experiment, params, tags):
        self.runs[name] = {"tags": dict(tags), "params": dict(params), "metrics": {}, "files": []}
        yield Handle(self.runs[name])


class Handle:
    id = "x"

    def __init__(self, record):
        self.record = record

    def metrics(self, values, *, step=None):
        self.record["metrics"].update(values)

    def artifact(self, path):
        assert path.exists()
        self.record["files"].append(path.name)

    def model(self, folder, *, name):
        raise AssertionError("no stage here trains")


def chosen():
    return load().select("crystals", "demo", dataset="prototypes", estimator="exact", seed=3)


def test_tags_say_which_data_and_code(prepared):
    tracker = Remembering()
    with recorded(tracker, chosen(), "sample", data=prepared):
        pass
    found = tracker.runs["sample demo-prototypes-exact-3"]
    assert found["tags"]["data_manifest_sha256"] == file_sha256(prepared / "manifest.json")
    assert found["tags"]["stage"] == "sample"
    assert found["tags"]["seed"] == "3"
    assert found["tags"]["revision"] == chosen().revision
    assert found["params"]["train.steps"] == chosen().settings.train.steps


def test_prepare_records_counts_and_rejected_rows(tmp_path):
    from dataclasses import replace

    params = chosen()
    data = replace(params.settings.data, prototypes=20, max_atoms=8)
    params = replace(params, settings=replace(params.settings, data=data))
    write_raw("prototypes", data, tmp_path / "raw")
    tracker = Remembering()
    inputs, outputs = {"raw": tmp_path / "raw"}, {"data": tmp_path / "data"}
    prepare.run(params, inputs, outputs, executor=LocalExecutor(), tracker=tracker)
    found = tracker.runs["prepare prototypes"]
    assert sum(found["metrics"].values()) <= 20
    assert found["metrics"]["crystals.train"] > 0
    assert found["files"] == ["manifest.json", "rejected.csv"]
