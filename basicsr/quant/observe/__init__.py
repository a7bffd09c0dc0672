"""Looking at a network at work: its tensors, calls of modules, codes that quantizers give.

May import quant.insertion and what lies below it.
"""
