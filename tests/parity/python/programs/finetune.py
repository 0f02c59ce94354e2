"""A ResNet that knows the digits 0 to 4 learns to read all ten, with Lightning: what `examples/finetune` is in Rust.

`--pretrain FILE` makes the weights that it begins with.
"""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import BackboneFinetuning, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class BasicBlock(nn.Module):
    """torchvision's."""

    def __init__(self, inplanes, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )  # fmt: skip

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + identity)


class ResNet(nn.Module):
    """torchvision's, narrow and for small pictures: features, without `fc`."""

    def __init__(self, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(BasicBlock(width, width))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, stride=2))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer2(self.layer1(x)).mean((2, 3))


class DigitModel(L.LightningModule):
    def __init__(self, lr=5e-3):
        super().__init__()
        self.save_hyperparameters()
        self.backbone = ResNet()
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.backbone(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam((p for p in self.parameters() if p.requires_grad), lr=self.hparams.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="a .pt file of the digits, as the parity test writes it")
    parser.add_argument("--weights", help="the state dict of the backbone")
    parser.add_argument("--pretrain", help="where the backbone's weights go")
    parser.add_argument("--max-epochs", type=int, default=10)
    parser.add_argument("--unfreeze-at-epoch", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--default-root-dir", default=".")
    args = parser.parse_args()

    L.seed_everything(args.seed, verbose=False)
    data = torch.load(args.data)
    if args.pretrain:
        data = {name: (images[labels < 5], labels[labels < 5]) for name, (images, labels) in data.items()}
    train = DataLoader(TensorDataset(*data["train"]), batch_size=args.batch_size, shuffle=True)
    val = DataLoader(TensorDataset(*data["val"]), batch_size=180)
    model, finetuning = DigitModel(), []
    if not args.pretrain:
        model.backbone.load_state_dict(torch.load(args.weights))
        finetuning = [BackboneFinetuning(args.unfreeze_at_epoch)]
    trainer = L.Trainer(
        max_epochs=args.max_epochs, log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False,
        logger=CSVLogger(args.default_root_dir), callbacks=[ModelCheckpoint(monitor="val_loss"), *finetuning],
    )  # fmt: skip
    trainer.fit(model, train, val)
    if args.pretrain:
        torch.save(model.backbone.state_dict(), args.pretrain)


if __name__ == "__main__":
    main()
