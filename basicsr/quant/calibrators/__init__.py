"""One file a way to find bounds, found by name through CALIBRATOR_REGISTRY.

May import quant.search, quant.ops and quant.spec.
"""
