"""infra/prefect.yaml and the pool of pods: read by Prefect's models, flows and tables exist."""

import ast
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

Check = Callable[..., Any]
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DEPLOYMENTS = yaml.safe_load((INFRA / "prefect.yaml").read_text())["deployments"]


class TestKubernetesPool:
    def test_variables_and_template_name_the_same_things(self) -> None:
        pool = json.loads((INFRA / "kubernetes_pool.json").read_text())
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(pool["job_configuration"])))
        assert used == set(pool["variables"]["properties"])

    def test_job_of_the_deployments(self, kubernetes_valid: Check) -> None:
        pytest.importorskip("prefect")
        from prefect.utilities.templating import apply_values

        pool = json.loads((INFRA / "kubernetes_pool.json").read_text())
        properties = pool["variables"]["properties"]
        values = {key: about["default"] for key, about in properties.items() if "default" in about}
        (asked,) = {
            json.dumps(deployment["work_pool"]["job_variables"], sort_keys=True)
            for deployment in DEPLOYMENTS
            if deployment["work_pool"]["name"] == "cluster"
        }
        assert set(json.loads(asked)) <= set(properties)
        values |= json.loads(asked)
        values |= {"command": ["prefect", "flow-run", "execute"], "name": "run"}  # the worker's
        values |= {"env": [{"name": "A", "value": "b"}], "labels": {"a": "b"}}
        job = apply_values(pool["job_configuration"], values)["job_manifest"]
        kubernetes_valid(job)
        pod = job["spec"]["template"]["spec"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "orbitdiff"
        assert pod["containers"][0]["resources"]["requests"] == {"cpu": "4", "memory": "12Gi"}


class TestDeployments:
    def test_prefect_reads_every_key(self) -> None:
        pytest.importorskip("prefect")
        from prefect.cli.deploy._models import DeploymentConfig

        for deployment in DEPLOYMENTS:
            DeploymentConfig.model_validate(deployment)
            assert set(deployment) <= set(DeploymentConfig.model_fields), deployment["name"]

    def test_entrypoints_are_flows_with_these_parameters(self) -> None:
        for deployment in DEPLOYMENTS:
            path, name = deployment["entrypoint"].split(":")
            tree = ast.parse((ROOT / path).read_text())
            (function,) = (
                node
                for node in tree.body
                if isinstance(node, ast.FunctionDef) and node.name == name
            )
            made = [ast.unparse(decorator) for decorator in function.decorator_list]
            assert any(text.startswith("flow(") for text in made), deployment["name"]
            known = {argument.arg for argument in function.args.args}
            assert set(deployment["parameters"]) <= known, deployment["name"]

    def test_tables_exist(self) -> None:
        reports = yaml.safe_load((ROOT / "params.yaml").read_text())["reports"]
        for deployment in DEPLOYMENTS:
            if deployment["entrypoint"].endswith(":table"):
                asked = deployment["parameters"]
                assert asked["preset"] in reports[asked["task"]]

    def test_runs_are_known(self) -> None:
        runs = yaml.safe_load((ROOT / "params.yaml").read_text())["builds"]
        asked = [x["parameters"] for x in DEPLOYMENTS if x["entrypoint"].endswith(":train")]
        assert len(asked) == 2
        for one in asked:
            about = runs["{preset}-{dataset}-{estimator}-{seed}".format(**one)]
            assert about == one

    def test_what_the_issue_asks_for_runs_in_both_pools(self) -> None:
        by_name = {deployment["name"]: deployment for deployment in DEPLOYMENTS}
        assert len(by_name) == len(DEPLOYMENTS)
        for name, scheduled in (("nightly", True), ("weekly", True), ("train", False)):
            here, there = by_name[name], by_name[f"{name}-cluster"]
            assert here["work_pool"]["name"] == "local"
            assert there["work_pool"]["name"] == "cluster"
            assert ("schedules" in here, "schedules" in there) == (scheduled, scheduled)
            assert here["parameters"] == there["parameters"]

    def test_schedules_fire_when_their_names_say_and_start_paused(self) -> None:
        cronsim = pytest.importorskip("cronsim")
        gaps = {"nightly": 1, "weekly": 7, "crystals-cpu": 7}
        for deployment in DEPLOYMENTS:
            for schedule in deployment.get("schedules", []):
                assert schedule["active"] is False
                times = cronsim.CronSim(schedule["cron"], datetime(2027, 1, 1, tzinfo=UTC))
                first, second = next(times), next(times)
                assert (second - first).days == gaps[deployment["name"].removesuffix("-cluster")]

    def test_the_head_of_the_file_makes_the_pools(self) -> None:
        text = (INFRA / "prefect.yaml").read_text().replace("\\\n#", "")
        made = dict(re.findall(r"work-pool create (\w+) --type (\w+)", text))
        assert made == {"local": "process", "cluster": "kubernetes"}
        assert {deployment["work_pool"]["name"] for deployment in DEPLOYMENTS} == set(made)
