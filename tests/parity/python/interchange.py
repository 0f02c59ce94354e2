"""Trains small models in Lightning: `interchange.py DATA FOLDER` runs the jobs of jobs.json.

A job is a case, and optionally a checkpoint of FOLDER to go on from with the first batch of what is left of its epoch.
Prints what each job did. Every checkpoint of FOLDER is then opened with `torch.load(weights_only=True)`.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


class Batches:
    """A loader that goes on where it was: the first walk begins at `start`, as a stateful loader's would."""

    def __init__(self, x, y, start=0):
        self.batches = list(zip(x.split(4), y.split(4)))
        self.start = start

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        # A generator: Lightning makes an iterator that it does not use before the one that it does.
        start, self.start = self.start, 0
        yield from self.batches[start:]


class Net(LightningModule):
    def __init__(self, optimizer, scheduler):
        super().__init__()
        self.save_hyperparameters()
        self.fc1 = torch.nn.Linear(4, 8, bias=False)
        self.norm = torch.nn.BatchNorm1d(8)
        self.fc2 = torch.nn.Linear(8, 3)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.fc2(torch.tanh(self.norm(self.fc1(x)))), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = {
            "Adam": lambda p: torch.optim.Adam(p, lr=0.02),
            "AdamW": lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1),
            "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        }[self.hparams.optimizer](self.parameters())
        schedulers = torch.optim.lr_scheduler
        scheduler = {
            "step": lambda: {"scheduler": schedulers.StepLR(optimizer, 1, gamma=0.7)},
            "cosine": lambda: {"scheduler": schedulers.CosineAnnealingLR(optimizer, 20), "interval": "step"},
            "plateau": lambda: {
                "scheduler": schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.1),
                "monitor": "val_loss",
            },
        }[self.hparams.scheduler]()
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Record(Callback):
    def __init__(self):
        self.rows, self.val = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        lrs = [group["lr"] for group in trainer.optimizers[0].param_groups]
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self.rows.append([trainer.current_epoch, batch_idx, trainer.global_step, loss, lrs])

    def on_validation_end(self, trainer, module):
        self.val.append([trainer.current_epoch, float(trainer.callback_metrics["val_loss"])])


def run(job, data, folder):
    module = Net(job["optimizer"], job["scheduler"])
    module.load_state_dict(data["weights"])
    record = Record()
    steps = ModelCheckpoint(folder, job["name"] + "-theirs-{step}", every_n_train_steps=1, save_top_k=-1)
    best = ModelCheckpoint(folder, job["name"] + "-theirs-best-{epoch}", monitor="val_loss", save_top_k=-1)
    stopping = EarlyStopping("val_loss", patience=3)
    trainer = Trainer(
        max_epochs=4, num_sanity_val_steps=0, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, accumulate_grad_batches=job["accumulate"], callbacks=[record, steps, best, stopping],
    )  # fmt: skip
    loaders = [
        Batches(data["train_x"], data["train_y"], job["batches_done"]), Batches(data["val_x"], data["val_y"])
    ]  # fmt: skip
    trainer.fit(module, *loaders, ckpt_path=str(folder / job["from"]) if job["from"] else None)
    return {
        "rows": record.rows, "val": record.val, "steps": trainer.global_step,
        "weights": {k: v.flatten().tolist() for k, v in module.state_dict().items() if not k.endswith("tracked")},
        "best": float(best.best_model_score), "stopping": [stopping.wait_count, float(stopping.best_score)],
    }  # fmt: skip


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    data = torch.load(sys.argv[1], weights_only=True)
    jobs = [run(job, data, folder) for job in json.loads((folder / "jobs.json").read_text())]
    opened = [torch.load(path, weights_only=True)["global_step"] for path in folder.glob("*-ours-*.ckpt")]
    print(json.dumps({"jobs": jobs, "opened": len(opened)}))


main()
