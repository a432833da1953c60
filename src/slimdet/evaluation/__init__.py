"""Accuracy: checked ground truth, matching, COCO's numbers of a model's widths."""

from slimdet.evaluation.matching import evaluate

__all__ = ["evaluate"]
