"""Tensors to COCO results, a pass over a data set, and whether its classes are the model's."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from slimdet.data.annotations import rle_functions
from slimdet.errors import DataError
from slimdet.evaluation.inference import check_classes, detect, to_coco


def output(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([[1.0, 2.0, 11.0, 8.0], [0.0, 0.0, 5.5, 4.25]]),
        "labels": torch.tensor([2, 1]),
        "scores": torch.tensor([0.75, 0.5]),
    } | changes


class TestToCoco:
    def test_boxes_labels_and_scores(self) -> None:
        assert to_coco(output(), 7, (30, 40)) == [
            {"image_id": 7, "category_id": 40, "bbox": [1.0, 2.0, 10.0, 6.0], "score": 0.75},
            {"image_id": 7, "category_id": 30, "bbox": [0.0, 0.0, 5.5, 4.25], "score": 0.5},
        ]

    def test_masks_are_cut_at_one_half(self) -> None:
        soft = torch.zeros(2, 1, 6, 9)
        soft[0, 0, 2:5, 3:7] = 0.51
        soft[0, 0, 0] = 0.5
        found = to_coco(output(masks=soft), 7, (30, 40))
        np.testing.assert_array_equal(rle_functions().decode(found[0]["segmentation"]), soft[0, 0].numpy() > 0.5)
        assert rle_functions().area(found[1]["segmentation"]) == 0
        assert json.loads(json.dumps(found)) == found

    def test_the_tensors_are_left_alone(self) -> None:
        given = output(boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2, dtype=torch.float64))
        to_coco(given, 7, (30, 40))
        assert given["boxes"].tolist() == [[1, 2, 3, 4]] * 2

    def test_nothing_found(self) -> None:
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
        assert to_coco(nothing | {"masks": torch.zeros(0, 1, 5, 5)}, 7, (30,)) == []

    @pytest.mark.parametrize("key", ["boxes", "scores"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_refused(self, key: str, value: float) -> None:
        given = output()
        given[key].view(-1)[0] = value
        with pytest.raises(DataError, match="image 7: the detector gave a box or score that is not finite"):
            to_coco(given, 7, (30, 40))

    @pytest.mark.parametrize("label", [0, 3, -1])
    def test_labels_outside_the_classes_are_refused(self, label: int) -> None:
        with pytest.raises(DataError, match=f"image 7: label {label} is not in 1..2"):
            to_coco(output(labels=torch.tensor([1, label])), 7, (30, 40))


@dataclass
class Pictures:
    """Images whose pixels all hold their index / 100."""

    count: int = 5
    classes: tuple[str, ...] = ("cat", "dog")
    category_ids: tuple[int, ...] = (30, 40)
    used_categories: frozenset[int] = frozenset({30, 40})

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict]:
        return torch.full((3, 4 + index, 6), index / 100), {"image_id": 100 + index}


def score_is_pixel(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    return [
        {"boxes": torch.ones(1, 4), "labels": torch.ones(1, dtype=torch.int64), "scores": image[0, 0, :1]}
        for image in images
    ]


class TestDetect:
    @pytest.mark.parametrize("batch", [1, 2, 8])
    def test_every_image_once_and_in_order(self, batch: int) -> None:
        sizes, done = [], []

        def call(images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            sizes.append(len(images))
            assert not torch.is_grad_enabled()
            return score_is_pixel(images)

        found = detect(call, Pictures(), batch=batch, progress=lambda *how_far: done.append(how_far))
        assert [item["image_id"] for item in found] == [100, 101, 102, 103, 104]
        assert [item["score"] for item in found] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
        assert sum(sizes) == 5
        assert [count for count, total in done] == [min(batch * (n + 1), 5) for n in range(len(sizes))]
        assert {total for count, total in done} == {5}
        assert max(sizes) == min(batch, 5)

    def test_an_empty_data_set(self) -> None:
        assert len(detect(score_is_pixel, Pictures(count=0))) == 0

    def test_the_models_order_of_classes(self) -> None:
        assert {item["category_id"] for item in detect(score_is_pixel, Pictures())} == {30}
        assert {item["category_id"] for item in detect(score_is_pixel, Pictures(), category_ids=(40, 30))} == {40}

    def test_a_pass_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        detect(score_is_pixel, Pictures())
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_unusable_detector_is_named_by_its_image(self) -> None:
        with pytest.raises(DataError, match="image 100"):
            detect(lambda images: score_is_pixel([image / 0 for image in images]), Pictures())


class TestCheckClasses:
    def test_same_classes_give_the_category_ids(self) -> None:
        assert check_classes(["cat", "dog"], Pictures()) == (30, 40)

    def test_another_order_is_told_by_name(self) -> None:
        assert check_classes(["dog", "cat"], Pictures()) == (40, 30)

    def test_both_sides_differences_are_named(self) -> None:
        with pytest.raises(DataError, match="only the model has cow, hen; only the data set has dog;"):
            check_classes(["cat", "cow", "hen"], Pictures())

    def test_a_data_set_may_list_fewer_classes(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("WARNING", "slimdet"):
            assert check_classes(["hen", "dog", "cat"], Pictures()) == (None, 40, 30)
        assert "does not list hen" in caplog.text
        assert {one["category_id"] for one in detect(score_is_pixel, Pictures(), category_ids=(30, None))} == {30}
        assert list(detect(score_is_pixel, Pictures(), category_ids=(None, 40))) == []

    def test_a_data_set_may_list_more_that_nothing_is_annotated_with(self) -> None:
        assert check_classes(["dog"], Pictures(used_categories=frozenset({40}))) == (40,)

    def test_a_data_set_of_other_classes_is_refused(self) -> None:
        with pytest.raises(DataError, match="only the model has hen; only the data set has none"):
            check_classes(["hen"], Pictures(used_categories=frozenset()))

    def test_a_subset_is_not_the_same(self) -> None:
        with pytest.raises(DataError, match="only the model has none; only the data set has dog;"):
            check_classes(["cat"], Pictures())

    def test_long_lists_are_cut(self) -> None:
        with pytest.raises(DataError, match="and 72 more; only the data set has cat, dog;"):
            check_classes([f"class{number}" for number in range(80)], Pictures())
