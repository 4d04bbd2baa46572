"""Quiet, offline settings of the orchestration tools, made before their first import."""

import os

__all__ = ["prepare_environment"]

SETTINGS = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # waits of 2, 4, ... 256 seconds: a server may be away for minutes while a flow runs
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    # the temporary server of a command, on a machine with other work
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "RAY_AUTH_MODE": "disabled",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # trainings as polite as the command that starts them; Ray makes its workers 15 steps more so
    "RAY_worker_niceness": "0",
}


def prepare_environment() -> None:
    """Switch telemetry off and bind Ray to loopback, unless the user set a variable."""
    local = not os.environ.get("RAY_ADDRESS")
    for name, value in SETTINGS.items():
        if name == "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" and not local:
            continue
        os.environ.setdefault(name, value)
