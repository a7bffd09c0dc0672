"""Models own networks, optimisers and the training step; found by name through MODEL_REGISTRY."""
