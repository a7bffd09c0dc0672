"""One file a quantized layer, found by name through QMODULE_REGISTRY.

May import quant.quantizers and quant.spec.
"""
