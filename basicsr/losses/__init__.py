"""Losses, found by name through LOSS_REGISTRY.

May import utils.
"""
