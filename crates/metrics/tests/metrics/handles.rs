//! What all metrics have in common: sharing, resetting, saving, restoring, merging.

use fulgurite_metrics::{
    Average, BinaryAUROC, Definition, Field, Handle, MeanMetric, MeanSquaredError, Metric, MetricCollection,
    MetricError, MulticlassAccuracy, MulticlassConfusionMatrix, Perplexity, Reduction, Supervised,
};
use fulgurite_torch::tch::{Device, Kind, Tensor, manual_seed};

fn number(value: Result<Tensor, MetricError>) -> f64 {
    let value = value.unwrap();
    assert_eq!((value.kind(), value.size()), (Kind::Float, vec![]), "a number is a 0-d float tensor");
    value.double_value(&[])
}

fn classes(classes: &[i64]) -> Tensor {
    Tensor::from_slice(classes)
}

#[test]
fn clones_and_shares_accumulate_into_the_same_state() {
    let acc = MulticlassAccuracy::new(3).average(Average::Micro);
    let (clone, shared) = (acc.clone(), acc.share());
    acc.update(&classes(&[0, 1]), &classes(&[0, 1])).unwrap();
    clone.update(&classes(&[0, 1]), &classes(&[2, 2])).unwrap();

    assert_eq!(number(acc.compute()), 0.5);
    assert_eq!(number(shared.compute()), 0.5);
    assert!(acc.same_state(&clone) && acc.same_state(&*shared));

    shared.reset().unwrap();
    clone.update(&classes(&[0]), &classes(&[0])).unwrap();
    assert_eq!(number(acc.compute()), 1.0);
}

#[test]
fn another_metric_or_setting_has_a_state_of_its_own() {
    let acc = MulticlassAccuracy::new(3);
    acc.update(&classes(&[0]), &classes(&[0])).unwrap();
    let micro = acc.clone().average(Average::Micro);

    assert!(!acc.same_state(&micro));
    assert!(!acc.same_state(&MulticlassAccuracy::new(3)));
    assert_eq!(micro.state_dict().unwrap().int("updates").unwrap(), 0);
}

#[test]
fn forward_returns_the_batch_and_accumulates_the_whole() {
    let mean = MeanMetric::new();
    assert!(mean.batch_value().is_none());
    assert_eq!(number(mean.forward(1.0)), 1.0);
    assert_eq!(number(mean.forward(5.0)), 5.0);
    assert_eq!(mean.batch_value().unwrap().double_value(&[]), 5.0);
    assert_eq!(number(mean.compute()), 3.0);

    mean.update(9.0).unwrap();
    assert!(mean.batch_value().is_none(), "an update gives no batch value, and an old one would be misleading");
    assert_eq!(number(mean.compute()), 5.0);

    let _ = mean.forward(0.0).unwrap();
    mean.reset();
    assert!(mean.batch_value().is_none());
}

#[test]
fn an_empty_metric_has_the_value_of_its_initial_state_or_none() {
    assert_eq!(number(MulticlassAccuracy::new(3).compute()), 0.0);
    assert!(number(MeanMetric::new().compute()).is_nan());
    assert!(matches!(BinaryAUROC::new().compute(), Err(MetricError::NothingAccumulated { metric: "BinaryAUROC" })));
}

#[test]
fn a_million_small_values_do_not_lose_precision() {
    let mean = MeanMetric::new();
    let ones = Tensor::ones([1 << 20], (Kind::Float, Device::Cpu));
    for _ in 0..17 {
        mean.update(&ones).unwrap();
    }
    mean.update(0.0).unwrap();
    let count = f64::from(17 << 20);
    let sum = mean.state_dict().unwrap().tensor("mean_value").unwrap().double_value(&[]);
    assert_eq!(sum, count, "f32 would be stuck at 2^24");
}

#[test]
fn nothing_kept_is_part_of_a_graph() {
    let auroc = BinaryAUROC::new();
    let scores = Tensor::from_slice(&[0.1f32, 0.9]).set_requires_grad(true);
    let value = auroc.forward(&scores, &classes(&[0, 1])).unwrap();
    assert!(!value.requires_grad());
    let kept = auroc.state_dict().unwrap();
    assert!(!kept.list("preds").unwrap()[0].as_tensor().unwrap().requires_grad());
}

#[test]
fn what_is_kept_does_not_change_with_the_batch() {
    let auroc = BinaryAUROC::new();
    let mut scores = Tensor::from_slice(&[0.1f32, 0.9]);
    let mut target = classes(&[0, 1]);
    auroc.update(&scores, &target).unwrap();
    let _ = scores.fill_(0.5);
    let _ = target.fill_(0);
    assert_eq!(number(auroc.compute()), 1.0);
}

#[test]
fn a_restored_state_continues_as_if_nothing_had_happened() {
    let noise = || Tensor::randn([7], (Kind::Float, Device::Cpu));
    let whole = MeanSquaredError::new();
    let (first, second) = ((noise(), noise()), (noise(), noise()));
    whole.update(&first.0, &first.1).unwrap();
    let saved = whole.state_dict().unwrap();
    whole.update(&second.0, &second.1).unwrap();

    let resumed = MeanSquaredError::new();
    resumed.load_state_dict(&saved).unwrap();
    resumed.update(&second.0, &second.1).unwrap();
    assert_eq!(number(resumed.compute()), number(whole.compute()));
    assert_eq!(resumed.state_dict().unwrap(), whole.state_dict().unwrap());
    assert_eq!(saved.int("updates").unwrap(), 1, "the saved state did not go on");

    resumed.load_state_dict(&MeanSquaredError::new().state_dict().unwrap()).unwrap();
    assert!(number(resumed.compute()).is_nan(), "an empty state is restored as empty");
}

#[test]
fn merged_halves_are_the_whole() {
    manual_seed(3);
    let metrics = || {
        MetricCollection::new()
            .with("accuracy", MulticlassAccuracy::new(4))
            .with("confusion", MulticlassConfusionMatrix::new(4))
            .with("auroc", fulgurite_metrics::MulticlassAUROC::new(4))
            .with("binned", fulgurite_metrics::MulticlassAveragePrecision::new(4).thresholds(11))
    };
    let (whole, left, right) = (metrics(), metrics(), metrics());
    for (index, half) in [&left, &right, &right].into_iter().enumerate() {
        let scores = Tensor::randn([5 + index as i64, 4], (Kind::Float, Device::Cpu)).softmax(1, None);
        let target = Tensor::randint(4, [5 + index as i64], (Kind::Int64, Device::Cpu));
        whole.update(&scores, &target).unwrap();
        half.update(&scores, &target).unwrap();
    }
    left.merge_state(&right.state_dict().unwrap()).unwrap();
    for ((name, merged), (_, expected)) in left.compute().unwrap().into_iter().zip(whole.compute().unwrap()) {
        assert_eq!(merged, expected, "{name}");
    }

    let empty = metrics();
    empty.merge_state(&metrics().state_dict().unwrap()).unwrap();
    empty.merge_state(&whole.state_dict().unwrap()).unwrap();
    assert_eq!(empty.state_dict().unwrap(), whole.state_dict().unwrap());
}

/// One field of each reduction.
#[derive(Clone)]
struct Everything;

impl Definition for Everything {
    type Input<'a> = (&'a Tensor, &'a Tensor);

    fn name(&self) -> &'static str {
        "Everything"
    }

    fn fields(&self) -> &'static [Field] {
        const {
            &[
                Field::new("sum", Reduction::Sum),
                Field::new("mean", Reduction::Mean),
                Field::new("min", Reduction::Min),
                Field::new("max", Reduction::Max),
                Field::new("cat", Reduction::Cat),
            ]
        }
    }

    fn batch(&self, (preds, _): (&Tensor, &Tensor)) -> Result<Vec<Tensor>, MetricError> {
        let mut state: Vec<Tensor> = (0..4).map(|_| preds.f_sum(Kind::Double)).collect::<Result<_, _>>()?;
        state.push(preds.shallow_clone());
        Ok(state)
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        Ok(Tensor::f_cat(&state.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0)?)
    }
}

impl Supervised for Everything {}

#[test]
fn each_reduction_merges_in_its_way() {
    let give = |metric: &Handle<Everything>, values: &[f64]| {
        let values = Tensor::from_slice(values);
        metric.update(&values, &values).unwrap();
    };
    let (one, other) = (Handle::from(Everything), Handle::from(Everything));
    give(&one, &[1.0]);
    give(&other, &[2.0, 3.0]);
    give(&other, &[9.0]);
    one.merge_state(&other.state_dict().unwrap()).unwrap();
    let value = Vec::<f64>::try_from(one.compute().unwrap()).unwrap();
    // Three updates of sums 1, 5 and 9.
    assert_eq!(value, [15.0, 5.0, 1.0, 9.0, 1.0, 2.0, 3.0, 9.0]);
    assert_eq!(one.state_dict().unwrap().int("updates").unwrap(), 3);
}

/// Panics over an empty batch, and has one tensor for two fields.
#[derive(Clone)]
struct Faulty;

impl Definition for Faulty {
    type Input<'a> = &'a [f32];

    fn name(&self) -> &'static str {
        "Faulty"
    }

    fn fields(&self) -> &'static [Field] {
        const { &[Field::new("sum", Reduction::Sum), Field::new("count", Reduction::Sum)] }
    }

    fn batch(&self, values: &[f32]) -> Result<Vec<Tensor>, MetricError> {
        Ok(vec![Tensor::from(values[0])])
    }

    fn compute(&self, state: &[Tensor]) -> Result<Tensor, MetricError> {
        Ok(state[0].shallow_clone())
    }
}

#[test]
fn faults_of_a_definition_are_told_and_leave_gradients_on() {
    let metric = Handle::from(Faulty);
    let error = metric.update_with(&[1.0]).unwrap_err().to_string();
    assert_eq!(
        error,
        "`Faulty`: `batch` returned 1 tensors for 2 fields; return one for each of `fields`, in their order"
    );
    let panics = || _ = metric.update_with(&[]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    let weight = Tensor::from(1.0).set_requires_grad(true);
    assert!((weight * 2.0).requires_grad());
}

#[test]
fn a_collection_updates_resets_and_restores_every_metric() {
    let metrics = MetricCollection::new()
        .with("top1", MulticlassAccuracy::new(3).average(Average::Micro))
        .with("top2", MulticlassAccuracy::new(3).average(Average::Micro).top_k(2));
    let scores = Tensor::from_slice2(&[[0.5f32, 0.3, 0.2], [0.1, 0.2, 0.7]]);
    let values = |values: Vec<(&str, Tensor)>| -> Vec<(String, f64)> {
        values.into_iter().map(|(name, value)| (name.to_owned(), value.double_value(&[]))).collect()
    };
    let batch = values(metrics.forward(&scores, &classes(&[1, 2])).unwrap());
    assert_eq!(batch, [("top1".to_owned(), 0.5), ("top2".to_owned(), 1.0)]);

    let saved = metrics.state_dict().unwrap();
    let clone = metrics.clone();
    clone.reset().unwrap();
    assert_eq!(values(metrics.compute().unwrap()), [("top1".to_owned(), 0.0), ("top2".to_owned(), 0.0)]);
    metrics.load_state_dict(&saved).unwrap();
    assert_eq!(values(clone.compute().unwrap()), batch);

    let replaced = metrics.with("top1", MulticlassAccuracy::new(3).top_k(3));
    assert_eq!(replaced.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["top1", "top2"]);
}

#[test]
fn perplexity_of_an_impossible_token_is_finite() {
    let perplexity = Perplexity::new();
    let logits = Tensor::from_slice(&[0.0f32, -80.0]).reshape([1, 1, 2]);
    perplexity.update(&logits, &classes(&[1]).reshape([1, 1])).unwrap();
    assert!((number(perplexity.compute()).ln() - 80.0).abs() < 1e-4);
}

#[test]
fn half_precision_scores_are_accumulated_in_full() {
    let perplexity = Perplexity::new();
    let logits = Tensor::zeros([1, 4, 16], (Kind::BFloat16, Device::Cpu));
    perplexity.update(&logits, &classes(&[1, 2, 3, 4]).reshape([1, 4])).unwrap();
    assert!((number(perplexity.compute()) - 16.0).abs() < 1e-4);

    let mse = MeanSquaredError::new();
    mse.update(&(Tensor::ones([4], (Kind::Half, Device::Cpu)) * 1000), &classes(&[0, 0, 0, 0])).unwrap();
    assert_eq!(number(mse.compute()), 1e6);
}
