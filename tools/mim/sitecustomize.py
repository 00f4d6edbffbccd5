"""Has Python apply the plugin's cures before anything else, so that mim and mmagic's own tools work on today's torch.

Python imports a module of this name at its start, if it finds one: PYTHONPATH=tools/mim mim train mmagic CONFIG
"""

from dil_plugin.mmagic import compat

compat.adapt_imports()
