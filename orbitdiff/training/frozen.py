"""Parts of a network that a fine-tune leaves as they are."""

from collections.abc import Sequence

from torch import nn

from orbitdiff.errors import BadInput

__all__ = ["freeze"]


def freeze(network: nn.Module, parts: Sequence[str]) -> list[nn.Parameter]:
    """Freeze the named parts of a network in place; return the parameters that are left to train.

    Parameters
    ----------
    network : nn.Module
    parts : sequence of str
        Names of submodules or parameters, such as `pairs` or `layers.0`.

    Raises
    ------
    BadInput
        A name that the network does not have, or nothing left to train.
    """
    for part in parts:
        hit = [p for name, p in network.named_parameters() if f"{name}.".startswith(f"{part}.")]
        if not hit:
            raise BadInput(
                f"expected train.frozen among the parts of the network "
                f"({[name for name, _ in network.named_children()]}), got {part!r}"
            )
        for parameter in hit:
            parameter.requires_grad_(False)
    left = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not left:
        raise BadInput(f"expected train.frozen to leave something to train, got {list(parts)}")
    return left
