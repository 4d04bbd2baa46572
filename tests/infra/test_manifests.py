"""Files under infra/ against the schemas and parsers of the tools that will read them."""

import ast
import json
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
BIN = Path(sys.executable).parent
DOCKERFILES = sorted((INFRA / "docker").glob("*.Dockerfile"))
RAYJOBS = [INFRA / "kuberay" / name for name in ("train.yaml", "tune.yaml")]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def run_tool(name: str, *words: str) -> None:
    if not (BIN / name).exists():
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([str(BIN / name), *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def kubernetes_valid(resource: dict[str, Any]) -> None:
    """Kubernetes' own schema, unknown keys refused."""
    checker = pytest.importorskip("kubernetes_validate")
    checker.validate(resource, checker.latest_version(), strict=True)


def ray_start(words: list[str]) -> Any:
    """Options of a `ray start`, as Ray's own parser reads them."""
    from ray.scripts.scripts import start

    return start.make_context("start", list(words)).params


def orbitdiff_parses(command: str) -> None:
    """The verb exists and takes these options; nothing runs."""
    import typer

    from pipelines.cli import app

    words = shlex.split(command)
    verb, *options = words[words.index("orbitdiff") + 1 :]
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if verb == "sweep" and verb not in verbs:
        pytest.skip("the verb `sweep` is not part of the command line")
    verbs[verb].make_context(verb, options)


def environment(service: dict[str, Any]) -> dict[str, str]:
    return service.get("environment", {})


COMPOSE = read(INFRA / "compose.yaml")
SERVICES = COMPOSE["services"]


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

    def test_ray_reads_the_commands(self) -> None:
        head = ray_start(SERVICES["ray-head"]["command"][2:])
        assert head["head"]
        assert head["block"]
        assert head["include_dashboard"] is False
        worker = ray_start(SERVICES["ray-worker"]["command"][2:])
        assert worker["address"] == f"ray-head:{head['port']}"
        assert worker["block"]
        script = SERVICES["prefect-worker"]["command"][-1]
        driver = ray_start(shlex.split(script.splitlines()[0])[2:])
        assert (
            driver["address"]
            == worker["address"]
            == environment(SERVICES["prefect-worker"])["RAY_ADDRESS"]
        )
        assert driver["num_cpus"] == 0
        for name in ("ray-head", "ray-worker", "prefect-worker"):
            assert environment(SERVICES[name])["RAY_AUTH_MODE"] == "token"
            assert "..:/work/orbitdiff" in SERVICES[name]["volumes"]

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


# What KubeRay's RayJob and RayCluster accept of the fields in use; pods are Kubernetes' own.
GROUP = {
    "type": "object",
    "properties": {
        "groupName": {"type": "string"},
        "replicas": {"type": "integer", "minimum": 0},
        "minReplicas": {"type": "integer", "minimum": 0},
        "maxReplicas": {"type": "integer", "minimum": 0},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": {"type": "object"},
    },
    "required": ["rayStartParams", "template"],
    "additionalProperties": False,
}
RAYJOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": {"type": "string"},
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "SidecarMode"]},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "authOptions": {
                            "type": "object",
                            "properties": {"mode": {"enum": ["disabled", "token"]}},
                            "additionalProperties": False,
                        },
                        "enableInTreeAutoscaling": {"type": "boolean"},
                        "autoscalerOptions": {
                            "type": "object",
                            "properties": {"idleTimeoutSeconds": {"type": "integer"}},
                            "additionalProperties": False,
                        },
                        "headGroupSpec": GROUP,
                        "workerGroupSpecs": {"type": "array", "items": GROUP, "minItems": 1},
                    },
                },
            },
        },
    },
}


@pytest.mark.parametrize("path", RAYJOBS, ids=lambda path: path.stem)
class TestRayJobs:
    def test_fields(self, path: Path) -> None:
        jsonschema = pytest.importorskip("jsonschema")
        jsonschema.validate(read(path), RAYJOB)

    def test_versions_are_the_installed_ray(self, path: Path) -> None:
        found = read(path)["spec"]["rayClusterSpec"]["rayVersion"]
        assert found == version("ray") == PINS["ray"]

    def test_pods(self, path: Path) -> None:
        cluster = read(path)["spec"]["rayClusterSpec"]
        claims = read(INFRA / "kuberay" / "storage.yaml")["metadata"]["name"]
        images = {f"orbitdiff:{file.name.split('.')[0]}" for file in DOCKERFILES}
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            template = group["template"]
            about = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
            kubernetes_valid({**about, "template": template})
            spec = template["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            (container,) = spec["containers"]
            assert container["image"] in images
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            names = {volume["name"] for volume in spec["volumes"]}
            assert {mount["name"] for mount in container["volumeMounts"]} == names
            (claim,) = (v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"] == "work")
            assert claim["claimName"] == claims

    def test_command_and_workers(self, path: Path) -> None:
        spec = read(path)["spec"]
        folder = re.match(r"env --chdir=(\S+) orbitdiff ", spec["entrypoint"])
        assert folder
        assert folder[1] == "/work/orbitdiff"
        orbitdiff_parses(spec["entrypoint"])
        asked = re.search(r"train.num_workers=(\d+)", spec["entrypoint"])
        if asked:
            cluster = spec["rayClusterSpec"]
            groups = [(1, cluster["headGroupSpec"])]
            groups += [(group["replicas"], group) for group in cluster["workerGroupSpecs"]]
            gpus = 0
            for replicas, group in groups:
                limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
                gpus += replicas * int(limits["nvidia.com/gpu"])
            assert gpus == int(asked[1])


def test_a_wrong_pod_is_refused() -> None:
    template = read(RAYJOBS[0])["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    template["spec"]["containers"][0]["imagePullPolicyy"] = "Always"
    about = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
    checker = pytest.importorskip("kubernetes_validate")
    with pytest.raises(checker.ValidationError):
        checker.validate({**about, "template": template}, checker.latest_version(), strict=True)


def test_volume_claim() -> None:
    claim = read(INFRA / "kuberay" / "storage.yaml")
    kubernetes_valid(claim)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


class TestKubernetesPool:
    def test_variables_and_template_name_the_same_things(self) -> None:
        pool = json.loads((INFRA / "kubernetes_pool.json").read_text())
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(pool["job_configuration"])))
        assert used == set(pool["variables"]["properties"])

    def test_job_of_the_deployments(self) -> None:
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


DEPLOYMENTS = read(INFRA / "prefect.yaml")["deployments"]


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
        reports = read(ROOT / "params.yaml")["reports"]
        for deployment in DEPLOYMENTS:
            if deployment["entrypoint"].endswith(":table"):
                asked = deployment["parameters"]
                assert asked["preset"] in reports[asked["task"]]

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
        from datetime import UTC, datetime

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


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
class TestDockerfiles:
    def test_lint(self, path: Path) -> None:
        run_tool("hadolint", str(path))

    def test_user_is_no_root(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        users = [line.split()[1] for line in lines if line.startswith("USER ")]
        assert users[-1] == "${UID}"
        (given,) = (line for line in lines if line.startswith("ARG UID="))
        assert int(given.split("=")[1]) > 0

    def test_pins_are_those_of_the_constraints(self, path: Path) -> None:
        text = path.read_text().replace("\\\n", " ")
        installs = re.findall(r"pip install (.+?)(?:&&|\n)", text)
        torch = [line for line in installs if "torch==" in line]
        for line in installs:
            assert "-c constraints.txt" in line or (line in torch and "--no-deps" in line)
        for name, pinned in re.findall(r"([\w-]+)==([\w.]+)", text):
            assert PINS.get(name, pinned) == pinned, name
        assert len(torch) == 1
        assert f"torch=={PINS['torch']}" in (ROOT / "Makefile").read_text()
        assert f"torch=={PINS['torch']}" in torch[0]

    def test_python_is_the_one_of_the_constraints(self, path: Path) -> None:
        asked = re.search(r"Python (\d+\.\d+)", (ROOT / "constraints.txt").read_text())
        assert asked
        assert f"FROM python:{asked[1]}-" in path.read_text()

    def test_copies_only_what_the_ignore_file_lets_through(self, path: Path) -> None:
        first, *rest = path.with_name(path.name + ".dockerignore").read_text().splitlines()[1:]
        assert first == "*"
        let_through = {line[1:] for line in rest if line.startswith("!")}
        copied = set()
        for line in path.read_text().splitlines():
            if line.startswith("COPY "):
                copied |= set(line.split()[1:-1])
        assert copied == let_through
        assert all((ROOT / name).exists() for name in copied)
        assert not re.search("(?i)password|secret|token", path.read_text())


class TestSlurm:
    SCRIPT = INFRA / "slurm" / "ray_train.sbatch"
    # of sbatch(1)
    OPTIONS = {
        "job-name", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "mem", "time",
        "requeue", "open-mode", "signal", "output",
    }  # fmt: skip
    STUBS = {
        "scontrol": """
if [ "$1" = show ]; then printf 'n1\\nn2\\nn3\\n'; else echo "scontrol $*" >> "$LOG"; fi
""",
        "srun": """
options=""
while [ "${1#--}" != "$1" ]; do options="$options $1"; shift; done
if [ "$1" = hostname ]; then echo "10.0.0.7 10.1.0.7"; exit; fi
echo "srun$options | $*" >> "$LOG"
exec "$@"
""",
        "ray": """
[ "$1" = health-check ] && exit 0
echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$LOG"
trap 'echo "raylet ended" >> "$LOG"; exit 143' TERM
while :; do sleep 0.05; done
""",
        "python": f"""
case "$2" in *secrets*) exec {shlex.quote(sys.executable)} "$@";; esac
echo "waits for $3 nodes" >> "$LOG"
""",
        "orbitdiff": """
echo "orbitdiff $* at $RAY_ADDRESS" >> "$LOG"
[ -z "$TAKES" ] || { touch "$LOG.started"; sleep "$TAKES"; }
echo "orbitdiff done" >> "$LOG"
exit "${STATUS:-0}"
""",
    }

    def test_lint(self) -> None:
        subprocess.run(["bash", "-n", str(self.SCRIPT)], check=True)
        run_tool("shellcheck", str(self.SCRIPT))
        given = re.findall(r"^#SBATCH --([\w-]+)", self.SCRIPT.read_text(), re.MULTILINE)
        assert set(given) <= self.OPTIONS

    def start(self, tmp_path: Path, *words: str, **extra: str) -> tuple[Any, Path]:
        folder = tmp_path / ".venv" / "bin"
        folder.mkdir(parents=True)
        for name, body in self.STUBS.items():
            (folder / name).write_text("#!/bin/sh" + body)
            (folder / name).chmod(0o755)
        log = tmp_path / "log"
        values = {
            "LOG": str(log), "TAKES": "", "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_ID": "4711",
            "SLURM_CPUS_PER_TASK": "6", "SLURM_GPUS_ON_NODE": "2", "PATH": "/usr/bin:/bin",
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", str(self.SCRIPT), *words], env={**values, **extra}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return process, log

    def test_starts_ray_on_every_node_then_trains(self, tmp_path: Path) -> None:
        process, log = self.start(tmp_path, STATUS="3")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 3, output
        lines = log.read_text().splitlines()
        starts = [line.split(" | ") for line in lines if " | ray start " in line]
        (on_head, head), (on_others, workers) = starts
        assert "--nodelist=n1" in on_head
        assert "--exclude=n1" in on_others
        assert {"--nodes=2", "--ntasks=2"} <= set(on_others.split())
        head_options = ray_start(shlex.split(head)[2:])
        other_options = ray_start(shlex.split(workers)[2:])
        assert head_options["head"]
        assert head_options["include_dashboard"] is False
        assert head_options["node_ip_address"] == "10.0.0.7"
        assert other_options["address"] == f"10.0.0.7:{head_options['port']}" == "10.0.0.7:24711"
        for options in (head_options, other_options):
            assert (options["num_cpus"], options["num_gpus"]) == (6, 2)
            assert options["block"]
        assert lines.count("token 64 token") == 2
        trained = next(line for line in lines if line.startswith("orbitdiff train"))
        assert trained.endswith("--set train.num_workers=6 at 10.0.0.7:24711")
        assert lines.index("waits for 3 nodes") < lines.index(trained)
        assert lines.count("raylet ended") == 2

    def test_default_command_is_one_of_the_command_line(self, tmp_path: Path) -> None:
        process, log = self.start(tmp_path, SLURM_GPUS_ON_NODE="0")
        process.communicate(timeout=60)
        assert process.returncode == 0
        line = next(x for x in log.read_text().splitlines() if x.startswith("orbitdiff train"))
        assert "train.num_workers=3 " in line
        orbitdiff_parses(line.split(" at ")[0])

    def test_time_limit_queues_the_job_again(self, tmp_path: Path) -> None:
        import signal
        import time

        process, log = self.start(tmp_path, "orbitdiff", "train", "crystals", TAKES="1")
        limit = time.monotonic() + 60
        while not Path(f"{log}.started").exists():
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=60)
        assert process.returncode == 0
        lines = log.read_text().splitlines()
        assert lines.index("scontrol requeue 4711") < lines.index("orbitdiff done")


def test_commands_of_the_documents_parse() -> None:
    found = []
    for path in (
        INFRA / "compose.yaml",
        INFRA / "slurm" / "ray_train.sbatch",
        ROOT / "docs" / "servers.md",
    ):
        found += re.findall(r"orbitdiff (?:run|train|sweep|doctor)\b[^`|#\n\\]*", path.read_text())
    assert len(found) > 3
    for command in found:
        orbitdiff_parses(command.strip())


def test_the_page_on_servers_names_the_variables_that_doctor_prints() -> None:
    from pipelines.doctor import SERVERS

    page = (ROOT / "docs" / "servers.md").read_text()
    assert all(f"`{name}`" in page for name in SERVERS)
