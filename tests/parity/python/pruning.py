"""Prunes a small model in Lightning: `pruning.py DATA CASES` prints, for each case, what became of it."""

import json
import logging
import sys
import tempfile
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ModelPruning
from torch.utils.data import DataLoader, TensorDataset


class Net(LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        self.optimizer = optimizer
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, 3)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.fc2(torch.tanh(self.fc1(x))), y)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        if self.optimizer == "Adam":
            return torch.optim.Adam(self.parameters(), lr=0.01, weight_decay=0.1)
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)


class Seed(Callback):
    """Random pruning draws the same numbers here and there."""

    def on_train_epoch_end(self, trainer, module):
        torch.manual_seed(100 + trainer.current_epoch)


class Watch(Callback):
    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, module):
        epoch = {}
        for name in ["fc1.weight", "fc2.weight", "fc1.bias", "fc2.bias"]:
            layer, _, last = name.partition(".")
            layer = getattr(module, layer)
            mask = getattr(layer, f"{last}_mask", None)
            if mask is None:
                epoch[name] = {"mask": None, "values": getattr(layer, last).flatten().tolist()}
            else:
                values = getattr(layer, f"{last}_orig") * mask
                epoch[name] = {"mask": mask.flatten().tolist(), "values": values.flatten().tolist()}
        self.epochs.append(epoch)


def clone_original(new, old, name):
    """On a CPU, Lightning's own lets the copy of the first values share memory with the parameter, which is trained."""
    target = getattr(new, f"{name}_orig") if hasattr(new, f"{name}_orig") else getattr(new, name)
    target.data = getattr(old, name).data.clone()


def by_epoch(values):
    return (lambda epoch: values[epoch]) if isinstance(values, list) else values


def run(data, case):
    options = dict(case["options"])
    for name in ["amount", "apply_pruning", "use_lottery_ticket_hypothesis"]:
        if name in options:
            options[name] = by_epoch(options[name])
    module = Net(case["optimizer"])
    module.load_state_dict(data["weights"])
    named = options.pop("parameters_to_prune", [])
    options["parameters_to_prune"] = [
        (getattr(module, name.split(".")[0]), name.split(".")[1]) for name in named
    ]
    loaders = [
        DataLoader(TensorDataset(data[f"{which}_x"], data[f"{which}_y"]), batch_size=4) for which in ("train", "val")
    ]
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = ModelCheckpoint(dirpath=folder)
        trainer = Trainer(
            max_epochs=4, num_sanity_val_steps=0, accelerator="cpu", logger=False, gradient_clip_val=0.3,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[Seed(), ModelPruning(**options), watch, checkpoint],
        )  # fmt: skip
        trainer.fit(module, *loaders)
        saved = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
    flat = {name: value.flatten().tolist() for name, value in saved.items()}
    return {"epochs": watch.epochs, "saved": flat, "final": {
        name: value.flatten().tolist() for name, value in module.state_dict().items()
    }}  # fmt: skip


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ModelPruning._copy_param = staticmethod(clone_original)
    data = torch.load(sys.argv[1], weights_only=True)
    print(json.dumps([run(data, case) for case in json.loads(sys.argv[2])]))


main()
