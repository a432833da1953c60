"""Callbacks whose errors end no training."""

from typing import Any

import pytest

from slimdet.training.watching.callbacks import Callback, Guarded


class Broken(Callback):
    calls = 0

    def on_step(self, state: Any, report: Any) -> None:
        self.calls += 1
        raise OSError(28, "No space left on device")

    def on_end(self, state: Any, model: Any) -> None:
        raise KeyboardInterrupt


def test_the_first_error_is_told_and_none_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    guarded: Any = Guarded(broken)
    for _ in range(3):
        guarded.on_start(None)
        guarded.on_step(None, None)
        guarded.on_epoch(None)
        guarded.on_checkpoint(None, None)
    assert broken.calls == 3  # there may be room again
    assert len(caplog.records) == 1
    assert "Broken does not work, training goes on without it: [Errno 28] No space left" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        guarded.on_end(None, None)
