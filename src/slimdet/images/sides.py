"""The sides that a detector resizes images to, at another size than its own."""

from slimdet.errors import ConfigError

LEAST, MOST = 32, 2**15 - 1  # pixels: a pyramid needs the one, whole numbers of 31 bits in exported graphs the other


def scaled_sides(sides: tuple[int, int], imgsz: int | None) -> tuple[int, int]:
    """(shorter side, longer side's limit) in pixels, the shorter being `imgsz`; the longer keeps the ratio of `sides`.

    None is the size that `sides` are. A half is rounded up.

    Raises:
        ConfigError: `imgsz` is below 32 pixels, or the longer side's limit would be above 32767.
    """
    if imgsz is None:
        if max(sides) > MOST:
            raise ConfigError(f"the detector's own size is {sides[0]} to {sides[1]} pixels, above {MOST}; give --imgsz")
        return sides
    if imgsz < LEAST:
        raise ConfigError(f"--imgsz {imgsz} is too small; use {LEAST} or more")
    shortest, longest = sides
    limit = (2 * imgsz * longest + shortest) // (2 * shortest)
    if limit > MOST:
        raise ConfigError(f"--imgsz {imgsz} is too large: the longer side would have {limit} pixels, above {MOST}")
    return imgsz, limit
