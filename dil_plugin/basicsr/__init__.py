"""The BasicSR wing: importing it adapts BasicSR to today's torch and registers architectures, data sets and models.

Import it at module level of the training script (data workers started by ``spawn`` import that module again)::

    import dil_plugin.basicsr
    from basicsr.train import train_pipeline
"""

from dil_plugin.basicsr import compat

compat.adapt_imports()  # before anything imports basicsr

from dil_plugin.basicsr import archs, data, models  # noqa: E402

compat.adapt_basicsr()

__all__ = ['archs', 'data', 'models']
