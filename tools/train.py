"""Train a detector, as the original did:

python tools/train.py configs/faster_rcnn_r50_fpn_1x.py --validate
python -m torch.distributed.launch --nproc_per_node=8 tools/train.py configs/mask_rcnn_r50_fpn_1x.py --launcher pytorch
"""

from slimdet.original.commands import Parser, main
from slimdet.original.launch import LAUNCHERS
from slimdet.original.training.command import train

parser = Parser(description="Train a config's detector at all widths; work_dir/latest.pth is gone on with.")
parser.add_argument("config", help="one of configs/, or a file like them")
parser.add_argument("--work_dir", metavar="DIR", help="where checkpoints and logs go (default: the config's)")
parser.add_argument("--validate", action="store_true", help="after each epoch, measure every width on data.val")
parser.add_argument("--gpus", type=int, default=1, metavar="N", help="accelerators, one process for each")
parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything drawn at random")
parser.add_argument("--launcher", choices=LAUNCHERS, default="none", help="who started this and its sister processes")
parser.add_argument("--local_rank", "--local-rank", type=int, metavar="N", help="set by older launchers")

if __name__ == "__main__":
    main(parser, train)
