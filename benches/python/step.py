"""The variants in Python: `step.py MODEL VARIANT WARMUP BLOCKS STEPS_PER_BLOCK RESULT`."""

import os
import sys
import tempfile
import warnings

import torch

from models import MODELS, batches
from stopwatch import Stopwatch


def hand_written(model, data, stopwatch):
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in data:
        loss = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stopwatch.step_ended()


def distributed(model, data, stopwatch):
    torch.distributed.init_process_group("gloo")
    wrapped = Wrapped(model)
    replica = torch.nn.parallel.DistributedDataParallel(wrapped)
    optimizer = torch.optim.AdamW(replica.parameters())
    for batch in data:
        loss = replica(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stopwatch.step_ended()
    torch.distributed.destroy_process_group()


class Wrapped(torch.nn.Module):
    """Its forward pass is the loss, which is what DistributedDataParallel hooks into."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.loss(batch)


def lightning(model, data, stopwatch, variant, folder):
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, Timer
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    full = variant not in ("lightning_barebones", "lightning_ddp")

    class Timed(LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch):
            loss = self.model.loss(batch)
            if full:
                self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

        def on_train_batch_end(self, outputs, batch, batch_idx):
            stopwatch.step_ended()

    if full:
        extras = {"logger": CSVLogger(folder), "log_every_n_steps": 1, "default_root_dir": folder}
    else:
        extras = {"barebones": True}
    if variant == "lightning_callbacks":
        extras["logger"] = [CSVLogger(folder), TensorBoardLogger(folder)]
        stopping = EarlyStopping("train_loss", check_on_train_epoch_end=True)
        extras["callbacks"] = [stopping, LearningRateMonitor(), Timer("00:01:00:00")]
    if "ddp" in variant:
        extras |= {"devices": 2, "strategy": "ddp"}
    Trainer(max_epochs=1, accelerator="cpu", **extras).fit(Timed(), Loader(data))


class Loader:
    """A loader of batches that are there already; Lightning would take a list for several loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def main():
    model_name, variant, *plan, result = sys.argv[1:]
    torch.manual_seed(1)
    model = MODELS[model_name]()
    stopwatch = Stopwatch(*map(int, plan))
    data = batches(model, stopwatch.total_steps)
    with tempfile.TemporaryDirectory() as folder:
        if variant == "pytorch":
            hand_written(model, data, stopwatch)
        elif variant == "pytorch_ddp":
            distributed(model, data, stopwatch)
        else:
            lightning(model, data, stopwatch, variant, folder)
    # Of several processes, the first writes.
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        stopwatch.write(result)


if __name__ == "__main__":
    # Lightning advises more workers for its loaders; these batches are in memory.
    warnings.simplefilter("ignore")
    main()
