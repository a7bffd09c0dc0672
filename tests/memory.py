"""A limit of the memory that a test takes."""

from contextlib import contextmanager

from benchmarks.peak_memory import forget_peak, peak_memory


@contextmanager
def at_most(gibibytes):
    """Fail where the memory rises by more, whatever tests of the same process held before."""
    forget_peak()
    before = peak_memory()
    yield
    assert peak_memory() - before < gibibytes * 2**30
