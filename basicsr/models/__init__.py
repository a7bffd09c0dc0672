"""One file a method: a model owns its networks, its optimiser and its step; found by name through MODEL_REGISTRY.

May import training, evaluation, networks and what lies below them.
"""
