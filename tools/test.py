"""BasicSR's test.py with the plugin registered: ``python tools/test.py -opt options/test/….yml``."""

import os
import sys

ROOT = os.path.abspath(os.path.join(__file__, os.pardir, os.pardir))
sys.path.insert(0, ROOT)

import dil_plugin.basicsr  # noqa: E402, F401  (at module level: spawned data workers need it too)
from dil_plugin.basicsr.launch import run  # noqa: E402

if __name__ == '__main__':
    from basicsr.test import test_pipeline
    run(test_pipeline, ROOT)
