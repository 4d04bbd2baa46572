"""The Slurm script: linted, and run with stand-ins for srun, scontrol, ray and the training."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Check = Callable[..., Any]
ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


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
trap 'echo "raylet ended" >> "$LOG"; exit 143' TERM
echo "token ${#RAY_AUTH_TOKEN} $RAY_AUTH_MODE" >> "$LOG"
while :; do sleep 0.05; done
""",
        "python": f"""
case "$2" in *secrets*) exec {shlex.quote(sys.executable)} "$@";; esac
until [ "$(grep -c ^token "$LOG")" = 2 ]; do sleep 0.05; done
echo "waits for $3 nodes" >> "$LOG"
""",
        "orbitdiff": """
echo "orbitdiff $* at $RAY_ADDRESS" >> "$LOG"
[ -z "$TAKES" ] || { touch "$LOG.started"; sleep "$TAKES"; }
echo "orbitdiff done" >> "$LOG"
exit "${STATUS:-0}"
""",
    }

    def test_lint(self, lint: Check) -> None:
        subprocess.run(["bash", "-n", str(self.SCRIPT)], check=True)
        lint("shellcheck", str(self.SCRIPT))
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

    def test_starts_ray_on_every_node_then_trains(self, tmp_path: Path, ray_start: Check) -> None:
        process, log = self.start(tmp_path, STATUS="3")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 3, output
        lines = log.read_text().splitlines()
        starts = [line.split(" | ") for line in lines if " | ray start " in line]
        # the stand-ins write when they come to it
        (on_head, head), (on_others, workers) = sorted(starts, key=lambda x: "--head" not in x[1])
        assert "--nodelist=n1" in on_head
        assert "--exclude=n1" in on_others
        assert {"--nodes=2", "--ntasks=2"} <= set(on_others.split())
        head_options = ray_start(shlex.split(head))
        other_options = ray_start(shlex.split(workers))
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

    def test_default_command_is_one_of_the_command_line(
        self, tmp_path: Path, orbitdiff_parses: Check
    ) -> None:
        process, log = self.start(tmp_path, SLURM_GPUS_ON_NODE="0")
        process.communicate(timeout=60)
        assert process.returncode == 0
        line = next(x for x in log.read_text().splitlines() if x.startswith("orbitdiff train"))
        assert "train.num_workers=3 " in line
        orbitdiff_parses(line.split(" at ")[0])

    def test_time_limit_queues_the_job_again(self, tmp_path: Path) -> None:
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
