"""The hooks that Lightning calls on a module, a callback and a data module, in order: fit, test, predict."""

import json
import sys
import tempfile

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

EVENTS = []

SHARED = [
    f"on_{stage}_{moment}"
    for stage in ("train", "validation", "test", "predict")
    for moment in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
] + [
    "setup", "teardown", "on_fit_start", "on_fit_end", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step", "on_save_checkpoint", "on_load_checkpoint",
]  # fmt: skip
MODULE = SHARED + [
    "configure_callbacks", "configure_model", "configure_optimizers", "configure_gradient_clipping", "prepare_data",
    "training_step", "validation_step", "test_step", "predict_step", "optimizer_zero_grad", "optimizer_step",
    "lr_scheduler_step", "backward", "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer",
    "on_validation_model_eval", "on_validation_model_train", "on_validation_model_zero_grad", "on_test_model_eval",
    "on_test_model_train", "on_predict_model_eval",
]  # fmt: skip
CALLBACK = SHARED + ["on_sanity_check_start", "on_sanity_check_end", "state_dict"]
DATA = [
    "prepare_data", "setup", "teardown", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader",
    "state_dict",
]  # fmt: skip


def record(owner, names):
    """A class decorator: every call of a method in `names` is noted before it runs."""

    def decorate(cls):
        for name in names:
            inner = getattr(cls, name)

            def outer(self, *args, _inner=inner, _name=name, **kwargs):
                EVENTS.append(f"{owner}.{_name}")
                return _inner(self, *args, **kwargs)

            outer.inner = inner
            setattr(cls, name, outer)
        return cls

    return decorate


class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.lr_schedulers().step()
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.layer(batch).pow(2).mean())

    def predict_step(self, batch, batch_idx):
        return self.layer(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class PlainData(LightningDataModule):
    def loader(self):
        return torch.utils.data.DataLoader(torch.ones(6, 4), batch_size=2)

    def train_dataloader(self):
        return self.loader()

    def val_dataloader(self):
        return self.loader()

    def test_dataloader(self):
        return self.loader()

    def predict_dataloader(self):
        return self.loader()

    def state_dict(self):
        return {"seen": 1}


def with_signatures(cls):
    """Lightning reads the signature of steps, so the recorders must keep it."""
    import inspect

    for name in ("training_step", "validation_step", "test_step", "predict_step"):
        outer = getattr(cls, name)
        outer.__signature__ = inspect.signature(outer.inner)
    return cls


Model = with_signatures(record("LightningModule", MODULE)(Plain))
Data = record("LightningDataModule", DATA)(PlainData)


@record("Callback", CALLBACK)
class Recorder(Callback):
    def state_dict(self):
        return {"seen": 1}


def main():
    manual = sys.argv[1] == "manual"
    accumulate = 1 if manual else int(sys.argv[1])
    with tempfile.TemporaryDirectory() as root:
        trainer = Trainer(
            max_epochs=2,
            limit_train_batches=2,
            limit_val_batches=1,
            limit_test_batches=1,
            limit_predict_batches=1,
            num_sanity_val_steps=1,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=None if manual else 1.0,
            callbacks=[Recorder(), ModelCheckpoint(dirpath=root, monitor="val_loss")],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=root,
        )
        model, data = Model(), Data()
        model.automatic_optimization = not manual
        for entry in ("fit", "test", "predict"):
            EVENTS.append(f"-- {entry}")
            getattr(trainer, entry)(model, datamodule=data)
    print(json.dumps(EVENTS))


main()
