"""Pictures that go through three stages: while one is computed, the next is read and the one before is written."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from basicsr.utils.errors import DataError

ItemT = TypeVar("ItemT")
InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


def overlapped(
    items: Iterable[ItemT],
    read: Callable[[ItemT], InputT],
    compute: Callable[[ItemT, InputT], ResultT],
    write: Callable[[ItemT, ResultT], None],
) -> Iterator[tuple[ItemT, DataError | None]]:
    """Take items through three stages; yields each in its order once it is written, or with the DataError of a stage.

    `read` and `write` run in threads of their own, `compute` where this is called. At most one item waits behind each stage, so that
    memory holds one input and one result more than one after another would.

    Args:
        items: what goes through.
        read, compute, write: the stages; what they raise beside DataErrors ends all.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        before: tuple[ItemT, Future[None]] | None = None
        for item, reading in _ahead(items, read, reader):
            writing: Future[None] = Future()
            try:
                writing = writer.submit(write, item, compute(item, reading.result()))
            except DataError as error:
                writing.set_exception(error)
            if before is not None:
                yield _finished(*before)
            before = item, writing
        if before is not None:
            yield _finished(*before)


def _ahead(
    items: Iterable[ItemT], read: Callable[[ItemT], InputT], reader: ThreadPoolExecutor
) -> Iterator[tuple[ItemT, "Future[InputT]"]]:
    """Yield each item with its input to come, once the reading of the next one is under way."""
    before = None
    for item in items:
        reading = item, reader.submit(read, item)
        if before is not None:
            yield before
        before = reading
    if before is not None:
        yield before


def _finished(item: ItemT, writing: "Future[None]") -> tuple[ItemT, DataError | None]:
    try:
        writing.result()
    except DataError as error:
        return item, error
    return item, None
