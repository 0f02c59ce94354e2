"""Files for the program `fulgurite`, and a look at what it made of them.

`tools.py write FOLDER` trains a model in Lightning and saves it in several ways; `tools.py read FOLDER` opens what was
converted, and prints the sum of each file's weights.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader


class Net(LightningModule):
    def __init__(self, hidden=8, lr=0.01, norm="batch"):
        super().__init__()
        self.save_hyperparameters()
        self.fc1 = torch.nn.Linear(4, hidden)
        self.norm = torch.nn.BatchNorm1d(hidden)
        self.fc2 = torch.nn.Linear(hidden, 3)

    def loss(self, batch):
        return self.fc2(self.norm(self.fc1(batch))).square().mean()

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]


def total(state):
    return sum(value.double().sum().item() for key, value in state.items() if not key.endswith("tracked"))


def write(folder):
    torch.manual_seed(1)
    module = Net()
    trainer = Trainer(
        max_epochs=2, num_sanity_val_steps=0, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[EarlyStopping("val_loss")],
    )  # fmt: skip
    trainer.fit(module, DataLoader(torch.randn(24, 4), batch_size=4), DataLoader(torch.randn(8, 4), batch_size=4))
    trainer.save_checkpoint(folder / "lightning.ckpt")
    state = module.state_dict()
    torch.save(state, folder / "plain.pt")
    torch.save({"model": state, "epoch": 2, "args": {"lr": 0.01}}, folder / "nested.pt")
    shards = folder / "shards"
    shards.mkdir()
    names = list(state)
    weight_map = {}
    for index, part in enumerate((names[:4], names[4:])):
        file = f"pytorch_model-{index + 1:05}-of-00002.bin"
        torch.save({name: state[name] for name in part}, shards / file)
        weight_map.update({name: file for name in part})
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return {"total": total(state)}


def read(folder):
    totals = {}
    for path in sorted(folder.glob("converted-*")):
        if path.suffix == ".ckpt":
            module = Net.load_from_checkpoint(path)
        else:
            module = Net()
            module.load_state_dict(torch.load(path, weights_only=True))
        totals[path.name] = [total(module.state_dict()), module.hparams.lr]
    return totals


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(json.dumps({"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))))


main()
