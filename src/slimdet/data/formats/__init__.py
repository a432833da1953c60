"""How data sets are stored: COCO instances as columns of numbers, YOLO, Pascal VOC; conversion to COCO."""
