"""Low-bit quantization of image super-resolution networks, in the manner of BasicSR."""

__version__ = "0.1.0"
