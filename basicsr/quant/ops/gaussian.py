"""Uniform quantization of a Gaussian."""

OPTIMAL_STEPS = {
    1: 1.595769,
    2: 0.995687,
    3: 0.586019,
    4: 0.335201,
    5: 0.188139,
    6: 0.104063,
    7: 0.056868,
    8: 0.030762,
}
"""By bits: the step of the uniform grid of 2**bits values, symmetric about 0, whose mean squared error is the smallest for
the standard normal distribution (Max, "Quantizing for minimum distortion", 1960, table II, with more digits)."""
