"""The original's data: images and annotations as its commands read them, proposals, Pascal VOC."""
