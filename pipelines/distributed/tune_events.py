"""Tune's callback: hands the state of the trials to whoever watches the experiment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from ray import tune

__all__ = ["WATCHERS", "Forwarder"]

Watcher = Callable[[Sequence[tuple[Mapping[str, Any], str]]], None]
"""Takes configuration and status of every trial."""

WATCHERS: dict[str, Watcher] = {}
"""By the name of the experiment, in this process: Tune pickles its callbacks, and a restored one
has to find those of the new process."""


@final
class Forwarder(tune.Callback):
    """Knows nothing itself."""

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tell the watcher, after each of Tune's steps; after the last one states mean less.

        An experiment that is interrupted ends with its running trials terminated.
        """
        if trials and trials[0].experiment_dir_name in WATCHERS:
            states = [(trial.config, trial.status) for trial in trials]
            WATCHERS[trials[0].experiment_dir_name](states)
