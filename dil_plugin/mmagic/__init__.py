"""The mmagic wing: importing it registers ``DILEditModel`` and ``CounterfactualDistortions`` with mmagic.

In a config::

    custom_imports = dict(imports=['dil_plugin.mmagic'], allow_failed_imports=False)

A training of a ``DILEditModel`` gets a hook that looks at the run before its first iteration (``run_hook``). Beside
that the import cures what stops mmagic on today's torch and numpy (``compat``), each only where it is needed.
"""

from dil_plugin.mmagic import compat

compat.adapt_imports()  # before anything imports mmagic

from dil_plugin.mmagic import models, run_hook, transforms, wrapper  # noqa: E402

compat.join_every_run(run_hook.RunHook)

__all__ = ['models', 'run_hook', 'transforms', 'wrapper']
