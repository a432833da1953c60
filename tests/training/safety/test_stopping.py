"""The flag that signals set."""

import os
import signal
import threading

import pytest

from slimdet.training.safety.stopping import StopFlag, Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_set_the_flag_while_it_is_entered(number: int) -> None:
    before = signal.getsignal(number)
    with StopFlag() as flag:
        assert flag.signal is None
        os.kill(os.getpid(), number)
        assert flag.signal == number
    assert signal.getsignal(number) is before
    assert StopFlag().signal is None


def test_hushed_deaths_of_children_raise_nothing_until_the_end() -> None:
    def loud(*_: object) -> None:
        raise RuntimeError("a worker died")

    before = signal.signal(signal.SIGCHLD, loud)
    try:
        with StopFlag() as flag:
            flag.hush()
            flag.hush()
            os.kill(os.getpid(), signal.SIGCHLD)
        assert signal.getsignal(signal.SIGCHLD) is loud
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_in_another_thread_nothing_is_handled() -> None:
    seen = []

    def enter() -> None:
        with StopFlag() as flag:
            flag.hush()
            seen.append(flag.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]


def test_stopped_is_an_interrupt_with_its_signal() -> None:
    assert issubclass(Stopped, KeyboardInterrupt)
    assert (Stopped(15).signal, str(Stopped(15))) == (15, "SIGTERM")
