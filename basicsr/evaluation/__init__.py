"""How good a network is: images through it (whole, in tiles, flipped), its metrics, its results on disk.

May import archs, data, losses, metrics, quant, networks and utils; knows nothing of training.
"""
