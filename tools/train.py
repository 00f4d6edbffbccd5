"""BasicSR's train.py with the plugin registered: ``python tools/train.py -opt options/train/….yml``."""

import os
import sys

ROOT = os.path.abspath(os.path.join(__file__, os.pardir, os.pardir))
sys.path.insert(0, ROOT)

import dil_plugin.basicsr  # noqa: E402, F401  (at module level: spawned data workers need it too)
from dil_plugin.basicsr.launch import run  # noqa: E402

if __name__ == '__main__':
    from basicsr.train import train_pipeline
    run(train_pipeline, ROOT)
