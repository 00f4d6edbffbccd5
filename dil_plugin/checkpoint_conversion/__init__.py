"""Checkpoints of BasicSR become checkpoints of mmagic and the other way round; needs neither of the two."""

from dil_plugin.checkpoint_conversion.architectures import ARCHITECTURES, Architecture
from dil_plugin.checkpoint_conversion.converting import Conversion, convert, convert_file
from dil_plugin.checkpoint_conversion.wording import describe

__all__ = ['ARCHITECTURES', 'Architecture', 'Conversion', 'convert', 'convert_file', 'describe']
