"""Strided depthwise convolutions: the same outputs, and gradients as exact as PyTorch's own."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caa_cli.smoothing import depthwise
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.depthwise import use_dense_gradients


class OwnPadding(nn.Conv2d):
    """Pads its inputs itself, at two sides only, as networks that come from TensorFlow do."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def depthwise_layer(kind=nn.Conv2d, **shape):
    torch.manual_seed(0)
    return kind(4, 4, 3, **{"stride": 2, "padding": 1, "groups": 4, **shape}).requires_grad_(False)


def gradient(layer, x, at_outputs=None):
    x = x.clone().requires_grad_()
    y = layer(x)
    at_outputs = torch.linspace(-1, 1, y.numel()).view_as(y).round(decimals=1) if at_outputs is None else at_outputs
    return torch.autograd.grad(y, x, at_outputs.to(y.dtype))[0]


@pytest.fixture
def taken(monkeypatch):
    """Counts the gradients that are computed this way."""
    calls = []
    backward = depthwise._Convolution.backward

    def counted(ctx, at_outputs):
        calls.append(at_outputs.shape)
        return backward(ctx, at_outputs)

    monkeypatch.setattr(depthwise._Convolution, "backward", staticmethod(counted))
    return calls


@settings(deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    last=st.booleans(),
)
def test_gradients_are_those_of_the_convolution(kernel, stride, padding, size, last):
    layer = depthwise_layer(bias=False, stride=stride, padding=padding).bfloat16()
    layer.weight = nn.Parameter(torch.randn(4, 1, *kernel).bfloat16(), requires_grad=False)
    layer.kernel_size = kernel
    x = (
        torch.randn(2, 4, *size)
        .bfloat16()
        .contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    )
    exact = gradient(copy.deepcopy(layer).double(), x.double())
    before = layer(x)
    use_dense_gradients(layer)
    assert torch.equal(layer(x), before)
    found = gradient(layer, x)
    # One rounding of the sum to bfloat16, and the library's of its terms.
    torch.testing.assert_close(found.double(), exact, rtol=2**-6, atol=2**-6 * exact.abs().max().item())


def test_layers_that_pad_their_inputs_themselves_are_covered(taken):
    layer, x = depthwise_layer(OwnPadding).bfloat16(), torch.randn(2, 4, 8, 8).bfloat16()
    theirs = gradient(layer, x)
    use_dense_gradients(layer)
    torch.testing.assert_close(gradient(layer, x), theirs, rtol=2**-6, atol=2**-6)
    assert len(taken) == 1


@pytest.mark.parametrize(
    "shape",
    [
        {"stride": 1},
        {"groups": 2},
        {"groups": 1},
        {"dilation": 2},
        {"stride": (2, 1), "padding": 3},
        {"padding": "valid"},
    ],
)
def test_other_convolutions_are_left_as_they_are(taken, shape):
    layer, x = depthwise_layer(**shape).bfloat16(), torch.randn(2, 4, 8, 8).bfloat16()
    theirs = gradient(layer, x)
    use_dense_gradients(layer)
    assert torch.equal(gradient(layer, x), theirs)
    assert not taken


def test_other_precisions_and_weights_that_learn_are_left_to_pytorch(taken):
    layer, x = depthwise_layer(), torch.randn(2, 4, 8, 8)
    use_dense_gradients(layer)
    gradient(layer, x)
    layer.bfloat16().requires_grad_(True)
    y = layer(x.bfloat16().requires_grad_())
    y.sum().backward()
    assert layer.weight.grad is not None
    assert not taken


def test_an_image_without_a_batch_and_a_second_derivative():
    layer, x = depthwise_layer().bfloat16(), torch.randn(4, 8, 8).bfloat16()
    theirs = gradient(layer, x)
    use_dense_gradients(layer)
    assert torch.equal(gradient(layer, x), theirs)
    x = x[None].requires_grad_()
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    ones = torch.ones_like(x)
    turned = 2 * gradient(layer, ones, layer(ones) - layer(torch.zeros_like(x)))
    torch.testing.assert_close(second, turned, rtol=2**-5, atol=2**-5)


def test_a_classifier_takes_them(taken):
    """As it comes from a user, and a copy for the search in another precision."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), depthwise_layer(), nn.Flatten(), nn.Linear(64, 3))
    x, labels = torch.rand(1, 3, 8, 8), torch.zeros(1, dtype=torch.long)
    for dtype in (torch.float32, torch.bfloat16):
        classifier = SmoothedClassifier(
            copy.deepcopy(model), sigma=0.5, num_classes=3, input_shape=(3, 8, 8), dtype=dtype
        )
        searched = classifier.searched_in(torch.bfloat16).search
        for each, expected in ((classifier, dtype == torch.bfloat16), (searched, True)):
            taken.clear()
            each.gradient(x, labels, samples=8)
            assert bool(taken) is expected


def test_a_model_can_be_saved_whole_and_copied():
    layer = depthwise_layer(OwnPadding)
    use_dense_gradients(layer)
    use_dense_gradients(layer)  # as it is where a model becomes a second classifier
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is OwnPadding
        assert torch.equal(other.weight, layer.weight)
