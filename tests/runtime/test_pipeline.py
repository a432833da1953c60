"""Work ahead: in order, in bounds, and nothing left behind."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from slimdet.runtime.pipeline import in_order


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("slimdet")}


def test_order_is_kept_and_what_is_raised_stays_in_its_place() -> None:
    turn = threading.Event()

    def tenth(number: int) -> float:
        if number == 0:
            assert turn.wait(10)  # the first is done last
        if number == 2:
            turn.set()
            raise ValueError("two")
        return number / 10

    done = list(in_order(tenth, range(5), ahead=4))
    assert [one.result() for one in (*done[:2], *done[3:])] == [0, 0.1, 0.3, 0.4]
    with pytest.raises(ValueError, match="two"):
        done[2].result()
    assert not threads()


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_no_more_is_taken_than_was_said(ahead: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with closing(in_order(str, items(), ahead)) as done:
        for number in range(10):
            assert next(done).result() == str(number)
            assert len(taken) == min(10, number + 1 + ahead)


def test_without_anything_ahead_nothing_runs_in_a_thread() -> None:
    names = [one.result() for one in in_order(lambda _: threading.current_thread().name, range(3), 0)]
    assert set(names) == {threading.current_thread().name}


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_who_stops_early_leaves_no_thread_and_what_was_not_begun_is_not_done(stop: type[BaseException]) -> None:
    begun = []
    with pytest.raises(stop), closing(in_order(begun.append, range(1000), ahead=5)) as done:  # noqa: PT012
        next(done)
        raise stop
    assert not threads()
    assert len(begun) <= 7


def test_a_source_that_fails_gives_what_it_gave_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(in_order(str, items(), 0))
    with pytest.raises(OSError, match="gone"):
        list(in_order(str, items(), 3))
    assert not threads()
