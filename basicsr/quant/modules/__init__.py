"""One file a quantized layer, found by name through QMODULE_REGISTRY.

A layer states what it costs, how it computes in exact integers, and its form for runtimes. May import quant.integers, quant.quantizers and quant.spec.
"""
