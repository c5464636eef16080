"""Convolutions with faster gradients at their inputs: the same outputs, and gradients as exact as PyTorch's own."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from caa_cli.smoothing import input_gradients
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.depthwise import densely
from caa_cli.smoothing.few_channels import in_blocks, is_faster_in_blocks
from caa_cli.smoothing.input_gradients import use_faster_gradients

SIZES = st.tuples(st.integers(6, 12), st.integers(6, 12))
KERNELS = st.tuples(st.integers(1, 6), st.integers(1, 6))
PADDINGS = st.tuples(st.integers(0, 3), st.integers(0, 3))


class OwnPadding(nn.Conv2d):
    """Pads its inputs itself, at two sides only, as networks that come from TensorFlow do."""

    def forward(self, x):
        padded = F.pad(x, (0, 1, 0, 1))
        return F.conv2d(input=padded, weight=self.weight, bias=self.bias, stride=self.stride, groups=self.groups)


def depthwise_layer(kind=nn.Conv2d, **shape):
    torch.manual_seed(0)
    return kind(4, 4, 3, **{"stride": 2, "padding": 1, "groups": 4, **shape}).requires_grad_(False)


def first_layer(kind=nn.Conv2d, channels=3, **shape):
    torch.manual_seed(0)
    return kind(channels, 8, 3, **{"stride": 2, "padding": 1, **shape}).requires_grad_(False)


LAYERS = pytest.mark.parametrize("make", [depthwise_layer, first_layer])


def inputs(layer, *size):
    torch.manual_seed(1)
    return torch.randn(2, layer.in_channels, *(size or (8, 6)), dtype=layer.weight.dtype)


def gradient(layer, x, at_outputs=None):
    x = x.clone().requires_grad_()
    y = layer(x)
    at_outputs = torch.linspace(-1, 1, y.numel()).view_as(y).round(decimals=1) if at_outputs is None else at_outputs
    return torch.autograd.grad(y, x, at_outputs.to(y.dtype))[0]


@pytest.fixture
def taken(monkeypatch):
    """Counts the gradients that are computed this way, on any CPU."""
    calls = []
    backward = input_gradients._Convolution.backward

    def counted(ctx, at_outputs):
        calls.append(at_outputs.shape)
        return backward(ctx, at_outputs)

    monkeypatch.setattr(input_gradients._Convolution, "backward", staticmethod(counted))
    monkeypatch.setattr(input_gradients, "is_faster_in_blocks", lambda dtype, stride: dtype == torch.bfloat16)
    return calls


def assert_exact(gradient_of, groups, channels, kernel, stride, padding, size, last):
    """Equal to PyTorch's, in float64."""
    kernel = tuple(max(k, pad + 1) for k, pad in zip(kernel, padding, strict=True))
    weight = torch.randn(8 if groups == 1 else channels, channels // groups, *kernel, dtype=torch.double)
    x = torch.randn(2, channels, *size, dtype=torch.double).requires_grad_()
    y = F.conv2d(x, weight, None, stride, padding, 1, groups)
    layout = torch.channels_last if last else torch.contiguous_format
    at_outputs = torch.randn_like(y).contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(y, x, at_outputs)
    found = gradient_of(at_outputs, weight, size, stride, padding)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(
    kernel=KERNELS,
    stride=st.tuples(st.integers(1, 3), st.integers(2, 3)),
    padding=PADDINGS,
    size=SIZES,
    last=st.booleans(),
)
def test_dense_gradients_of_depthwise_convolutions(kernel, stride, padding, size, last):
    assert_exact(densely, 4, 4, kernel, stride, padding, size, last)


@settings(deadline=None, max_examples=200)
@given(
    channels=st.integers(1, 4),
    kernel=KERNELS,
    stride=st.integers(1, 5),
    padding=PADDINGS,
    size=SIZES,
    last=st.booleans(),
)
def test_gradients_in_blocks_where_channels_are_few(channels, kernel, stride, padding, size, last):
    assert_exact(in_blocks, 1, channels, kernel, (stride, stride), padding, size, last)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding"), [(224, 16, 16, 0), (28, 7, 2, 3), (32, 11, 4, 2)])
def test_the_first_layers_of_common_networks(size, kernel, stride, padding):
    assert_exact(in_blocks, 1, 3, (kernel,) * 2, (stride,) * 2, (padding,) * 2, (size,) * 2, last=False)


@LAYERS
@pytest.mark.parametrize("kind", [nn.Conv2d, OwnPadding])
def test_a_layer_takes_them_also_where_it_pads_its_inputs_itself(taken, make, kind):
    layer = make(kind).bfloat16()
    x = inputs(layer)
    theirs, before = gradient(layer, x), layer(x)
    use_faster_gradients(layer)
    assert torch.equal(layer(x), before)
    # One rounding of the sum to bfloat16, and the library's of its terms.
    torch.testing.assert_close(gradient(layer, x), theirs, rtol=2**-6, atol=2**-6)
    assert len(taken) == 1


@pytest.mark.parametrize(
    "layer",
    [
        depthwise_layer(stride=1),
        depthwise_layer(groups=2),
        depthwise_layer(dilation=2),
        depthwise_layer(stride=(2, 1), padding=3),
        depthwise_layer(padding="valid", stride=1),
        first_layer(channels=5),
        first_layer(channels=4, groups=2),
        first_layer(stride=(2, 1)),
        first_layer(dilation=2),
        first_layer(padding=3),
        first_layer(padding="same", stride=1),
    ],
    ids=str,
)
def test_other_convolutions_are_left_as_they_are(taken, layer):
    layer = layer.bfloat16()
    x = inputs(layer)
    theirs = gradient(layer, x)
    use_faster_gradients(layer)
    assert torch.equal(gradient(layer, x), theirs)
    assert not taken


@LAYERS
def test_other_precisions_and_weights_that_learn_are_left_to_pytorch(taken, make):
    layer = make()
    use_faster_gradients(layer)
    gradient(layer, inputs(layer))
    layer.bfloat16().requires_grad_(True)
    layer(inputs(layer).requires_grad_()).sum().backward()
    assert layer.weight.grad is not None
    assert not taken


def test_blocks_are_for_processors_that_compute_them_fast(monkeypatch):
    """oneDNN has no fast float64 on any, and bfloat16 only where registers are wide. Without it neither is fast."""

    def fast(registers, bfloat16=False, library=True):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: registers)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16, raising=False)
        types = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
        return [(dtype, step) for dtype in types for step in (1, 2) if is_faster_in_blocks(dtype, (step, step))]

    single, half = [(torch.float32, 1), (torch.float32, 2)], [(torch.bfloat16, 1), (torch.bfloat16, 2)]
    assert fast("AVX512", bfloat16=True) == single + half
    assert fast("AVX512") == single
    assert fast("AVX2", bfloat16=True) == [(torch.float32, 2)]
    assert fast("DEFAULT", bfloat16=True) == fast("AVX512", bfloat16=True, library=False) == []


@LAYERS
def test_an_image_without_a_batch_and_a_second_derivative(make, taken):
    layer = make().bfloat16()
    x = inputs(layer)[0]
    theirs = gradient(layer, x)
    use_faster_gradients(layer)
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
        for each, expected in ((classifier, 2 * (dtype == torch.bfloat16)), (searched, 2)):
            taken.clear()
            each.gradient(x, labels, samples=8)
            assert len(taken) == expected


@LAYERS
def test_a_model_can_be_saved_whole_and_copied(make):
    layer = make(OwnPadding)
    use_faster_gradients(layer)
    use_faster_gradients(layer)  # as it is where a model becomes a second classifier
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(other) is OwnPadding
        assert torch.equal(other.weight, layer.weight)
