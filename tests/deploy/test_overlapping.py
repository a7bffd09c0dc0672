"""Stages of different items run at the same time, in order, and a fault stays with its item."""

import threading

import pytest

from basicsr.deploy.overlapping import overlapped
from basicsr.utils.errors import DataError


def test_the_next_is_read_and_the_last_is_written_while_one_is_computed():
    read, written = (threading.Event() for _ in range(2))

    def reading(item):
        if item == 2:
            read.set()
        return item * 10

    def computing(item, value):
        if item == 1:  # ends only once the next one has been read, and the one before written
            assert read.wait(20) and written.wait(20)
        return value + item

    results = []

    def writing(item, value):
        results.append(value)
        if item == 0:
            written.set()

    assert list(overlapped(range(4), reading, computing, writing)) == [(item, None) for item in range(4)]
    assert results == [0, 11, 22, 33]


def test_no_more_than_one_item_is_read_ahead():
    read = []
    taken = overlapped(range(9), read.append, lambda item, _: item, lambda *_: None)
    next(taken)  # item 0 is written, 1 is computed, 2 may be on its way
    assert len(read) <= 3
    taken.close()


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_a_fault_stays_with_its_item(stage):
    def faulty(name):
        def run(item, *values):
            if name == stage and item == 1:
                raise DataError(f"{name} of {item}")
            return item

        return run

    results = list(overlapped(range(3), *(faulty(name) for name in ("read", "compute", "write"))))
    assert [item for item, _ in results] == [0, 1, 2]
    assert [str(error) for _, error in results] == ["None", f"{stage} of 1", "None"]


def test_other_errors_end_it():
    def broken(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(overlapped(range(3), lambda item: item, broken, lambda *_: None))
    assert list(overlapped([], broken, broken, broken)) == []
