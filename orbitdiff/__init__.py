"""orbitdiff: diffusion and flow-matching targets averaged over the symmetry orbit."""

__version__ = "0.1.0"
