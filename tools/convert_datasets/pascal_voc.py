"""Convert Pascal VOC annotations, as the original did:

python tools/convert_datasets/pascal_voc.py data/VOCdevkit -o data/voc
"""

from slimdet.original.commands import Parser, main
from slimdet.original.data.voc import convert

parser = Parser(description="Pascal VOC annotations as the original's image lists (pickle) and as COCO JSON.")
parser.add_argument("devkit", help="the folder that holds VOC2007, VOC2012 or both")
parser.add_argument("-o", "--out-dir", metavar="OUT", help="where to write (default: the same folder)")

if __name__ == "__main__":
    main(parser, convert)
