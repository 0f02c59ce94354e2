"""The run of `it_is_what_lightning_writes` in wandb.rs, by Lightning's own trainer and WandbLogger. Arguments: a folder, and a
folder with Lightning's packages."""

import sys

# After those of W&B, whose versions count where both have a package.
sys.path.append(sys.argv[2])

import lightning as L
import torch
import wandb
from lightning.pytorch.loggers import WandbLogger
from torch.utils.data import DataLoader, TensorDataset


class Line(L.LightningModule):
    def __init__(self, width, optim):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.layer(x), y)
        self.log("train_loss", loss)
        self.log("not/a@number", float("nan"))
        return loss

    def validation_step(self, batch):
        x, y = batch
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


x = torch.linspace(-1, 1, 16).view(16, 1)
data = DataLoader(TensorDataset(x, x * 2), batch_size=4)
logger = WandbLogger(name="n", save_dir=sys.argv[1], offline=True, project="same", prefix="p", tags=["a"], group="g")
trainer = L.Trainer(
    max_epochs=2,
    accelerator="cpu",
    logger=logger,
    log_every_n_steps=1,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
)
trainer.fit(Line(8, {"betas": (0.9, 0.999), "on": True}), data, data)
wandb.finish()
