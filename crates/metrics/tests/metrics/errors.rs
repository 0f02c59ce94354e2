//! Each error, and its message.

use fulgurite_metrics::{
    Average, BinaryAUROC, BinaryAccuracy, BinaryFBetaScore, BinaryPrecision, Definition, Handle, MeanMetric,
    MeanSquaredError, Metric, MetricCollection, MetricError, MulticlassAUROC, MulticlassAccuracy, MultilabelAccuracy,
    NanStrategy, Perplexity, R2Score, Supervised,
};
use fulgurite_torch::Dict;
use fulgurite_torch::tch::{Device, Kind, Tensor};

fn float(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, Device::Cpu))
}

fn labels(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Int64, Device::Cpu))
}

#[track_caller]
fn refused<D: Definition + Supervised>(metric: Handle<D>, preds: &[i64], target: &[i64], message: &str) {
    let error = metric.update(&float(preds), &labels(target)).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(metric.state_dict().unwrap().int("updates").unwrap(), 0, "what is refused is not accumulated");
}

#[test]
fn shapes() {
    refused(
        MulticlassAccuracy::new(10),
        &[4, 9],
        &[4],
        "`MulticlassAccuracy` was given preds of shape [4, 9] and target of shape [4]; expected (N, 10, ...) for 10 \
         classes and (N, ...), or labels of the same shape",
    );
    refused(
        BinaryAccuracy::new(),
        &[4],
        &[4, 1],
        "`BinaryAccuracy` was given preds of shape [4] and target of shape [4, 1]; expected the same shape",
    );
    refused(
        MultilabelAccuracy::new(3),
        &[4, 2],
        &[4, 2],
        "`MultilabelAccuracy` was given preds of shape [4, 2] and target of shape [4, 2]; expected the same shape, (N, \
         3, ...)",
    );
    refused(
        MeanSquaredError::new(),
        &[4],
        &[4, 1],
        "`MeanSquaredError` was given preds of shape [4] and target of shape [4, 1]; expected the same shape",
    );
    refused(
        MeanSquaredError::new().num_outputs(2),
        &[4],
        &[4],
        "`MeanSquaredError` was given preds of shape [4] and target of shape [4]; expected (N, 2) for 2 outputs",
    );
    refused(
        R2Score::new(),
        &[4, 2, 2],
        &[4, 2, 2],
        "`R2Score` was given preds of shape [4, 2, 2] and target of shape [4, 2, 2]; expected the same shape, (N) or (N, \
         outputs)",
    );
    refused(
        Perplexity::new(),
        &[4, 7],
        &[4],
        "`Perplexity` was given preds of shape [4, 7] and target of shape [4]; expected (batch, sequence, vocabulary) \
         and (batch, sequence)",
    );
}

#[test]
fn kinds() {
    let error = MulticlassAccuracy::new(3).update(&float(&[4, 3]), &float(&[4])).unwrap_err();
    assert_eq!(error.to_string(), "`MulticlassAccuracy` was given a target of kind Float; expected integer labels");
    let error = BinaryAUROC::new().update(&labels(&[4]), &labels(&[4])).unwrap_err();
    assert_eq!(error.to_string(), "`BinaryAUROC` was given a preds of kind Int64; expected floating point scores");
}

#[test]
fn settings() {
    refused(MulticlassAccuracy::new(1), &[4, 1], &[4], "`MulticlassAccuracy`: num_classes is 1; it must be at least 2");
    refused(
        MultilabelAccuracy::new(0),
        &[4, 0],
        &[4, 0],
        "`MultilabelAccuracy`: num_labels is 0; it must be at least 2",
    );
    refused(
        MulticlassAccuracy::new(3).top_k(4),
        &[4, 3],
        &[4],
        "`MulticlassAccuracy`: top_k is 4; it must be at least 1 and at most num_classes, 3",
    );
    refused(
        BinaryAccuracy::new().threshold(1.5),
        &[4],
        &[4],
        "`BinaryAccuracy`: threshold is 1.5; it must be in [0, 1]",
    );
    refused(
        BinaryPrecision::new().zero_division(0.5),
        &[4],
        &[4],
        "`BinaryPrecision`: zero_division is 0.5; it must be 0 or 1",
    );
    refused(BinaryFBetaScore::new(0.0), &[4], &[4], "`BinaryFBetaScore`: beta is 0; it must be above 0");
    refused(
        MulticlassAUROC::new(3).average(Average::Micro),
        &[4, 3],
        &[4],
        "`MulticlassAUROC`: average is Micro, which classes do not have here; use Macro, Weighted or None",
    );
    refused(BinaryAUROC::new().thresholds(1), &[4], &[4], "`BinaryAUROC`: thresholds is 1; there must be at least 2");
    refused(
        BinaryAUROC::new().thresholds(vec![0.5, 0.2]),
        &[4],
        &[4],
        "`BinaryAUROC`: thresholds must be ascending numbers in [0, 1]",
    );
    refused(
        MeanSquaredError::new().num_outputs(0),
        &[4],
        &[4],
        "`MeanSquaredError`: num_outputs is 0; it must be at least 1",
    );
    refused(
        R2Score::new().adjusted(-1),
        &[4],
        &[4],
        "`R2Score`: adjusted is -1; it must be a number of regressors, or 0",
    );
}

#[test]
fn top_k_of_labels() {
    let error = MulticlassAccuracy::new(3).top_k(2).update(&labels(&[4]), &labels(&[4])).unwrap_err();
    assert_eq!(error.to_string(), "`MulticlassAccuracy`: top_k is 2, which needs a score for each class, not labels");
}

#[test]
fn weights_that_do_not_fit() {
    let error = MeanMetric::new().update_weighted(&float(&[4]), &float(&[3])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`MeanMetric`: a weight of shape [3] does not broadcast to the value's shape [4]; give one weight, or one for \
         each value"
    );
}

#[test]
fn a_label_out_of_range_is_refused_by_libtorch() {
    let error = MulticlassAccuracy::new(3).update(&float(&[1, 3]), &Tensor::from_slice(&[4i64])).unwrap_err();
    let MetricError::Torch(_) = error else { panic!("{error}") };
    assert!(error.to_string().starts_with("libtorch failed while computing a metric: "), "{error}");
}

#[test]
fn values() {
    let mean = MeanMetric::new().nan_strategy(NanStrategy::Error);
    mean.update(f64::NAN).unwrap();
    assert_eq!(
        mean.compute().unwrap_err().to_string(),
        "`MeanMetric`: 1 of the values given were NaN; find where they come from, or choose another `nan_strategy`"
    );

    let r2 = R2Score::new();
    let error = r2.forward(&float(&[1]), &float(&[1])).unwrap_err();
    assert_eq!(error.to_string(), "`R2Score`: it needs at least two samples, and has 1");
    assert!(r2.batch_value().is_none());
    r2.update(&float(&[1]), &float(&[1])).unwrap();
    assert_eq!(r2.compute().unwrap().double_value(&[]), 1.0, "the refused batch value was accumulated nevertheless");

    assert_eq!(
        BinaryAUROC::new().compute().unwrap_err().to_string(),
        "`BinaryAUROC` has accumulated nothing, so it has no value: call `update` or `forward` before `compute`"
    );
}

#[test]
fn states() {
    let acc = MulticlassAccuracy::new(3);
    acc.update(&labels(&[4]), &labels(&[4])).unwrap();
    let saved = acc.state_dict().unwrap();
    let message = |result: Result<(), MetricError>| result.unwrap_err().to_string();

    assert_eq!(
        message(MulticlassAccuracy::new(5).load_state_dict(&saved)),
        "cannot restore `MulticlassAccuracy`: `tp` has shape [3] and [5] was expected: it was saved by a metric with \
         other settings"
    );
    assert_eq!(
        message(MeanMetric::new().merge_state(&saved)),
        "cannot restore the metric's state: no entry `mean_value`; there are: updates, tp, fp, tn, fn"
    );
    assert_eq!(
        message(acc.load_state_dict(&Dict::new().with("updates", 1).with("tp", 3))),
        "cannot restore the metric's state: entry `tp` is int, expected tensor"
    );
    assert_eq!(
        message(BinaryAUROC::new().load_state_dict(
            &Dict::new().with("updates", 1).with("preds", Vec::<Tensor>::new()).with("target", Vec::<Tensor>::new())
        )),
        "cannot restore `BinaryAUROC`: `preds` holds no tensor after 1 updates"
    );
    assert_eq!(
        message(MetricCollection::new().with("acc", acc.clone()).load_state_dict(&Dict::new())),
        "cannot restore the metric's state: no entry `acc`; there are: "
    );
    assert_eq!(acc.compute().unwrap().double_value(&[]), 1.0, "a state that does not fit leaves the metric as it was");
}
