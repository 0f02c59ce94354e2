"""A folder of pictures, and torchvision's way through it, the same as in `src/pictures.rs`:

`pictures.py make FOLDER RESULT`, `pictures.py pil|io FOLDER WORKERS WARMUP BLOCKS STEPS_PER_BLOCK RESULT`.
"""

import json
import os
import shutil
import sys

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import decode_image
from torchvision.transforms import v2

from stopwatch import Stopwatch

PICTURES, KINDS, BATCH_SIZE = 2048, 64, 64


def picture(generator):
    # Patterns from coarse to fine, as a photo has them: 8 to 12 kB.
    pixels = torch.zeros(1, 3, 224, 224)
    for size in (4, 8, 16, 32, 64, 112, 224):
        noise = torch.randn(1, 3, size, size, generator=generator)
        pixels += torch.nn.functional.interpolate(noise, (224, 224), mode="bicubic") / size**0.6
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    return Image.fromarray(pixels[0].permute(1, 2, 0).to(torch.uint8).numpy())


def make(folder, result):
    generator = torch.Generator().manual_seed(1)
    os.makedirs(os.path.join(folder, "class"))
    path = lambda at: os.path.join(folder, "class", f"{at:04}.jpg")
    for at in range(PICTURES):
        if at < KINDS:
            picture(generator).save(path(at), quality=85)
        else:
            shutil.copy(path(at % KINDS), path(at))
    with open(result, "w") as file:
        json.dump(PICTURES, file)


def main():
    variant, folder, *rest = sys.argv[1:]
    if variant == "make":
        return make(folder, *rest)
    workers, *plan, result = rest
    torch.manual_seed(1)
    transform = v2.Compose([
        *([v2.ToImage()] if variant == "pil" else []),
        v2.RandomCrop(192),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    decoders = {"io": {"loader": lambda path: decode_image(path, mode="RGB")}, "pil": {}}
    pictures = ImageFolder(folder, transform, **decoders[variant])
    stopwatch = Stopwatch(*map(int, plan))
    for _, _ in zip(range(stopwatch.total_steps), DataLoader(pictures, BATCH_SIZE, shuffle=True, num_workers=int(workers))):
        stopwatch.step_ended()
    stopwatch.write(result)


if __name__ == "__main__":
    main()
