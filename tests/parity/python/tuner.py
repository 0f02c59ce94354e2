"""What Lightning's learning-rate finder records, for the weights and data of a file."""

import json
import logging
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Net(LightningModule):
    def __init__(self, weights):
        super().__init__()
        self.fc1 = torch.nn.Linear(4, 8)
        self.fc2 = torch.nn.Linear(8, 1)
        self.load_state_dict(weights)
        self.lr = 0.1

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.mse_loss(self.fc2(torch.tanh(self.fc1(x))), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def main():
    data = torch.load(sys.argv[1], weights_only=True)
    cases = json.loads(sys.argv[2])
    results = []
    for case in cases:
        accumulate = case.pop("accumulate_grad_batches", 1)
        loader = DataLoader(TensorDataset(data["x"], data["y"]), batch_size=4)
        net = Net(data["weights"])
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, accumulate_grad_batches=accumulate, max_epochs=-1,
        )
        found = Tuner(trainer).lr_find(net, loader, **case)
        results.append({**found.results, "suggestion": found.suggestion(), "lr_attr": net.lr})
    print(json.dumps(results))


main()
