"""Errors a user can act on: each message says what was expected, what came, and what to do."""


class OrbitDiffError(ValueError):
    """Base of the errors that bad input or a bad combination of parts causes."""


class BadInput(OrbitDiffError):
    """A file, row, parameter or tensor is not what the called function needs."""


class IncompatibleKernel(OrbitDiffError):
    """An estimator was joined with a noise kernel whose declared facts it does not cover."""


class IncompatibleSampler(OrbitDiffError):
    """A sampler was joined with a kernel it has no update rule for."""


class CheckpointError(OrbitDiffError):
    """A checkpoint is truncated, of a newer format, or does not belong to this run."""


class NonFiniteLoss(OrbitDiffError):
    """The loss is NaN or infinite; the message names step, t and sample ids."""


class OutOfMemory(OrbitDiffError):
    """A training step does not fit into memory; the message names step, samples and a cure."""


class MissingExtra(OrbitDiffError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    @classmethod
    def naming(cls, package: str, extra: str) -> "MissingExtra":
        """Error that names the missing package and the command that installs it."""
        return cls(f"this needs the package {package!r}: pip install 'orbitdiff[{extra}]'")
