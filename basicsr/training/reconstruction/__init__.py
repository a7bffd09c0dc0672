"""What BRECQ and QDrop share: blocks of a network, caches of their inputs and targets, the training of one block.

May import the rest of training, quant and utils.
"""
