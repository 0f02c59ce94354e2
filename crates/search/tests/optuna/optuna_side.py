"""What Optuna makes of the same journals, values and trials: `optuna_side.py COMMAND`, with JSON on stdin and stdout."""

import json
import math
import sys
import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "momentum": FloatDistribution(0.0, 1.0, step=0.25),
    "scale": FloatDistribution(-3.0, 5.0),
    "layers": IntDistribution(1, 8),
    "width": IntDistribution(16, 1024, log=True),
    "activation": CategoricalDistribution(["relu", "gelu", None, 3]),
}


def text(value):
    """A number as JSON has it."""
    return value if value is None or math.isfinite(value) else str(value)


def shown(study):
    return {
        "direction": study.direction.name,
        "metric": study.metric_names,
        "best": study.best_trial.number,
        "trials": [
            {
                "number": t.number,
                "state": t.state.name,
                "params": t.params,
                "value": text(t.value),
                "steps": [[step, text(value)] for step, value in sorted(t.intermediate_values.items())],
                "user_attrs": t.user_attrs,
                "has_times": t.datetime_start is not None and (t.datetime_complete is not None) == t.state.is_finished(),
            }
            for t in study.trials
        ],
    }


def storage(path):
    return JournalStorage(JournalFileBackend(path))


def read(given):
    study = optuna.load_study(study_name=given["study"], storage=storage(given["path"]))
    found = shown(study)
    # The study goes on here.
    study.enqueue_trial({"lr": 1e-3, "activation": None})
    for _ in range(3):
        trial = study.ask(SPACE)
        trial.report(1.0, 0)
        found["prunes"] = bool(trial.should_prune())
        study.tell(trial, 0.5)
    study.enqueue_trial({"lr": 2e-3, "layers": 5, "activation": 3})
    return found


def work(given):
    """Trials of one of several processes at the same journal."""
    study = optuna.load_study(study_name=given["study"], storage=storage(given["path"]))
    for index in range(given["count"]):
        trial = study.ask(SPACE)
        trial.report(float(index), 0)
        study.tell(trial, float(index))
    return None


def enqueue(given):
    study = optuna.load_study(study_name=given["study"], storage=storage(given["path"]))
    for params in given["params"]:
        study.enqueue_trial(params)
    return None


def following(given):
    """The next trial, which is one that failed before."""
    study = optuna.load_study(study_name=given["study"], storage=storage(given["path"]))
    trial = study.ask({"layers": IntDistribution(1, 3), "activation": CategoricalDistribution(["relu"])})
    retried = optuna.storages.RetryFailedTrialCallback
    frozen = study.trials[trial.number]
    first, history = retried.retried_trial_number(frozen), retried.retry_history(frozen)
    return {"params": trial.params, "first": first, "history": history}


def pruner(config):
    (name, options), = config.items()
    make = {
        "median": optuna.pruners.MedianPruner,
        "percentile": optuna.pruners.PercentilePruner,
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "threshold": optuna.pruners.ThresholdPruner,
        "none": optuna.pruners.NopPruner,
    }
    if name == "patient":
        wrapped = options.pop("wrapped", None)
        return optuna.pruners.PatientPruner(wrapped and pruner(wrapped), **options)
    return make[name](**options)


def prune(given):
    """The steps at which each trial is stopped, if it is."""
    stops = []
    for case in given["cases"]:
        study = optuna.create_study(
            study_name=case["study"], direction=case["direction"], pruner=pruner(case["pruner"]),
            sampler=optuna.samplers.RandomSampler(),
        )  # fmt: skip
        stopped = []
        for values in case["values"]:
            trial = study.ask()
            stop = None
            for step, value in enumerate(values):
                trial.report(float(value), step)
                if trial.should_prune():
                    stop = step
                    break
            if stop is None and not math.isnan(float(values[-1])):
                study.tell(trial, float(values[-1]))
            else:
                study.tell(trial, state=TrialState.PRUNED)
            stopped.append(stop)
        stops.append(stopped)
    return stops


def acquisition(given):
    """`log l(x) - log g(x)` of candidates, for the trials of a journal and one that runs."""
    study = optuna.load_study(study_name=given["study"], storage=storage(given["path"]))
    sampler = optuna.samplers.TPESampler()
    # NumPy puts equal observations into an order of its own, which changes from processor to processor.
    argsort = np.argsort
    np.argsort = lambda a, kind="stable": argsort(a, kind=kind)
    results = []
    for names in given["spaces"]:
        space = {name: SPACE[name] for name in names}
        trials = [t for t in study.trials if t.number != given["number"]]
        trials = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)]
        n = sum(t.state != TrialState.RUNNING for t in trials)
        below, above = _split_trials(study, trials, default_gamma(n))
        below = sampler._build_parzen_estimator(study, space, below, handle_below=True)
        above = sampler._build_parzen_estimator(study, space, above, handle_below=False)
        candidates = np.array([[row[name] for name in names] for row in given["candidates"]])
        samples = {name: candidates[:, i] for i, name in enumerate(names)}
        results.append(list(sampler._compute_acquisition_func(samples, below, above)))
    return results


def branin(x, y):
    a, b, c, r, s, t = 1, 5.1 / (4 * math.pi**2), 5 / math.pi, 6, 10, 1 / (8 * math.pi)
    return a * (y - b * x**2 + c * x - r) ** 2 + s * (1 - t) * math.cos(x) + s


def bests(given):
    """The best value of Branin's function after a number of trials, for each seed."""
    found = []
    for seed in range(given["seeds"]):
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
        study.optimize(
            lambda t: branin(t.suggest_float("x", -5, 10), t.suggest_float("y", 0, 15)), n_trials=given["trials"]
        )
        found.append(study.best_value)
    return found


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](json.load(sys.stdin))))
