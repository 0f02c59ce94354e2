//! The module that is tuned.

use fulgurite::TrainerBuilder;
use fulgurite::data::rand::RngExt as _;
use fulgurite::prelude::*;
use fulgurite::tch::nn;
use fulgurite::torch::params;

/// A small regression with dropout, so that a random number too few or too many shows in the weights.
pub(crate) struct Net {
    pub(crate) vars: nn::VarStore,
    pub(crate) hidden: nn::Linear,
    pub(crate) output: nn::Linear,
    pub(crate) lr: f64,
    pub(crate) batch_size: usize,
    /// Batches above this many samples ask for more memory than there is.
    pub(crate) memory: i64,
    pub(crate) seen: i64,
    /// Training batches are mixed with random numbers.
    pub(crate) mixes: bool,
}

impl Net {
    pub(crate) fn new() -> Net {
        seed_everything(3).unwrap();
        let vars = nn::VarStore::new(Device::Cpu);
        let hidden = nn::linear(vars.root() / "hidden", 4, 16, Default::default());
        let output = nn::linear(vars.root() / "output", 16, 1, Default::default());
        Net { vars, hidden, output, lr: 0.01, batch_size: 8, memory: i64::MAX, seen: 0, mixes: false }
    }

    pub(crate) fn weights(&self) -> String {
        let tensors = params::named_parameters(&self.vars);
        format!(
            "{:?}",
            tensors.iter().map(|(_, t)| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap()).collect::<Vec<_>>()
        )
    }

    fn loss(&self, (x, y): (Tensor, Tensor), train: bool) -> Tensor {
        if x.size()[0] > self.memory {
            let _more_than_any_machine_has = Tensor::empty([1 << 46], (Kind::Float, Device::Cpu));
        }
        let hidden = x.apply(&self.hidden).tanh().dropout(0.1, train);
        hidden.apply(&self.output).mse_loss(&y, tch::Reduction::Mean)
    }
}

impl LightningModule for Net {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<Loss> {
        self.seen += batch.0.size()[0];
        let loss = self.loss(batch, true);
        step.log("train_loss", &loss);
        Ok(loss.into())
    }

    fn validation_step(&mut self, batch: Self::Batch, step: &mut Step) -> Result<()> {
        let loss = self.loss(batch, false);
        step.log("val_loss", &loss);
        Ok(())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(AdamW::new(&self.vars).lr(self.lr).into())
    }

    fn hparams(&self) -> Result<Dict> {
        Ok(Dict::new().with("lr", self.lr).with("batch_size", self.batch_size))
    }

    fn set_hparam(&mut self, name: &str, value: &Value) -> Result<bool> {
        match name {
            "lr" => self.lr = value.as_float().unwrap(),
            "batch_size" => self.batch_size = value.as_int().unwrap() as usize,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn on_save_checkpoint(&mut self, _: &mut TrainerState, checkpoint: &mut Dict) -> Result<()> {
        checkpoint.set("seen", self.seen);
        Ok(())
    }

    fn on_load_checkpoint(&mut self, _: Option<&mut TrainerState>, checkpoint: &mut Dict) -> Result<()> {
        self.seen = checkpoint.int("seen")?;
        Ok(())
    }

    fn train_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        let loader = DataLoader::new(samples(64)).batch_size(self.batch_size).shuffle(true);
        if !self.mixes {
            return Ok(loader.into());
        }
        Ok(loader.map_batch(|(x, y): Self::Batch, rng| Ok((x * rng.random::<f64>(), y))).into())
    }

    fn val_dataloader(&mut self, _: &mut TrainerState) -> Result<Loaders<Self::Batch>> {
        Ok(DataLoader::new(samples(64)).batch_size(self.batch_size).into())
    }
}

pub(crate) fn samples(n: i64) -> TensorDataset<(Tensor, Tensor)> {
    let x = Tensor::arange(n * 4, (Kind::Float, Device::Cpu)).sin().view([n, 4]);
    let y = x.sum_dim_intlist(1, true, Kind::Float);
    TensorDataset::new((x, y)).unwrap()
}

pub(crate) fn quiet() -> TrainerBuilder {
    fulgurite_test_support::quiet().max_epochs(2)
}
