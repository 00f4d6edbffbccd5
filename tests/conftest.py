"""One thread: the networks are too small to share out, and sums stay in one order."""

import torch

torch.set_num_threads(1)
