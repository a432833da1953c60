"""Errors a user can cause. Each message is one line: what was wrong, its value, the way out."""


class SlimdetError(ValueError):
    """Base of every error that a user's input can cause; the command line turns it into exit code 2."""


class WidthError(SlimdetError):
    """A width that is malformed, unknown, or that does not fit the detector."""


class UnknownLayerError(SlimdetError):
    """A layer or bare parameter that slimdet does not know how to narrow."""


class SharingError(SlimdetError):
    """An operation that would break the sharing of weights between widths."""


class BundleError(SlimdetError):
    """A bundle that is missing, truncated, altered or not one of ours."""


class WeightsError(SlimdetError):
    """Pretrained weights that cannot be had or that do not fit."""


class DataError(SlimdetError):
    """A data set that is malformed or does not belong to the model."""


class ImageError(SlimdetError):
    """An image that cannot be decoded safely."""


class ConfigError(SlimdetError):
    """A configuration file or option that is not understood."""
