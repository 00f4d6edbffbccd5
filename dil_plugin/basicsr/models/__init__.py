"""Models; ``*_model.py`` files are found by scanning and register themselves with BasicSR."""

from dil_plugin.basicsr.scan import import_modules

import_modules(__name__, list(__path__), '_model')
