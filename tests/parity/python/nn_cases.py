"""The cases of nn.py: layers of one input and losses, with their options and inputs, and initial values."""

import itertools
from dataclasses import dataclass, field
from typing import Callable

import torch
from torch import nn

generator = torch.Generator().manual_seed(20261128)
cases = []
half, bfloat16, double = torch.half, torch.bfloat16, torch.double


def f(*shape):
    return torch.randn(shape, generator=generator)


def i(high, *shape):
    return torch.randint(high, shape, generator=generator)


def p(*shape):
    """Probabilities."""
    return torch.rand(shape, generator=generator) * 0.98 + 0.01


def sign(*shape):
    return i(2, *shape) * 2.0 - 1.0


@dataclass
class Case:
    name: str
    args: tuple
    options: dict
    inputs: Callable
    call: Callable = lambda module, *inputs: module(*inputs)
    # What `call` does, for the other side.
    said: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    # How many of the inputs get gradients.
    differentiable: int = 1
    # Whether it is an error.
    fails: bool = False
    new: Callable | None = None

    def create(self):
        return (self.new or getattr(nn, self.name))(*self.args, **self.options)


def case(name, *args, inputs, dtype=torch.float32, fails=False, differentiable=1, **options):
    """`inputs` are shapes of normal values, or a function that makes them."""
    make = inputs if callable(inputs) else lambda: [f(*shape) for shape in inputs]
    cases.append(Case(name, args, options, make, dtype=dtype, fails=fails, differentiable=differentiable))


def convolutions():
    space = {1: (9,), 2: (7, 8), 3: (5, 6, 4)}
    for n, size in space.items():
        conv, transposed = f"Conv{n}d", f"ConvTranspose{n}d"
        x = [(2, 4, *size)]
        pair = (3, 2, 1)[:n]
        for options in (
            {}, {"bias": False}, {"stride": 2}, {"padding": 1}, {"padding": pair[::-1], "dilation": 2}, {"groups": 2},
            {"stride": pair, "padding": 2, "groups": 4, "bias": False}, {"padding": "valid", "stride": 2},
        ):  # fmt: skip
            case(conv, 4, 8, 3 if "groups" in options else pair, inputs=x, **options)
        for mode, padding in itertools.product(("reflect", "replicate", "circular"), (1, "same", pair)):
            case(conv, 4, 6, 3, inputs=x, padding=padding, padding_mode=mode, stride=1 if padding == "same" else 2)
        for kernel, dilation in ((3, 1), (2, 1), (2, 3)):
            case(conv, 4, 6, kernel, inputs=x, padding="same", dilation=dilation)
            case(conv, 4, 6, kernel, inputs=x, padding="same", dilation=dilation, padding_mode="replicate")
        case(conv, 4, 6, 3, inputs=[(4, *size)])
        case(conv, 4, 6, 3, inputs=[(4, *size)], padding=1, padding_mode="circular")
        case(conv, 4, 6, 3, inputs=[(1, 4, *size)], dtype=double)
        case(conv, 4, 6, 3, inputs=x, dtype=bfloat16, padding=1)
        case(conv, 4, 6, 3, inputs=[size], fails=True)
        case(conv, 4, 6, 3, inputs=[(2, 3, *size)], fails=True)
        case(conv, 4, 6, 3, inputs=x, groups=4, fails=True)
        case(conv, 4, 6, 3, inputs=x, padding="same", stride=2, fails=True)
        case(conv, 4, 6, 30, inputs=x, fails=True)
        for options in (
            {}, {"bias": False}, {"stride": 2}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "padding": 1},
            {"stride": (2, 3, 2)[:n], "padding": pair[::-1], "dilation": 2, "output_padding": 1, "groups": 4},
        ):  # fmt: skip
            case(transposed, 4, 8, 3, inputs=x, **options)
        case(transposed, 4, 6, pair, inputs=[(4, *size)])
        case(transposed, 4, 6, 3, inputs=x, dtype=double, stride=2)
        case(transposed, 4, 6, 3, inputs=x, stride=2, output_padding=2, fails=True)
        for larger in (0, 1):
            wanted = [(s - 1) * 2 + 3 + larger for s in size]
            call = lambda module, x, wanted=wanted: module(x, output_size=wanted)
            options = {"stride": 2}
            make = lambda x=x: [f(*x[0])]
            cases.append(Case(transposed, (4, 6, 3), options, make, call, {"output_size": wanted}))
        call = lambda module, x: module(x, output_size=[100] * n)
        cases.append(Case(transposed, (4, 6, 3), {}, make, call, {"output_size": [100] * n}, fails=True))


def linear():
    for bias in (True, False):
        case("Linear", 5, 3, inputs=[(4, 5)], bias=bias)
        case("Bilinear", 5, 4, 3, inputs=[(2, 5), (2, 4)], bias=bias, differentiable=2)
    for dtype in (half, bfloat16, double):
        case("Linear", 5, 3, inputs=[(4, 5)], dtype=dtype)
    case("Linear", 5, 3, inputs=[(5,)])
    case("Linear", 5, 3, inputs=[(2, 3, 1, 5)])
    case("Linear", 5, 3, inputs=[(2, 4)], fails=True)
    case("Bilinear", 5, 4, 3, inputs=[(2, 3, 5), (2, 3, 4)], differentiable=2)
    case("Bilinear", 5, 4, 3, inputs=[(2, 5), (3, 4)], fails=True)


def norms():
    space = {1: (5,), 2: (4, 5), 3: (3, 2, 4)}
    for n, size in space.items():
        batch, instance = f"BatchNorm{n}d", f"InstanceNorm{n}d"
        for affine, track in itertools.product((True, False), (True, False)):
            case(batch, 3, inputs=[(2, 3, *size)], affine=affine, track_running_stats=track)
            case(instance, 3, inputs=[(2, 3, *size)], affine=affine, track_running_stats=track)
        for momentum in (0.3, 1.0, 0.0):
            case(batch, 3, inputs=[(2, 3, *size)], momentum=momentum, eps=1e-3)
            case(instance, 3, inputs=[(2, 3, *size)], momentum=momentum, eps=1e-3, track_running_stats=True)
        case(batch, 3, inputs=[(2, 3, *size)], momentum=None)
        case(batch, 3, inputs=[(2, 3, *size)], momentum=None, track_running_stats=False)
        for dtype in (double, bfloat16):
            case(batch, 3, inputs=[(2, 3, *size)], dtype=dtype)
            case(instance, 3, inputs=[(2, 3, *size)], dtype=dtype, affine=True, track_running_stats=True)
        case(batch, 3, inputs=[(1, 3, *size)])
        case(instance, 3, inputs=[(1, 3, *size)], affine=True)
        case(instance, 3, inputs=[(3, *size)], track_running_stats=True)
        case(batch, 3, inputs=[(1, 3, *[1] * n)], fails=True)
        case(instance, 3, inputs=[(1, 3, *[1] * n)], fails=True)
        case(batch, 3, inputs=[(2, 4, *size)], fails=True)
        case(batch, 3, inputs=[(2, 3, *size, 1)], fails=True)
        case(instance, 3, inputs=[(2, 3, *size, 1)], fails=True)
        case(instance, 3, inputs=[(2, 4, *size)], affine=True, fails=True)
        # A warning in PyTorch.
        case(instance, 3, inputs=[(2, 4, *size)])
        case(instance, 3, inputs=[(4, *size)])
    case("BatchNorm1d", 3, inputs=[(4, 3)])
    case("BatchNorm1d", 3, inputs=[(1, 3)], fails=True)
    case("BatchNorm1d", 3, inputs=[(3,)], fails=True)
    for affine in (True, False):
        for size in ((2, 6, 4, 3), (1, 6), (2, 6, 5)):
            case("GroupNorm", 3, 6, inputs=[size], affine=affine, eps=1e-4)
        case("LayerNorm", 6, inputs=[(2, 5, 6)], elementwise_affine=affine)
        case("LayerNorm", (5, 6), inputs=[(2, 5, 6)], elementwise_affine=affine, bias=False, eps=1e-3)
        case("RMSNorm", 6, inputs=[(2, 5, 6)], elementwise_affine=affine)
        case("RMSNorm", (5, 6), inputs=[(5, 6)], elementwise_affine=affine, eps=1e-4)
    for dtype in (double, bfloat16, half):
        case("GroupNorm", 2, 6, inputs=[(2, 6, 4, 3)], dtype=dtype)
        case("LayerNorm", 6, inputs=[(2, 5, 6)], dtype=dtype)
        case("RMSNorm", 6, inputs=[(2, 5, 6)], dtype=dtype)
    case("GroupNorm", 4, 6, inputs=[(2, 6, 4)], fails=True)
    case("GroupNorm", 3, 6, inputs=[(2, 5, 4)], fails=True)
    case("GroupNorm", 6, 6, inputs=[(1, 6)], fails=True)
    case("LayerNorm", 6, inputs=[(2, 5)], fails=True)
    case("RMSNorm", 6, inputs=[(2, 5)], fails=True)
    for size in ((2, 6, 4), (2, 6, 4, 3), (2, 6, 3, 2, 3), (1, 2, 3)):
        case("LocalResponseNorm", 3, inputs=[size], alpha=0.5, beta=0.6, k=2.0)
        case("LocalResponseNorm", 4, inputs=[size])
    case("LocalResponseNorm", 2, inputs=[(2, 6)], fails=True)


def activations():
    x = [(3, 4, 5)]
    for name in (
        "ReLU", "ReLU6", "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Softsign", "GELU", "SiLU", "Mish", "SELU",
        "Hardsigmoid", "Hardswish", "Identity", "Softmax2d",
    ):  # fmt: skip
        case(name, inputs=lambda: [f(3, 4, 5) * 4])
        for dtype in (double, bfloat16):
            case(name, inputs=lambda: [f(3, 4, 5) * 4], dtype=dtype)
    case("Softmax2d", inputs=[(2, 3, 4, 5)])
    case("Softmax2d", inputs=[(4, 5)], fails=True)
    case("GELU", inputs=x, approximate="tanh")
    for slope in (0.01, 0.5, 0.0, -0.2):
        case("LeakyReLU", inputs=x, negative_slope=slope)
    for alpha in (1.0, 0.3):
        case("ELU", inputs=x, alpha=alpha)
        case("CELU", inputs=x, alpha=alpha)
    case("CELU", inputs=x, alpha=0.0, fails=True)
    for low, high in ((-1.0, 1.0), (-0.5, 2.0)):
        case("Hardtanh", inputs=x, min_val=low, max_val=high)
    for lambd in (0.5, 0.0, 1.25):
        case("Hardshrink", inputs=x, lambd=lambd)
        case("Softshrink", inputs=x, lambd=lambd)
    case("Softshrink", inputs=x, lambd=-1.0, fails=True)
    for beta, limit in ((1.0, 20.0), (3.0, 2.0)):
        case("Softplus", inputs=x, beta=beta, threshold=limit)
    case("Threshold", 0.1, 20.0, inputs=x)
    for dim in (-1, 0, 1):
        for name in ("Softmax", "Softmin", "LogSoftmax"):
            case(name, inputs=x, dim=dim)
        case("GLU", inputs=[(2, 4, 6)], dim=dim)
    case("Softmax", inputs=x, dim=-1, dtype=bfloat16)
    case("Softmax", inputs=x, dim=3, fails=True)
    case("GLU", inputs=[(2, 4, 5)], dim=-1, fails=True)
    case("PReLU", inputs=x)
    case("PReLU", inputs=x, num_parameters=4, init=0.1)
    case("PReLU", inputs=[(6,)])
    case("PReLU", inputs=x, num_parameters=3, fails=True)
    case("RReLU", inputs=x, lower=0.125, upper=1 / 3)
    case("RReLU", inputs=x, lower=0.2, upper=0.2)
    for rate in (0.5, 0.1, 0.0, 1.0):
        case("Dropout", inputs=x, p=rate)
        case("AlphaDropout", inputs=x, p=rate)
        case("FeatureAlphaDropout", inputs=[(3, 4, 5, 6)], p=rate)
        case("Dropout1d", inputs=[(3, 4, 5)], p=rate)
        case("Dropout2d", inputs=[(3, 4, 5, 6)], p=rate)
        case("Dropout3d", inputs=[(3, 4, 2, 5, 3)], p=rate)
    case("Dropout", inputs=x, p=1.5, fails=True)
    case("Dropout", inputs=x, p=0.3, dtype=bfloat16)
    case("Dropout1d", inputs=[(4, 5)], p=0.5)
    case("Dropout2d", inputs=[(4, 5, 6)], p=0.5)
    case("Dropout3d", inputs=[(4, 2, 5, 3)], p=0.5)
    case("Dropout1d", inputs=[(2, 4, 5, 3)], p=0.5, fails=True)


def embeddings():
    indices = lambda: [i(10, 3, 4)]
    for options in (
        {}, {"padding_idx": 3}, {"padding_idx": -2}, {"max_norm": 1.0}, {"max_norm": 0.5, "norm_type": 1.0, "padding_idx": 0},
        {"scale_grad_by_freq": True}, {"sparse": True}, {"sparse": True, "padding_idx": 1},
    ):  # fmt: skip
        case("Embedding", 10, 3, inputs=indices, **options)
    case("Embedding", 10, 3, inputs=indices, dtype=bfloat16, padding_idx=2)
    case("Embedding", 10, 3, inputs=lambda: [i(10, 4).int()])
    case("Embedding", 10, 3, inputs=lambda: [torch.tensor(4)])
    case("Embedding", 10, 3, inputs=lambda: [torch.tensor([3, 10])], fails=True)
    case("Embedding", 10, 3, inputs=lambda: [torch.tensor([3, -1])], fails=True)
    case("Embedding", 10, 3, inputs=[(3,)], fails=True)
    case("Embedding", 10, 3, inputs=indices, padding_idx=10, fails=True)
    offsets = lambda: [i(10, 9), torch.tensor([0, 2, 2, 7]), None]
    for mode in ("mean", "sum", "max"):
        for options in ({}, {"padding_idx": 3}, {"max_norm": 1.0}, {"padding_idx": -1, "max_norm": 0.7, "norm_type": 1.0}):
            case("EmbeddingBag", 10, 3, inputs=lambda: [i(10, 3, 4), None, None], mode=mode, **options)
            case("EmbeddingBag", 10, 3, inputs=offsets, mode=mode, **options)
        last = lambda: [i(10, 9), torch.tensor([0, 2, 7, 9]), None]
        case("EmbeddingBag", 10, 3, inputs=last, mode=mode, include_last_offset=True)
        case("EmbeddingBag", 10, 3, inputs=lambda: [i(10, 9), torch.tensor([1, 2]), None], mode=mode, fails=True)
    for mode in ("mean", "sum"):
        case("EmbeddingBag", 10, 3, inputs=offsets, mode=mode, scale_grad_by_freq=True)
        case("EmbeddingBag", 10, 3, inputs=offsets, mode=mode, sparse=True)
    weighted = lambda: [i(10, 3, 4), None, f(3, 4)]
    case("EmbeddingBag", 10, 3, inputs=weighted, mode="sum", differentiable=3)
    case("EmbeddingBag", 10, 3, inputs=lambda: [*offsets()[:2], f(9)], mode="sum", padding_idx=2, differentiable=3)
    case("EmbeddingBag", 10, 3, inputs=weighted, mode="mean", fails=True)
    case("EmbeddingBag", 10, 3, inputs=lambda: [i(10, 3, 4), torch.tensor([0]), None], fails=True)
    case("EmbeddingBag", 10, 3, inputs=lambda: [i(10, 3), None, None], fails=True)


def shapes():
    for n, size in {1: (6,), 2: (5, 6), 3: (4, 5, 6)}.items():
        sides = (1, 2, 0, 1, 2, 1)[: 2 * n]
        for sample in (True, False):
            x = [(3, *size)] if sample else [(2, 3, *size)]
            for name, sizes in itertools.product(("Zero", "Reflection", "Replication", "Circular"), (1, sides)):
                case(f"{name}Pad{n}d", sizes, inputs=x)
            case(f"ConstantPad{n}d", sides, 3.5, inputs=x)
            case(f"ConstantPad{n}d", (-1, 1) * n, -1.0, inputs=x)
        case(f"ZeroPad{n}d", (-1, -1) * n, inputs=x)
        case(f"ReplicationPad{n}d", 1, inputs=x, dtype=double)
        case(f"ReflectionPad{n}d", 9, inputs=x, fails=True)
        case(f"CircularPad{n}d", 9, inputs=x, fails=True)
    case("Flatten", inputs=[(2, 3, 4, 5)])
    case("Flatten", inputs=[(2, 3, 4, 5)], start_dim=0, end_dim=2)
    case("Flatten", inputs=[(2, 3, 4)], start_dim=2, end_dim=1, fails=True)
    case("Unflatten", 1, (2, 3), inputs=[(4, 6, 2)])
    case("Unflatten", -1, (2, -1, 2), inputs=[(4, 12)])
    case("Unflatten", 1, (4, 4), inputs=[(4, 6)], fails=True)
    case("PixelShuffle", 2, inputs=[(2, 8, 3, 4)])
    case("PixelShuffle", 2, inputs=[(4, 3, 4)])
    case("PixelShuffle", 2, inputs=[(2, 6, 3, 4)], fails=True)
    case("PixelUnshuffle", 2, inputs=[(2, 3, 4, 6)])
    case("PixelUnshuffle", 2, inputs=[(2, 3, 5, 6)], fails=True)
    case("ChannelShuffle", 3, inputs=[(2, 6, 4, 5)])
    case("ChannelShuffle", 2, inputs=[(2, 6, 3)])
    case("ChannelShuffle", 4, inputs=[(2, 6, 3)], fails=True)
    for options in ({}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (1, 2), "stride": (2, 1)}):
        case("Unfold", (2, 3), inputs=[(2, 3, 7, 8)], **options)
        case("Unfold", 2, inputs=[(3, 7, 8)], **options)
    case("Fold", (4, 5), (2, 3), inputs=[(2, 12, 9)])
    case("Fold", (4, 5), (2, 3), inputs=[(12, 9)])
    case("Fold", (4, 6), 2, inputs=[(1, 8, 6)], stride=2)
    case("Fold", (4, 6), 2, inputs=[(1, 8, 15)], padding=1, dilation=(2, 1), stride=(2, 2), fails=True)
    case("Fold", 6, (2, 2), inputs=[(2, 8, 12)], padding=(1, 0), stride=(2, 2), dilation=1)


def pools():
    for n, size in {1: (9,), 2: (7, 8), 3: (6, 5, 7)}.items():
        pair = (3, 2, 4)[:n]
        for sample in (True, False):
            x = [(3, *size)] if sample else [(2, 3, *size)]
            for kernel, options in (
                (2, {}), (3, {"stride": 2}), (pair, {"stride": 1}), (pair, {"stride": pair[::-1], "padding": 1, "ceil_mode": True}),
                (3, {"stride": 2, "ceil_mode": True}), (3, {"padding": 1}),
            ):  # fmt: skip
                case(f"MaxPool{n}d", kernel, inputs=x, **options)
                case(f"AvgPool{n}d", kernel, inputs=x, **options)
                if "padding" in options:
                    case(f"AvgPool{n}d", kernel, inputs=x, count_include_pad=False, **options)
                elif n > 1 or kernel != pair:
                    case(f"LPPool{n}d", 2.0, kernel, inputs=x, **options)
            case(f"MaxPool{n}d", 2, inputs=x, stride=1, dilation=2)
            if n > 1:
                case(f"AvgPool{n}d", 2, inputs=x, divisor_override=3)
            case(f"LPPool{n}d", 3.0, 2, inputs=x)
            case(f"LPPool{n}d", 1.5, 2, inputs=lambda x=x: [p(*x[0])])
            for wanted in (1, 3, pair):
                case(f"AdaptiveAvgPool{n}d", wanted, inputs=x)
                case(f"AdaptiveMaxPool{n}d", wanted, inputs=x)
            if n > 1:
                case(f"AdaptiveAvgPool{n}d", (None, 3, None)[:n], inputs=x)
                case(f"AdaptiveMaxPool{n}d", (None, 3, None)[:n], inputs=x)
        for dtype in (double, bfloat16):
            case(f"MaxPool{n}d", 2, inputs=x, dtype=dtype)
            if (n, dtype) != (3, bfloat16):
                case(f"AvgPool{n}d", 2, inputs=x, dtype=dtype)
            case(f"AdaptiveAvgPool{n}d", 2, inputs=x, dtype=dtype)
        indexed = {"return_indices": True}
        for name, kernel, options in (("MaxPool", 2, {"stride": 2, "padding": 1}), ("AdaptiveMaxPool", 3, {})):
            new = lambda *args, kind=getattr(nn, f"{name}{n}d"), **options: kind(*args, return_indices=True, **options)
            make = lambda x=x: [f(*x[0])]
            cases.append(Case(f"{name}{n}d", (kernel,), options, make, said=indexed, new=new))
        case(f"MaxPool{n}d", 2, inputs=x, padding=2, fails=True)
        case(f"MaxPool{n}d", 20, inputs=x, fails=True)
        case(f"MaxPool{n}d", 2, inputs=[(3,)], fails=True)
        case(f"AdaptiveAvgPool{n}d", 2, inputs=[(3,)], fails=True)

        # The indices are those of the pool, which are unlike each other.
        pool = lambda x, **options: getattr(nn.functional, f"max_pool{len(x.shape) - 2}d")(x, 2, return_indices=True, **options)
        even = (8, 6, 4)[:n]
        unpooled = lambda even=even: list(pool(f(2, 3, *even)))
        case(f"MaxUnpool{n}d", 2, inputs=unpooled)
        case(f"MaxUnpool{n}d", (2,) * n, inputs=unpooled, stride=2)
        case(f"MaxUnpool{n}d", 2, inputs=lambda even=even: list(pool(f(2, 3, *even), padding=1)), stride=2, padding=1)
        odd = [s + 1 for s in even]
        call = lambda module, x, indices, odd=odd: module(x, indices, output_size=odd)
        make = lambda odd=odd: list(pool(f(2, 3, *odd)))
        cases.append(Case(f"MaxUnpool{n}d", (2,), {}, make, call, {"output_size": odd}))
        call = lambda module, x, indices: module(x, indices, output_size=[50] * n)
        cases.append(Case(f"MaxUnpool{n}d", (2,), {}, make, call, {"output_size": [50] * n}, fails=True))


def upsampling():
    modes = {1: ("nearest", "linear"), 2: ("nearest", "bilinear", "bicubic"), 3: ("nearest", "trilinear")}
    modes = {n: (*names, "nearest-exact") for n, names in modes.items()}
    for n, size in {1: (5,), 2: (4, 5), 3: (3, 4, 2)}.items():
        x = [(2, 3, *size)]
        for mode in modes[n]:
            for align in (None, False, True) if "nearest" not in mode else (None,):
                options = {"mode": mode} | ({} if align is None else {"align_corners": align})
                for factor in (2.0, 1.5, 0.7, (2.0, 1.3, 0.6)[:n]):
                    case("Upsample", inputs=x, scale_factor=factor, **options)
                for wanted in (7, tuple(2 * s + 1 for s in size)):
                    case("Upsample", inputs=x, size=wanted, **options)
            case("Upsample", inputs=x, scale_factor=1.7, mode=mode, recompute_scale_factor=True)
        case("Upsample", inputs=x, scale_factor=2.0, mode=modes[n][1], dtype=double)
        case("Upsample", inputs=[(3, 4)], scale_factor=2.0, fails=True)
    case("Upsample", inputs=[(2, 3, 4, 5)], scale_factor=2.0, mode="linear", fails=True)
    case("Upsample", inputs=[(2, 3, 4, 5)], scale_factor=2.0, mode="nearest", align_corners=True, fails=True)
    case("Upsample", inputs=[(2, 3, 4, 5)], size=(3, 4, 5), fails=True)
    case("Upsample", inputs=[(2, 3, 4, 5)], scale_factor=0.1, fails=True)


def losses():
    reductions = ("mean", "sum", "none")
    weights = torch.tensor([0.5, 1.5, 0.25, 2.0])
    items = torch.tensor([[0.5], [1.5], [0.25]])
    for reduction in reductions:
        r = {"reduction": reduction}
        pair = [(3, 4), (3, 4)]
        for name in ("L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss"):
            case(name, inputs=pair, differentiable=2, **r)
        case("MSELoss", inputs=pair, dtype=double, **r)
        case("MSELoss", inputs=[(), ()], **r)
        for beta in (0.3, 0.0):
            case("SmoothL1Loss", inputs=pair, beta=beta, **r)
        case("HuberLoss", inputs=pair, delta=0.3, **r)
        case("HuberLoss", inputs=pair, delta=0.0, fails=True, **r)

        classes = lambda: [f(3, 4), i(4, 3)]
        probabilities = lambda: [f(3, 4), torch.softmax(f(3, 4), 1)]
        for options in (
            {}, {"weight": weights}, {"ignore_index": 1}, {"label_smoothing": 0.2}, {"weight": weights, "label_smoothing": 0.2},
            {"weight": weights, "label_smoothing": 0.1, "ignore_index": 2},
        ):  # fmt: skip
            case("CrossEntropyLoss", inputs=classes, **r, **options)
            case("CrossEntropyLoss", inputs=lambda: [f(2, 4, 3, 2), i(4, 2, 3, 2)], **r, **options)
            case("CrossEntropyLoss", inputs=lambda: [f(4), i(4)], **r, **options)
            if "ignore_index" not in options:
                case("CrossEntropyLoss", inputs=probabilities, differentiable=2, **r, **options)
            if "label_smoothing" not in options:
                logs = lambda: [torch.log_softmax(f(3, 4), 1), i(4, 3)]
                case("NLLLoss", inputs=logs, **r, **options)
                case("NLLLoss", inputs=lambda: [torch.log_softmax(f(2, 4, 3), 1), i(4, 2, 3)], **r, **options)
        case("CrossEntropyLoss", inputs=lambda: [f(3, 4), torch.tensor([-100] * 3)], **r)
        case("CrossEntropyLoss", inputs=lambda: [f(3, 4), torch.tensor([0, 1, 4])], fails=True, **r)
        case("CrossEntropyLoss", inputs=classes, label_smoothing=1.5, fails=True, **r)

        yes = lambda: [p(3, 4), i(2, 3, 4).float()]
        logits = lambda: [f(3, 4), p(3, 4)]
        for options in ({}, {"weight": items}, {"weight": weights}):
            case("BCELoss", inputs=yes, **r, **options)
            case("BCEWithLogitsLoss", inputs=logits, differentiable=2, **r, **options)
            case("BCEWithLogitsLoss", inputs=logits, pos_weight=weights, **r, **options)
        case("BCELoss", inputs=lambda: [torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.0, 0.0, 1.0])], **r)
        case("BCELoss", inputs=lambda: [f(3) * 5 + 9, p(3)], fails=True, **r)
        case("BCELoss", inputs=lambda: [p(3, 1), p(3)], fails=True, **r)
        case("BCEWithLogitsLoss", inputs=[(3, 1), (3,)], fails=True, **r)
        for log_target in (False, True):
            target = lambda log_target=log_target: torch.log_softmax(f(3, 4), 1) if log_target else torch.softmax(f(3, 4), 1)
            both = lambda target=target: [torch.log_softmax(f(3, 4), 1), target()]
            case("KLDivLoss", inputs=both, log_target=log_target, **r)
            case("KLDivLoss", inputs=both, log_target=log_target, reduction="batchmean")
        signs = lambda: [f(3, 4), sign(3, 4)]
        case("SoftMarginLoss", inputs=signs, **r)
        for margin in (1.0, 0.3):
            case("HingeEmbeddingLoss", inputs=signs, margin=margin, **r)
        for options in ({}, {"weight": weights}):
            case("MultiLabelSoftMarginLoss", inputs=lambda: [f(3, 4), i(2, 3, 4).float()], **r, **options)
            case("MultiLabelSoftMarginLoss", inputs=lambda: [f(4), i(2, 4).float()], **r, **options)
            for power, margin in ((1, 1.0), (2, 0.4)):
                case("MultiMarginLoss", inputs=classes, p=power, margin=margin, **r, **options)
        case("MultiMarginLoss", inputs=classes, p=3, fails=True, **r)
        labels = lambda: [f(2, 4), torch.tensor([[3, 0, -1, 1], [1, -1, -1, -1]])]
        case("MultiLabelMarginLoss", inputs=labels, **r)

        for options in ({}, {"full": True}, {"log_input": False}, {"log_input": False, "full": True, "eps": 1e-3}):
            case("PoissonNLLLoss", inputs=lambda: [p(3, 4), i(6, 3, 4).float()], **r, **options)
        for var in ((3, 4), (3, 1), (3,)):
            for options in ({}, {"full": True, "eps": 0.5}):
                case("GaussianNLLLoss", inputs=lambda var=var: [f(3, 4), f(3, 4), p(*var)], differentiable=3, **r, **options)
        case("GaussianNLLLoss", inputs=lambda: [f(3, 4), f(3, 4), p(2)], fails=True, **r)
        case("GaussianNLLLoss", inputs=lambda: [f(3, 4), f(3, 4), -p(3, 4)], fails=True, **r)

        two = lambda: [f(3, 4), f(3, 4), sign(3)]
        for margin in (0.0, 0.4):
            case("CosineEmbeddingLoss", inputs=two, margin=margin, differentiable=2, **r)
            case("CosineEmbeddingLoss", inputs=lambda: [f(4), f(4), sign()], margin=margin, differentiable=2, **r)
            case("MarginRankingLoss", inputs=lambda: [f(3), f(3), sign(3)], margin=margin, differentiable=2, **r)
        case("MarginRankingLoss", inputs=two, fails=True, **r)
        for options in ({}, {"margin": 0.2, "p": 1.0}, {"swap": True, "eps": 1e-3}):
            case("TripletMarginLoss", inputs=[(3, 4)] * 3, differentiable=3, **r, **options)
            case("TripletMarginLoss", inputs=[(4,)] * 3, differentiable=3, **r, **options)
        case("TripletMarginLoss", inputs=[(3, 4)] * 3, margin=-1.0, fails=True, **r)

        # Lengths that do not fit make the loss infinite.
        lengths = lambda: [torch.tensor([6, 5, 1]), torch.tensor([3, 1, 2])]
        spoken = lambda: [torch.log_softmax(f(6, 3, 5), 2), i(4, 3, 4) + 1, *lengths()]
        for options in ({}, {"zero_infinity": True}):
            case("CTCLoss", inputs=spoken, **r, **options)
        case("CTCLoss", inputs=lambda: [torch.log_softmax(f(6, 3, 5), 2), i(4, 6) + 1, *lengths()], zero_infinity=True, **r)
        case("CTCLoss", inputs=lambda: [torch.log_softmax(f(6, 3, 5), 2), i(4, 3, 4), *lengths()], blank=4, zero_infinity=True, **r)
        case("CTCLoss", inputs=lambda: [torch.log_softmax(f(6, 5), 1), i(4, 3) + 1, torch.tensor(6), torch.tensor(3)], **r)


class Normalize(nn.Module):
    def __init__(self, p, dim):
        super().__init__()
        self.p, self.dim = p, dim

    def forward(self, x):
        return nn.functional.normalize(x, self.p, self.dim)

    def __repr__(self):
        return "normalize"


def distances():
    two = [(3, 4), (3, 4)]
    case("CosineSimilarity", inputs=two, differentiable=2)
    case("CosineSimilarity", inputs=two, differentiable=2, dim=0, eps=1.0)
    for power, dim in ((2.0, 1), (1.0, 0), (3.0, -1)):
        zeros = lambda: [torch.cat([f(3, 4), torch.zeros(1, 4)])]
        cases.append(Case("normalize", (power, dim), {}, zeros, new=Normalize))
    for power, keepdim in ((2.0, False), (1.0, True), (3.0, False)):
        case("PairwiseDistance", inputs=two, differentiable=2, p=power, keepdim=keepdim, eps=1e-3)
    case("PairwiseDistance", inputs=[(3, 4), (2, 4)], fails=True)
    for options in ({}, {"div_value": 2.0, "head_bias": True}):
        case("AdaptiveLogSoftmaxWithLoss", 16, 20, (4, 10), inputs=lambda: [f(6, 16), i(20, 6)], **options)
        case("AdaptiveLogSoftmaxWithLoss", 16, 20, (4, 10), inputs=lambda: [f(16), torch.tensor(12)], **options)
    case("AdaptiveLogSoftmaxWithLoss", 8, 20, (4, 20), inputs=lambda: [f(6, 8), i(20, 6)], fails=True)
    case("AdaptiveLogSoftmaxWithLoss", 8, 20, (4,), inputs=lambda: [f(6, 8), i(20, 6) + 20], fails=True)
    for n, size in {2: (7, 8), 3: (6, 5, 7)}.items():
        for x in ((2, 3, *size), (3, *size)):
            case(f"FractionalMaxPool{n}d", 2, inputs=[x], output_size=3)
            case(f"FractionalMaxPool{n}d", 2, inputs=[x], output_ratio=0.6)
        case(f"FractionalMaxPool{n}d", 2, inputs=[x], fails=True)


def initializations():
    matrix, filters = (5, 7), (6, 4, 3, 2)
    for shape in (matrix, filters, (7, 5), (4,), (3, 0)):
        yield "uniform_", shape, {"a": -2.0, "b": 0.5}
        yield "normal_", shape, {"mean": 1.0, "std": 3.0}
        yield "trunc_normal_", shape, {"mean": 0.5, "std": 2.0, "a": -1.0, "b": 3.0}
        yield "constant_", shape, {"val": 2.5}
        yield "ones_", shape, {}
        yield "zeros_", shape, {}
        yield "eye_", shape, {}
        for gain in (1.0, 2.5):
            yield "xavier_uniform_", shape, {"gain": gain}
            yield "xavier_normal_", shape, {"gain": gain}
            yield "orthogonal_", shape, {"gain": gain}
        for function, mode in itertools.product(("kaiming_uniform_", "kaiming_normal_"), ("fan_in", "fan_out")):
            for name, slope in gains:
                yield function, shape, {"a": slope or 0.0, "mode": mode, "nonlinearity": name}
    for shape, groups in (((6, 4, 3), 1), (filters, 2), ((4, 6, 3, 2, 5), 1), ((6, 4, 3), 4), (matrix, 1), ((2,) * 6, 1)):
        yield "dirac_", shape, {"groups": groups}
    for sparsity in (0.0, 0.3, 1.0):
        yield "sparse_", matrix, {"sparsity": sparsity, "std": 0.1}
    yield "sparse_", filters, {"sparsity": 0.1, "std": 0.1}
    yield "uniform_", matrix, {"a": 1.0, "b": 0.0}
    yield "normal_", matrix, {"mean": 0.0, "std": -1.0}


gains = [("linear", None), ("sigmoid", None), ("tanh", None), ("relu", None), ("selu", None), ("leaky_relu", 0.01), ("leaky_relu", 0.3)]

for part in (convolutions, linear, norms, activations, embeddings, shapes, pools, upsampling, losses, distances):
    part()
