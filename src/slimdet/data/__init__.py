"""Data sets: their annotation rules and checks, COCO as tensors, YOLO and VOC, loading, augmentation."""
