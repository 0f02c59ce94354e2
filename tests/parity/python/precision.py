"""Precision in PyTorch and Lightning: `precision.py scaler`, `precision.py names NAME...`, and
`precision.py train DATA PRECISION EPOCHS FOLDER [CKPT]`, which trains a small model and prints what it saw."""

import json
import logging
import math
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset


def scaler():
    """Two optimizers and a scaler, with infinities and NaN in the gradients of one, the other and both."""
    first = [torch.tensor([0.5, -1.0]).requires_grad_(), torch.tensor([[2.0]]).requires_grad_()]
    second = [torch.tensor([1.5]).requires_grad_()]
    optimizers = [torch.optim.SGD(first, lr=0.1, momentum=0.9), torch.optim.Adam(second, lr=0.1)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_factor=3.0, backoff_factor=0.25, growth_interval=3)
    rows = []
    for step in range(24):
        bad = {4: (float("inf"), 1.0), 5: (1.0, float("nan")), 11: (float("-inf"), float("inf")), 17: (1.0, 1e38)}
        factors = bad.get(step, (1.0, 1.0))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = (first[0].square().sum() + first[1].exp().sum()) * factors[0] + second[0].cos().sum() * factors[1]
        scaler.scale(loss).backward()
        if step % 2 == 0:
            scaler.unscale_(optimizers[0])
            torch.nn.utils.clip_grad_norm_(first, 0.5)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
        if step == 20:
            scaler.load_state_dict({**scaler.state_dict(), "growth_factor": 2.0, "growth_interval": 1})
        weights = [value for tensor in first + second for value in tensor.flatten().tolist()]
        rows.append({"weights": weights, "scaler": scaler.state_dict()})
    return rows


def names(names):
    """What a trainer on a CPU makes of each name."""
    found = {}
    for name in names:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                precision = Trainer(accelerator="cpu", precision=name, logger=False, enable_checkpointing=False).precision
            except ValueError:
                precision = None
        said = [str(warning.message) for warning in said if "precision" in str(warning.message)]
        found[name] = [precision, len(said)]
    return found


def number(x):
    """JSON has no infinities: in the words of Rust."""
    return x if math.isfinite(x) else {"inf": "inf", "-inf": "-inf", "nan": "NaN"}[str(x)]


class Events(Callback):
    """What hooks see."""

    def __init__(self, module):
        self.rows = []
        self.module = module

    def norm(self):
        grads = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        return float(torch.stack([grad.double().norm() for grad in grads]).norm()) if grads else 0.0

    def on_before_zero_grad(self, *args):
        self.rows.append(["zero_grad"])

    def on_before_backward(self, trainer, module, loss):
        self.rows.append(["backward", number(float(loss)), str(loss.dtype)])

    def on_after_backward(self, *args):
        self.rows.append(["gradient", number(self.norm())])

    def on_before_optimizer_step(self, *args):
        self.rows.append(["step", number(self.norm())])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        scaler = trainer.scaler.state_dict() if trainer.scaler else {}
        loss = outputs["loss"]
        logged = trainer.callback_metrics["loss"]
        self.rows.append(["end", number(float(loss)), str(loss.dtype), number(float(logged)), scaler])
        self.rows.append(["clipped", number(self.norm())])
        self.rows.append(["weights", [float(p.double().abs().sum()) for p in module.parameters()]])


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(16, 32)
        self.fc2 = torch.nn.Linear(32, 4)
        self.kinds = []

    def both(self, batch):
        x, y, factor = batch
        hidden = self.fc1(x)
        logits = self.fc2(torch.tanh(hidden))
        loss = torch.nn.functional.cross_entropy(logits, y) * factor.mean()
        self.kinds = [str(t.dtype) for t in (x, self.fc1.weight, hidden, logits, loss)]
        return loss

    def training_step(self, batch, batch_idx):
        loss = self.both(batch)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.both(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def train(data, precision, epochs, folder, ckpt_path=None):
    data = torch.load(data, weights_only=True)
    loaders = [
        DataLoader(TensorDataset(*(data[f"{which}_{name}"] for name in "xyf")), batch_size=8) for which in ("train", "val")
    ]
    module = Net()
    module.load_state_dict(data["weights"])
    events = Events(module)
    arguments = {"precision": precision}
    if precision == "16-mixed":
        scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=4)
        arguments = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    checkpoint = ModelCheckpoint(dirpath=folder, filename="theirs")
    trainer = Trainer(
        max_epochs=int(epochs), log_every_n_steps=1, num_sanity_val_steps=0, accelerator="cpu", logger=False,
        callbacks=[events, checkpoint], enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=0.5,
        **arguments,
    )  # fmt: skip
    trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    saved = torch.load(checkpoint.best_model_path, weights_only=True)
    return {
        "rows": events.rows,
        "kinds": module.kinds,
        "val_loss": float(trainer.callback_metrics["val_loss"]),
        "weights": {name: value.flatten().tolist() for name, value in module.state_dict().items()},
        "saved": saved.get("MixedPrecision"),
    }


def main():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    what, *arguments = sys.argv[1:]
    if what == "names":
        found = names(arguments)
    else:
        warnings.simplefilter("ignore")
        found = scaler() if what == "scaler" else train(*arguments)
    print(json.dumps(found))


main()
