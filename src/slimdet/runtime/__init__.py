"""Running detectors without torch: `slimdet.Runtime`, its results, and the engines behind it."""
