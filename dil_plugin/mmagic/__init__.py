"""The mmagic wing: importing it registers ``DILEditModel`` and ``CounterfactualDistortions`` with mmagic.

In a config::

    custom_imports = dict(imports=['dil_plugin.mmagic'], allow_failed_imports=False)

Beside that it cures what stops mmagic on today's torch and numpy (``compat``), each only where it is needed.
"""

from dil_plugin.mmagic import compat

compat.adapt_imports()  # before anything imports mmagic

from dil_plugin.mmagic import models, transforms, wrapper  # noqa: E402

__all__ = ['models', 'transforms', 'wrapper']
