"""The same as in `src/loader.rs`: `load.py WORKERS WARMUP BLOCKS STEPS_PER_BLOCK RESULT`."""

import sys

import torch
from torch.utils.data import DataLoader, Dataset

from stopwatch import Stopwatch

IMAGES, BATCH_SIZE = 20_000, 64


class Images(Dataset):
    def __init__(self):
        self.pixels = torch.randint(256, (IMAGES, 1, 28, 28), dtype=torch.uint8)
        self.labels = torch.randint(10, (IMAGES,))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.pixels[index].float() / 127.5 - 1.0, self.labels[index]


def main():
    workers, *plan, result = sys.argv[1:]
    torch.manual_seed(1)
    stopwatch = Stopwatch(*map(int, plan))
    for _ in DataLoader(Images(), batch_size=BATCH_SIZE, shuffle=True, num_workers=int(workers)):
        stopwatch.step_ended()
    stopwatch.write(result)


if __name__ == "__main__":
    main()
