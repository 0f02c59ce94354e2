"""Every case of training_cases.json run by Lightning on the tensors of a file: what it logged, wrote and learned."""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


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
    def __init__(self, case, weights):
        super().__init__()
        self.case = case
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, 3)
        self.acc = MulticlassAccuracy(3)
        self.load_state_dict(weights, strict=True)

    def forward(self, x):
        return self.fc2(torch.tanh(self.fc1(x)))

    def training_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        self.log("loss", loss)
        if self.case["log"] == "rich":
            self.log("both", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("of_epoch", loss, on_step=False, on_epoch=True)
            self.log("hidden", loss, on_epoch=True, logger=False)
            self.log("lowest", loss, on_step=False, on_epoch=True, reduce_fx="min")
            self.log("highest", loss, on_epoch=True, reduce_fx="max")
            self.log("total", loss, on_epoch=True, reduce_fx="sum")
            self.log("weighted", loss, on_epoch=True, batch_size=batch_idx + 1)
            self.log("number", 2.0 * batch_idx, on_epoch=True)
            self.log_dict({"one": loss + 1, "two": loss + 2}, on_epoch=True)
            self.acc(logits, y)
            self.log("acc", self.acc, on_step=True, on_epoch=True)
        elif self.case["log"] == "step":
            self.log("step", float(100 + self.current_epoch), on_step=False, on_epoch=True)
            self.log("both", loss, on_step=True, on_epoch=True)
        return loss

    def on_train_epoch_start(self):
        if self.case["log"] == "rich":
            self.log("at_start", 1.0 + self.current_epoch)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.case["log"] == "rich":
            # Lightning hands over the loss divided by the window; we hand over what the step returned.
            self.log("at_batch_end", outputs["loss"] * self.trainer.accumulate_grad_batches, on_epoch=True)

    def on_train_epoch_end(self):
        if self.case["log"] == "rich":
            self.log("at_end", 3.0 + self.global_step)

    def evaluation_step(self, stage, batch, batch_idx, dataloader_idx):
        x, y = batch
        logits = self(x)
        loss = torch.nn.functional.cross_entropy(logits, y)
        self.log(f"{stage}_loss", loss)
        self.log(f"{stage}_acc", (logits.argmax(1) == y).float().mean())
        if self.case["log"] == "rich":
            self.log(f"{stage}_both", loss, on_step=True, on_epoch=True)
            self.log(f"{stage}_highest", loss, reduce_fx="max", prog_bar=True)
            self.log(f"{stage}_number", float(batch_idx), on_step=True)
            self.log(f"{stage}_{dataloader_idx}", loss, add_dataloader_idx=False)
            if self.case["val_loaders"] == 1:
                self.acc(logits, y)
                self.log(f"{stage}_metric", self.acc)
        elif self.case["log"] == "step":
            self.log("step", float(200 + self.current_epoch))
            self.log(f"{stage}_both", loss, on_step=True, on_epoch=True)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.evaluation_step("val", batch, batch_idx, dataloader_idx)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.evaluation_step("test", batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self):
        if self.case["log"] == "rich":
            self.log("val_at_end", 5.0 + self.current_epoch)

    def configure_optimizers(self):
        options = dict(self.case["optimizer"])
        optimizer = getattr(torch.optim, options.pop("name"))(self.parameters(), **options)
        if "scheduler" not in self.case:
            return optimizer
        options = dict(self.case["scheduler"])
        how = {key: options.pop(key) for key in ("interval", "frequency", "monitor") if key in options}
        scheduler = getattr(torch.optim.lr_scheduler, options.pop("name"))(optimizer, **options)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **how}}


def loaders(data, which, count):
    dataset = TensorDataset(data[f"{which}_x"], data[f"{which}_y"])
    return [DataLoader(dataset, batch_size=4) for _ in range(count)]


def numbers(metrics):
    return {name: float(value) for name, value in metrics.items()}


def run(case, data, root):
    checkpoints = [ModelCheckpoint(dirpath=root / str(i), **c) for i, c in enumerate(case.get("checkpoints", []))]
    callbacks = list(checkpoints)
    if "early_stopping" in case:
        callbacks.append(EarlyStopping(**case["early_stopping"]))
    if "lr_monitor" in case:
        callbacks.append(LearningRateMonitor(**case["lr_monitor"]))
    logger = Rows()
    arguments = {"max_epochs": 3, "log_every_n_steps": 1, "num_sanity_val_steps": 0, **case.get("trainer", {})}
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=callbacks, enable_checkpointing=bool(checkpoints),
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root, **arguments,
    )  # fmt: skip
    module = Net(case, data["weights"])
    (train,) = loaders(data, "train", 1)
    trainer.fit(module, train, loaders(data, "val", case["val_loaders"]))
    stopping = trainer.early_stopping_callback
    result = {
        "global_step": trainer.global_step,
        "current_epoch": trainer.current_epoch,
        "callback_metrics": numbers(trainer.callback_metrics),
        "weights": {name: value.flatten().tolist() for name, value in module.state_dict().items()},
        "files": [sorted(path.name for path in (root / str(i)).glob("*")) for i in range(len(checkpoints))],
        "best": [Path(c.best_model_path).name for c in checkpoints],
        "stopped_epoch": stopping.stopped_epoch if stopping else None,
        "validate": trainer.validate(module, loaders(data, "val", case["val_loaders"]), verbose=False),
        "test": trainer.test(module, loaders(data, "test", 1), verbose=False),
    }
    return {**result, "rows": trainer.logger.rows if isinstance(trainer.logger, Rows) else []}


def main():
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.use_deterministic_algorithms(True)
    data = torch.load(sys.argv[1], weights_only=True)
    cases = json.loads(Path(__file__).with_name("training_cases.json").read_text())
    results = {}
    for case in cases:
        case = {"optimizer": {"name": "SGD", "lr": 0.1}, "log": "plain", "val_loaders": 1, **case}
        with tempfile.TemporaryDirectory() as root:
            results[case["name"]] = run(case, data, Path(root))
    print(json.dumps(results))


main()
