"""mmagic's train.py with the plugin registered: ``python tools/train_mmagic.py options/mmagic/….py``."""

import os
import sys

sys.path.insert(0, os.path.abspath(os.path.join(__file__, os.pardir, os.pardir)))

import dil_plugin.mmagic  # noqa: F401  (at module level: spawned data workers need it too)
from dil_plugin.launch import errors_in_one_line
from dil_plugin.mmagic.launch import train

if __name__ == '__main__':
    with errors_in_one_line('interrupted; a training goes on with --resume'):
        train()
