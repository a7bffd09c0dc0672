"""Metrics of pictures and of networks, found by name through METRIC_REGISTRY.

May import utils.
"""
