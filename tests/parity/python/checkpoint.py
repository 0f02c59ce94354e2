"""Checkpoints across the border: `read FILE` tells what PyTorch finds in ours, `write FOLDER` writes PyTorch's."""

import json
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")

KINDS = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
         "complex64", "complex128", "complex32", "float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"]


def bits(tensor):
    """Every element as a double, bit by bit: JSON readers round."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.to(torch.complex128))
    return tensor.to(torch.float64).flatten().view(torch.int64).tolist()


def describe(value):
    if isinstance(value, torch.Tensor):
        return {"dtype": str(value.dtype), "size": list(value.shape), "stride": list(value.stride()),
                "requires_grad": value.requires_grad, "bits": bits(value.detach())}
    if isinstance(value, dict):
        return {"dict": [[describe(k), describe(v)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [describe(v) for v in value]}
    if isinstance(value, bytes):
        return {"bytes": list(value)}
    if isinstance(value, float):
        return {"float": bits(torch.tensor([value], dtype=torch.float64))}
    return value


def read(path):
    state = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    tied = state["tied"]
    tied["a"][0] = 99.0
    print(json.dumps({"state": describe(state["plain"]), "mapped": describe(mapped["plain"]),
                      "tied": tied["b"].flatten().tolist()}))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(3, 4, bias=False)
        self.norm = torch.nn.BatchNorm1d(4)
        self.decoder = torch.nn.Linear(3, 4, bias=False)
        self.decoder.weight = self.encoder.weight


def write(folder):
    torch.manual_seed(0)
    net = Net()
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(2):
        adam.zero_grad()
        net.norm(net.encoder(torch.randn(5, 3))).square().sum().backward()
        adam.step()
    base = torch.arange(6, dtype=torch.float32).view(2, 3)
    state = {
        "state_dict": net.state_dict(),
        "optimizer_states": [adam.state_dict()],
        "kinds": {kind: torch.tensor([0.0, 1.0, 2.0, 100.0]).to(getattr(torch, kind)) for kind in KINDS},
        "transposed": base.t(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "expanded": torch.ones(1).expand(4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cuda", 1),
        "plain": {"none": None, "yes": True, "ints": [0, 300, -1, 2**40, -(2**63)], "floats": (0.1, float("-inf")),
                  "text": "räksmörgås", "bytes": bytes(range(256)), 7: []},
    }
    torch.save(state, folder / "state.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    expected = {key: describe(value) for key, value in state.items() if key not in ("size", "dtype", "device")}
    print(json.dumps({"state": expected, "checkpoint": lightning(folder)}))


def lightning(folder):
    """A real Lightning checkpoint, after two steps on the CPU."""
    import logging
    import lightning as L
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(L.LightningModule):
        def __init__(self, width, lr, betas=(0.9, 0.99)):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(width, 1)

        def training_step(self, batch, index):
            loss = self.net(batch).square().mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, betas=self.hparams.betas)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    module = Module(3, 0.01)
    trainer = L.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, callbacks=[
            L.pytorch.callbacks.ModelCheckpoint(folder, filename="fit", monitor="train_loss", every_n_train_steps=1,
                                                save_top_k=1, save_last=True),
            L.pytorch.callbacks.EarlyStopping("train_loss", check_on_train_epoch_end=True)])
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(8, 3), batch_size=4))
    trainer.save_checkpoint(folder / "lightning.ckpt")
    checkpoint = torch.load(folder / "lightning.ckpt", weights_only=True)
    return {"version": L.__version__, "content": describe(checkpoint)}


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](Path(sys.argv[2]))
