"""infra/compose.yaml: schema, loopback, health, secrets, and the commands of its services."""

import json
import re
import shlex
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

Check = Callable[..., Any]
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]


def environment(service: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = service.get("environment", {})
    return found


class TestCompose:
    def test_schema(self) -> None:
        jsonschema = pytest.importorskip("jsonschema")
        pytest.importorskip("check_jsonschema")
        folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
        schema = json.loads((folder / "compose-spec.json").read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        assert not [error.message for error in validator.iter_errors(COMPOSE)]
        broken = {"services": {"postgres": {**SERVICES["postgres"], "helthcheck": {}}}}
        assert list(validator.iter_errors(broken))

    def test_has_every_server(self) -> None:
        wanted = {"postgres", "minio", "mlflow", "prefect-server", "prefect-worker", "ray-head"}
        assert wanted | {"ray-worker"} <= set(SERVICES)
        assert SERVICES["ray-worker"]["deploy"]["replicas"] > 1

    def test_ports_bind_to_loopback(self) -> None:
        ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)
        assert not {"postgres", "minio", "ray-head", "ray-worker"} & {
            name for name, service in SERVICES.items() if "ports" in service
        }

    def test_every_server_has_a_health_check_and_waits_for_those_it_needs(self) -> None:
        once = {"minio-bucket"}
        for name, service in SERVICES.items():
            assert ("healthcheck" in service) == (name not in once), name
            for needed, how in service.get("depends_on", {}).items():
                done = "service_completed_successfully" if needed in once else "service_healthy"
                assert how == {"condition": done}, (name, needed)
                assert needed in SERVICES

    def test_no_secret_and_no_floating_image(self) -> None:
        for name, service in SERVICES.items():
            for key, value in environment(service).items():
                if re.search("PASSWORD|TOKEN|SECRET", key):
                    assert re.fullmatch(r"\$\{\w+(:\?[^}]+)?\}", value), (name, key)
                assert not re.search(r"//[^/$]*:[^$@/]+@", value), (name, key)
            assert ":" in service["image"]
            assert not service["image"].endswith(":latest")

    def test_networks_volumes_and_configs_exist(self) -> None:
        for service in SERVICES.values():
            assert set(service["networks"]) <= set(COMPOSE["networks"])
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert source in COMPOSE["volumes"] or source == ".."
            assert {c["source"] for c in service.get("configs", [])} <= set(COMPOSE["configs"])

    def test_services_that_talk_share_a_network(self) -> None:
        for name, service in SERVICES.items():
            text = json.dumps([environment(service), service.get("command", [])])
            for other in SERVICES:
                if other != name and re.search(rf"(//|@|=| |\"){re.escape(other)}:\d", text):
                    shared = set(service["networks"]) & set(SERVICES[other]["networks"])
                    assert shared, (name, other)

    def test_ray_reads_the_commands(self, ray_start: Check) -> None:
        head = ray_start(SERVICES["ray-head"]["command"])
        assert head["head"]
        assert head["block"]
        assert head["include_dashboard"] is False
        worker = ray_start(SERVICES["ray-worker"]["command"])
        assert worker["address"] == f"ray-head:{head['port']}"
        assert worker["block"]
        script = SERVICES["prefect-worker"]["command"][-1]
        driver = ray_start(shlex.split(script.splitlines()[0]))
        assert (
            driver["address"]
            == worker["address"]
            == environment(SERVICES["prefect-worker"])["RAY_ADDRESS"]
        )
        assert driver["num_cpus"] == 0
        for name in ("ray-head", "ray-worker", "prefect-worker"):
            assert environment(SERVICES[name])["RAY_AUTH_MODE"] == "token"
            assert "..:/opt/orbitdiff" in SERVICES[name]["volumes"]

    def test_mlflow_takes_its_options_and_the_host_names_in_use(self) -> None:
        pytest.importorskip("mlflow")
        from mlflow.cli import server
        from mlflow.server.security_utils import is_allowed_host_header

        options = server.make_context("server", SERVICES["mlflow"]["command"][2:]).params
        allowed = options["allowed_hosts"].split(",")
        used = environment(SERVICES["prefect-worker"])["MLFLOW_TRACKING_URI"].split("//")[1]
        assert used == "mlflow:5000"
        assert is_allowed_host_header(allowed, used)
        assert is_allowed_host_header(allowed, "127.0.0.1:5000")
        assert not is_allowed_host_header(allowed, "elsewhere.example:5000")

    def test_databases_of_the_servers_exist(self) -> None:
        made = set(re.findall(r"CREATE DATABASE (\w+)", COMPOSE["configs"]["databases"]["content"]))
        made.add(environment(SERVICES["postgres"])["POSTGRES_DB"])
        used = re.findall(r"@postgres:5432/(\w+)", (INFRA / "compose.yaml").read_text())
        assert set(used) == made
        bucket = re.search(r"store/(\w+)", SERVICES["minio-bucket"]["command"][0])
        assert bucket
        assert f"--artifacts-destination=s3://{bucket[1]}" in SERVICES["mlflow"]["command"]
