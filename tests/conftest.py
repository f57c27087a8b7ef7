"""For all tests. That this file is here also lets tests import the modules beside it."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("on a busy machine", deadline=None)
settings.load_profile("on a busy machine")
