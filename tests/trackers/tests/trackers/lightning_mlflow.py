"""The run of `as_lightning` in mlflow.rs, by Lightning's own trainer and MLFlowLogger. Arguments: the server, a folder, and a
folder with Lightning's packages."""

import sys

# After those of MLflow, whose versions count where both have a package.
sys.path.append(sys.argv[3])

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger
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
points = DataLoader(TensorDataset(x, 2 * x), batch_size=4)
logger = MLFlowLogger("by Lightning", tracking_uri=sys.argv[1], run_name="r", tags={"team": "a"}, prefix="p", log_model="all")
trainer = L.Trainer(
    default_root_dir=sys.argv[2],
    accelerator="cpu",
    max_epochs=3,
    log_every_n_steps=1,
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=ModelCheckpoint(monitor="val_loss", filename="{epoch}", save_top_k=2, save_last=True),
    logger=logger,
)
trainer.fit(Line(width=8, optim={"betas": (0.9, 0.999), "on": True}), points, points)
