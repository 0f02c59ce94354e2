"""Trains a small model with callbacks that change its weights: `weights.py DATA FOLDER` runs the cases of cases.json.

A case names its callback, and optionally a checkpoint of FOLDER to go on from. Prints what each case did.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch import callbacks as C
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    def __init__(self, case):
        super().__init__()
        self.case = case
        self.backbone = torch.nn.Module()
        self.backbone.fc = torch.nn.Linear(4, 8)
        if case["bn"]:
            self.backbone.bn = torch.nn.BatchNorm1d(8, momentum=case["momentum"])
        self.head = torch.nn.Linear(8, 3)
        self.strict_loading = False

    def forward(self, x):
        x = self.backbone.fc(x)
        x = self.backbone.bn(x) if self.case["bn"] else x
        return self.head(torch.tanh(x))

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        parameters = [p for p in self.parameters() if p.requires_grad]
        if self.case["optimizer"] == "Adam":
            optimizer = torch.optim.Adam(parameters, lr=0.02)
        else:
            optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        if not self.case["scheduler"]:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.9)]


class Record(Callback):
    def __init__(self):
        self.rows, self.val = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        lrs = [group["lr"] for group in trainer.optimizers[0].param_groups]
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self.rows.append([trainer.current_epoch, trainer.global_step, loss, lrs])

    def on_validation_end(self, trainer, module):
        self.val.append(float(trainer.callback_metrics["val_loss"]))


def callback(case):
    options = dict(case["options"])
    if case["callback"] == "GradientAccumulationScheduler":
        options["scheduling"] = {int(k): v for k, v in options["scheduling"].items()}
    return getattr(C, case["callback"])(**options)


def run(case, data, folder):
    module = Net(case)
    module.load_state_dict(data["weights"], strict=False)
    record = Record()
    saver = C.ModelCheckpoint(dirpath=folder, filename=case["name"] + "-theirs-{epoch}", save_top_k=-1)
    trainer = Trainer(
        max_epochs=case["epochs"], num_sanity_val_steps=0, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[callback(case), record, saver],
    )  # fmt: skip
    loaders = [DataLoader(TensorDataset(data[f"{w}_x"], data[f"{w}_y"]), batch_size=4) for w in ("train", "val")]
    ckpt_path = str(folder / case["from"]) if case.get("from") else None
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    weights = {k: v.flatten().tolist() for k, v in module.state_dict().items() if not k.endswith("tracked")}
    # What PyTorch itself makes of the averaged weights and the training data.
    update_bn(loaders[0], module)
    statistics = {k: v.tolist() for k, v in module.named_buffers() if not k.endswith("tracked")}
    return {
        "rows": record.rows, "val": record.val, "weights": weights, "steps": trainer.global_step,
        "update_bn": statistics if case["callback"] == "StochasticWeightAveraging" else {},
    }  # fmt: skip


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    folder = Path(sys.argv[2])
    data = torch.load(sys.argv[1], weights_only=True)
    print(json.dumps([run(case, data, folder) for case in json.loads((folder / "cases.json").read_text())]))


main()
