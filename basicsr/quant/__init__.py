"""Quantization of tensors and modules; knows nothing of super-resolution, YAML or files.

From the bottom: spec, calibration (what a calibration gives), ops, search, calibrators, quantizers, integers, modules, insertion, observe.
May import torch, utils.registry and utils.errors only.
"""
