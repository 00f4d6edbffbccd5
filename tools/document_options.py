"""Writes docs/options.md, the reference of all options, from the types that check them; --check only compares."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

DOCUMENT = ROOT / 'docs/options.md'


def main() -> int:
    """Writes or compares; returns 1 where ``--check`` found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; exit with 1 if the document is another')
    options = parser.parse_args()
    import dil_plugin.basicsr  # noqa: F401

    # isort: split
    from dil_plugin.atomic import whole_file
    from dil_plugin.basicsr.yaml_options.reference import render
    text = render()
    if options.check:
        if DOCUMENT.is_file() and DOCUMENT.read_text(encoding='utf-8') == text:
            return 0
        print(f'{DOCUMENT}: differs from the types; run python tools/document_options.py', file=sys.stderr)
        return 1
    with whole_file(DOCUMENT) as file:
        file.write(text.encode())
    return 0


if __name__ == '__main__':
    sys.exit(main())
