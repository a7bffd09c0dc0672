"""A trained network as it is used: packed files, exact integers, graphs for runtimes, the enlarging of pictures.

May import everything below pipeline but losses and training methods.
"""
