"""Callbacks that watch a run: what they write in each case of a file, by a clock that is moved on at every look."""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

# Its values differ from moment to moment, so names alone are compared, and a stand-in will do.
sys.modules["psutil"] = SimpleNamespace(
    virtual_memory=lambda: SimpleNamespace(percent=0.0),
    cpu_percent=lambda: 0.0,
    swap_memory=lambda: SimpleNamespace(percent=0.0),
)

import torch  # noqa: E402
from lightning.fabric.utilities.spike import TrainingSpikeException  # noqa: E402
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.accelerators import cpu  # noqa: E402
from lightning.pytorch.callbacks import (  # noqa: E402
    DeviceStatsMonitor,
    SpikeDetection,
    ThroughputMonitor,
    device_stats_monitor,
    throughput_monitor,
)
from lightning.pytorch.loggers.logger import Logger  # noqa: E402
from lightning.pytorch.utilities import grad_norm  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        stats = any(name.startswith("DeviceStatsMonitor") for name in metrics)
        self.rows.append([step, {name: None if stats else float(value) for name, value in metrics.items()}])

    def log_hyperparams(self, *args, **kwargs):
        pass


class Net(LightningModule):
    def __init__(self, norm_type=None, flops=None):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3))
        self.v = torch.nn.Parameter(torch.zeros(1))
        self.norm_type = norm_type
        if flops is not None:
            self.flops_per_batch = flops

    def training_step(self, batch, batch_idx):
        return (batch @ self.w).mean() + (1 + self.v).sum() * batch.mean()

    def on_before_optimizer_step(self, optimizer):
        if self.norm_type is not None:
            self.log_dict(grad_norm(self, norm_type=self.norm_type))

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def predict_step(self, batch, batch_idx):
        return batch

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        # The hook before the step comes with the step itself. Without it a NaN would spread to the parameters.
        optimizer_closure() if self.norm_type is None else optimizer.step(closure=optimizer_closure)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def ticking():
    looks, time = 0, 0.0

    def perf_counter():
        nonlocal looks, time
        looks += 1
        time += 0.25 + 0.125 * (looks * 7 % 5)
        return time

    return perf_counter


def batches(sizes):
    return loader([torch.arange(3.0 * size).reshape(size, 3) for size in sizes])


def loader(batches):
    return DataLoader(batches, batch_size=None)


def watch(case, root):
    throughput_monitor.time = SimpleNamespace(perf_counter=ticking())
    length_fn = (lambda batch: batch.numel()) if case["lengths"] else None
    monitor = ThroughputMonitor(lambda batch: batch.size(0), length_fn, **case["monitor"])
    logger = Rows()
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[monitor, DeviceStatsMonitor()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root, **case["trainer"],
    )  # fmt: skip
    module = Net(case["norm_type"], case["flops"])
    trainer.fit(module, batches(case["train"]), batches(case["val"]))
    trainer.test(module, batches(case["val"]), verbose=False)
    trainer.predict(module, batches(case["val"]))
    return logger.rows


def spike(case, root):
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[SpikeDetection(**case["options"])], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root, max_epochs=1,
    )  # fmt: skip
    found = None
    try:
        trainer.fit(Net(), loader([torch.full((1, 3), float(loss)) for loss in case["losses"]]))
    except TrainingSpikeException as error:
        found = str(error)
    noted = Path(root) / "skip_batches.json"
    return [found, noted.read_text() if noted.exists() else None]


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    cpu._PSUTIL_AVAILABLE = device_stats_monitor._PSUTIL_AVAILABLE = True
    cases = json.loads(Path(sys.argv[1]).read_text())
    results = {}
    for kind, run in (("watch", watch), ("spike", spike)):
        results[kind] = []
        for case in cases[kind]:
            with tempfile.TemporaryDirectory() as root:
                results[kind].append(run(case, root))
    print(json.dumps(results))


main()
