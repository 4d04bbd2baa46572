"""Start a flow: the Prefect server of the environment is asked first, in one clear line."""

import os
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

from orbitdiff.errors import BadInput

__all__ = ["start_flow"]

P = ParamSpec("P")
Result = TypeVar("Result")
TRIES, SECONDS = 3, 5.0


def start_flow(flow: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Run a flow; refuse to begin while the server of $PREFECT_API_URL does not answer.

    Once a flow has begun, it waits for a server that goes away: Prefect's client tries again for
    some minutes (`PREFECT_CLIENT_MAX_RETRIES`), while the stage that is under way goes on.

    Parameters
    ----------
    flow : Prefect flow
    args, kwargs
        Its parameters.

    Raises
    ------
    BadInput
        No answer.
    """
    url = os.environ.get("PREFECT_API_URL", "")
    if url:
        require_server(url)
    return flow(*args, **kwargs)


def require_server(url: str) -> None:
    """Ask a Prefect server whether it is there."""
    for attempt in range(TRIES):
        try:
            with urlopen(f"{url.rstrip('/')}/health", timeout=SECONDS):
                return
        except (URLError, OSError, ValueError) as error:
            reason = error
            if attempt + 1 < TRIES:
                time.sleep(1)
    raise BadInput(
        f"expected a Prefect server at PREFECT_API_URL={url}, got no answer ({reason}); start it, "
        "or unset the variable: then a temporary one runs with the command"
    )
