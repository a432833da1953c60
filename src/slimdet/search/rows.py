"""What a search or a benchmark has measured so far, on disk: one that is killed goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slimdet.errors import ConfigError
from slimdet.files import atomic_write

IDENTITY = "identity"


class Rows:
    """Measurements by name, each a JSON file in a folder.

    Args:
        folder: new and empty, or that of a run which was stopped.
        identity: by what the run is known; everything that its measurements depend on.

    Raises:
        ConfigError: the folder is of another run; it names what differs.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        self._folder = folder
        mine = json.loads(json.dumps(identity))
        was = self.kept(IDENTITY, lambda: mine)
        if differing := [name for name in mine if was.get(name) != mine[name]]:
            name = differing[0]
            raise ConfigError(
                f"{folder}: it is of {name} {was.get(name)!r:.80}, not {mine[name]!r:.80}; start a new one"
            )

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """The measurement of that name; made and written where there is none yet."""
        file = self._folder / f"{name}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        value = make()
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")
        return value
