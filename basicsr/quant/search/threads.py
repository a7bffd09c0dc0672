"""One thread for loops of many short operations."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_thread() -> Iterator[None]:
    """Let PyTorch's CPU operations use one thread, then as many as before.

    Operations on pieces that fit into a cache end too soon for other threads to help, while waiting for a thread that
    does not get a processor makes them a hundred times slower on a busy machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
