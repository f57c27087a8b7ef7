"""For all tests. That this file is here also lets tests import the modules beside it."""

import torch

torch.set_num_threads(1)
