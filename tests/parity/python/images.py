"""Writes pictures of many kinds into a folder, and says what PIL and torchvision read: `images.py FOLDER`."""

import json
import os
import sys

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.io import ImageReadMode, decode_image

folder = sys.argv[1]
x = np.linspace(0, 255, 40)[None, :].repeat(27, 0)
y = np.linspace(0, 255, 27)[:, None].repeat(40, 1)
colors = Image.fromarray(np.stack([x, 255 - y, (x + y) / 2], -1).astype(np.uint8))
gray = colors.convert("L")
opaque = colors.convert("RGBA")
opaque.putalpha(gray)
palette = colors.quantize(16)
deep = Image.fromarray((x * 257 + 100).astype(np.uint16))


def exif(orientation):
    data = Image.Exif()
    data[0x112] = orientation
    return data


written = {
    "plain.jpg": (colors, {"quality": 95, "subsampling": 0}),
    "subsampled.jpg": (colors, {"quality": 90}),
    "progressive.jpg": (colors, {"quality": 90, "progressive": True}),
    "gray.jpg": (gray, {"quality": 95}),
    "cmyk.jpg": (colors.convert("CMYK"), {"quality": 95}),
    "plain.png": (colors, {}),
    "gray.png": (gray, {}),
    "gray_alpha.png": (opaque.convert("LA"), {}),
    "alpha.png": (opaque, {}),
    "palette.png": (palette, {}),
    "one_bit.png": (colors.convert("1"), {}),
    "deep.png": (deep, {}),
    "turned.png": (colors, {"exif": exif(6)}),
    "animated.gif": (palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
    "plain.webp": (colors, {"lossless": True}),
    "plain.bmp": (colors, {}),
    "plain.ppm": (colors, {}),
    "plain.tiff": (colors, {}),
    **{f"turned{at}.jpg": (colors, {"quality": 95, "exif": exif(at)}) for at in range(1, 9)},
}

cases = []


def case(name, mode, orientation, pixels):
    # Height, width and channels become channels, height and width.
    pixels = np.atleast_3d(np.asarray(pixels)).astype(np.uint8).transpose(2, 0, 1)
    cases.append({"file": name, "mode": mode, "orientation": orientation, "shape": pixels.shape, "data": pixels.flatten().tolist()})


for name, (picture, options) in written.items():
    path = os.path.join(folder, name)
    picture.save(path, **options)
    if name == "deep.png":
        bytes_of_16_bits = torch.from_numpy(np.asarray(Image.open(path)).astype(np.int32)).bitwise_right_shift(8).numpy()
        case(name, "gray", False, bytes_of_16_bits)
        case(name, "rgb", False, np.stack([bytes_of_16_bits] * 3, -1))
        continue
    for mode, pil in [("gray", "L"), ("rgb", "RGB"), ("rgb_alpha", "RGBA")]:
        for orientation in (False, True):
            read = Image.open(path)
            case(name, mode, orientation, (ImageOps.exif_transpose(read) if orientation else read).convert(pil))
    if name.split(".")[1] in ("jpg", "png", "webp") and name not in ("cmyk.jpg", "palette.png"):
        # Those two are inks and places of a palette there.
        for orientation in (False, True):
            read = decode_image(path, mode=ImageReadMode.UNCHANGED, apply_exif_orientation=orientation)
            case(name, "unchanged", orientation, read.permute(1, 2, 0).numpy())

print(json.dumps(cases))
