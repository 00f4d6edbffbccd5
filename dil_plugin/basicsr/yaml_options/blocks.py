"""The blocks of the YAML that are BasicSR's, and our additions to them; each option says what it is."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Size = Annotated[int, Meta(ge=1)]


class Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all blocks have in common: an unknown option is an error."""


class TopLevel(Block, frozen=True, kw_only=True):
    """The options that stand in no block."""

    name: Annotated[str, Meta(description='Of the experiment: its folder is experiments/NAME, for tests results/NAME. '
                              'A name with "debug" in it validates and saves every 8 iterations.')]
    model_type: Annotated[str, Meta(description='DILModel.')]
    scale: Annotated[Size, Meta(description='Clean size divided by distorted size; that of the network and of the '
                                'confounders. Default: 1.')] = 1
    num_gpu: Annotated[int | Literal['auto'], Meta(description='0: the CPU; 1 or auto: a GPU, with auto the CPU where '
                                                   'there is none. Several GPUs take one process each (torchrun, '
                                                   '--launcher pytorch).')]
    manual_seed: Annotated[Count | None, Meta(description='Seeds weights, patches and confounders. Default: drawn.'
                                              )] = None
    custom_imports: Annotated[list[str] | None,
                              Meta(description='Modules to import first: networks, losses or confounders of your own.'
                                   )] = None
    distortions: Annotated[list[Any] | None,
                           Meta(description='The confounders, entries of {type: NAME, DEGREE: VALUE}: '
                                '[confounders.md](confounders.md). A list of values makes a confounder of each, draws: '
                                'k takes a confounder k times. Default: required, but with a '
                                'PairedConfounderDataset, and erm on pairs.')] = None
    gt_usm: Annotated[bool | None, Meta(description='Sharpen the training targets before they are distorted (unsharp '
                                        'masking, as Real-ESRNet).')] = False
    queue_size: Annotated[Size | None,
                          Meta(description='Training pair pool: so many groups (a clean patch, all its versions) are '
                               'kept, from which batches are drawn. A multiple of the patches of a step. Default: '
                               'none.')] = None
    gt_size: Annotated[Size | None,
                       Meta(description='As in a Real-ESRNet YAML: side of the patch that is cut after the distortion; '
                            "that of datasets.train. Default: the data set's.")] = None
    datasets: Annotated[dict[str, Any], Meta(description='Blocks train, and val_1, val_2, … or test_1, …: below.')]
    network_g: Annotated[dict[str, Any] | None, Meta(description='The network, by type: below. Default: required.'
                                                     )] = None
    path: Annotated[dict[str, Any], Meta(description='Block, which may be empty: below. Default: required.')] = {}
    train: Annotated[dict[str, Any] | None, Meta(description='Block: below. Default: none, training needs it.')] = None
    val: Annotated[dict[str, Any] | None, Meta(description='Block: below. Default: no validation.')] = None
    logger: Annotated[dict[str, Any] | None, Meta(description='Block: below. Default: none, training needs it.')] = None
    dist_params: Annotated[dict[str, Any] | None, Meta(description='Block, for several processes: below.')] = None
    find_unused_parameters: Annotated[bool, Meta(description='For networks that BasicSR wraps for several processes; '
                                                 'DILModel wraps none and does without.')] = False


class Path(Block, frozen=True, kw_only=True):
    """The block ``path``."""

    pretrain_network_g: Annotated[str | None,
                                  Meta(description='Checkpoint to begin with, or to test; also one of ESRGAN under its '
                                       'own names (RRDB_PSNR_x4.pth).')] = None
    param_key_g: Annotated[str | None, Meta(description="Which of its parameters: params, params_ema (params where it "
                                            'has none of these), params_theta (of deploy: phi). Where test.py is given '
                                            'none, it takes params_ema if it is there.')] = 'params'
    strict_load_g: Annotated[bool, Meta(description='Whether all parameters must be there and fit. false: those of '
                                        'other names or shapes are set aside, as those of an x4 network for an x2 '
                                        'one.')] = True
    resume_state: Annotated[str | None, Meta(description='Training state to go on from, experiments/NAME/'
                                             'training_states/K.state; --auto_resume takes the newest.')] = None
    ignore_resume_networks: Annotated[str | list[str] | None,
                                      Meta(description='Networks that are not taken from the resumed run: network_g.'
                                           )] = None


class Train(Block, frozen=True, kw_only=True):
    """The block ``train``."""

    dil: Annotated[Any, Meta(description='The variant and its options: below. Default: required.')] = None
    optim_g: Annotated[dict[str, Any], Meta(description='The (outer) optimiser: below. Default: required.')] = {}
    scheduler: Annotated[dict[str, Any], Meta(description='The (outer) learning rate over the iterations: below. '
                                         'Default: required.')] = {}
    total_iter: Annotated[Positive, Meta(description='Iterations; one is a meta-step, or erm_steps plain steps.')]
    warmup_iter: Annotated[int, Meta(ge=-1, description='N: iterations in which the learning rate rises linearly; -1: '
                                     'none. Iteration k has min(1, k / N) times the rate of the schedule, from k = N '
                                     'on that rate itself, and milestones within the warm-up count. (BasicSR leaves '
                                     'a MultiStepLR at (N - 1) / N of its rate for the rest of the training, and '
                                     'forgets such milestones.)')] = -1
    ema_decay: Annotated[Annotated[float, Meta(ge=0, lt=1)],
                         Meta(description='Weight of the old in the moving average of the parameters, which is then '
                              'validated and saved as params_ema; 0: none. Buffers, as the statistics of a BatchNorm, '
                              "are the network's own (in BasicSR they stay those of the start).")] = 0
    amp: Annotated[Literal['bf16', 'fp16'] | None,
                   Meta(description='Automatic mixed precision of the network, inner and outer; parameters, virtual '
                        'ones too, stay float32. fp16 scales the loss (GradScaler) and is for sf, pf and erm; bf16 is '
                        'for all.')] = None
    channels_last: Annotated[bool, Meta(description='Lay images and weights out with channels last, which GPUs with '
                                        'tensor cores (and amp) are fastest with; checkpoints stay the same.')] = False
    compile: Annotated[bool, Meta(description='Compile the network for training (torch.compile). Not with ss, ps and '
                                  'mldg, unless hvp is finite_difference, and not with dil.checkpointing. On a '
                                  'CPU it takes a C++ compiler.')] = False
    accum_iter: Annotated[Size, Meta(description='Meta-gradients, of as many iterations, whose mean one step of the '
                                     'optimiser takes (with erm: of as many plain steps). All other options, '
                                     'total_iter and the schedule too, count iterations.')] = 1
    clip_grad_norm: Annotated[Positive | None, Meta(description='The largest norm of the gradient that the optimiser '
                                                    'gets, all parameters together; a larger one is scaled down to it. '
                                                    'That of sf and pf is theta - phi, which goes with the inner lr. '
                                                    'Default: not clipped.')] = None
    pixel_opt: Annotated[dict[str, Any] | None, Meta(description='The loss L on pixels: below. Default: none, where '
                                                     'there is perceptual_opt.')] = None
    perceptual_opt: Annotated[dict[str, Any] | None,
                              Meta(description='A loss on features, PerceptualLoss: below; added to pixel_opt.')] = None


class Val(Block, frozen=True, kw_only=True):
    """The block ``val``, for training and tests."""

    val_freq: Annotated[Positive | None, Meta(description='Iterations between validations. Default: none, '
                                                          'training needs it.')] = None
    save_img: Annotated[bool, Meta(description='Write the restored images.')]
    suffix: Annotated[str | None, Meta(description="Of their names in a test; ~: the experiment's name.")] = None
    pbar: Annotated[bool, Meta(description='A progress bar.')] = False
    window_size: Annotated[Size | None,
                           Meta(description='Images are padded, by reflection, to sides that are multiples of this, '
                                'and the results cropped; tools/restore.py does so too. Default: found out, from the '
                                "architecture and its window_size, or by trying; in a test, first from what the "
                                'checkpoint says.')] = None
    metrics: Annotated[dict[str, Any] | None, Meta(description='Metrics by a name of your own: below.')] = None
    keep_best: Annotated[str | None, Meta(description='One of metrics: the network that is best by it, in the mean '
                                          'over the validation sets, is kept as net_g_best_METRIC.pth. In training.'
                                          )] = None


class Wandb(Block, frozen=True, kw_only=True):
    """The block ``logger.wandb``."""

    project: Annotated[str | None, Meta(description='Project of Weights & Biases to log to; ~: none. Needs '
                                        'use_tb_logger.')] = None
    resume_id: Annotated[str | None, Meta(description='Run to go on with.')] = None


class Logger(Block, frozen=True, kw_only=True):
    """The block ``logger``."""

    print_freq: Annotated[Positive, Meta(description='Iterations between entries of the log. Their first line has '
                                         'the losses l_inner and l_outer, and grad_norm, the norm of the gradient '
                                         'before clip_grad_norm; time, and (data), the wait for data, are means of '
                                         '200 steps at most. The next lines have the losses by confounder, skipped '
                                         'where steps were, and seconds of a step by part, t_synthesis, t_inner, '
                                         't_outer, means since the entry before.')]
    save_checkpoint_freq: Annotated[Positive, Meta(description='Iterations between checkpoints.')]
    keep_last: Annotated[Size | None, Meta(description='Training states and networks (net_g_K.pth) of so many saves '
                                           'stay, older ones are removed. Default: all.')] = None
    use_tb_logger: Annotated[bool, Meta(description='Log to TensorBoard, tb_logger/NAME.')] = False
    wandb: Annotated[dict[str, Any] | None, Meta(description='Block: below.')] = None
    pbar: Annotated[bool, Meta(description='A progress bar on standard error.')] = False


class DistParams(Block, frozen=True, kw_only=True):
    """The block ``dist_params``."""

    backend: Annotated[Literal['nccl', 'gloo'], Meta(description='Between GPUs; without one it is always gloo.')]
    port: Annotated[Size, Meta(description='For --launcher slurm.')] = 29500


class Loader(Block, frozen=True, kw_only=True):
    """What the data sets of BasicSR's own have in common with ours."""

    name: str
    type: str
    phase: str = 'train'
    scale: int = 1
    on_bad_image: Literal['error', 'skip'] = 'error'
    num_worker_per_gpu: Count = 0
    batch_size_per_gpu: Size = 1
    dataset_enlarge_ratio: Positive = 1
    prefetch_mode: Literal['cpu', 'cuda'] | None = None
    num_prefetch_queue: Size = 1
    pin_memory: bool = False
    persistent_workers: bool = False
    gt_size: Size | None = None
    use_hflip: bool = True
    use_rot: bool = True


class PairedImages(Loader, frozen=True, kw_only=True):
    """The block of a PairedImageDataset."""

    dataroot_gt: Annotated[str, Meta(description='LMDB or folder of targets.')]
    dataroot_lq: Annotated[str, Meta(description='LMDB or folder of inputs; both LMDBs have the same keys.')]
    io_backend: Annotated[dict[str, Any], Meta(description='{type: lmdb} or {type: disk}.')]
    filename_tmpl: Annotated[str, Meta(description="The input's name, without its ending, of the target's name {}.")] \
        = '{}'
    meta_info_file: Annotated[str | None, Meta(description='A text file of names of targets, one a line, to take of '
                                               'the folders.')] = None
    color: Annotated[Literal['y'] | None, Meta(description='y: luma alone, one channel.')] = None
    mean: Annotated[list[float] | None, Meta(description='Only one that changes nothing, 0 for each channel: nothing '
                                             'undoes it in metrics and pictures. Normalise in the network, as EDSR '
                                             'and SwinIR do.')] = None
    std: Annotated[list[float] | None, Meta(description='Likewise, 1 for each channel.')] = None


WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    '': {
        'high_order_degradation': 'it says what RealESRNetModel does, and DILModel always does',
        'network_d': 'DILModel trains network_g alone', 'l1_gt_usm': 'gt_usm sharpens the targets',
        'percep_gt_usm': 'gt_usm sharpens the targets', 'gan_gt_usm': 'there is no discriminator',
        'tile': 'tools/restore.py and tools/reproduce.py work in tiles',
    },
    'path': {'pretrain_network_d': 'there is no discriminator', 'param_key_d': 'there is no discriminator',
             'strict_load_d': 'there is no discriminator'},
    'train': {'gan_opt': 'there is no discriminator', 'optim_d': 'there is no discriminator',
              'net_d_iters': 'there is no discriminator', 'net_d_init_iters': 'there is no discriminator'},
    'datasets': {'use_shuffle': 'training data are always shuffled'},
}
"""Options that stand in published YAML files of other models, and why DILModel has no use for them."""

ADDED = {
    '': ('is_train', 'dist', 'rank', 'world_size', 'auto_resume', 'root_path'),
    'path': ('experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root'),
}
"""What BasicSR adds to a block itself."""
