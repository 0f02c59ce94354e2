"""What Lightning's simple profiler counts, and how often operators run by PyTorch's profiler."""

import json
import logging
import sys
import tempfile
import warnings

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import SimpleProfiler

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Line(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        with self.trainer.profiler.profile("encode"):
            loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.layer(batch).pow(2).mean())

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.layer(batch).pow(2).mean())

    def predict_step(self, batch, batch_idx):
        return self.layer(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.001)
        # Every validation improves, however the weights begin.
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Data(LightningDataModule):
    def loader(self, count):
        return torch.utils.data.DataLoader(torch.ones(2 * count, 4), batch_size=2)

    def setup(self, stage):
        pass

    def train_dataloader(self):
        return self.loader(4)

    def val_dataloader(self):
        return self.loader(3)

    def test_dataloader(self):
        return self.loader(3)

    def predict_dataloader(self):
        return self.loader(3)

    def state_dict(self):
        return {"seen": 1}


def simple(accumulate):
    counts = {}
    with tempfile.TemporaryDirectory() as root:
        profiler = SimpleProfiler()
        trainer = Trainer(
            max_epochs=2,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=1.0,
            log_every_n_steps=1,
            val_check_interval=0.5,
            callbacks=[EarlyStopping("val_loss"), ModelCheckpoint(dirpath=root, monitor="val_loss")],
            accelerator="cpu",
            logger=CSVLogger(root),
            profiler=profiler,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        model, data = Line(), Data()
        for entry in ("fit", "validate", "test", "predict"):
            # Lightning's report goes on from one entry point to the next.
            profiler.recorded_durations.clear()
            getattr(trainer, entry)(model, datamodule=data)
            counts[entry] = {action: len(times) for action, times in profiler.recorded_durations.items()}
    return counts


def operators():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    x, y = torch.randn(8, 6), torch.randint(3, (8,))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, record_shapes=True, with_flops=True) as profiler:
        for _ in range(3):
            for parameter in net.parameters():
                parameter.grad = None
            with torch.profiler.record_function("forward"):
                # The functional form goes through one operator more.
                loss = torch.ops.aten.nll_loss(net(x).log_softmax(-1), y)
            loss.backward()
    rows = [[row.key, row.count, row.flops or 0] for row in profiler.key_averages()]
    shapes = [
        [row.key, str(row.input_shapes), row.count] for row in profiler.key_averages(group_by_input_shape=True)
    ]
    return {"rows": rows, "shapes": shapes}


if sys.argv[1] == "simple":
    print(json.dumps(simple(int(sys.argv[2]))))
else:
    print(json.dumps(operators()))
