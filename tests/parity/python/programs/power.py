"""An LSTM that predicts a household's power, with Lightning: what `examples/power` is in Rust."""

import argparse

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

FEATURES = 4


class Windows(Dataset):
    """`length` hours, and the power of the hour after them."""

    def __init__(self, series, length):
        self.series, self.length = torch.tensor(series, dtype=torch.float32), length

    def __len__(self):
        return len(self.series) - self.length

    def __getitem__(self, index):
        return self.series[index : index + self.length], self.series[index + self.length, 0]


class PowerData(L.LightningDataModule):
    def __init__(self, csv, window=24, batch_size=64):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage):
        table = np.genfromtxt(self.hparams.csv, delimiter=",", names=True, dtype=None, encoding="utf-8")
        time = table["time"].astype("datetime64[s]").astype(np.float64)
        angle = time % 86400 * (2 * np.pi / 86400)
        series = np.stack([table["power_kw"], table["temperature_c"], np.sin(angle), np.cos(angle)], 1)
        train, val, test = np.split(series, [len(series) * 70 // 100, len(series) * 85 // 100])
        self.mean, self.std = train.mean(0), train.std(0)
        scaled = [(part - self.mean) / self.std for part in (train, val, test)]
        self.train, self.val, self.test = (Windows(part, self.hparams.window) for part in scaled)

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=self.hparams.batch_size)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=256)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=256)


class PowerLstm(L.LightningModule):
    def __init__(self, hidden=64, layers=2, dropout=0.1, lr=3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.lstm = nn.LSTM(FEATURES, hidden, layers, batch_first=True, dropout=dropout)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x):
        output, _ = self.lstm(x)
        return self.head(output[:, -1]).squeeze(1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.mse_loss(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.mse_loss(self(x), y))

    def test_step(self, batch, batch_idx):
        x, y = batch
        watts = 1000 * self.trainer.datamodule.std[0]
        self.log("test_mae_watts", F.l1_loss(self(x), y) * watts)
        self.log("persistence_mae_watts", F.l1_loss(x[:, -1, 0], y) * watts)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", required=True)
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default-root-dir", default=".")
    args = parser.parse_args()

    L.seed_everything(args.seed, verbose=False)
    data, model = PowerData(args.csv), PowerLstm()
    trainer = L.Trainer(
        max_epochs=args.max_epochs, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        logger=CSVLogger(args.default_root_dir), callbacks=ModelCheckpoint(monitor="val_loss"),
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.test(model, data, ckpt_path="best", verbose=False)


if __name__ == "__main__":
    main()
