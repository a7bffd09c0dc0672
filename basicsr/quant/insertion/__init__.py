"""Which layers get quantizers (coverage, selection), their replacement, and the map of what was done.

May import quant.modules, quant.quantizers and what lies below them.
"""
