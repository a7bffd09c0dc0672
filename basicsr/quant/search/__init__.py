"""Searches for bounds and points: histograms, candidates, their errors, subset selection.

May import quant.kernels, quant.ops and quant.spec.
"""
