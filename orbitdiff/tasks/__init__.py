"""Tasks: frozen bundles of data, kernels, group, network, sampler and metrics."""
