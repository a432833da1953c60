"""The command `slimdet`: Ctrl-C is answered from the first moment, while all else is still being imported."""

import os
import signal
from types import FrameType


def main() -> int:
    """Run `slimdet VERB ...` and return its exit code."""
    before = signal.signal(signal.SIGINT, _leave)
    from slimdet.cli.verbs import main as verbs

    signal.signal(signal.SIGINT, before)
    return verbs()


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"slimdet: interrupted\n")
    os._exit(130)
