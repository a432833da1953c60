"""Pictures without torch: decoding files safely, masks, drawing detections."""
