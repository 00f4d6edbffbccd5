"""Trained networks, built from what their checkpoints say about them."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from dil_plugin.checkpoints import NetworkNotes, load_checkpoint, read_notes, select_parameters, selection_in_words
from dil_plugin.errors import DataError, OptionError
from dil_plugin.learning.objective import OUTPUTS, select_outputs
from dil_plugin.networks.size_needs import SizeNeeds, input_channels, size_needs
from dil_plugin.options import nearest
from dil_plugin.yaml_files import read_yaml


class RestorationNetwork:
    """``f_theta`` for inference: any input size in, an image of ``scale`` times that size out.

    Attributes:
        name: The architecture.
        options: Its ``network_g`` block.
        scale: Output size divided by input size.
        channels: Of the input, 3 or 1.
        module: The network, in evaluation mode.
        notes: What the checkpoint says about its training; None where it says nothing.
        param_key: Which of the checkpoint's parameters these are.
        selection: The same in words, for the user.
        window_size: What the training's ``val.window_size`` says of the sides that the network takes, or None.
    """

    def __init__(self,
                 module: nn.Module,
                 options: Mapping[str, Any],
                 scale: int = 1,
                 outputs: str = 'all',
                 notes: NetworkNotes | None = None,
                 param_key: str = 'params',
                 window_size: int | None = None,
                 selection: str = '') -> None:
        self.module = module.eval().requires_grad_(False)
        self.name = str(options.get('type', type(module).__name__))
        self.options = dict(options)
        self.scale = scale
        self.channels = input_channels(options)
        self.outputs = outputs
        self.notes = notes
        self.param_key = param_key
        self.window_size = window_size
        self.selection = selection

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    @cached_property
    def needs(self) -> SizeNeeds:
        """What sizes it takes; where its options do not say that, it is tried on a few small images."""
        return size_needs(self.module, self.options, self.window_size, self.channels, self.outputs)

    @property
    def multiple(self) -> int:
        """Input sides are padded to multiples of this (windows of SwinIR, un-shuffling of RRDBNet)."""
        return self.needs.multiple_of

    @property
    def parameters(self) -> int:
        """How many parameters there are."""
        return sum(p.numel() for p in self.module.parameters())

    @torch.no_grad()
    def __call__(self, batch: Tensor) -> Tensor:
        """Restores a batch, which stays as it is: the network gets a copy.

        An image of a size that the network does not take is padded by reflection, below and on the right, and the
        result cropped, as BasicSR's SwinIRModel does it; ``DILModel`` validates in the same way.

        Args:
            batch: ``(B, channels, H, W)`` float32 in [0, 1], RGB, on the network's device.

        Returns:
            ``(B, channels, scale * H, scale * W)``, not clamped.

        Raises:
            OptionError: The network returns another size than ``scale`` says, or fails on the input.
        """
        if batch.shape[1] != self.channels:
            raise OptionError(f'{self.name}: takes images of {self.channels} channels, got {batch.shape[1]}')
        height, width = batch.shape[-2:]
        returned = self.module(self.needs.pad(batch))
        try:
            output = select_outputs(returned, self.outputs)[-1]
        except (ValueError, TypeError) as error:
            raise OptionError(f'{self.name}: {error}') from None
        padded = (self.needs.padded(height), self.needs.padded(width))
        expected = (padded[0] * self.scale, padded[1] * self.scale)
        if output.shape[-2:] != expected:
            raise OptionError(f'{self.name}: returns {tuple(output.shape[-2:])} for an input of {padded}, which is not '
                              f'its scale {self.scale}; the scale of the checkpoint or of --opt is wrong')
        return self.needs.crop(output, height, width).float()


def load_network(checkpoint: Path,
                 options: Path | None = None,
                 param_key: str | None = None,
                 device: str | torch.device = 'cpu') -> RestorationNetwork:
    """The network of a checkpoint.

    Args:
        checkpoint: A file of ``DILModel``, which says what network it is of, or any other of BasicSR's form.
        options: A BasicSR YAML whose ``network_g`` and ``scale`` serve where the checkpoint says nothing.
        param_key: See ``select_parameters``.
        device: Where the network goes.

    Raises:
        OptionError: It is not known what network the checkpoint is of, or there is no such architecture.
        DataError: A file cannot be read, or the parameters are of another network.
    """
    content = load_checkpoint(checkpoint, 'checkpoint')
    notes = read_notes(content, checkpoint)
    key, state = select_parameters(content, checkpoint, param_key)
    if notes is None and options is None:
        raise OptionError(f'{checkpoint}: does not say what network it is of (it was not saved by DILModel); give '
                          '--opt FILE, the YAML that it was trained with')
    given = _options_of(notes, options)
    module = build_module(given.network_g, f'{checkpoint}' if options is None or notes else f'{options}',
                          given.custom_imports)
    if differences := _differences(module.state_dict(), state):
        raise DataError(f'{checkpoint}: its parameters are not those of {given.network_g.get("type")} with the options '
                        f'{ {k: v for k, v in given.network_g.items() if k != "type"} }: {differences}')
    module.load_state_dict(state, strict=True)
    return RestorationNetwork(module.to(device), given.network_g, given.scale, given.outputs, notes, key,
                              given.window_size, selection_in_words(key, content))


def _differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """In which parameters two networks differ, the first of each kind; empty where they do not."""
    shapes = [f'{name} has shape {tuple(found[name].shape)}, expected {tuple(wanted[name].shape)}'
              for name in wanted if name in found and found[name].shape != wanted[name].shape]
    kinds = (('missing', [name for name in wanted if name not in found]),
             ('not expected', [name for name in found if name not in wanted]), ('of another shape', shapes))
    return '; '.join(f'{len(names)} {what} (as {names[0]})' for what, names in kinds if names)


def build_module(network_g: Mapping[str, Any], source: str, custom_imports: list[str] | None = None) -> nn.Module:
    """An architecture of BasicSR's registry, or of ours, with random parameters.

    Args:
        network_g: The block of a YAML.
        source: The file it is from, for messages.
        custom_imports: What the training imported; named where the architecture is unknown, never imported from here.

    Raises:
        OptionError: There is none of that name, or it does not take these options.
    """
    import dil_plugin.basicsr  # noqa: F401
    # isort: split
    from basicsr.archs import build_network
    from basicsr.utils.registry import ARCH_REGISTRY

    name = network_g.get('type')
    if name not in ARCH_REGISTRY and f'{name}_basicsr' not in ARCH_REGISTRY:
        near = nearest(str(name), [key.removesuffix('_basicsr') for key, _ in ARCH_REGISTRY])
        modules = f' ({", ".join(custom_imports)} in its training)' if custom_imports else ''
        raise OptionError(f"{source}: unknown architecture '{name}'; {near}give --opt FILE, a YAML whose "
                          f'custom_imports lists the module that registers it{modules}')
    try:
        module: nn.Module = build_network(dict(network_g))
    except Exception as error:  # architectures raise many kinds for values that do not fit each other
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise OptionError(f'{source}: network_g: {name} cannot be built: {reason}') from None
    return module


def _options_of(notes: NetworkNotes | None, options: Path | None) -> NetworkNotes:
    """The notes, completed by a YAML: its custom modules are imported, and its network serves where there are none."""
    raw = _read_options(options) if options is not None else {}
    if raw.get('custom_imports'):
        from dil_plugin.basicsr.yaml_options.reading import import_modules
        import_modules(raw)
    window_size = _window_size(raw, options)
    if notes is not None:
        return msgspec.structs.replace(notes, window_size=window_size) if window_size else notes
    if not isinstance(raw.get('network_g'), Mapping):
        raise OptionError(f'--opt: {options} has no network_g block')
    scale = raw.get('scale', 1)
    if not isinstance(scale, int) or scale < 1:
        raise OptionError(f'--opt: {options}: scale: expected an integer >= 1, got {scale!r}')
    return NetworkNotes(network_g=dict(raw['network_g']), scale=scale, outputs=_outputs(raw, options),
                        window_size=window_size)


def _outputs(raw: Mapping[str, Any], options: Path | None) -> str:
    """The option ``train.dil.outputs``, where there is such a block."""
    train = raw.get('train') or {}
    dil = (train.get('dil') if isinstance(train, Mapping) else None) or {}
    outputs = dil.get('outputs', 'all') if isinstance(dil, Mapping) else None
    if outputs not in OUTPUTS:
        raise OptionError(f'--opt: {options}: train.dil.outputs: got {outputs!r}; allowed: {", ".join(OUTPUTS)}')
    return str(outputs)


def _window_size(raw: Mapping[str, Any], options: Path | None) -> int | None:
    """The option ``val.window_size``, where there is such a block."""
    val = raw.get('val')
    size = val.get('window_size') if isinstance(val, Mapping) else None
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise OptionError(f'--opt: {options}: val.window_size: expected an integer >= 1, got {size!r}')
    return size


def _read_options(path: Path) -> dict[str, Any]:
    raw = read_yaml(path, '--opt')
    if not isinstance(raw, dict):
        raise OptionError(f'--opt: {path} is not a BasicSR options file')
    return raw
