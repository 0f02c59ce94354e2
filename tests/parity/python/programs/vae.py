"""A variational autoencoder of handwritten digits, with Lightning: what `examples/vae` is in Rust."""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Vae(L.LightningModule):
    def __init__(self, latent=8, lr=2e-3):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        self.mean = nn.Linear(32 * 4, latent)
        self.log_var = nn.Linear(32 * 4, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32 * 4), nn.ReLU(),
            nn.Unflatten(1, (32, 2, 2)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        )  # fmt: skip

    def reparametrize(self, mean, log_var):
        return mean + torch.randn_like(mean) * torch.exp(log_var / 2)

    def shared_step(self, batch, stage):
        x, _ = batch
        hidden = self.encoder(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        logits = self.decoder(self.reparametrize(mean, log_var))
        recon = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl = -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
        loss = recon + kl
        self.log_dict({f"{stage}_loss": loss, f"{stage}_recon": recon, f"{stage}_kl": kl})
        return loss

    def training_step(self, batch, batch_idx):
        return self.shared_step(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.shared_step(batch, "val")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a .pt file of the digits, as the parity test writes it")
    parser.add_argument("--max-epochs", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default-root-dir", default=".")
    args = parser.parse_args()

    L.seed_everything(args.seed, verbose=False)
    data = torch.load(args.data)
    train = DataLoader(TensorDataset(*data["train"]), batch_size=args.batch_size, shuffle=True)
    val = DataLoader(TensorDataset(*data["val"]), batch_size=180)
    trainer = L.Trainer(
        max_epochs=args.max_epochs, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        logger=CSVLogger(args.default_root_dir), callbacks=ModelCheckpoint(monitor="val_loss"),
    )  # fmt: skip
    trainer.fit(Vae(), train, val)


if __name__ == "__main__":
    main()
