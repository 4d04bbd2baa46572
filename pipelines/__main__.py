"""`python -m pipelines STAGE TASK ...`: run one stage; dvc.yaml runs this."""

import argparse
import sys
from collections.abc import Sequence

from orbitdiff.errors import OrbitDiffError
from pipelines.assemble import run_stage
from pipelines.dag import STAGES
from pipelines.environment import prepare_environment
from pipelines.messages import one_line
from pipelines.params import load
from pipelines.sweeps import run_sweep, section, select_sweep

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run a stage; 2 for bad input, with one clear line."""
    prepare_environment()
    parser = argparse.ArgumentParser(prog="python -m pipelines", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("task")
    parser.add_argument("--preset", required=True)
    parser.add_argument("--dataset", default="")
    parser.add_argument("--estimator", default="", help="default: the first of the preset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", default="", help="run whose weights the training starts from")
    options = parser.parse_args(arguments)
    try:
        if options.stage == "sweep":
            params, task, preset = load(), options.task, options.preset
            run_sweep(select_sweep(params, task, preset, section(params, task, preset)))
            return 0
        run_stage(
            options.stage,
            options.task,
            load(),
            preset=options.preset,
            dataset=options.dataset,
            estimator=options.estimator,
            seed=options.seed,
            start=options.start,
        )
    except (OrbitDiffError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
