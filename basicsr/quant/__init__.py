"""Quantization of tensors and modules; knows nothing of super-resolution, YAML or files.

From the bottom: spec, calibration (what a calibration gives), kernels, ops, search, calibrators, quantizers, integers, modules, insertion, observe.
May import torch, utils.registry, utils.errors and utils.compiling only.
"""
