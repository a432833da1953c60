"""Accuracy: checked ground truth, matching, COCO's numbers of a model's widths."""
