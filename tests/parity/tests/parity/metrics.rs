//! Every metric against torchmetrics, on random and degenerate inputs.

use fulgurite_metrics::*;
use fulgurite_torch::tch::{Kind, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    note: String,
    metric: String,
    args: Map<String, Value>,
    batches: Vec<Vec<Given>>,
    /// The value of each batch alone.
    each: Vec<Outcome>,
    /// The value of all batches.
    all: Outcome,
}

#[derive(Deserialize)]
struct Given {
    kind: String,
    shape: Vec<i64>,
    data: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Error { error: String },
    Value(Given),
}

/// A metric, whatever it takes.
enum Any {
    Supervised(Box<dyn SupervisedMetric>),
    Mean(MeanMetric),
    Sum(SumMetric),
    Min(MinMetric),
    Max(MaxMetric),
}

#[test]
fn metrics_are_those_of_torchmetrics() {
    let cases: Vec<Case> = serde_json::from_value(fulgurite_parity::python("metrics.py", &[])).unwrap();
    assert!(cases.len() > 4000);
    let problems: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let problem = case.check().err()?;
            Some(format!("{} {:?}, {}: {problem}", case.metric, case.args, case.note))
        })
        .collect();
    assert!(problems.is_empty(), "{} of {} cases differ:\n{}", problems.len(), cases.len(), problems.join("\n"));
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let (updated, forwarded) = (self.metric(), self.metric());
        let halves = [self.metric(), self.metric()];
        for (index, batch) in self.batches.iter().enumerate() {
            compare(&format!("batch {index}"), forwarded.forward(batch), &self.each[index])?;
            if let Err(error) = updated.update(batch) {
                return compare("all", Err(error), &self.all);
            }
            halves[usize::from(index > 0)].update(batch).unwrap();
        }
        compare("all", updated.metric().compute(), &self.all)?;
        compare("all, forwarded", forwarded.metric().compute(), &self.all)?;

        let [first, second] = halves;
        first.metric().merge_state(&second.metric().state_dict().unwrap()).unwrap();
        compare("all, merged", first.metric().compute(), &self.all)?;

        let restored = self.metric();
        restored.metric().load_state_dict(&updated.metric().state_dict().unwrap()).unwrap();
        match (restored.metric().compute(), updated.metric().compute()) {
            (Ok(a), Ok(b)) if !a.allclose(&b, 0.0, 0.0, true) => Err(format!("restored: {a:?} is not {b:?}")),
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(format!("restored: {error}")),
            _ => Ok(()),
        }
    }

    fn metric(&self) -> Any {
        let int = |key: &str| self.args.get(key).and_then(Value::as_i64);
        let float = |key: &str| self.args.get(key).and_then(Value::as_f64);
        let text = |key: &str| self.args.get(key).and_then(Value::as_str);
        let average = text("average").map(|average| match average {
            "micro" => Average::Micro,
            "macro" => Average::Macro,
            "weighted" => Average::Weighted,
            _ => Average::None,
        });
        let normalize = match text("normalize") {
            Some("true") => Normalize::True,
            Some("pred") => Normalize::Pred,
            Some("all") => Normalize::All,
            _ => Normalize::None,
        };
        let thresholds = match self.args.get("thresholds") {
            Some(Value::Number(count)) => Thresholds::Count(count.as_i64().unwrap()),
            Some(Value::Array(list)) => Thresholds::List(list.iter().filter_map(Value::as_f64).collect()),
            _ => Thresholds::Exact,
        };
        let multioutput = match text("multioutput") {
            Some("raw_values") => Multioutput::RawValues,
            Some("variance_weighted") => Multioutput::VarianceWeighted,
            _ => Multioutput::UniformAverage,
        };
        let nan_strategy = match (text("nan_strategy"), float("nan_strategy")) {
            (Some("error"), _) => NanStrategy::Error,
            (Some("ignore"), _) => NanStrategy::Ignore,
            (Some("disable"), _) => NanStrategy::Disable,
            (_, Some(value)) => NanStrategy::Impute(value),
            _ => NanStrategy::Warn,
        };
        let classes = int("num_classes").or(int("num_labels")).unwrap_or(1);

        macro_rules! set {
            ($metric:expr; $($setting:ident: $value:expr),*) => {{
                let metric = $metric;
                $(let metric = match $value {
                    Some(value) => metric.$setting(value),
                    None => metric,
                };)*
                Any::Supervised(Box::new(metric))
            }};
        }
        macro_rules! stat_scores {
            ($binary:ident, $multiclass:ident, $multilabel:ident, ($($beta:expr)?) $(, $zero:ident)?) => {
                match &self.metric[..6] {
                    "Binary" => set!($binary::new($($beta)?);
                        threshold: float("threshold"), ignore_index: int("ignore_index") $(, $zero: float("zero_division"))?),
                    "Multic" => set!($multiclass::new($($beta,)? classes);
                        top_k: int("top_k"), average: average, ignore_index: int("ignore_index")
                        $(, $zero: float("zero_division"))?),
                    _ => set!($multilabel::new($($beta,)? classes);
                        threshold: float("threshold"), average: average, ignore_index: int("ignore_index")
                        $(, $zero: float("zero_division"))?),
                }
            };
        }
        let family = ["Binary", "Multiclass", "Multilabel"];
        let name = family.iter().find_map(|task| self.metric.strip_prefix(task)).unwrap_or(&self.metric);
        match name {
            "Accuracy" => stat_scores!(BinaryAccuracy, MulticlassAccuracy, MultilabelAccuracy, ()),
            "Precision" => stat_scores!(BinaryPrecision, MulticlassPrecision, MultilabelPrecision, (), zero_division),
            "Recall" => stat_scores!(BinaryRecall, MulticlassRecall, MultilabelRecall, (), zero_division),
            "F1Score" => stat_scores!(BinaryF1Score, MulticlassF1Score, MultilabelF1Score, (), zero_division),
            "FBetaScore" => stat_scores!(
                BinaryFBetaScore,
                MulticlassFBetaScore,
                MultilabelFBetaScore,
                (float("beta").unwrap()),
                zero_division
            ),
            "ConfusionMatrix" => match &self.metric[..6] {
                "Binary" => set!(BinaryConfusionMatrix::new().normalize(normalize);
                    threshold: float("threshold"), ignore_index: int("ignore_index")),
                "Multic" => set!(MulticlassConfusionMatrix::new(classes).normalize(normalize);
                    ignore_index: int("ignore_index")),
                _ => set!(MultilabelConfusionMatrix::new(classes).normalize(normalize);
                    threshold: float("threshold"), ignore_index: int("ignore_index")),
            },
            "AUROC" => match &self.metric[..6] {
                "Binary" => set!(BinaryAUROC::new().thresholds(thresholds); ignore_index: int("ignore_index")),
                "Multic" => set!(MulticlassAUROC::new(classes).thresholds(thresholds);
                    average: average, ignore_index: int("ignore_index")),
                _ => set!(MultilabelAUROC::new(classes).thresholds(thresholds);
                    average: average, ignore_index: int("ignore_index")),
            },
            "AveragePrecision" => match &self.metric[..6] {
                "Binary" => {
                    set!(BinaryAveragePrecision::new().thresholds(thresholds); ignore_index: int("ignore_index"))
                }
                "Multic" => set!(MulticlassAveragePrecision::new(classes).thresholds(thresholds);
                    average: average, ignore_index: int("ignore_index")),
                _ => set!(MultilabelAveragePrecision::new(classes).thresholds(thresholds);
                    average: average, ignore_index: int("ignore_index")),
            },
            "MeanSquaredError" => set!(MeanSquaredError::new();
                squared: self.args.get("squared").and_then(Value::as_bool), num_outputs: int("num_outputs")),
            "MeanAbsoluteError" => set!(MeanAbsoluteError::new(); num_outputs: int("num_outputs")),
            "R2Score" => set!(R2Score::new().multioutput(multioutput); adjusted: int("adjusted")),
            "Perplexity" => set!(Perplexity::new(); ignore_index: int("ignore_index")),
            "MeanMetric" => Any::Mean(MeanMetric::new().nan_strategy(nan_strategy)),
            "SumMetric" => Any::Sum(SumMetric::new().nan_strategy(nan_strategy)),
            "MinMetric" => Any::Min(MinMetric::new().nan_strategy(nan_strategy)),
            "MaxMetric" => Any::Max(MaxMetric::new().nan_strategy(nan_strategy)),
            other => panic!("no metric {other}"),
        }
    }
}

impl Any {
    fn metric(&self) -> &dyn Metric {
        match self {
            Any::Supervised(metric) => &**metric,
            Any::Mean(metric) => metric,
            Any::Sum(metric) => metric,
            Any::Min(metric) => metric,
            Any::Max(metric) => metric,
        }
    }

    fn update(&self, batch: &[Given]) -> Result<(), MetricError> {
        let batch: Vec<Tensor> = batch.iter().map(Given::tensor).collect();
        match (self, &batch[..]) {
            (Any::Supervised(metric), [preds, target]) => metric.update(preds, target),
            (Any::Mean(metric), [value, weight]) => metric.update_weighted(value, weight),
            (Any::Mean(metric), [value]) => metric.update(value),
            (Any::Sum(metric), [value]) => metric.update(value),
            (Any::Min(metric), [value]) => metric.update(value),
            (Any::Max(metric), [value]) => metric.update(value),
            _ => panic!("{} inputs", batch.len()),
        }
    }

    fn forward(&self, batch: &[Given]) -> Result<Tensor, MetricError> {
        let batch: Vec<Tensor> = batch.iter().map(Given::tensor).collect();
        let value = match (self, &batch[..]) {
            (Any::Supervised(metric), [preds, target]) => metric.forward(preds, target),
            (Any::Mean(metric), [value, weight]) => metric.forward_weighted(value, weight),
            (Any::Mean(metric), [value]) => metric.forward(value),
            (Any::Sum(metric), [value]) => metric.forward(value),
            (Any::Min(metric), [value]) => metric.forward(value),
            (Any::Max(metric), [value]) => metric.forward(value),
            _ => panic!("{} inputs", batch.len()),
        };
        assert_eq!(value.is_ok(), self.metric().batch_value().is_some());
        value
    }
}

impl Given {
    fn tensor(&self) -> Tensor {
        let number = |x: &Value| match x {
            Value::Bool(b) => f64::from(u8::from(*b)),
            Value::String(text) => text.parse().unwrap(),
            x => x.as_f64().unwrap(),
        };
        let kind = match self.kind.as_str() {
            "int64" => Kind::Int64,
            "float64" => Kind::Double,
            "float32" => Kind::Float,
            other => panic!("kind {other}"),
        };
        let data: Vec<f64> = self.data.iter().map(number).collect();
        Tensor::from_slice(&data).to_kind(kind).reshape(&self.shape)
    }
}

fn compare(what: &str, value: Result<Tensor, MetricError>, expected: &Outcome) -> Result<(), String> {
    match (value, expected) {
        // A curve without a point: torchmetrics runs into its own index, here the area is 0.
        (Ok(value), Outcome::Error { error }) if error.starts_with("IndexError") => {
            if value.eq(0).all().int64_value(&[]) == 1 { Ok(()) } else { Err(format!("{what}: {value} is not 0")) }
        }
        (Err(_), Outcome::Error { .. }) => Ok(()),
        (Ok(value), Outcome::Error { error }) => Err(format!("{what}: {value:?}, not an error ({error})")),
        (Err(error), Outcome::Value(_)) => Err(format!("{what}: {error}")),
        (Ok(value), Outcome::Value(expected)) => {
            let expected = expected.tensor();
            if value.size() != expected.size() {
                return Err(format!("{what}: shape {:?}, not {:?}", value.size(), expected.size()));
            }
            if (value.kind() == Kind::Int64) != (expected.kind() == Kind::Int64) {
                return Err(format!("{what}: kind {:?}, not {:?}", value.kind(), expected.kind()));
            }
            if !value.to_kind(Kind::Double).allclose(&expected.to_kind(Kind::Double), 1e-6, 1e-6, true) {
                return Err(format!("{what}: {value} is not {expected}"));
            }
            Ok(())
        }
    }
}
