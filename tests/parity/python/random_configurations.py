"""Draws configurations and runs each in Lightning: `random_configurations.py DATA SEED COUNT ARGUMENTS`, the last being
the names of the trainer's arguments that there are to draw, with commas between them.

The last line it prints is a list of `{config, events, refused}`. What is documented as different on purpose is not
drawn; each such place says so.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from traced_run import run

BATCHES = 24  # in DATA, of sizes that differ


class Draw:
    """One configuration, decided piece by piece: later pieces look at earlier ones."""

    def __init__(self, seed, arguments):
        self.random = random.Random(seed)
        self.seed, self.arguments = seed, arguments

    def chance(self, probability):
        return self.random.random() < probability

    def of(self, *options):
        return self.random.choice(options)

    def configuration(self):
        self.manual = self.chance(0.15)
        self.batches = self.of(1, 2, 3, 4, 5, 6, 7)
        self.sized = self.chance(0.85)
        self.val_loaders = self.of(0, 1, 1, 1, 1, 2, 3)
        self.trainer = self.trainer_arguments()
        monitors = self.monitors()
        config = {
            "seed": self.seed,
            "trainer": self.trainer,
            "loaders": self.loaders(),
            "entries": self.entries(),
            "logger": self.chance(0.9) and "barebones" not in self.trainer,
            "logs": monitors + self.logs(),
            "manual": {"every": [self.of(1, 1, 2), self.of(1, 1, 2)], "toggle": self.chance(0.5)} if self.manual else None,
            "optimizers": [self.optimizer() for _ in range(2 if self.manual or self.chance(0.01) else 1)],
            "stop": None,
            "end_epoch": [self.random.randint(1, 9)] if self.chance(0.06) else [],
            "skip_loss": [self.random.randint(1, 9)] if self.chance(0.08) else [],
        }
        if any(entry["at"].endswith("on_train_batch_start") for entry in config["logs"]):
            # What the batch that an epoch is ended at logged stays known here, and is dropped there.
            config["end_epoch"] = []
        if self.trainer.get("gradient_clip_algorithm") == "value":
            # Without a single gradient the original cannot clip.
            config["skip_loss"] = []
        if self.chance(0.15):
            hooks = ["train_batch_start", "train_batch_end", "train_epoch_end", "validation_end", "train_epoch_start"]
            hook = self.of(*hooks)
            config["stop"] = [f"{self.of('Module', 'Callback')}.on_{hook}", self.random.randint(1, 8 if "batch" in hook else 2)]
        config["schedulers"] = self.schedulers(config)
        config["callbacks"] = self.callbacks(config)
        config["resume"] = self.resume(config)
        if self.chance(0.1) and "reload_dataloaders_every_n_epochs" in self.arguments:
            self.trainer["reload_dataloaders_every_n_epochs"] = self.of(1, 2)
        return config

    # Trainer ---------------------------------------------------------------------------------------------------------

    def trainer_arguments(self):
        self.plain_validation, self.validates = True, bool(self.val_loaders)
        if self.chance(0.02):
            return {"barebones": True, "max_epochs": 2}
        arguments = {"max_epochs": self.of(0, 1, 2, 2, 3, 3, 4)}
        if self.chance(0.25):
            arguments["max_steps"] = self.of(0, 1, 3, 5, 8, 13)
            if self.chance(0.4):
                arguments["max_epochs"] = self.of(-1, None)
        # Contradictions of lower and upper limits are refused here and ignored there.
        if self.chance(0.15):
            arguments["min_epochs"] = self.random.randint(1, max(1, arguments["max_epochs"] or 1))
            if arguments["max_epochs"] == 0:
                del arguments["min_epochs"]
        if self.chance(0.12):
            arguments["min_steps"] = self.random.randint(1, max(1, arguments.get("max_steps", 6)))
            if arguments.get("max_steps") == 0:
                del arguments["min_steps"]
        for stage in ("train", "val", "test", "predict"):
            if self.chance(0.25 if stage in ("train", "val") else 0.4):
                arguments[f"limit_{stage}_batches"] = self.of(0, 0.0, 1, 2, 3, 9, 0.5, 0.7, 0.9, 1.0)
        if self.chance(0.05):
            arguments["fast_dev_run"] = self.of(True, 1, 2, 3)
        if self.chance(0.06):
            arguments["overfit_batches"] = self.of(1, 2, 0.5, 1.0)
        if self.chance(0.45):
            # Callbacks of the original take every batch, 1, for every epoch, 1.0: so no 1 here.
            arguments["val_check_interval"] = self.of(2, 2, 3, 4, 0.25, 0.5, 0.75, 1.0)
        if self.chance(0.3):
            arguments["check_val_every_n_epoch"] = self.of(1, 2, 3, None)
            if arguments["check_val_every_n_epoch"] is None:
                arguments["val_check_interval"] = self.random.randint(1, 9) if self.chance(0.95) else 0.5
        if self.chance(0.7):
            arguments["num_sanity_val_steps"] = self.of(0, 0, 1, 2, -1)
        arguments["log_every_n_steps"] = self.of(1, 1, 1, 2, 3, 5, 50, 0)
        if self.chance(0.03 if self.manual else 0.35):
            arguments["accumulate_grad_batches"] = self.of(2, 2, 3, 4)
        if self.chance(0.03 if self.manual else 0.25):
            arguments["gradient_clip_val"] = self.of(0.01, 0.5, 0, 1)
            if self.chance(0.6):
                arguments["gradient_clip_algorithm"] = self.of("norm", "value")
        # Of an unsized loader shorter than its limit the original does not know the last batch, so ends no epoch in it.
        limits = [arguments.get(name, 0) for name in ("limit_train_batches", "fast_dev_run", "overfit_batches")]
        self.sized |= max(limit for limit in limits) > self.batches
        self.validates = bool(self.val_loaders and arguments.get("limit_val_batches", 1))
        if not self.validates:
            # The interval is held against the batches of an epoch here only if there is validation.
            arguments.pop("val_check_interval", None)
            arguments.pop("check_val_every_n_epoch", None)
        self.plain_validation = arguments.get("val_check_interval", 1.0) == 1.0 == arguments.get("check_val_every_n_epoch", 1)
        if self.chance(0.2):
            arguments["precision"] = self.of("32-true", "64-true", "64-true")
        if self.chance(0.15):
            arguments["enable_checkpointing"] = self.of(True, False)
        if self.chance(0.1):
            arguments["inference_mode"] = False
        return arguments

    def loaders(self):
        loader = lambda count, sized: {"first": self.random.randint(0, 9), "count": count, "sized": sized}  # noqa: E731
        several = lambda count: [loader(self.of(1, 2, 3, 4), self.chance(0.9)) for _ in range(count)]  # noqa: E731
        return {
            "train": [loader(self.batches, self.sized)],
            "val": several(self.val_loaders),
            "test": several(self.of(1, 1, 2)),
            "predict": several(self.of(1, 1, 2)),
        }

    def entries(self):
        further = [entry for entry in ("validate", "test", "predict") if self.chance(0.25)]
        if "validate" in further and not self.val_loaders:
            further.remove("validate")
        return ["fit", *further]

    # Logging ---------------------------------------------------------------------------------------------------------

    def script(self):
        """Values that both sides hold exactly, so that comparisons of them agree."""
        return [self.random.randint(-16, 16) / 8 for _ in range(self.of(1, 3, 6))]

    def monitors(self):
        """What callbacks and schedulers watch: `watched`, logged in some hook per epoch, or per step."""
        self.watched_in = self.of("train", "val", "val") if self.val_loaders else "train"
        at, by, options = {
            "train": self.of(
                ("training_step", "Module.on_train_epoch_start", {"on_step": False, "on_epoch": True}),
                ("training_step", "call", {}),
                ("Module.on_train_epoch_end", "call", {}),
            ),
            "val": self.of(
                ("validation_step", "Module.on_validation_start", {"add_dataloader_idx": False}),
                ("Module.on_validation_epoch_end", "call", {}),
            ),
        }[self.watched_in]
        if "add_dataloader_idx" in options:
            name = "watched"
            self.watched = "watched0"
        else:
            name = self.watched = "watched"
        options = {**options, "prog_bar": self.chance(0.3), "logger": self.chance(0.8)}
        return [{"at": at, "name": name, "value": [by, self.script()], "options": options}]

    def logs(self):
        places = {
            "training_step": "step", "validation_step": "step", "test_step": "step",
            "Module.on_train_batch_start": "step", "Module.on_train_batch_end": "step", "Callback.on_train_batch_end": "step",
            "Module.on_before_zero_grad": "step", "Module.on_after_backward": "step",
            "Module.on_before_optimizer_step": "step", "Module.on_validation_batch_end": "step",
            "Callback.on_validation_batch_start": "step", "Module.on_test_batch_end": "step",
            "Module.on_train_start": "epoch", "Module.on_train_epoch_start": "epoch", "Module.on_train_epoch_end": "epoch",
            "Callback.on_train_epoch_end": "epoch", "Module.on_validation_start": "epoch",
            "Module.on_validation_epoch_start": "epoch", "Callback.on_validation_epoch_end": "epoch",
            "Module.on_test_epoch_end": "epoch",
        }  # fmt: skip
        if self.manual:
            # Called once per optimizer: of the first batch the original keeps what was logged last.
            places = {at: kind for at, kind in places.items() if at.split(".")[1:] not in (["on_after_backward"], ["on_before_optimizer_step"])}
        logs = []
        for number in range(self.of(1, 2, 3, 4, 6)):
            at = self.of("training_step", "validation_step", *places)
            is_step = at in ("training_step", "validation_step", "test_step")
            options = {}
            if places[at] == "step" or self.chance(0.02):
                flags = self.of((None, None), (True, None), (None, True), (True, True), (False, True), (True, False))
                if self.chance(0.01):
                    flags = (False, False)
                options = {key: flag for key, flag in zip(("on_step", "on_epoch"), flags) if flag is not None}
            if self.chance(0.3):
                options["prog_bar"] = True
            if self.chance(0.1):
                options["logger"] = False
            if self.chance(0.35):
                options["reduce_fx"] = self.of("mean", "min", "max", "sum")
            if self.chance(0.15):
                options["batch_size"] = self.of(1, 2, 5)
            if is_step and at != "training_step" and self.chance(0.15):
                options["add_dataloader_idx"] = False
            value = "loss" if is_step and self.chance(0.7) else ["call", self.script()]
            name = f"{at.split('.')[-1]}_{number}"
            if self.chance(0.03):
                name = self.of("step", "epoch")
                value = ["call", [float(n) for n in range(40)]]
            logs.append({"at": at, "name": name, "value": value, "options": options})
            if "add_dataloader_idx" in options and self.chance(0.1):
                logs[-1]["one_name"] = True
        return logs

    # Optimization ----------------------------------------------------------------------------------------------------

    def optimizer(self):
        return self.of(
            {"name": "SGD", "lr": 0.1},
            {"name": "SGD", "lr": 0.05, "momentum": 0.9},
            {"name": "SGD", "lr": 0.05, "momentum": 0.5, "weight_decay": 0.01},
            {"name": "Adam", "lr": 0.01},
            {"name": "AdamW", "lr": 0.02, "weight_decay": 0.1},
        )

    def schedulers(self, config):
        if self.chance(0.4):
            return []
        return [self.scheduler(config) for _ in config["optimizers"]]

    def scheduler(self, config):
        scheduler = self.of(
            {"name": "StepLR", "step_size": self.of(1, 2), "gamma": 0.5},
            {"name": "StepLR", "step_size": self.of(1, 2), "gamma": 0.5},
            {"name": "CosineAnnealingLR", "T_max": self.of(3, 10)},
            {"name": "OneCycleLR", "max_lr": 0.2, "total_steps": 200, "interval": "step", "cycle_momentum": False},
            {"name": "ReduceLROnPlateau", "patience": self.of(0, 1), "factor": 0.5},
        )
        if self.manual and scheduler["name"] == "ReduceLROnPlateau":
            return {"name": "StepLR", "step_size": 2, "gamma": 0.5}
        scheduler.setdefault("interval", self.of("epoch", "step"))
        if scheduler["name"] == "ReduceLROnPlateau":
            if not self.chance(0.03):
                scheduler["monitor"] = self.watched if self.chance(0.95) else "absent"
            if self.chance(0.5):
                scheduler["strict"] = False
        # Frequencies count steps of the run here and batches of the epoch there: only where these are the same.
        same = scheduler["interval"] == "epoch" or (
            self.batches % 2 == 0 and self.sized and not config["end_epoch"]
            and not {"accumulate_grad_batches", "limit_train_batches", "overfit_batches"} & set(self.trainer)
        )  # fmt: skip
        if same and self.chance(0.3):
            scheduler["frequency"] = 2
        return scheduler

    # Callbacks -------------------------------------------------------------------------------------------------------

    def callbacks(self, config):
        callbacks = []
        if self.chance(0.25):
            callbacks.append(self.early_stopping())
        # Without a logger it refuses here before the run, and there once training begins.
        trains = set(self.trainer) <= {"max_epochs", "log_every_n_steps"} and self.trainer["max_epochs"]
        if self.chance(0.3) and (config["logger"] or trains):
            callbacks.append({"name": "LearningRateMonitor", "logging_interval": self.of(None, "step", "epoch")})
            if self.chance(0.3):
                callbacks[-1]["log_momentum"] = True
            if self.chance(0.2):
                callbacks[-1]["log_weight_decay"] = True
        if self.trainer.get("enable_checkpointing", True) and "barebones" not in self.trainer or self.chance(0.02):
            # The default one saves the last update here, and not there, when validation is not once per epoch.
            least = 0 if self.plain_validation else 1
            callbacks += [self.model_checkpoint(config) for _ in range(max(least, self.of(0, 1, 1, 1, 2)))]
        self.random.shuffle(callbacks)
        return callbacks

    def early_stopping(self):
        options = {"name": "EarlyStopping", "monitor": self.watched if self.chance(0.97) else "absent"}
        options["patience"] = self.of(0, 1, 1, 2, 3)
        if self.chance(0.3):
            options["mode"] = "max"
        if self.chance(0.3):
            options["min_delta"] = self.of(0.125, 0.5)
        if self.chance(0.3):
            options["strict"] = False
        if self.chance(0.2):
            options["stopping_threshold"] = self.of(-1.0, 1.0)
        if self.chance(0.2):
            options["divergence_threshold"] = self.of(-1.0, 1.0)
        if self.chance(0.3):
            options["check_on_train_epoch_end"] = self.of(True, False)
        elif not self.validates and not self.plain_validation:
            # By default the original would never check.
            options["check_on_train_epoch_end"] = True
        return options

    def model_checkpoint(self, config):
        options = {"name": "ModelCheckpoint"}
        if self.chance(0.6):
            options["monitor"] = self.watched if self.chance(0.97) else "absent"
            options["save_top_k"] = self.of(1, 1, 2, 3, -1, 0)
            if self.chance(0.3):
                options["mode"] = "max"
        elif self.chance(0.4):
            options["save_top_k"] = self.of(1, -1, 0)
        trigger = self.of(None, None, "every_n_train_steps", "every_n_epochs")
        if trigger:
            options[trigger] = self.of(1, 2, 3)
        # The last update is saved here, unless told when to save.
        if self.chance(0.35) or not (trigger or self.plain_validation or "monitor" in options):
            options["save_on_train_epoch_end"] = self.of(True, False)
        if trigger == "every_n_train_steps" and "monitor" in options:
            # A save waits here for a value that is about to come, or is not there yet.
            at_once = config["logs"][0]["at"] == "training_step" and not config["logs"][0]["options"].get("on_epoch")
            plain = self.plain_validation and not (config["stop"] or self.manual or "accumulate_grad_batches" in self.trainer)
            if self.watched_in == "val" and plain:
                options["save_on_train_epoch_end"] = False
            elif self.validates or not at_once:
                del options["monitor"]
                options["save_top_k"] = 1
        # In a fast_dev_run the original writes `last.ckpt`, and nothing else.
        if self.chance(0.3) and "fast_dev_run" not in self.trainer:
            options["save_last"] = self.of(True, True, False, "link")
        if self.chance(0.3):
            options["filename"] = self.of("{epoch}", "{step}", "{epoch}-{watched:.2f}", "same", "{epoch:02d}-{step:03d}")
        if self.chance(0.1):
            options["auto_insert_metric_name"] = False
        if self.chance(0.1):
            options["save_weights_only"] = True
        return options

    def resume(self, config):
        # With a limit of steps the original takes an epoch that is over for one that is not, and counts it twice.
        # It forgets a scheduler's last step on a plateau, `last.ckpt` if it resumes from what that equals, and the batch
        # that an epoch was ended at.
        last = any(options.get("save_last") for options in config["callbacks"])
        plateau = any(options["name"] == "ReduceLROnPlateau" for options in config["schedulers"])
        forgets = last or plateau or config["end_epoch"]
        # It saves within a window, if that step was not saved since the run began.
        steps = any("every_n_train_steps" in options for options in config["callbacks"])
        forgets = forgets or steps and "accumulate_grad_batches" in self.trainer
        if forgets or {"max_steps", "fast_dev_run"} & set(self.trainer) or not self.chance(0.4):
            return None
        return {"file": self.random.randint(0, 9), "trainer": {"max_epochs": 6}}


def main():
    path, seed, count, arguments = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
    saved = torch.load(path, weights_only=True)
    batches = [(saved[f"x{index}"], saved[f"y{index}"]) for index in range(BATCHES)]
    torch.set_num_threads(1)
    results = []
    for index in range(count):
        config = Draw(seed + index, arguments).configuration()
        with tempfile.TemporaryDirectory() as root:
            results.append({"config": config, **run(config, {"weights": saved["weights"], "batches": batches}, Path(root))})
    print(json.dumps(results))


main()
