"""stub"""
from slimdet.seed import checkpoint
from slimdet.seed.detector import *
from slimdet.slimmable import slim
def load_model(config, path, lenient=False):
    m = slim(build(architecture_of(config)), WIDTHS, "backbone"); checkpoint.load(m, path, lenient); return m
