"""The first batches as pictures, once."""

from pathlib import Path

from PIL import Image

from scenes_detector import small_settings
from slimdet.data.coco import CocoDataset
from slimdet.training.watching.pictures import DataPictures
from watching import state_of


def test_the_first_batches_are_drawn_once(scenes: Path, tmp_path: Path) -> None:
    seen = []

    def transforms(image: object, target: object) -> tuple[object, object]:
        seen.append(image)
        return image, target

    dataset = CocoDataset(scenes.parent / "annotations.json", scenes.parent / "images", transforms)
    state = state_of(tmp_path, settings=small_settings(scenes), dataset=dataset, seen=dataset)
    DataPictures().on_start(state)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["batch-1.jpg", "batch-2.jpg"]
    assert len(seen) == 4  # two of two, augmented
    with Image.open(tmp_path / "batch-1.jpg") as picture:
        assert picture.width > 2 * picture.height
    DataPictures().on_start(state_of(tmp_path, settings=small_settings(scenes), dataset=dataset, seen=dataset, step=3))
    assert len(seen) == 4
