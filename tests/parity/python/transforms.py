"""Operations on images, and what torchvision makes of them."""

import itertools
import json
import math

import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode as Mode
from torchvision.transforms.v2 import functional as F

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(20261128)


def noise(*shape):
    # Smooth in places and rough in others, with some black, white and gray.
    rough = torch.rand(*shape, generator=generator)
    smooth = torch.linspace(0, 1, shape[-1]) * torch.linspace(1, 0.2, shape[-2]).unsqueeze(1)
    mixed = (0.4 * rough + 0.8 * smooth - 0.1).clamp(0, 1)
    mixed[..., :2, :2] = 0.5
    return mixed


def image(*shape, kind):
    values = noise(*shape)
    return (values * 255).round().to(torch.uint8) if kind == torch.uint8 else values.to(kind)


images = {}
shapes = [(3, 12, 17), (1, 9, 8), (3, 16, 16), (2, 3, 7, 10), (2, 2, 1, 6, 5)]
for kind in (torch.uint8, torch.float32, torch.float64):
    for shape in shapes if kind != torch.float64 else shapes[:1]:
        images[f"{str(kind)[6:]} {shape}"] = image(*shape, kind=kind)
images["uint8 one value"] = torch.full((3, 6, 7), 200, dtype=torch.uint8)
images["uint8 two rows"] = image(3, 2, 9, kind=torch.uint8)
images["int16 (3, 5, 6)"] = (noise(3, 5, 6) * 32767).to(torch.int16)
last = image(14, 11, 3, kind=torch.uint8)
images["channels last"] = last.permute(2, 0, 1)

cases = []


def number(x):
    return round(x, 7) if math.isfinite(x) else str(x)


def tensor(t):
    values = t.flatten().tolist()
    return {"kind": str(t.dtype)[6:], "shape": list(t.shape), "data": [number(x) for x in values]}


def case(name, source, function, *args):
    """`args` are those of the function here, which are numbers, texts, lists and nulls in one order."""
    try:
        expected = tensor(function(images[source]))
    except Exception as error:
        if "INTERNAL ASSERT FAILED" in str(error):
            return  # A bug of PyTorch: antialiased bytes of one pixel.
        expected = {"error": f"{type(error).__name__}: {error}"[:200]}
    cases.append({"function": name, "image": source, "args": args, "expected": expected})


for source, given in images.items():
    channels, height, width = given.shape[-3:]
    for mode in (Mode.NEAREST, Mode.NEAREST_EXACT, Mode.BILINEAR, Mode.BICUBIC):
        for antialias in (True, False):
            for size in ([5, 9], [height * 2 + 1, width + 3], [height, width], [1, 1]):
                resized = lambda x: F.resize(x, size, interpolation=mode, antialias=antialias)
                case("resize", source, resized, size, mode.value, None, antialias)
    for size, max_size in ((6, None), (20, None), (6, 7), (8, 9), (None, 11)):
        resized = lambda x: F.resize(x, size if size is None else [size], max_size=max_size)
        case("resize", source, resized, size, "bilinear", max_size, True)
    crop = [1, 2, max(height // 2, 1), width // 2]
    case("resized_crop", source, lambda x: F.resized_crop(x, *crop, [6, 5]), *crop, [6, 5])
    for size in ([4, 3], [height + 3, width - 2], [height + 4, width + 5], [1, 1]):
        case("center_crop", source, lambda x: F.center_crop(x, size), size)
    for crop in ([0, 0, 3, 4], [-2, 1, 5, 4], [-2, -3, height + 7, width + 4], [height - 1, width - 2, 4, 5]):
        case("crop", source, lambda x: F.crop(x, *crop), *crop)
    if min(height, width) > 3:
        case("five_crop", source, lambda x: torch.stack(F.five_crop(x, [3, 4])), [3, 4])
    for mode, padding in itertools.product(
        ("constant", "edge", "reflect", "symmetric"), ([1, 1, 1, 1], [0, 2, 3, 0], [-1, 1, 2, -1])
    ):
        if mode == "reflect" and height <= 2:
            continue
        fill = 0.25 if given.is_floating_point() else 64
        padded = lambda x: F.pad(x, padding, fill=fill, padding_mode=mode)
        case("pad", source, padded, padding, [fill], mode)
    fill = [0.25, 0.5, 0.75] if given.is_floating_point() else [10, 20, 30]
    case("pad", source, lambda x: F.pad(x, [1, 2, 3, 4], fill=fill[:channels]), [1, 2, 3, 4], fill[:channels], "constant")
    case("horizontal_flip", source, F.horizontal_flip)
    case("vertical_flip", source, F.vertical_flip)

    for mode, fill in itertools.product((Mode.NEAREST, Mode.BILINEAR), (None, 1)):
        if not given.is_floating_point() and fill:
            fill = 77
        fills = None if fill is None else [fill]
        for angle, expand, center in itertools.product((0, 30.5, 90, -180, 270, 361), (False, True), (None, [2.0, 3.5])):
            rotated = lambda x: F.rotate(x, angle, interpolation=mode, expand=expand, center=center, fill=fill)
            case("rotate", source, rotated, angle, mode.value, expand, center, fills)
        for args in ([10, [0, 0], 1.0, [0, 0]], [-40.5, [2, -1], 0.8, [12.5, -3]], [0, [3, 0], 1.0, [0, 0]], [0, [0, 0], 1.7, [0, 40]]):
            for center in (None, [0, 0]):
                moved = lambda x: F.affine(x, *args, interpolation=mode, fill=fill, center=center)
                case("affine", source, moved, *args, mode.value, fills, center)

    for channels_out in (1, 3):
        case("rgb_to_grayscale", source, lambda x: F.rgb_to_grayscale(x, channels_out), channels_out)
    for factor in (0, 0.3, 1, 1.9):
        for name in ("brightness", "contrast", "saturation", "sharpness"):
            case(f"adjust_{name}", source, lambda x: getattr(F, f"adjust_{name}")(x, factor), factor)
    for factor in (-0.5, -0.2, 0, 0.1, 0.5):
        case("adjust_hue", source, lambda x: F.adjust_hue(x, factor), factor)
    case("invert", source, F.invert)
    for bits in (0, 3, 8):
        case("posterize", source, lambda x: F.posterize(x, bits), bits)
    for part in (0, 0.4, 1):
        threshold = part if given.is_floating_point() else part * 255
        case("solarize", source, lambda x: F.solarize(x, threshold), threshold)
    case("autocontrast", source, F.autocontrast)
    case("equalize", source, F.equalize)

    for dtype, scale in itertools.product((torch.uint8, torch.int16, torch.float32, torch.float64), (True, False)):
        case("to_dtype", source, lambda x: F.to_dtype(x, dtype, scale=scale), str(dtype)[6:], scale)
    case("normalize", source, lambda x: F.normalize(x, [0.5], [0.25]), [0.5], [0.25])
    means = [[0.485, 0.456, 0.406][:channels], [0.229, 0.224, 0.225][:channels]]
    case("normalize", source, lambda x: F.normalize(x, *means), *means)
    for kernel, sigma in (([3, 3], [0.8, 0.8]), ([5, 3], [2.0, 0.5]), ([1, 3], [1.0, 1.0])):
        if kernel[0] // 2 < width and kernel[1] // 2 < height:
            case("gaussian_blur", source, lambda x: F.gaussian_blur(x, kernel, sigma), kernel, sigma)
    for value in ([0.0], [3.0, 2.0, 1.0][:channels]):
        v = torch.tensor(value)[:, None, None]
        case("erase", source, lambda x: F.erase(x, 1, 2, 1, 3, v), 1, 2, 1, 3, value)

# What a policy may make of an image, whatever it draws.
policies = []
for source in ("uint8 (3, 16, 16)", "float32 (3, 16, 16)"):
    for name, policy, magnitudes in [
        ("RandAugment", v2.RandAugment(num_ops=1), [9]),
        ("TrivialAugmentWide", v2.TrivialAugmentWide(num_magnitude_bins=3), [0, 1, 2]),
    ]:
        outcomes = []
        for operation, (magnitudes_of, signed) in policy._AUGMENTATION_SPACE.items():
            values = magnitudes_of(policy.num_magnitude_bins, 16, 16)
            chosen = {0.0} if values is None else {float(values[at]) for at in magnitudes}
            for magnitude in chosen | ({-x for x in chosen} if signed else set()):
                made = policy._apply_image_or_video_transform(images[source], operation, magnitude, policy.interpolation, policy._fill)
                outcomes.append({"note": f"{operation} {magnitude}", **tensor(made)})
        policies.append({"policy": name, "image": source, "outcomes": outcomes})

# Mixtures of given weight.
mixtures = []
batch, labels = noise(4, 3, 6, 8), torch.tensor([0, 2, 2, 1])
for soft in (False, True):
    given = torch.nn.functional.one_hot(labels, 3).float() if soft else labels
    for weight in (0.0, 0.3, 1.0):
        mix = v2.MixUp(num_classes=3)
        mix.make_params = lambda _: {"lam": weight}
        x, y = mix(batch, given)
        mixtures.append({"name": "MixUp", "soft": soft, "args": [weight], "images": tensor(x), "labels": tensor(y)})
    for box in ([0, 0, 8, 6], [2, 1, 5, 4], [3, 3, 3, 3]):
        cut = v2.CutMix(num_classes=3)
        kept = 1.0 - (box[2] - box[0]) * (box[3] - box[1]) / 48
        cut.make_params = lambda _: {"box": box, "lam_adjusted": kept}
        x, y = cut(batch, given)
        mixtures.append({"name": "CutMix", "soft": soft, "args": box, "images": tensor(x), "labels": tensor(y)})

print(json.dumps({
    "images": {name: tensor(t) for name, t in images.items()},
    "cases": cases,
    "policies": policies,
    "batch": tensor(batch),
    "labels": tensor(labels),
    "mixtures": mixtures,
}))
