"""Saving and loading in Python, once: `checkpoint.py VARIANT PATH RESULT`. As in `src/checkpoint.rs`."""

import json
import os
import sys
import time
import warnings

import torch

LAYERS, WIDTH, TOKENS = 8, 768, 32_000


def shapes():
    yield "embedding", (TOKENS, WIDTH)
    for layer in range(LAYERS):
        yield f"layers.{layer}.attention.weight", (3 * WIDTH, WIDTH)
        yield f"layers.{layer}.projection.weight", (WIDTH, WIDTH)
        yield f"layers.{layer}.up.weight", (4 * WIDTH, WIDTH)
        yield f"layers.{layer}.down.weight", (WIDTH, 4 * WIDTH)
        yield f"layers.{layer}.norm.weight", (WIDTH,)


def state():
    weights = {name: torch.full(shape, float(index)) for index, (name, shape) in enumerate(shapes())}
    moments = {
        index: {
            "step": torch.tensor(1.0),
            "exp_avg": torch.full(shape, index + 1.0),
            "exp_avg_sq": torch.full(shape, index + 2.0),
        }
        for index, (_, shape) in enumerate(shapes())
    }
    optimizer = {"state": moments, "param_groups": []}
    return {"epoch": 1, "global_step": 1000, "state_dict": weights, "optimizer_states": [optimizer]}


def lightning_trainer():
    from lightning.pytorch import LightningModule, Trainer

    class Model(LightningModule):
        def __init__(self):
            super().__init__()
            weights = enumerate(shapes())
            self.weights = torch.nn.ParameterList(torch.full(shape, float(index)) for index, (_, shape) in weights)

        def training_step(self, batch):
            return sum(weight.sum() for weight in self.weights)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=1, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(Model(), [torch.zeros(1)])
    return trainer


def memory(name):
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


def action(variant, path):
    if variant == "torch_load":
        return lambda: torch.load(path, weights_only=True)
    if variant == "torch_load_mmap":
        return lambda: torch.load(path, weights_only=True, mmap=True)
    if variant == "lightning_save":
        trainer = lightning_trainer()
        return lambda: trainer.save_checkpoint(path)
    whole = state()
    if variant == "torch_save":
        return lambda: torch.save(whole, path)

    def save_and_sync():
        torch.save(whole, path)
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)

    assert variant == "torch_save_synced"
    return save_and_sync


def main():
    variant, path, result = sys.argv[1:]
    todo = action(variant, path)
    # Whatever happens once in a process has happened.
    torch.save({"a": torch.ones(1)}, path + ".small")
    torch.load(path + ".small", weights_only=True, mmap=True)
    os.remove(path + ".small")

    before = memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    started = time.perf_counter()
    made = todo()
    ms = (time.perf_counter() - started) * 1e3
    extra_mb = memory("VmHWM") - before
    del made
    with open(result, "w") as file:
        json.dump({"ms": ms, "extra_mb": extra_mb}, file)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
