"""Ways to join the gradients of two losses, found by name through GRADIENT_RULE_REGISTRY.

May import quant and utils.
"""
