"""The process group of a run that slurm's ``srun`` started."""

import os
import subprocess

import torch

from dil_plugin.errors import OptionError


def init_slurm(backend: str, port: int | None = None) -> None:
    """Joins the process group of the job step, one process per task; with nccl each takes a GPU of its node.

    Args:
        backend: nccl or gloo.
        port: Of the first node; None: ``MASTER_PORT``, or 29500.

    Raises:
        OptionError: The address of the first node cannot be found.
    """
    os.environ['MASTER_ADDR'] = address_of_first_node()
    os.environ['MASTER_PORT'] = str(port or os.environ.get('MASTER_PORT', 29500))
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
    if backend == 'nccl':  # a task may see all GPUs of its node, or only its own
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    torch.distributed.init_process_group(backend)


def address_of_first_node() -> str:
    """``MASTER_ADDR`` where it is set; else this machine on a single node, or what ``scontrol`` names first.

    Raises:
        OptionError: There are several nodes, and no ``scontrol`` that knows their names.
    """
    if 'MASTER_ADDR' in os.environ:
        return os.environ['MASTER_ADDR']
    if int(os.environ.get('SLURM_NNODES', 1)) == 1:
        return '127.0.0.1'
    nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST', '')
    try:
        listed = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise OptionError(f'--launcher: slurm on {os.environ["SLURM_NNODES"]} nodes ({nodes}), but scontrol does not '
                          'give their names; set MASTER_ADDR to the first of them') from None
