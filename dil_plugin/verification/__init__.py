"""Recomputes golden vectors through the plugin's own variants, on the user's machine.

``vectors/`` holds the packaged ones: ``released_sf.npz``, five meta-steps of the authors' released training, and
``variants.npz``, the four meta-gradients by brute force in float64.
"""

from dil_plugin.verification.golden import TOLERANCES, Check, verify_folder

__all__ = ['TOLERANCES', 'Check', 'verify_folder']
