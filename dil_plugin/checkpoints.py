"""Checkpoints in BasicSR's form, ``params`` and ``params_ema``, with a note about the network that others ignore."""

import os
import sys
from collections.abc import Mapping
from typing import IO, Annotated, Any, cast

import msgspec
import torch
from msgspec import Meta

import dil_plugin
from dil_plugin.atomic import whole_file
from dil_plugin.digest import DigestingFile, damage
from dil_plugin.errors import DataError
from dil_plugin.missing_files import no_such
from dil_plugin.options import in_words

NOTES = 'dil_plugin'
"""The key of the notes, beside ``params`` and ``params_ema``."""

_FORMAT = 1


class NetworkNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about its network; a plain dictionary in the file. Unknown entries are left alone."""

    format: Annotated[int, Meta(description='Of these notes.')] = _FORMAT
    version: Annotated[str, Meta(description='Of dil_plugin, which wrote them.')] = ''
    name: Annotated[str, Meta(description='Of the experiment.')] = ''
    network_g: Annotated[dict[str, Any], Meta(description="The YAML's block: architecture and its options.")]
    scale: Annotated[int, Meta(ge=1, description='Output size divided by input size.')] = 1
    iteration: Annotated[int | None, Meta(description='Training iterations; none: the end of training.')] = None
    outputs: Annotated[str, Meta(description='Which of several outputs is the image: all | first | last.')] = 'all'
    window_size: Annotated[Annotated[int, Meta(ge=1)] | None,
                           Meta(description='val.window_size: the sides that the network takes are multiples of it.'
                                )] = None
    dil: Annotated[dict[str, Any] | None, Meta(description='The train.dil block.')] = None
    distortions: Annotated[list[Any] | None, Meta(description='The confounders, as in the YAML.')] = None
    confounders: Annotated[list[str], Meta(description="The confounders' names.")] = []
    custom_imports: Annotated[list[str], Meta(description='Modules that the YAML imported.')] = []

    @property
    def variant(self) -> str | None:
        """``sf``, ``pf``, ``ss``, ``ps`` or ``erm``; None where it was not trained by DILModel."""
        return self.dil.get('variant') if self.dil else None


def notes_of_training(opt: Mapping[str, Any], iteration: int | None, confounders: list[str]) -> dict[str, Any]:
    """The notes of a training run, made of nothing but what pickle needs no class for.

    Restricted unpicklers (spandrel's, ``torch.load(weights_only=True)``) read them.

    Args:
        opt: The options of the run.
        iteration: Training iterations so far; None at the end of training, whose last iteration is ``total_iter``.
        confounders: Their labels.
    """
    train, val = opt.get('train') or {}, opt.get('val') or {}
    notes = NetworkNotes(
        version=dil_plugin.__version__, name=opt.get('name', ''), network_g=opt['network_g'], scale=opt.get('scale', 1),
        iteration=train.get('total_iter') if iteration is None else iteration, dil=train.get('dil'),
        outputs=(train.get('dil') or {}).get('outputs', 'all'), window_size=val.get('window_size'),
        distortions=opt.get('distortions'), confounders=confounders, custom_imports=opt.get('custom_imports') or [])
    plain: dict[str, Any] = msgspec.to_builtins(notes)
    return plain


def read_notes(content: Any, path: str | os.PathLike[str]) -> NetworkNotes | None:
    """The notes in a checkpoint, or None where there are none.

    Raises:
        DataError: They are not what this version reads.
    """
    if not isinstance(content, Mapping) or NOTES not in content:
        return None
    try:
        notes = msgspec.convert(content[NOTES], NetworkNotes)
    except msgspec.ValidationError as error:
        raise DataError(f"{path}: its notes ('{NOTES}') cannot be read: {in_words(str(error))}") from None
    if notes.format > _FORMAT:
        raise DataError(f"{path}: its notes ('{NOTES}') are of format {notes.format}, made by version {notes.version}; "
                        f'this version reads up to {_FORMAT}')
    return notes


def load_checkpoint(path: str | os.PathLike[str], key: str) -> Any:
    """``torch.load`` to the CPU, of tensors and plain containers alone; ``key`` names the option that gave the path.

    Raises:
        DataError: There is no such file, or it is truncated, changed since it was written, or no checkpoint.
    """
    if not os.path.isfile(path):
        raise DataError(f'{key}: {no_such(path)}')
    try:
        damaged = damage(path)
    except OSError as error:
        raise DataError(f'{key}: {path} cannot be read ({error.strerror})') from None
    if damaged:
        raise DataError(f'{key}: {path} cannot be read as a checkpoint; it is damaged ({damaged})')
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that it cannot read
        reason = (str(error).splitlines() or [''])[0]
        if 'Weights only load failed' in reason:  # torch's advice to load it with code follows
            reason = ('it holds other objects than tensors; one of mmagic is to be converted by '
                      'tools/convert_checkpoint.py')
        elif not reason or 'weights_only' in reason:
            reason = type(error).__name__
        raise DataError(f'{key}: {path} cannot be read as a checkpoint ({reason})') from None


def select_parameters(content: Any, path: str | os.PathLike[str], param_key: str | None) -> tuple[str, dict[str, Any]]:
    """The state dict of a checkpoint, without the ``module.`` of wrapped networks, and the key it stood under.

    Args:
        content: What the file holds.
        path: The file, for messages.
        param_key: ``params``, ``params_ema`` or another key; None: that of ``key_to_test``, else the file itself as a
            bare state dict.

    Raises:
        DataError: There is no such key, or no state dict.
    """
    if not isinstance(content, Mapping):
        raise DataError(f'{path}: expected a checkpoint with params or params_ema, got {type(content).__name__}')
    key = param_key if param_key is not None else key_to_test(content)
    if key is not None and key not in content:
        found = ', '.join([str(key) for key in content if key != NOTES][:3])
        raise DataError(f"{path}: has no '{key}', only {found}")
    if {'optimizers', 'schedulers'} <= set(content):
        raise DataError(f'{path}: is a training state; the network is in the folder models, net_g_….pth')
    state = content if key is None else content[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        where = 'the file' if key is None else f"'{key}'"
        found = ', '.join([str(key) for key in content if key != NOTES][:3]) if key is None else ''
        only = f", got only {found}; a tool's --param-key takes another" if found else ''
        raise DataError(f'{path}: {where} is no state dict; expected a checkpoint with params or params_ema{only}')
    if key is not None and (warning := forgotten_statistics(content, path, key)):
        sys.stderr.write(f'Warning: {warning}\n')
    return key or '', network_names(state)


def key_to_test(content: Mapping[Any, Any]) -> str | None:
    """Under which key the parameters stand that are tested where the user names none: one rule for all tools.

    ``params_ema`` where it is there: training validates that network, and Real-ESRGAN's inference takes it. Else
    ``params``; None where neither is there. Training itself begins with ``params``, as in BasicSR.
    """
    return next((key for key in ('params_ema', 'params') if key in content), None)


def selection_in_words(key: str, content: Mapping[Any, Any]) -> str:
    """Which parameters were taken out of a checkpoint, and which others it holds.

    Args:
        key: From ``select_parameters``.
        content: What the file holds.
    """
    if key == 'params_ema':
        others = ' (params, the weights without averaging, are in the file too)' if 'params' in content else ''
        return f'params_ema, the moving average of the weights{others}'
    others = ' (params_ema, their moving average, is in the file too)' if 'params_ema' in content else ''
    return f'{key or "the state dict"}{others}'


def refuse_not_finite(state: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Raises DataError, naming the file and the first such parameter, where weights are NaN or infinite.

    A tensor of 0 and -inf alone is a mask of attention, which a network keeps as a buffer.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all() and not _is_mask(tensor):
            raise DataError(f'{path}: {name} is not finite (NaN or infinite): the training had diverged; take an '
                            'earlier checkpoint')


def _is_mask(tensor: torch.Tensor) -> bool:
    shown = tensor == 0
    return bool(shown.any()) and bool((shown | tensor.isneginf()).all())


def forgotten_statistics(content: Mapping[str, Any], path: str | os.PathLike[str], key: str) -> str:
    """That ``params_ema`` has the running statistics of an untrained network beside those of ``params``; else ''.

    BasicSR averages parameters alone, as this package did before it let the buffers follow. A BatchNorm of such an
    average has a mean of 0, a variance of 1 and no batches.
    """
    average, trained = content.get('params_ema'), content.get('params')
    if key != 'params_ema' or not isinstance(average, Mapping) or not isinstance(trained, Mapping):
        return ''
    layers = [name.removesuffix('running_mean') for name in average if name.endswith('running_mean')]
    layer = next((one for one in layers if _untouched(average, one) and not _untouched(trained, one)), None)
    if layer is None:
        return ''
    return (f"{path}: 'params_ema' has no running statistics ({layer.removesuffix('.')}: mean 0, variance 1), "
            "'params' has: the average was made of parameters alone, as BasicSR makes it, and restores badly; take "
            "'params'")


def _untouched(state: Mapping[str, Any], layer: str) -> bool:
    start = {'running_mean': 0, 'running_var': 1, 'num_batches_tracked': 0}
    found = [(state[layer + name], value) for name, value in start.items() if layer + name in state]
    return all(bool((statistic == value).all()) for statistic, value in found)


def network_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict under the names of BasicSR's networks.

    Drops the ``module.`` of wrapped networks, and translates the names of ESRGAN's own repository (RRDB_PSNR_x4.pth,
    RRDB_ESRGAN_x4.pth: ``RRDB_trunk.0.RDB1.conv1``) to those of BasicSR's RRDBNet (``body.0.rdb1.conv1``).
    """
    names = {name: name.removeprefix('module.') for name in state}
    if any(name.startswith('RRDB_trunk.') for name in names.values()):
        names = {name: _esrgan_name(new) for name, new in names.items()}
    return {names[name]: value for name, value in state.items()}


_ESRGAN = {'RRDB_trunk': 'body', 'trunk_conv': 'conv_body', 'upconv1': 'conv_up1', 'upconv2': 'conv_up2',
           'HRconv': 'conv_hr'}


def _esrgan_name(name: str) -> str:
    first, *rest = name.split('.')
    return '.'.join([_ESRGAN.get(first, first), *(part.lower() if part.startswith('RDB') else part for part in rest)])


def save_atomically(content: Any, path: str | os.PathLike[str]) -> None:
    """``torch.save`` of a file that takes the place of ``path`` only when it is whole and on disk; it has a digest."""
    with whole_file(path) as file:
        digesting = DigestingFile(file)
        try:
            torch.save(content, cast(IO[bytes], digesting))
        except RuntimeError as error:
            raise digesting.failure or error from None
        digesting.finish()
