"""Manual optimization: two optimizers, accumulation and clipping by hand, schedulers by hand; step by step."""

import json
import tempfile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

BATCHES = [torch.tensor([[i / 4.0, 1.0 - i / 8.0]]) for i in range(5)]
SEEN = []


class Pair(LightningModule):
    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([[1.0, -0.5]]))
        self.b = torch.nn.Parameter(torch.tensor([[0.25, 2.0]]))

    def training_step(self, x, batch_idx):
        one, two = self.optimizers()
        self.toggle_optimizer(one)
        loss = ((self.a - self.b) * x).pow(2).sum()
        self.log("loss_a", loss)
        one.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(one, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
        one.step()
        self.untoggle_optimizer(one)

        self.toggle_optimizer(two)
        loss = (self.a * self.b * x).sum().pow(2) / 2
        self.log("loss_b", loss, on_step=False, on_epoch=True)
        self.manual_backward(loss)
        if (batch_idx + 1) % 2 == 0:
            two.step()
            two.zero_grad()
            self.lr_schedulers()[1].step()
        self.untoggle_optimizer(two)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        optimizers = self.optimizers()
        rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
        SEEN.append([self.global_step, self.a.detach().flatten().tolist(), self.b.detach().flatten().tolist(), rates])

    def on_train_epoch_end(self):
        self.lr_schedulers()[0].step()

    def configure_optimizers(self):
        one = torch.optim.SGD([self.a], lr=0.1, momentum=0.9)
        two = torch.optim.AdamW([self.b], lr=0.05)
        schedulers = [torch.optim.lr_scheduler.StepLR(one, 1, 0.5), torch.optim.lr_scheduler.StepLR(two, 2, 0.1)]
        return [one, two], [{"scheduler": schedulers[0]}, {"scheduler": schedulers[1], "interval": "step"}]


with tempfile.TemporaryDirectory() as root:
    logger = CSVLogger(root)
    trainer = Trainer(
        max_steps=13,
        max_epochs=9,
        log_every_n_steps=1,
        accelerator="cpu",
        logger=logger,
        callbacks=[ModelCheckpoint(root, every_n_train_steps=5, save_top_k=-1), LearningRateMonitor()],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(torch.cat(BATCHES), batch_size=1)
    trainer.fit(Pair(), loader)
    import os

    files = sorted(name for name in os.listdir(root) if name.endswith(".ckpt"))
    checkpoint = torch.load(os.path.join(root, files[-1]), weights_only=False)
    with open(os.path.join(logger.log_dir, "metrics.csv")) as file:
        csv = file.read()
    print(
        json.dumps(
            {
                "seen": SEEN,
                "files": files,
                "csv": csv,
                "loops": checkpoint["loops"]["fit_loop"],
                "global_step": checkpoint["global_step"],
            }
        )
    )
