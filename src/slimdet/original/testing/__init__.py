"""The original's testing: detections of a data set, in several processes, and COCO's numbers of them."""
