"""Models and generators."""

from dil_plugin.mmagic.models.dil_edit_model import DILEditModel
from dil_plugin.mmagic.models.rrdb_no_upsample import RRDBNetNoUpsample

__all__ = ['DILEditModel', 'RRDBNetNoUpsample']
