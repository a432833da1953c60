"""Test a detector, as the original did:

python tools/test.py configs/faster_rcnn_r50_fpn_1x.py CHECKPOINT --eval bbox --width_mult 0.5
"""

from slimdet.original.commands import EVALUATIONS, Parser, main, run_test
from slimdet.original.launch import LAUNCHERS

parser = Parser(description="Run a detector over its config's data.test, at one or several widths.")
parser.add_argument("config", help="one of configs/, or a file like them")
parser.add_argument("checkpoint", help="weights of the original, .pth")
parser.add_argument("--width_mult", nargs="+", default=["1.0"], metavar="W", help="0.25, 0.5, 0.75, 1.0, or all")
parser.add_argument("--eval", nargs="+", choices=EVALUATIONS, default=[], help="what to evaluate")
parser.add_argument("--out", metavar="X.pkl", help="write results to X.pkl and X.pkl.json")
parser.add_argument("--show", action="store_true", help="write pictures with what was found into runs/show-N")
parser.add_argument("--gpus", type=int, default=1, metavar="N", help="accelerators, one process for each")
parser.add_argument("--proc_per_gpu", type=int, default=1, metavar="N", help="processes for each accelerator")
parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="who started this and its sister processes")
parser.add_argument("--local_rank", "--local-rank", type=int, metavar="N", help="set by older launchers")
parser.add_argument("--lenient", action="store_true", help="load a checkpoint that does not fit as far as it does")

if __name__ == "__main__":
    main(parser, run_test)
