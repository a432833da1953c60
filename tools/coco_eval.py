"""Evaluate a result file, as the original did:

python tools/coco_eval.py RESULT --ann data/coco/annotations/instances_val2017.json --types bbox segm
"""

from slimdet.original.commands import EVALUATIONS, Parser, coco_eval, main

parser = Parser(description="COCO numbers of a result file.")
parser.add_argument("result", help="what tools/test.py --out wrote: X.pkl or X.pkl.json")
parser.add_argument("--ann", required=True, help="the annotations, COCO JSON")
parser.add_argument("--types", nargs="+", choices=(*EVALUATIONS, "keypoint"), default=["bbox"])
parser.add_argument("--max-dets", type=int, nargs="+", default=[100, 300, 1000], metavar="N", help="for proposal_fast")

if __name__ == "__main__":
    main(parser, coco_eval)
