"""Trains a small model in Lightning: `resume.py DATA OPTIMIZER EPOCHS FOLDER [CKPT]` prints what it logged and learned."""

import json
import logging
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader, TensorDataset


class Rows(Logger):
    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append([step, {name: float(value) for name, value in metrics.items()}])

    def log_hyperparams(self, *args, **kwargs):
        pass


class Net(LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        self.save_hyperparameters()
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, 3)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.fc2(torch.tanh(self.fc1(x))), y)

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        if self.hparams.optimizer == "Adam":
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        else:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def keys(value):
    """The keys of a tree of dicts and lists."""
    if isinstance(value, dict):
        return {str(key): keys(item) for key, item in value.items()}
    return [keys(item) for item in value] if isinstance(value, list) else None


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data, optimizer, epochs, folder, *ckpt_path = sys.argv[1:]
    data = torch.load(data, weights_only=True)
    loaders = [
        DataLoader(TensorDataset(data[f"{which}_x"], data[f"{which}_y"]), batch_size=4) for which in ("train", "val")
    ]
    module = Net(optimizer)
    module.load_state_dict(data["weights"])
    logger = Rows()
    checkpoint = ModelCheckpoint(dirpath=folder, filename="theirs", monitor="val_loss")
    trainer = Trainer(
        max_epochs=int(epochs), log_every_n_steps=1, num_sanity_val_steps=0, accelerator="cpu", logger=logger,
        callbacks=[checkpoint, EarlyStopping("val_loss")], enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, *loaders, ckpt_path=ckpt_path[0] if ckpt_path else None)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    print(json.dumps({
        "rows": logger.rows,
        "weights": {name: value.flatten().tolist() for name, value in module.state_dict().items()},
        "keys": keys(saved),
        "best": float(checkpoint.best_model_score),
        "lr": [group["lr"] for group in trainer.optimizers[0].param_groups],
    }))  # fmt: skip


main()
