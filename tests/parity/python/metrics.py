"""Inputs, random and degenerate, and what torchmetrics makes of them."""

import itertools
import json
import math
import warnings

import torch
import torchmetrics
import torchmetrics.classification as tc
import torchmetrics.text

warnings.filterwarnings("ignore")
generator = torch.Generator().manual_seed(20240607)
cases = []


def number(x):
    if isinstance(x, float) and not math.isfinite(x):
        return "nan" if math.isnan(x) else ("inf" if x > 0 else "-inf")
    return x


def tensor(t):
    t = torch.as_tensor(t)
    return {"kind": str(t.dtype)[6:], "shape": list(t.shape), "data": [number(x) for x in t.flatten().tolist()]}


def outcome(make, batches):
    metric = make()
    try:
        for batch in batches:
            metric.update(*(b.clone() if isinstance(b, torch.Tensor) else b for b in batch))
        return tensor(metric.compute())
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:200]}


def case(note, name, batches, **args):
    kind = getattr(tc, name, None) or getattr(torchmetrics, name, None) or getattr(torchmetrics.text, name)
    make = lambda: kind(**args)
    cases.append({
        "note": note,
        "metric": name,
        "args": {key: number(value) for key, value in args.items()},
        "batches": [[tensor(t) for t in batch] for batch in batches],
        "each": [outcome(make, [batch]) for batch in batches],
        "all": outcome(make, batches),
    })


def rand(*shape):
    return torch.rand(*shape, generator=generator)


def randn(*shape):
    return torch.randn(*shape, generator=generator)


def randint(high, *shape):
    return torch.randint(high, shape, generator=generator)


def ties(t):
    return (t * 4).round() / 4


def some(target, index):
    return torch.where(rand(*target.shape) < 0.3, index, target)


def split(preds, target, sizes=(6, 1, 9)):
    return list(zip(preds.split(sizes), target.split(sizes)))


N = 16
SCORES = ["Accuracy", "Precision", "Recall", "F1Score", "FBetaScore"]
AVERAGES = ["micro", "macro", "weighted", "none"]


def binary_inputs(labels=True):
    t = randint(2, N)
    yield "probabilities", split(rand(N), t)
    yield "logits", split(3 * randn(N), t)
    yield "logits in one batch only", split(torch.cat([rand(6), 3 * randn(10)]), t)
    yield "ties", split(ties(rand(N)), t)
    yield "all scores the same", split(torch.full((N,), 0.5), t)
    yield "all negative", split(rand(N), torch.zeros(N, dtype=torch.long))
    yield "all positive", split(rand(N), torch.ones(N, dtype=torch.long))
    yield "one sample", [(rand(1), torch.ones(1, dtype=torch.long))]
    yield "more dimensions", split(rand(N, 2, 3), randint(2, N, 2, 3))
    yield "float64", split(rand(N).double(), t)
    if labels:
        yield "labels", split(randint(2, N), t)
        yield "nothing right", split(1 - t, t)
        yield "predicted negative", split(torch.zeros(N, dtype=torch.long), t)


def multiclass_inputs(classes, labels=True):
    t = randint(classes, N)
    yield "probabilities", split(randn(N, classes).softmax(1), t)
    yield "logits", split(3 * randn(N, classes), t)
    yield "ties", split(ties(rand(N, classes)), t)
    yield "all scores the same", split(torch.full((N, classes), 0.25), t)
    yield "classes missing", split(randn(N, classes), randint(2, N) + 1)
    yield "one class", split(randn(N, classes).softmax(1), torch.full((N,), 2))
    yield "class zero only", split(randn(N, classes).softmax(1), torch.zeros(N, dtype=torch.long))
    yield "one sample", [(randn(1, classes), torch.ones(1, dtype=torch.long))]
    yield "more dimensions", split(randn(N, classes, 2, 3), randint(classes, N, 2, 3))
    if labels:
        yield "labels", split(randint(classes, N), t)
        yield "nothing right", split((t + 1) % classes, t)
        yield "predicted one class", split(torch.full((N,), 1), t)


def multilabel_inputs(labels_count, labels=True):
    t = randint(2, N, labels_count)
    yield "probabilities", split(rand(N, labels_count), t)
    yield "logits", split(3 * randn(N, labels_count), t)
    yield "ties", split(ties(rand(N, labels_count)), t)
    yield "a label never", split(rand(N, labels_count), t * torch.tensor([1, 0, 1, 1][:labels_count]))
    yield "a label always", split(rand(N, labels_count), t | torch.tensor([0, 1, 0, 0][:labels_count]))
    yield "no label", split(rand(N, labels_count), torch.zeros_like(t))
    yield "one sample", [(rand(1, labels_count), t[:1])]
    yield "more dimensions", split(rand(N, labels_count, 3), randint(2, N, labels_count, 3))
    if labels:
        yield "labels", split(randint(2, N, labels_count), t)


def ignoring(batches, index):
    return [(preds, some(target, index)) for preds, target in batches]


def beta(score):
    return {"beta": 2.0} if score == "FBetaScore" else {}


for score in SCORES:
    for note, batches in binary_inputs():
        name = f"Binary{score}"
        case(note, name, batches, **beta(score))
        case(note, name, batches, threshold=0.3, **beta(score))
        for index in (-1, 0, 1):
            case(f"{note}, ignoring {index}", name, ignoring(batches, index), ignore_index=index, **beta(score))
        if score != "Accuracy":
            case(note, name, batches, zero_division=1, **beta(score))
    for average in AVERAGES:
        for note, batches in multiclass_inputs(4):
            name = f"Multiclass{score}"
            args = {"num_classes": 4, "average": average, **beta(score)}
            case(note, name, batches, **args)
            for index in (-100, 1):
                case(f"{note}, ignoring {index}", name, ignoring(batches, index), ignore_index=index, **args)
            if score != "Accuracy":
                case(note, name, batches, zero_division=1, **args)
            if batches[0][0].is_floating_point():
                for k in (2, 4):
                    case(note, name, batches, top_k=k, **args)
                case(f"{note}, ignoring", name, ignoring(batches, -1), top_k=2, ignore_index=-1, **args)
                case(f"{note}, ignoring", name, ignoring(batches, 2), top_k=2, ignore_index=2, **args)
        for note, batches in multilabel_inputs(3):
            name = f"Multilabel{score}"
            args = {"num_labels": 3, "average": average, **beta(score)}
            case(note, name, batches, **args)
            case(note, name, batches, threshold=0.7, **args)
            case(f"{note}, ignoring", name, ignoring(batches, -1), ignore_index=-1, **args)
            if score != "Accuracy":
                case(note, name, batches, zero_division=1, **args)
    everything = torch.full((N,), -1)
    case("everything ignored", f"Binary{score}", split(rand(N), everything), ignore_index=-1, **beta(score))
    case("everything ignored", f"Multiclass{score}", split(randn(N, 4), everything), ignore_index=-1, num_classes=4, **beta(score))
    case("nothing given", f"Binary{score}", [], **beta(score))
    case("nothing given", f"Multiclass{score}", [], num_classes=4, **beta(score))
    case("nothing given", f"Multilabel{score}", [], num_labels=4, average="none", **beta(score))

for normalize in ("none", "true", "pred", "all"):
    for note, batches in binary_inputs():
        case(note, "BinaryConfusionMatrix", batches, normalize=normalize)
        case(note, "BinaryConfusionMatrix", ignoring(batches, -1), normalize=normalize, ignore_index=-1, threshold=0.4)
    for note, batches in multiclass_inputs(4):
        case(note, "MulticlassConfusionMatrix", batches, normalize=normalize, num_classes=4)
        for index in (-1, 2):
            case(note, "MulticlassConfusionMatrix", ignoring(batches, index), normalize=normalize, num_classes=4, ignore_index=index)
    for note, batches in multilabel_inputs(3):
        case(note, "MultilabelConfusionMatrix", batches, normalize=normalize, num_labels=3)
        case(note, "MultilabelConfusionMatrix", ignoring(batches, -1), normalize=normalize, num_labels=3, ignore_index=-1)
case("nothing given", "MulticlassConfusionMatrix", [], num_classes=3)

# Scores where the target is ignored decide in some metrics, and not in others, whether all of them are logits.
outside = torch.tensor([0.1, 0.45, 0.55, 0.9, 7.0])
hidden = [(outside, torch.tensor([0, 1, 0, 1, -1]))]
for name in ["BinaryAccuracy", "BinaryConfusionMatrix", "BinaryAUROC", "BinaryAveragePrecision"]:
    case("a logit where the target is ignored", name, hidden, ignore_index=-1)
case("a logit where the target is ignored", "BinaryAUROC", hidden, ignore_index=-1, thresholds=[0.0, 0.5, 0.6, 1.0])
case("a logit where the target is ignored", "MultilabelAccuracy", [(torch.stack([outside, outside], 1), torch.stack([hidden[0][1]] * 2, 1))], ignore_index=-1, num_labels=2)
case("a logit where the target is ignored", "MulticlassAveragePrecision", [(torch.stack([outside, 1 - outside], 1), hidden[0][1])], ignore_index=-1, num_classes=2)

for area, thresholds in itertools.product(["AUROC", "AveragePrecision"], [None, 7, [0.0, 0.25, 0.3, 0.5, 0.5, 1.0]]):
    for note, batches in binary_inputs(labels=False):
        case(note, f"Binary{area}", batches, thresholds=thresholds)
        case(f"{note}, ignoring", f"Binary{area}", ignoring(batches, -1) if note != "one sample" else batches, thresholds=thresholds, ignore_index=-1)
    for average in AVERAGES:
        for note, batches in multiclass_inputs(4, labels=False):
            if average != "micro":
                args = {"num_classes": 4, "average": average, "thresholds": thresholds}
                case(note, f"Multiclass{area}", batches, **args)
                # torchmetrics has no curve for a batch of which nothing counts.
                for index in (-1, 1):
                    kept = [(p, t) if len(t) == 1 else (p, some(t, index)) for p, t in batches]
                    case(f"{note}, ignoring {index}", f"Multiclass{area}", kept, ignore_index=index, **args)
        for note, batches in multilabel_inputs(3, labels=False):
            args = {"num_labels": 3, "average": average, "thresholds": thresholds}
            case(note, f"Multilabel{area}", batches, **args)
            kept = [(p, t) if len(t) == 1 else (p, torch.cat([t[:1], some(t[1:], -1)])) for p, t in batches]
            case(f"{note}, ignoring", f"Multilabel{area}", kept, ignore_index=-1, **args)
    case("nothing given", f"Binary{area}", [], thresholds=thresholds)
    case("nothing given", f"Multiclass{area}", [], num_classes=3, thresholds=thresholds)

for name, args in [
    ("MeanSquaredError", {}),
    ("MeanSquaredError", {"squared": False}),
    ("MeanAbsoluteError", {}),
]:
    case("random", name, split(randn(N), randn(N)), **args)
    case("more dimensions", name, split(randn(N, 2, 3), randn(N, 2, 3)), **args)
    case("columns", name, split(randn(N, 3), randn(N, 3)), num_outputs=3, **args)
    case("far from 0", name, split(1000 + randn(N), 1000 + randn(N)), **args)
    case("integers", name, split(randint(9, N), randint(9, N)), **args)
    case("exact", name, [(torch.ones(3), torch.ones(3))], **args)
    case("one sample", name, [(randn(1), randn(1))], **args)
    case("NaN", name, [(torch.tensor([1.0, math.nan]), torch.ones(2))], **args)
    case("nothing given", name, [], **args)
    case("nothing given, columns", name, [], num_outputs=3, **args)
    case("shapes differ", name, [(randn(3), randn(4))], **args)

for multioutput in ["uniform_average", "raw_values", "variance_weighted"]:
    t = randn(N, 3)
    near = t + 0.3 * randn(N, 3)
    constant = t * torch.tensor([1.0, 0.0, 1.0])
    for adjusted in (0, 2, 5, 20):
        args = {"multioutput": multioutput, "adjusted": adjusted}
        case("random", "R2Score", split(near[:, 0], t[:, 0]), **args)
        case("columns", "R2Score", split(near, t), **args)
        case("constant target", "R2Score", split(near, constant), **args)
        case("constant target, met", "R2Score", split(constant, constant), **args)
        case("all constant, met", "R2Score", split(torch.ones(N), torch.ones(N)), **args)
        case("worse than the mean", "R2Score", split(-3 * t, t), **args)
        case("one sample", "R2Score", [(randn(1), randn(1))], **args)
        # Two samples leave so little that float32 states would not agree with themselves.
        case("two samples", "R2Score", [(randn(2).double(), randn(2).double())], **args)
        case("nothing given", "R2Score", [], **args)
        case("too many dimensions", "R2Score", [(randn(2, 2, 2), randn(2, 2, 2))], **args)

for note, logits in [
    ("random", randn(N, 5, 7)),
    ("sure", 10 * randn(N, 5, 7)),
    ("uniform", torch.zeros(N, 5, 7)),
    ("probabilities", randn(N, 5, 7).softmax(-1)),
]:
    tokens = randint(7, N, 5)
    case(note, "Perplexity", split(logits, tokens))
    for index in (-100, 3):
        case(f"{note}, ignoring", "Perplexity", split(logits, some(tokens, index)), ignore_index=index)
case("everything ignored", "Perplexity", [(randn(2, 3, 4), torch.full((2, 3), -100))], ignore_index=-100)
case("one token", "Perplexity", [(randn(1, 1, 4), torch.tensor([[2]]))])
case("nothing given", "Perplexity", [])
case("no sequence", "Perplexity", [(randn(2, 4), torch.tensor([1, 2]))])

nan, inf = math.nan, math.inf
for name in ["MeanMetric", "SumMetric", "MinMetric", "MaxMetric"]:
    for note, values in [
        ("random", [randn(5), randn(2, 3), torch.tensor(2.5)]),
        ("one value", [torch.tensor(-3.25)]),
        ("empty batch", [torch.tensor([]), randn(3)]),
        ("only empty", [torch.tensor([])]),
        ("NaN", [torch.tensor([1.0, nan, -2.0]), torch.tensor([nan])]),
        ("only NaN", [torch.tensor([nan, nan])]),
        ("infinite", [torch.tensor([1.0, inf]), torch.tensor([2.0])]),
        ("both infinities", [torch.tensor([-inf, inf])]),
        ("integers", [torch.tensor([3, 4]), torch.tensor([-9])]),
        ("nothing given", []),
    ]:
        for strategy in ["error", "warn", "ignore", "disable", 7.5]:
            if note == "empty batch" and strategy == "disable" and name in ("MinMetric", "MaxMetric"):
                continue
            case(note, name, [(v,) for v in values], nan_strategy=strategy)
for strategy in ["error", "warn", "ignore", 7.5]:
    args = {"nan_strategy": strategy}
    case("weights", "MeanMetric", [(randn(5), rand(5)), (randn(2, 3), rand(3))], **args)
    case("one weight", "MeanMetric", [(randn(5), torch.tensor(3.0)), (torch.tensor(1.5), torch.tensor(2.0))], **args)
    case("weights of 0", "MeanMetric", [(randn(5), torch.zeros(5))], **args)
    case("NaN in values", "MeanMetric", [(torch.tensor([1.0, nan, 3.0]), rand(3))], **args)
    case("NaN in weights", "MeanMetric", [(randn(3), torch.tensor([1.0, nan, 2.0]))], **args)
    case("weights do not fit", "MeanMetric", [(randn(3), rand(2))], **args)

print(json.dumps(cases, allow_nan=False))
