"""What runs left, as a page: read folders, put rows side by side, draw figures, embed pictures, write report.html.

May import data and utils; knows nothing of networks, training or quantizers, for it works from files alone.
"""
