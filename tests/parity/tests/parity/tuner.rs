//! The learning-rate finder: the same rates, smoothed losses and suggestion as Lightning's.

use fulgurite::Console;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::{params, serialization};
use fulgurite::tuner::{LearningRateFinderOptions, Tuner};
use fulgurite_parity::python;
use serde_json::{Value as Json, json};

struct Net {
    vars: nn::VarStore,
    fc1: nn::Linear,
    fc2: nn::Linear,
    lr: f64,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let fc1 = nn::linear(vars.root() / "fc1", 4, 8, Default::default());
        let fc2 = nn::linear(vars.root() / "fc2", 8, 1, Default::default());
        Net { vars, fc1, fc2, lr: 0.1 }
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (x, y): Self::Batch, _: &mut Step) -> Result<Loss> {
        Ok(x.apply(&self.fc1).tanh().apply(&self.fc2).mse_loss(&y, tch::Reduction::Mean).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(SGD::new(&self.vars).lr(self.lr).into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("lr", self.lr))
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        self.lr = value.as_float().unwrap();
        Ok(name == "lr")
    }
}

fn close(ours: &[f64], theirs: &Json, what: &str) {
    let theirs: Vec<f64> = theirs.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(ours.len(), theirs.len(), "{what}: number of points");
    for (index, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1e-12), "{what}, point {index}: {a} here, {b} there");
    }
}

#[test]
fn the_learning_rate_finder_records_what_lightnings_does() {
    tch::manual_seed(5);
    let weights = params::state_dict(&Net::new().vars).unwrap();
    let x = Tensor::randn([64, 4], (Kind::Float, Device::Cpu));
    let y = x.sum_dim_intlist(1, true, Kind::Float);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.pt");
    let data = Dict::new().with("weights", weights.clone()).with("x", x.copy()).with("y", y.copy());
    serialization::save(&path, &Value::Dict(data)).unwrap();
    // Windows that fill the epoch: of a short last one, Lightning steps and notes nothing.
    let cases = json!([
        {},
        { "num_training": 40, "min_lr": 1e-5, "max_lr": 10.0 },
        { "num_training": 60, "mode": "linear", "min_lr": 0.001, "max_lr": 0.5 },
        { "num_training": 200, "max_lr": 1000.0, "min_lr": 1e-3, "early_stop_threshold": 2.0 },
        { "num_training": 30, "early_stop_threshold": null },
        { "num_training": 30, "accumulate_grad_batches": 2 },
    ]);
    let lightning = python("tuner.py", &[path.to_str().unwrap(), &cases.to_string()]);

    for (case, theirs) in cases.as_array().unwrap().iter().zip(lightning.as_array().unwrap()) {
        let mut options = case.as_object().unwrap().clone();
        let accumulate = options.remove("accumulate_grad_batches").and_then(|n| n.as_u64()).unwrap_or(1);
        let options: LearningRateFinderOptions = serde_json::from_value(Json::Object(options)).unwrap();
        let mut net = Net::new();
        tch::no_grad(|| params::load_state_dict(&net.vars, &weights, true)).unwrap();
        let mut trainer = Trainer::builder()
            .accelerator("cpu")
            .max_epochs(1)
            .accumulate_grad_batches(accumulate)
            .no_logger()
            .enable_checkpointing(false)
            .enable_progress_bar(false)
            .enable_model_summary(false)
            .console(Console::memory())
            .build()
            .unwrap();
        let dataset = TensorDataset::new((x.copy(), y.copy())).unwrap();
        let loader = DataLoader::new(dataset).batch_size(4);
        let found = Tuner::new(&mut trainer).lr_find(&mut net, loader, options).unwrap().unwrap();
        close(&found.lr, &theirs["lr"], &format!("{case}: lr"));
        // Lightning's is divided by the window.
        let loss: Vec<f64> = found.loss.iter().map(|loss| loss / accumulate as f64).collect();
        close(&loss, &theirs["loss"], &format!("{case}: loss"));
        let suggestion: Vec<f64> = found.suggestion().into_iter().collect();
        close(&suggestion, &json!([theirs["suggestion"]]), &format!("{case}: suggestion"));
        close(&[net.lr], &json!([theirs["lr_attr"]]), &format!("{case}: lr of the module"));
    }
}
