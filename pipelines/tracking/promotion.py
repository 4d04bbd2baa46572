"""Champion and challenger: the alias `champion` moves to a version that is better by a metric."""

from dataclasses import dataclass
from typing import Any, Literal, final

from orbitdiff.errors import BadInput
from pipelines.tracking.registry import NEWEST

__all__ = ["CHAMPION", "FORMER", "Better", "Decision", "promote"]

CHAMPION = "champion"
FORMER = "former-champion"
"""Alias of the version that was champion before, to go back to."""
SAME_DATA = ("dataset", "data_manifest_sha256")
SAME_RUN = ("dataset", "preset", "estimator_name", "seed")

Better = Literal["lower", "higher"]


@final
@dataclass(frozen=True)
class Decision:
    """Whether the challenger became champion, and why.

    Parameters
    ----------
    promoted : bool
    champion : str
        Version that is champion now.
    text : str
        One line with the figures.
    """

    promoted: bool
    champion: str
    text: str


def promote(
    client: Any,
    name: str,
    metric: str,
    *,
    better: Better,
    margin: float = 0.0,
    challenger: str = NEWEST,
) -> Decision:
    """Make the challenger champion where its metric beats the champion's by more than a margin.

    Parameters
    ----------
    client : MlflowClient
    name : str
        Registered model.
    metric : str
        Of the version's training run, else of the newest evaluation of that run.
    better : str
        lower or higher.
    margin : float
        In units of the metric, 0 or more.
    challenger : str
        Alias or number of a version.

    Returns
    -------
    Decision
        Both versions get tags with the figures they were judged by.

    Raises
    ------
    BadInput
        Unknown model, version or metric; versions that were trained on different data.
    """
    if margin < 0:
        raise BadInput(f"expected a margin of 0 or more, got {margin}")
    new = find_version(client, name, challenger)
    value = figure(client, new, metric)
    old = champion_of(client, name)
    if old is None:
        return crown(client, name, new, None, f"{metric} {value:.6g}; there was no champion")
    if old.version == new.version:
        return Decision(False, str(old.version), f"version {old.version} is champion already")
    tags = [client.get_run(version.run_id).data.tags for version in (new, old)]
    for key in SAME_DATA:
        if tags[0].get(key) != tags[1].get(key):
            raise BadInput(
                f"versions {new.version} and {old.version} of {name} are trained on different "
                f"data ({key} {tags[0].get(key)!r} and {tags[1].get(key)!r}): their {metric} "
                f"cannot be compared; move the alias by hand if you want it"
            )
    former = figure(client, old, metric)
    gain = former - value if better == "lower" else value - former
    text = f"{metric} {value:.6g} against {former:.6g} of version {old.version} ({better} is better"
    text += f", margin {margin:g})" if margin else ")"
    if gain > margin:
        return crown(client, name, new, old, text)
    return Decision(False, str(old.version), f"version {new.version} stays challenger: {text}")


def crown(client: Any, name: str, new: Any, old: Any, text: str) -> Decision:
    """Move the aliases; the former champion keeps one, so that going back is one command."""
    if old is not None:
        client.set_registered_model_alias(name, FORMER, old.version)
    client.set_registered_model_alias(name, CHAMPION, new.version)
    client.set_model_version_tag(name, new.version, "promoted_by", text)
    return Decision(True, str(new.version), f"version {new.version} is champion: {text}")


def find_version(client: Any, name: str, which: str) -> Any:
    """Version of an alias or a number."""
    from mlflow.exceptions import MlflowException

    try:
        if which.isdecimal():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        known = [model.name for model in client.search_registered_models()]
        raise BadInput(
            f"expected a version or alias of a registered model (there are: {known}), got "
            f"{which!r} of {name}: {error.message}"
        ) from error


def champion_of(client: Any, name: str) -> Any:
    """Version that is champion, or None."""
    aliases = client.get_registered_model(name).aliases
    return client.get_model_version(name, aliases[CHAMPION]) if CHAMPION in aliases else None


def figure(client: Any, version: Any, metric: str) -> float:
    """Metric of a version: of its training, else of the newest evaluation since."""
    run = client.get_run(version.run_id)
    known = dict(run.data.metrics)
    if metric not in known:
        same = " and ".join(
            f"tags.{key} = '{run.data.tags[key]}'" for key in SAME_RUN if key in run.data.tags
        )
        found = client.search_runs(
            [run.info.experiment_id],
            f"tags.stage = 'evaluate' and attributes.status = 'FINISHED' and {same}",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        since = [one for one in found if one.info.start_time >= run.info.start_time]
        known |= since[0].data.metrics if since else {}
    if metric not in known:
        raise BadInput(
            f"version {version.version} has no metric {metric!r} in its training run "
            f"{version.run_id}, nor in an evaluation since; there are {sorted(known)[:40]}"
        )
    return float(known[metric])
