"""The widths of a bundle, each ready to run on its engine: loaded once, when it is first asked for."""

import logging
import threading
from dataclasses import replace
from importlib.util import find_spec

from slimdet.bundle.ladder import Precision
from slimdet.bundle.manifest import Manifest
from slimdet.runtime.choice import settled
from slimdet.runtime.engine import Engine, EngineSettings, Session, make

logger = logging.getLogger("slimdet")


class Sessions:
    """The engine of a bundle, and what each width runs on.

    Several threads may ask at once: a width that is loading keeps only those waiting that ask for it.

    Attributes:
        engine: what runs the widths.
        options: its settings, with nothing left to "auto" but the device.

    Raises:
        BundleError: the bundle has no files for the engine.
        ConfigError: the engine or device is not to be had here.
    """

    def __init__(self, bundle: Manifest, options: EngineSettings) -> None:
        self.bundle = bundle
        self.options = settled(options, bundle)
        self.engine: Engine = make(self.options.engine, bundle, self.options)
        self._free = options.engine == "auto"  # to run other widths with a second one
        self._second: Engine | None = None  # for widths that the first has no files of
        self._ready: dict[tuple[float, Precision | None], Session] = {}
        self._loading: dict[float, threading.Lock] = {}

    def get(self, width: float, precision: Precision | None = None) -> Session:
        """The session of one of the bundle's widths; without a precision in the best that was measured for it.

        Raises:
            BundleError: its files are damaged or missing.
            ConfigError: the engine does not have the precision.
        """
        ready = self._ready.get((width, precision))
        if ready is None:
            engine = self._engine_of(width)
            named = precision or engine.precision(width)
            with self._loading.setdefault(width, threading.Lock()):  # the others run on meanwhile
                ready = self._ready.get((width, named)) or engine.load(width, named)
                self._ready[width, precision] = self._ready[width, named] = ready
        return ready

    def _engine_of(self, width: float) -> Engine:
        """What runs a width: of a bundle exported in part, torch runs the rest where nobody chose an engine."""
        exported = self.engine.name != "onnxruntime" or width in self.bundle.engines("onnx")
        if exported or not self._free or not find_spec("torch"):
            return self.engine
        if self._second is None:
            logger.warning(
                "%s was not exported at width %s, which torch runs, slower: export it with 'slimdet export --model %s'",
                *(self.bundle.name, width, self.bundle.name),
            )
            self._second = make("torch", self.bundle, replace(self.options, engine="torch"))
        return self._second
