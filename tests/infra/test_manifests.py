"""RayJobs of KubeRay, the shared volume, and the commands that the files and the page on servers name."""

import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

Check = Callable[..., Any]
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
RAYJOBS = [INFRA / "kuberay" / name for name in ("train.yaml", "tune.yaml")]
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


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

    def test_pods(self, path: Path, kubernetes_valid: Check) -> None:
        cluster = read(path)["spec"]["rayClusterSpec"]
        claims = read(INFRA / "kuberay" / "storage.yaml")["metadata"]["name"]
        images = {
            f"orbitdiff:{file.name.split('.')[0]}"
            for file in (INFRA / "docker").glob("*.Dockerfile")
        }
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

    def test_command_and_workers(self, path: Path, orbitdiff_parses: Check) -> None:
        spec = read(path)["spec"]
        folder = re.match(r"env --chdir=(\S+) orbitdiff ", spec["entrypoint"])
        assert folder
        assert folder[1] == "/opt/orbitdiff"
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


def test_volume_claim(kubernetes_valid: Check) -> None:
    claim = read(INFRA / "kuberay" / "storage.yaml")
    kubernetes_valid(claim)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_commands_of_the_documents_parse(orbitdiff_parses: Check) -> None:
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
