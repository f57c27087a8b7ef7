"""The models of the experiments, and torchvision's by name."""

import pytest
import torch
from torch import nn

from ross_flwr.config import ConfigError
from ross_flwr.tasks.models import build

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8)]


def parameters(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def made(name, shape=(1, 8, 8), classes=10, hidden=12, seed=0):
    return build(name, shape, classes, hidden=hidden, seed=seed)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_own_models_fit_images_and_classes_with_every_parameter_in_use(name, shape, classes):
    channels, height, width = shape
    features = channels * height * width if name == "mlp" else 16 * (height // 4) * (width // 4)
    convolutions = {"mlp": 0, "cnn": 8 * (25 * channels + 1) + 16 * (25 * 8 + 1)}
    module = made(name, shape, classes, hidden=12)
    assert len(parameters(module)) == convolutions[name] + 12 * (features + 1) + classes * (12 + 1)
    images, labels = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1)), torch.arange(6) % classes
    outputs = module(images)
    assert outputs.shape == (6, classes)
    gradients = torch.autograd.grad(nn.functional.cross_entropy(outputs, labels), list(module.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_torchvision_model_is_known_by_its_name():
    module = made("resnet18", (3, 32, 32), 7)
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert isinstance(module.bn1, nn.BatchNorm2d)


def test_a_torchvision_model_sees_a_grey_image_as_three_equal_channels():
    images = torch.randn(2, 1, 28, 28)
    grey, colour = (made("squeezenet1_1", (channels, 28, 28), 7).eval() for channels in (1, 3))
    assert torch.equal(grey(images), colour(torch.cat([images, images, images], 1)))


@pytest.mark.parametrize("name", ["mlp", "cnn", "squeezenet1_1"])
def test_the_seed_decides_the_parameters(name):
    torch.manual_seed(1)
    first, shape = parameters(made(name, (3, 32, 32), seed=3)), (3, 32, 32)
    torch.manual_seed(2)
    assert torch.equal(parameters(made(name, shape, seed=3)), first)
    assert not torch.equal(parameters(made(name, shape, seed=4)), first)


@pytest.mark.parametrize("name", ["mlp", "cnn", "squeezenet1_1"])
def test_building_does_not_disturb_torchs_own_random_numbers(name):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    made(name, (3, 32, 32))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("name", "nearest"), [("mpl", "mlp"), ("cnnn", "cnn"), ("resnet-18", "resnet18")])
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"model = '{name}' is not known.*did you mean '{nearest}'"):
        made(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("vgg11_bn", None),
        ("inception_v3", "images of 3x32x32"),
        ("googlenet", "one output"),
        ("vit_b_16", "images of 3x32x32: Wrong image height! Expected 224 but got 32!; image-size = 224 fits most"),
    ],
)
def test_a_torchvision_model_that_does_not_fit_is_refused_before_the_run(name, complaint):
    if complaint is None:
        build(name, (3, 32, 32), 10, hidden=1, seed=0)
    else:
        with pytest.raises(ConfigError, match=complaint):
            build(name, (3, 32, 32), 10, hidden=1, seed=0)


def test_a_model_that_normalises_over_images_is_refused_where_it_would_see_one_at_a_time():
    with pytest.raises(ConfigError, match="model = 'resnet18' cannot learn with batch-size = 1: Expected more than 1"):
        build("resnet18", (1, 8, 8), 10, hidden=1, seed=0, batch_size=1)
    assert build("squeezenet1_1", (3, 32, 32), 10, hidden=1, seed=0, batch_size=1)
