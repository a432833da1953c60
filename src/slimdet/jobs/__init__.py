"""Bulk detection: millions of images on many processes and machines, by Ray Data, to be resumed at any time."""

from slimdet.jobs.detection import Job, detect
from slimdet.jobs.settings import JobSettings

__all__ = ["Job", "JobSettings", "detect"]
