"""Checks a training before it is queued, without leaving anything behind: ``python tools/check.py -opt FILE``.

Options, data, network, a training step at its full size, and what all of it takes of memory, time and disk.
"""

import os
import sys

ROOT = os.path.abspath(os.path.join(__file__, os.pardir, os.pardir))
sys.path.insert(0, ROOT)

import dil_plugin.basicsr  # noqa: E402, F401  (at module level: spawned data workers need it too)
from dil_plugin.basicsr.launch import end_unexpectedly  # noqa: E402
from dil_plugin.errors import DILError  # noqa: E402
from dil_plugin.launch import errors_in_one_line  # noqa: E402

if __name__ == '__main__':
    from dil_plugin.basicsr.checks.checking_tool import check
    with errors_in_one_line():
        try:
            for line in check(ROOT):
                print(line, flush=True)
        except DILError:
            raise
        except Exception as error:
            end_unexpectedly(error)
        print('all is fine')
