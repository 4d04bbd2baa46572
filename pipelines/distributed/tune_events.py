"""What Tune calls in the driver: who watches the trials, and schedulers that ask them to end."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

__all__ = ["STOP", "WATCHERS", "AskingASHA", "AskingMedian", "Forwarder"]

STOP = "stop"
"""Entry of a result: the file that ends its trial."""

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


def asked(decision: str, result: Mapping[str, Any]) -> str:
    """Leave the file that ends the trial where it is to stop, and let it end itself."""
    if decision != TrialScheduler.STOP:
        return decision
    Path(result[STOP]).touch()
    return str(TrialScheduler.CONTINUE)


@final
class AskingASHA(ASHAScheduler):  # type: ignore[misc]
    """ASHA whose trials end themselves: killed ones would leave their CPUs taken."""

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide, and ask instead of killing."""
        return asked(super().on_trial_result(controller, trial, result), result)


@final
class AskingMedian(MedianStoppingRule):  # type: ignore[misc]
    """The median rule whose trials end themselves."""

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide, and ask instead of killing."""
        return asked(super().on_trial_result(controller, trial, result), result)
