"""What a benchmark is asked to keep: "ap>=0.30,p90_ms<=40"."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slimdet.errors import ConfigError
from slimdet.messages import did_you_mean

ACCURACIES = ("ap", "ap50")
LATENCIES = ("p50_ms", "p90_ms", "p99_ms")
METRICS = (*ACCURACIES, *LATENCIES, "mb", "images_per_s")
_TERM = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Term:
    """A metric, one of `METRICS`, that is to be at least (">=") or at most ("<=") a bound."""

    metric: str
    sign: str
    bound: float

    def shortfall(self, value: float | None) -> float:
        """By what part of the bound a value misses it; 0 where it keeps it, infinite where nothing was measured."""
        if value is None:
            return math.inf
        missing = self.bound - value if self.sign == ">=" else value - self.bound
        return max(0.0, missing / (self.bound or 1))


@dataclass(frozen=True)
class Contract:
    """Terms that one row of a benchmark is to keep, all of them."""

    text: str
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, text: str) -> "Contract":
        """The contract that is written as "ap>=0.30,p90_ms<=40".

        Raises:
            ConfigError: it is malformed, or has a metric that is none of `METRICS`.
        """
        return cls(text, tuple(_term(part, text) for part in text.split(",")))

    @property
    def metrics(self) -> set[str]:
        """Those that it has terms of."""
        return {term.metric for term in self.terms}

    def shortfall(self, row: Mapping[str, Any]) -> float:
        """By what part of a bound a row misses the term that it misses most; 0 where it keeps them all.

        Latencies of an overloaded server keep nothing: they grow with the number of images.
        """
        nothing = LATENCIES if row["overloaded"] else ()
        return max(term.shortfall(None if term.metric in nothing else row[term.metric]) for term in self.terms)

    def values(self, row: Mapping[str, Any]) -> str:
        """What a row has of the contract's metrics, as "ap 0.284, p90_ms 41.2"."""
        values = ((term.metric, row[term.metric]) for term in self.terms)
        return ", ".join(f"{name} {'-' if value is None else f'{value:.3g}'}" for name, value in values)


def _term(part: str, text: str) -> Term:
    found = _TERM.fullmatch(part)
    try:
        metric, sign, bound = found.groups() if found else ("", "", "nan")
        number = float(bound)
    except ValueError:
        number = math.nan
    if not (found and 0 <= number < math.inf):
        raise ConfigError(f"--contract {text!r}: {part.strip()!r} is no metric >= or <= a number, as 'ap>=0.30'")
    if metric not in METRICS:
        hint = did_you_mean(metric, METRICS)
        raise ConfigError(f"--contract {text!r}: {metric} is not one of {', '.join(METRICS)}{hint}")
    if metric in ACCURACIES and number > 1:
        raise ConfigError(f"--contract {text!r}: {metric} is in 0..1; write {metric}{sign}{number / 100:g}")
    return Term(metric, sign, number)
