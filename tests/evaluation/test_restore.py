"""tools/restore.py from the command line down, with networks whose result is known."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import yaml
from torch import Tensor, nn

from dil_plugin.errors import DataError, OptionError
from dil_plugin.evaluation.image_files import RestorableImage, read_restorable
from dil_plugin.evaluation.networks import RestorationNetwork, build_module
from dil_plugin.evaluation.restore import plan_outputs, restore_files, restore_image

ROOT = Path(__file__).parents[2]
OPTIONS = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}
RANDOM = np.random.default_rng(0)
RGBA = RANDOM.integers(0, 256, (20, 30, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65536, (20, 30, 3), dtype=np.uint16)


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('restore_tool', ROOT / 'tools/restore.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copying_checkpoint(path: Path, scale: int = 1, channels: int = 3, notes: bool = True) -> Path:
    """Of a network that returns its input, at scale 4 enlarged to the nearest pixel."""
    options: dict[str, Any] = {**OPTIONS, 'num_in_ch': channels, 'num_out_ch': channels,
                               'type': 'RRDBNetNoUpsample' if scale == 1 else 'RRDBNet'}
    if scale > 1:
        options['scale'] = scale
    module = build_module(options, 'test')
    for name, parameter in module.named_parameters():
        nn.init.zeros_(parameter)
        if name in ('conv_first.weight', 'conv_up1.weight', 'conv_up2.weight', 'conv_hr.weight', 'conv_last.weight'):
            nn.init.dirac_(parameter)
    content: dict[str, Any] = {'params': module.state_dict()}
    if notes:
        content['dil_plugin'] = {'network_g': options, 'scale': scale}
    else:
        path.with_suffix('.yml').write_text(yaml.safe_dump({'network_g': options, 'scale': scale}))
    torch.save(content, path)
    return path


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copying_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'net.pth')


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Callable[..., int]:
    """The tool's main with these arguments; a later --checkpoint takes the place of the first."""
    main = load_tool().main

    def call(*arguments: object) -> int:
        start = ['restore.py', '--checkpoint', str(checkpoint), '--device', 'cpu']
        monkeypatch.setattr(sys, 'argv', start + [str(argument) for argument in arguments])
        return int(main())

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All kinds of images."""
    target = tmp_path / 'in'
    (target / 'below').mkdir(parents=True)
    for name, pixels in (('rgb.png', RGBA[..., :3]), ('rgba.png', RGBA), ('grey.png', RGBA[..., 0]),
                         ('grey_alpha.png', RGBA[..., [0, 3]]), ('rgba.tif', RGBA), ('grey.bmp', RGBA[..., 0]),
                         ('photo.jpg', RGBA[..., :3]), ('below/rgb.png', RGBA[..., :3])):
        PIL.Image.fromarray(pixels).save(target / name)
    PIL.Image.fromarray(RGBA).save(target / 'web.webp', lossless=True)
    cv2.imwrite(str(target / 'deep.png'), DEEP)
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file())


def one_image(folder: Path, name: str = 'a.png', size: int = 8) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(RGBA[:size, :size, :3]).save(path)
    return path


class Scripted(nn.Module):
    """A network that does what it is told."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.function = function

    def forward(self, batch: Tensor) -> Tensor:
        return self.function(batch)


def scripted(function: Callable[[Tensor], Tensor], channels: int = 3, scale: int = 1) -> RestorationNetwork:
    return RestorationNetwork(Scripted(function), {'type': 'Scripted', 'num_in_ch': channels}, scale)


class TestFiles:

    @pytest.mark.parametrize('tile', ['0', '16'])
    def test_identity_leaves_every_kind_unchanged(self, folder: Path, tmp_path: Path, tool: Callable[..., int],
                                                  tile: str) -> None:
        assert tool('-i', folder, '-o', tmp_path / 'out', '--tile', tile, '--overlap', '4') == 0
        expected = [name.replace('.jpg', '.png') for name in names(folder) if '/' not in name]
        assert names(tmp_path / 'out') == expected
        for name in names(folder):
            if '/' in name:
                continue
            before, after = (read_restorable(path) for path in (
                folder / name, tmp_path / 'out' / name.replace('.jpg', '.png')))
            assert torch.equal((before.rgb * 65535).round(), (after.rgb * 65535).round())
            assert (before.bits, before.grey) == (after.bits, after.grey)
            assert np.array_equal(before.alpha, after.alpha) if before.alpha is not None else after.alpha is None

    def test_16_bits_stay_16(self, folder: Path, tmp_path: Path, tool: Callable[..., int]) -> None:
        assert tool('-i', folder / 'deep.png', '-o', tmp_path / 'out') == 0
        found = cv2.imread(str(tmp_path / 'out/deep.png'), cv2.IMREAD_UNCHANGED)
        assert len(np.unique(found)) > 256
        assert np.array_equal(found, DEEP)

    def test_super_resolution(self, folder: Path, tmp_path: Path, tool: Callable[..., int]) -> None:
        checkpoint = copying_checkpoint(tmp_path / 'x4.pth', scale=4)
        assert tool('-i', folder / 'rgba.png', '-o', tmp_path / 'out', '--checkpoint', checkpoint, '--tile', 8,
                    '--overlap', 4) == 0
        found = np.array(PIL.Image.open(tmp_path / 'out/rgba.png'))
        assert np.array_equal(found[..., :3], RGBA[..., :3].repeat(4, 0).repeat(4, 1))
        alpha = cv2.resize(RGBA[..., 3].astype(np.float32), (120, 80), interpolation=cv2.INTER_CUBIC).clip(0, 255)
        assert np.abs(found[..., 3] - alpha).max() <= 0.51

    def test_exif_rotation(self, tmp_path: Path, tool: Callable[..., int]) -> None:
        exif = PIL.Image.Exif()
        exif[274] = 6
        (tmp_path / 'in').mkdir()
        PIL.Image.fromarray(RGBA[..., :3]).save(tmp_path / 'in/a.png', exif=exif)
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'once') == 0
        assert tool('-i', tmp_path / 'once', '-o', tmp_path / 'twice') == 0
        for where in ('once', 'twice'):
            assert np.array_equal(np.array(PIL.Image.open(tmp_path / where / 'a.png')), np.rot90(RGBA[..., :3], -1))

    def test_folders_below(self, folder: Path, tmp_path: Path, tool: Callable[..., int]) -> None:
        assert tool('-i', folder, '-o', folder / 'out', '--recursive') == 0
        assert 'below/rgb.png' in names(folder / 'out')
        count = len(names(folder))
        assert tool('-i', folder, '-o', folder / 'out', '--recursive', '--suffix', '_2') == 0
        assert len(names(folder)) == count + len(names(folder / 'out')) // 2  # results are not taken for images

    def test_suffix_and_ending(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                               tool: Callable[..., int]) -> None:
        arguments = ('-i', folder / 'rgba.tif', '-o', tmp_path / 'out', '--suffix', '_new', '--ext', 'jpg')
        assert tool(*arguments) == 0
        assert names(tmp_path / 'out') == ['rgba_new.jpg']
        told = capsys.readouterr()
        assert 'rgba_new.jpg: alpha not kept' in told.out
        assert 'net.pth: params\n' in told.err  # which of the checkpoint's parameters these are


class TestNothingIsLost:

    def test_results_are_skipped_or_written_anew(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                 tool: Callable[..., int]) -> None:
        for name in ('a.png', 'b.png'):
            one_image(tmp_path / 'in', name)
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/a.png').write_text('mine')
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out') == 0
        assert (tmp_path / 'out/a.png').read_text() == 'mine'
        output = capsys.readouterr().out
        assert 'images restored: 1' in output
        assert 'there already (--overwrite: anew): 1' in output
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out', '--overwrite') == 0
        assert np.array_equal(np.array(PIL.Image.open(tmp_path / 'out/a.png')), RGBA[:8, :8, :3])

    @pytest.mark.parametrize('source', ['', 'a.png', '../in'])
    @pytest.mark.parametrize('name', ['a.png', 'a.jpg'])  # of which the second would become another file
    def test_folder_of_the_input(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Callable[..., int],
                                 source: str, name: str) -> None:
        before = one_image(tmp_path / 'in', name).read_bytes()
        assert tool('-i', tmp_path / 'in' / source.replace('a.png', name), '-o', tmp_path / 'in', '--overwrite') == 2
        assert '--output: ' in capsys.readouterr().err
        assert names(tmp_path / 'in') == [name]
        assert (tmp_path / 'in' / name).read_bytes() == before

    def test_folder_of_the_input_with_a_suffix(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                               tool: Callable[..., int]) -> None:
        one_image(tmp_path / 'in')
        for _ in range(3):
            assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'in', '--suffix', '_r') == 0
            assert names(tmp_path / 'in') == ['a.png', 'a_r.png']
        assert 'left out, because they are results of other images: 1' in capsys.readouterr().out

    @pytest.mark.parametrize(('first', 'second', 'options'), [('a.png', 'a.jpg', []),
                                                              ('a.png', 'a.bmp', ['--ext', 'tif'])])
    def test_two_images_of_one_result(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      tool: Callable[..., int], first: str, second: str, options: list[str]) -> None:
        for name in (first, second, '0.png'):
            one_image(tmp_path / 'in', name)
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out', *options) == 2
        error = capsys.readouterr().err
        assert all(name in error for name in (first, second, 'would both become'))
        assert not (tmp_path / 'out').exists()

    def test_interrupted_call_leaves_whole_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capsys: pytest.CaptureFixture[str], tool: Callable[..., int]) -> None:
        for name in ('a.png', 'b.png', 'c.png'):
            one_image(tmp_path / 'in', name)
        calls = []

        def interrupted(*_: object) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr('os.fsync', interrupted)
            assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out') == 130
        assert names(tmp_path / 'out') == ['a.png']
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out') == 0
        assert names(tmp_path / 'out') == ['a.png', 'b.png', 'c.png']
        assert 'images restored: 2' in capsys.readouterr().out


class TestFailures:

    def test_broken_image_does_not_stop_the_others(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                   tool: Callable[..., int]) -> None:
        for name in ('a.png', 'b.png', 'c.jpg'):
            one_image(tmp_path / 'in', name)
        broken = tmp_path / 'in/b.png'
        broken.write_bytes(broken.read_bytes()[:60])
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out') == 1
        assert names(tmp_path / 'out') == ['a.png', 'c.png']
        told = capsys.readouterr()
        assert 'could not be restored: 1' in told.out
        assert told.err.splitlines()[-1].startswith(f'failed: {broken}: the PNG file is truncated: ')

    def test_folder_that_cannot_be_made(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                        tool: Callable[..., int]) -> None:
        one_image(tmp_path / 'in')
        one_image(tmp_path / 'in', 'below/a.png')
        (tmp_path / 'out').mkdir()
        (tmp_path / 'out/below').write_text('in the way')
        assert tool('-i', tmp_path / 'in', '-o', tmp_path / 'out', '--recursive') == 1
        assert 'below: cannot be made' in capsys.readouterr().err
        assert names(tmp_path / 'out') == ['a.png', 'below']

    @pytest.mark.parametrize(('arguments', 'message'), [
        (['--tile', '-1'], 'tile: -1 is negative'), (['--overlap', '-3'], 'overlap: -3 is negative'),
        (['--ext', 'gif'], "--ext: unknown ending 'gif'"), (['--suffix', '/x'], '--suffix: '),
        (['--device', 'tpu'], "--device: got 'tpu'"), (['--param-key', 'params_ema'], "has no 'params_ema'"),
        (['--checkpoint', 'none.pth'], 'there is no file none.pth'), (['-i', 'nowhere'], '--input: there is no file'),
        (['-i', __file__], 'is neither a folder nor an image'), (['-o', __file__], 'is not a folder'),
        (['-o', 'out.png'], '--output: out.png is the name of an image; give a folder'),
        (['-o', '/proc/out'], '--output: /proc/out: cannot be made'),
        (['--checkpoint', __file__], 'cannot be read as a checkpoint')])
    def test_mistakes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], tool: Callable[..., int],
                      arguments: list[str], message: str) -> None:
        assert tool('-i', one_image(tmp_path / 'in'), '-o', tmp_path / 'out', *arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert message in error
        assert error.count('\n') == 1
        assert not (tmp_path / 'out').exists()

    def test_checkpoint_that_does_not_name_its_network(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                       tool: Callable[..., int]) -> None:
        checkpoint = copying_checkpoint(tmp_path / 'net.pth', notes=False)
        arguments = ('-i', one_image(tmp_path / 'in'), '-o', tmp_path / 'out', '--checkpoint', checkpoint)
        assert tool(*arguments) == 2
        assert '--opt' in capsys.readouterr().err
        assert tool(*arguments, '--opt', tmp_path / 'net.yml') == 0

    def test_checkpoint_of_another_network(self, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                           tool: Callable[..., int]) -> None:
        content = torch.load(copying_checkpoint(tmp_path / 'net.pth'), weights_only=True)
        content['dil_plugin']['network_g']['num_feat'] = 8
        torch.save(content, tmp_path / 'net.pth')
        assert tool('-i', one_image(tmp_path / 'in'), '-o', tmp_path / 'out', '--checkpoint', tmp_path / 'net.pth') == 2
        assert 'its parameters are not those of RRDBNetNoUpsample' in capsys.readouterr().err


class TestNetworks:

    IMAGE = RestorableImage(torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(0)))

    def test_grey_network(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                          tool: Callable[..., int]) -> None:
        checkpoint = copying_checkpoint(tmp_path / 'grey.pth', channels=1)
        assert tool('-i', folder, '-o', tmp_path / 'out', '--checkpoint', checkpoint) == 1
        assert names(tmp_path / 'out') == ['grey.bmp', 'grey.png', 'grey_alpha.png']
        assert capsys.readouterr().err.count('is in colour, and the network takes grey images') == 6
        assert np.array_equal(np.array(PIL.Image.open(tmp_path / 'out/grey_alpha.png')), RGBA[..., [0, 3]])

    def test_number_of_channels(self) -> None:
        with pytest.raises(OptionError, match='takes images of 4 channels'):
            restore_files(scripted(lambda x: x, channels=4), [])

    @pytest.mark.parametrize(('error', 'message'), [
        (torch.cuda.OutOfMemoryError('CUDA out of memory'), '10x12 .*: --tile 512 .* take a smaller one'),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 'not enough memory: --tile 512'),
        (AssertionError('sides must be even'), 'the network fails on 10x12 .*: sides must be even$'),
        (KeyError('mask'), "the network fails on 10x12 .*: KeyError: 'mask'$"),
        (RuntimeError('sizes differ\nmore'), 'the network fails on 10x12 .*: sizes differ more$')])
    def test_errors_of_the_network(self, error: Exception, message: str) -> None:

        def fail(_: Tensor) -> Tensor:
            raise error

        with pytest.raises(DataError, match=message):
            restore_image(scripted(fail), self.IMAGE)

    def test_no_numbers(self) -> None:
        with pytest.raises(DataError, match='not finite'):
            restore_image(scripted(lambda x: x / 0), self.IMAGE)

    def test_colours_beyond_the_range_are_left_to_the_writer(self) -> None:
        found = restore_image(scripted(lambda x: 3 * x - 1), self.IMAGE, tile=8, overlap=0)
        torch.testing.assert_close(found.rgb, 3 * self.IMAGE.rgb - 1)

    def test_wrong_scale_stops(self, tmp_path: Path) -> None:
        plan = plan_outputs(one_image(tmp_path / 'in'), tmp_path / 'out')
        with pytest.raises(OptionError, match='its scale 2'):
            restore_files(scripted(lambda x: x, scale=2), plan.jobs)

    def test_wrong_scale_is_seen_by_two_images(self, tmp_path: Path) -> None:
        for k in range(4):
            one_image(tmp_path / 'in', f'{k}.png')
        calls = []
        with pytest.raises(OptionError, match='its scale 2'):
            restore_files(scripted(lambda x: calls.append(1) or x, scale=2),
                          plan_outputs(tmp_path / 'in', tmp_path / 'out').jobs, tile=0)
        assert sum(calls) - self.tried() == 2

    def tried(self) -> int:
        """How often a network is called until it is known what sizes it takes."""
        calls = []
        network = scripted(lambda x: calls.append(1) or x)
        assert network.multiple == 1
        return len(calls)

    @pytest.mark.parametrize('odd', [0, 1, 2])
    def test_one_image_of_another_output_size_does_not_stop_the_others(self, tmp_path: Path, odd: int) -> None:
        for k in range(3):
            one_image(tmp_path / 'in', f'{k}.png', 8 if k == odd else 9)
        network = scripted(lambda x: x[..., :7] if x.shape[-1] == 8 else x)
        assert network.multiple == 1
        jobs = plan_outputs(tmp_path / 'in', tmp_path / 'out').jobs
        for _ in range(2):  # the second call is given that image alone
            summary = restore_files(network, jobs)
            assert [(path.name, 'returns (8, 7) for an input of (8, 8)' in reason)
                    for path, reason in summary.failed] == [(f'{odd}.png', True)]
            assert summary.written + summary.skipped == 2
        assert names(tmp_path / 'out') == [f'{k}.png' for k in range(3) if k != odd]


def test_help_needs_no_torch() -> None:
    code = ("import sys, runpy; sys.modules['torch'] = None; sys.argv = ['restore.py', '--help']; "
            "runpy.run_path('tools/restore.py', run_name='__main__')")
    found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert '--overlap' in found.stdout
