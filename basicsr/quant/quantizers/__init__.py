"""One file a quantizer, found by name through QUANTIZER_REGISTRY.

May import quant.ops, quant.calibration and the base class of calibrators.
"""
