"""SimCLR on handwritten digits, with Lightning: what `examples/simclr` is in Rust."""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2


class TwoViews(Dataset):
    """Each image twice, differently changed."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.transform = v2.Compose([
            v2.RandomResizedCrop(8, scale=(0.6, 1.0)),
            v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(brightness=0.4, contrast=0.4),
        ])  # fmt: skip

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return (self.transform(image), self.transform(image)), self.labels[index]


def nt_xent(a, b, temperature):
    """The normalized temperature-scaled cross entropy of Chen et al. 2020, and how often the pair is the nearest."""
    z = F.normalize(torch.cat([a, b]), dim=1)
    similarity = z @ z.T / temperature
    similarity.fill_diagonal_(-torch.inf)
    pair = torch.arange(len(z)).roll(len(a))
    return F.cross_entropy(similarity, pair), (similarity.argmax(1) == pair).float().mean()


class SimClr(L.LightningModule):
    def __init__(self, labelled, lr=3e-3, temperature=0.2, weight_decay=1e-4, warmup_epochs=2):
        super().__init__()
        self.save_hyperparameters(ignore=["labelled"])
        self.labelled = labelled
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.projection = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 64))

    def training_step(self, batch, batch_idx):
        (a, b), _ = batch
        loss, top1 = nt_xent(*(self.projection(self.encoder(x)) for x in (a, b)), self.hparams.temperature)
        self.log_dict({"train_loss": loss, "train_top1": top1})
        return loss

    def validation_step(self, batch, batch_idx):
        """Each image has the label of the most similar one of the few whose label is known."""
        images, labels = batch
        known, known_labels = self.labelled
        similarity = F.normalize(self.encoder(images), dim=1) @ F.normalize(self.encoder(known), dim=1).T
        self.log("val_acc", (known_labels[similarity.argmax(1)] == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)
        total = self.trainer.estimated_stepping_batches
        warmup = total * self.hparams.warmup_epochs // self.trainer.max_epochs
        schedulers = [LinearLR(optimizer, 0.01, total_iters=warmup), CosineAnnealingLR(optimizer, total - warmup)]
        scheduler = SequentialLR(optimizer, schedulers, milestones=[warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a .pt file of the digits, as the parity test writes it")
    parser.add_argument("--max-epochs", type=int, default=20)
    parser.add_argument("--warmup-epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default-root-dir", default=".")
    args = parser.parse_args()

    L.seed_everything(args.seed, verbose=False)
    data = torch.load(args.data)
    train = DataLoader(TwoViews(*data["train"]), batch_size=args.batch_size, shuffle=True, drop_last=True)
    val = DataLoader(TensorDataset(*data["val"]), batch_size=180)
    trainer = L.Trainer(
        max_epochs=args.max_epochs, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        logger=CSVLogger(args.default_root_dir), callbacks=ModelCheckpoint(monitor="val_acc", mode="max"),
    )  # fmt: skip
    labelled = [part[:50] for part in data["train"]]
    trainer.fit(SimClr(labelled, warmup_epochs=args.warmup_epochs), train, val)


if __name__ == "__main__":
    main()
