"""Clipped gradients without the gradients of single examples: ghost clipping, by Opacus."""

import warnings
from copy import deepcopy

import torch
from torch import Tensor

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.outputs import call
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree, map_tensors

__all__ = ["Ghost"]


class Ghost:
    """The clipped gradients of a module, by two backward passes (Li et al., 2022, arXiv:2110.05679, section 4).

    The first pass gives the length of each example's gradient: of a linear layer it follows from the lengths of its
    inputs and of what comes back. The second gives the gradient of the losses, each weighed by min(1, C/‖g_b‖).

    Parameters
    ----------
    objective : ModuleObjective
        One with the module. Ghost clipping computes on a copy of it.

    Raises
    ------
    ModuleNotFoundError
        Without Opacus.
    NotImplementedError
        If Opacus does not take the module.
    """

    def __init__(self, objective: ModuleObjective) -> None:
        from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping

        model = objective.model
        if model.num_parameters < model.size:
            raise NotImplementedError("float buffers")
        self.hooked = GradSampleModuleFastGradientClipping(deepcopy(model.module).train(), loss_reduction="sum")
        named = dict(self.hooked._module.named_parameters())
        self.parameters = [named[name] for name in list(model.shapes)[: len(model.parameters)]]
        self.sizes = model.sizes

    def __call__(
        self, objective: ModuleObjective, vector: Tensor, batch: Batch, clip: float, noise: int
    ) -> tuple[Tensor, Tensor]:
        """Return the mean of the clipped gradients, shape [P], and the lengths of the unclipped, shape [B].

        If a length is not finite, nor is the mean.
        """
        for parameter, part in zip(self.parameters, torch.split(vector, list(self.sizes)), strict=True):
            parameter.data = part.view(parameter.shape)
        self.hooked.enable_hooks()
        with warnings.catch_warnings(), seeded(noise, vector.device):
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            outputs = call(self.hooked, batch.inputs)
            losses = torch.func.vmap(objective.criterion)(_single(outputs), _single(batch.targets))
            torch.autograd.grad(losses.sum(), self.parameters, retain_graph=True)
            lengths: Tensor = self.hooked.get_norm_sample().detach()
            self.hooked.disable_hooks()
            weighed = losses * (clip / lengths).clamp(max=1.0)
            gradients = torch.autograd.grad(weighed.sum(), self.parameters)
        return torch.cat([each.flatten() for each in gradients]) / len(batch), lengths


def _single(tree: Tree) -> Tree:
    """Return the tensors with a dimension more behind that of the batch: batches of one."""
    return map_tensors(lambda each: each[:, None], tree)
