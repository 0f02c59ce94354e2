"""One configuration of random_configurations.py run by Lightning, and everything that happened in it."""

import copy
import logging
import math
import warnings
from collections import Counter
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger

SHARED = [
    f"on_{stage}_{moment}"
    for stage in ("train", "validation", "test", "predict")
    for moment in ("start", "end", "epoch_start", "epoch_end", "batch_start", "batch_end")
] + [
    "setup", "teardown", "on_fit_start", "on_fit_end", "on_before_zero_grad", "on_before_backward",
    "on_after_backward", "on_before_optimizer_step",
]  # fmt: skip
MODULE = SHARED + [
    "configure_optimizers", "configure_gradient_clipping", "optimizer_zero_grad", "optimizer_step",
    "lr_scheduler_step", "backward", "on_validation_model_eval", "on_validation_model_train",
    "on_validation_model_zero_grad", "on_test_model_eval", "on_test_model_train", "on_predict_model_eval",
    "on_save_checkpoint", "on_load_checkpoint",
]  # fmt: skip
CALLBACK = SHARED + ["on_sanity_check_start", "on_sanity_check_end"]
# Where the metrics that callbacks see are written down too.
LOOKS = {"on_train_batch_end", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_end", "on_train_end"}

EVENTS = []
# What was logged before each checkpoint: metrics of callbacks, and what the training epoch has accumulated.
KEPT = []


def number(value):
    """A number of a trace; JSON has no NaN."""
    value = float(value)
    return value if math.isfinite(value) else str(value).replace("nan", "NaN")


def numbers(metrics):
    return {name: number(value) for name, value in metrics.items()}


def note(owner, name, trainer, args):
    """An event: who, which hook, and what tells one call from another."""
    event = [f"{owner}.{name}"]
    if name.endswith(("batch_start", "batch_end")):
        indices = [arg for arg in args if isinstance(arg, int)]
        event += (indices + [0])[: 1 if "train" in name else 2]
    elif name in ("setup", "teardown"):
        event.append(next(arg.value for arg in args if isinstance(arg, str)))
    elif name == "on_before_optimizer_step":
        event.append([group["lr"] for group in args[-1].param_groups])
    if owner == "Callback" and name in LOOKS and not trainer.sanity_checking:
        event.append(numbers(trainer.callback_metrics))
    if "train" in name and "model" not in name:
        event.append([trainer.current_epoch, trainer.global_step])
    EVENTS.append(event)


def record(owner, names):
    """A class decorator: every call of a method in `names` is noted, and what it shall do is done."""

    def decorate(cls):
        for name in names:
            inner = getattr(cls, name)

            def outer(self, *args, _inner=inner, _name=name, **kwargs):
                module = self if owner == "Module" else args[1]
                note(owner, _name, module.trainer, (*args, *kwargs.values()))
                module.act(owner, _name, module)
                returned = _inner(self, *args, **kwargs)
                if owner == "Module" and _name == "on_train_batch_start" and module.ends_epoch():
                    return -1
                return returned

            setattr(cls, name, outer)
        return cls

    return decorate


@record("Callback", CALLBACK)
class Recorder(Callback):
    def on_train_start(self, trainer, module):
        # Documented: what was logged before a checkpoint comes back with it.
        if module.kept:
            metrics, results = module.kept
            trainer._logger_connector._callback_metrics.update(metrics)
            if trainer.fit_loop.restarted_mid_epoch:
                for result in results.values():
                    result.meta.sync.fn = trainer.strategy.reduce  # of the trainer that logs from now on
                trainer.fit_loop.epoch_loop._results.update(results)
                trainer._logger_connector._first_loop_iter = False


class Recording(Logger):
    name, version = "recording", 0

    def log_metrics(self, metrics, step=None):
        EVENTS.append(["log", step, numbers(metrics)])

    def log_hyperparams(self, *args, **kwargs):
        pass

    def finalize(self, status):
        EVENTS.append(["finalize", status])


@record("Module", MODULE)
class Net(LightningModule):
    def __init__(self, config, weights):
        super().__init__()
        self.config = config
        self.a = torch.nn.Linear(3, 2)
        self.b = torch.nn.Linear(2, 1)
        self.load_state_dict(weights)
        self.automatic_optimization = config["manual"] is None
        self.calls = Counter()
        self.window = 0
        self.kept = None

    def on_save_checkpoint(self, checkpoint):
        checkpoint["kept"] = len(KEPT)
        strategy = self.trainer.strategy
        results = copy.deepcopy(self.trainer.fit_loop.epoch_loop._results, {id(strategy): strategy})
        KEPT.append((dict(self.trainer.callback_metrics), results))
        # What is due after the batch in hand is made up for here when the run is resumed, and skipped there.
        loop = self.trainer.fit_loop.epoch_loop
        in_batch = loop.batch_progress.current.completed < loop.batch_progress.current.processed
        due = loop.batch_progress.is_last_batch or loop._should_check_val_fx(self.trainer.fit_loop._data_fetcher)
        checkpoint["resumable"] = not (in_batch and due)

    def on_load_checkpoint(self, checkpoint):
        self.kept = KEPT[checkpoint["kept"]]

    def loss(self, batch):
        x, y = batch
        return (self.b(torch.tanh(self.a(x))) - y).pow(2).mean()

    def act(self, owner, hook, module):
        """What the configuration wants done in a hook: counting, logging, asking for the end."""
        self.calls[f"{owner}.{hook}"] += 1
        self.log_all(f"{owner}.{hook}", None, 0)
        stop = self.config["stop"]
        if stop and [f"{owner}.{hook}", self.calls[f"{owner}.{hook}"]] == stop:
            self.trainer.should_stop = True

    def ends_epoch(self):
        return self.calls["Module.on_train_batch_start"] in self.config["end_epoch"]

    def log_all(self, at, loss, dataloader_idx):
        for entry in self.config["logs"]:
            if entry["at"] != at:
                continue
            name = entry["name"]
            if entry["value"] == "loss":
                value = loss.detach()
            else:
                by, script = entry["value"]
                self.calls[name] += 1
                value = script[(self.calls[name if by == "call" else by] - 1) % len(script)]
            options = dict(entry["options"])
            if options.get("add_dataloader_idx") is False and not entry.get("one_name"):
                name = f"{name}{dataloader_idx}"
            self.log(name, value, **options)

    def training_step(self, batch, batch_idx):
        EVENTS.append(["Module.training_step", batch_idx])
        self.calls["training_step"] += 1
        loss = self.loss(batch)
        self.log_all("training_step", loss, 0)
        if self.config["manual"]:
            self.step_by_hand(batch)
        if self.calls["training_step"] in self.config["skip_loss"]:
            return None
        self.window += 1
        return loss

    def step_by_hand(self, batch):
        optimizers, schedulers = self.optimizers(), self.lr_schedulers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers] * (schedulers is not None)
        for optimizer, every in zip(optimizers, self.config["manual"]["every"]):
            if self.config["manual"]["toggle"]:
                self.toggle_optimizer(optimizer)
            self.manual_backward(self.loss(batch))
            if self.calls["training_step"] % every == 0:
                optimizer.step()
                optimizer.zero_grad()
            if self.config["manual"]["toggle"]:
                self.untoggle_optimizer(optimizer)
        for scheduler in schedulers:
            scheduler.step()

    def on_before_optimizer_step(self, optimizer):
        # Documented: a short window is averaged over the batches it has, where Lightning divides by the full number.
        full = self.trainer.accumulate_grad_batches
        if self.automatic_optimization and 0 < self.window != full:
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad *= full / self.window

    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):
        # The batch whose step this is part of.
        self.window = 0 if self.calls["training_step"] in self.config["skip_loss"] else 1
        super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        EVENTS.append(["Module.validation_step", batch_idx, dataloader_idx])
        self.log_all("validation_step", self.loss(batch), dataloader_idx)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        EVENTS.append(["Module.test_step", batch_idx, dataloader_idx])
        self.log_all("test_step", self.loss(batch), dataloader_idx)

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        EVENTS.append(["Module.predict_step", batch_idx, dataloader_idx])
        return self.loss(batch)

    def configure_optimizers(self):
        parts = [self.parameters()] if len(self.config["optimizers"]) == 1 else [self.a.parameters(), self.b.parameters()]
        optimizers, schedulers = [], []
        for parameters, options in zip(parts, self.config["optimizers"]):
            options = dict(options)
            optimizers.append(getattr(torch.optim, options.pop("name"))(parameters, **options))
        for optimizer, options in zip(optimizers, self.config["schedulers"]):
            options = dict(options)
            how = {key: options.pop(key) for key in ("interval", "frequency", "monitor", "strict") if key in options}
            scheduler = getattr(torch.optim.lr_scheduler, options.pop("name"))(optimizer, **options)
            schedulers.append({"scheduler": scheduler, **how})
        return optimizers, schedulers


class Loader:
    """Batches, from where a checkpoint left them."""

    def __init__(self, batches, per_epoch, looks_ahead):
        self.batches, self.per_epoch, self.looks_ahead = batches, per_epoch, looks_ahead
        self.position = self.start = self.ahead = 0

    def __iter__(self):
        self.position, self.start = self.start, 0
        self.ahead = int(self.looks_ahead)
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]
        self.ahead = 0

    def state_dict(self):
        return {"position": (self.position - self.ahead) % self.per_epoch}

    def load_state_dict(self, state):
        self.start = state["position"]


class SizedLoader(Loader):
    def __len__(self):
        return len(self.batches)


def loaders(config, stage, batches):
    limit = config["trainer"].get("overfit_batches", config["trainer"].get("limit_train_batches", 1.0))
    made = []
    for loader in config["loaders"][stage]:
        count = loader["count"]
        per_epoch = max(1, min(count, limit) if isinstance(limit, int) else int(count * limit))
        kind = SizedLoader if loader["sized"] else Loader
        # Without any length the next batch is asked for before the one in hand is trained on.
        looks_ahead = not loader["sized"] and isinstance(limit, float)
        made.append(kind(batches[loader["first"] : loader["first"] + count], per_epoch, looks_ahead))
    return made


class StaysEnded(EarlyStopping):
    """A run that it had ended is over when it is resumed, as ours is: Lightning trains another epoch."""

    restored = False

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.restored = True

    def on_fit_start(self, trainer, module):
        trainer.should_stop |= self.restored and self.stopping_reason.value != 0
        self.restored = False


# The key of its state is made of the name.
StaysEnded.__name__ = StaysEnded.__qualname__ = "EarlyStopping"


def make_trainer(config, overrides, root):
    kinds = {"ModelCheckpoint": ModelCheckpoint, "EarlyStopping": StaysEnded, "LearningRateMonitor": LearningRateMonitor}
    callbacks = [Recorder()]
    for index, options in enumerate(config["callbacks"]):
        options = dict(options)
        name = options.pop("name")
        if name == "ModelCheckpoint":
            options["dirpath"] = root / str(index)
        callbacks.append(kinds[name](**options))
    return Trainer(
        accelerator="cpu", logger=Recording() if config["logger"] else False, callbacks=callbacks,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=root,
        **{**config["trainer"], **overrides},
    )  # fmt: skip


def enter(entry, trainer, module, config, batches, ckpt_path):
    EVENTS.append(["--", entry])
    of = lambda stage: loaders(config, stage, batches)  # noqa: E731
    if entry == "fit":
        trainer.fit(module, of("train")[0], of("val") or None, ckpt_path=ckpt_path)
        EVENTS.append(["stopped", trainer.should_stop])
    elif entry == "predict":
        EVENTS.append(["predicted", flat(trainer.predict(module, of("predict"), return_predictions=True))])
    else:
        evaluate = getattr(trainer, entry)
        results = evaluate(module, of("test" if entry == "test" else "val"), verbose=False)
        EVENTS.append(["evaluated", [numbers(result) for result in results]])
    EVENTS.append(["metrics", numbers(trainer.callback_metrics)])
    EVENTS.append(["bar", numbers(trainer.progress_bar_metrics)])


def flat(predictions):
    if isinstance(predictions, torch.Tensor):
        return [number(predictions)]
    return [number for item in predictions or [] for number in flat(item)]


def note_end(trainer, module, root):
    loop = trainer.fit_loop
    EVENTS.append(["progress", trainer.current_epoch, trainer.global_step, loop.epoch_loop._batches_that_stepped])
    EVENTS.append(["weights", [number(x) for tensor in module.state_dict().values() for x in tensor.flatten()]])
    file = lambda path: Path(path).name if path else ""  # noqa: E731
    for callback in trainer.callbacks:
        if isinstance(callback, ModelCheckpoint):
            files = sorted(path.name for path in Path(callback.dirpath or root / "none").glob("*"))
            EVENTS.append(["files", files, file(callback.best_model_path), file(callback.last_model_path)])
            kept = {file(path): number(score) for path, score in callback.best_k_models.items()}
            EVENTS.append(["kept", kept])
        if isinstance(callback, EarlyStopping):
            reason = int(callback.stopping_reason.value)
            EVENTS.append(["early stopping", callback.stopped_epoch, callback.wait_count, reason])


def run(config, data, root):
    """The events of a configuration, and what it was refused with."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    EVENTS.clear()
    KEPT.clear()
    refused = None
    try:
        module = Net(config, data["weights"])
        trainer = make_trainer(config, {}, root)
        for entry in config["entries"]:
            enter(entry, trainer, module, config, data["batches"], None)
        note_end(trainer, module, root)
        files = sorted(path for path in root.rglob("*.ckpt") if config["resume"])
        files = [path for path in files if torch.load(path)["resumable"]]
        if files:
            path = files[config["resume"]["file"] % len(files)]
            EVENTS.append(["-- resume", str(path.relative_to(root))])
            module = Net(config, data["weights"])
            trainer = make_trainer(config, config["resume"]["trainer"], root)
            enter("fit", trainer, module, config, data["batches"], path)
            note_end(trainer, module, root)
    except Exception as error:  # whatever it is, it is how Lightning refuses
        refused = f"{type(error).__name__}: {error}"
    return {"events": list(EVENTS), "refused": refused}
