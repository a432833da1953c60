"""When requests arrive: seconds from the start, drawn from a seed or read from a trace. Pure."""

import csv
import math
import random
from collections.abc import Callable, Iterable

Rate = Callable[[float], float]  # requests a second at a time


def poisson(rate: Rate | float, seconds: float, seed: int) -> list[float]:
    """Arrivals that know nothing of one another, at a rate that may change (thinning: Lewis and Shedler, 1979)."""
    at: Rate = rate if callable(rate) else lambda now: rate
    highest = max(at(seconds * step / 1000) for step in range(1001))
    draw, now, arrivals = random.Random(seed), 0.0, []
    while (now := now + draw.expovariate(highest)) < seconds:
        if draw.random() * highest <= at(now):
            arrivals.append(now)
    return arrivals


def gamma(rate: float, cv2: float, seconds: float, seed: int) -> list[float]:
    """Arrivals in bursts: the times between them have this squared coefficient of variation; 1 is Poisson's."""
    draw, now, arrivals = random.Random(seed), 0.0, []
    while (now := now + draw.gammavariate(1 / cv2, cv2 / rate)) < seconds:
        arrivals.append(now)
    return arrivals


def step(low: float, high: float, seconds: float) -> Rate:
    """The middle third at the high rate."""
    return lambda now: high if seconds / 3 <= now < 2 * seconds / 3 else low


def ramp(low: float, high: float, seconds: float) -> Rate:
    """From the low rate to the high one and back, evenly."""
    return lambda now: low + (high - low) * (1 - abs(2 * now / seconds - 1))


def flash_crowd(low: float, high: float, seconds: float) -> Rate:
    """The high rate at a third of the time, all at once, and it dies away within about a tenth of the time."""
    begin, decay = seconds / 3, seconds / 10
    return lambda now: low if now < begin else low + (high - low) * math.exp(-(now - begin) / decay)


def azure(lines: Iterable[str], rate: float, seconds: float) -> list[float]:
    """The busiest stretch of an Azure Functions trace of 2021, as quick as to have this mean rate.

    Args:
        lines: of AzureFunctionsInvocationTraceForTwoWeeksJan2021.txt: app, func, end_timestamp, duration, in seconds.
    """
    rows = csv.DictReader(lines)
    starts = sorted(float(row["end_timestamp"]) - float(row["duration"]) for row in rows)
    count = min(len(starts), round(rate * seconds))
    if count < 2:
        return []
    first = min(range(len(starts) - count + 1), key=lambda place: starts[place + count - 1] - starts[place])
    busiest = starts[first : first + count]
    stretch = seconds / (busiest[-1] - busiest[0] or 1)
    return [stretch * (start - busiest[0]) for start in busiest]
