//! Fine-tuning: a ResNet that PyTorch has trained on the digits 0 to 4 learns to read all ten. Its head is trained first,
//! the rest from an epoch on.
//!
//! `cargo run --release --example finetune -- --help` lists what can be changed.

#![expect(clippy::print_stdout, reason = "a program prints")]

mod resnet;

use clap::Parser;
use fulgurite::data::datasets::Digits;
use fulgurite::prelude::*;
use fulgurite::torch::params;
use resnet::ResNet;

/// Fine-tune a ResNet on handwritten digits.
#[derive(Parser, Debug, Clone)]
struct Args {
    /// The weights of the backbone: a state dict that `torch.save` has written.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/finetune/resnet.pt"))]
    weights: String,
    /// Epochs to train at most.
    #[arg(long, default_value_t = 10)]
    max_epochs: u64,
    /// The epoch from which the backbone is trained, too.
    #[arg(long, default_value_t = 5)]
    unfreeze_at_epoch: u64,
    /// Digits per step.
    #[arg(long, default_value_t = 32)]
    batch_size: usize,
    /// Learning rate.
    #[arg(long, default_value_t = 5e-3)]
    lr: f64,
    /// Seed of everything random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// cpu, cuda, mps or auto.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Run one batch of everything, to see that it works.
    #[arg(long)]
    fast_dev_run: bool,
    /// Where logs and checkpoints go.
    #[arg(long, default_value = ".")]
    default_root_dir: String,
}

/// The backbone, and a head that knows ten classes.
struct DigitModel {
    vars: nn::VarStore,
    backbone: ResNet,
    head: nn::Linear,
    lr: f64,
}

impl DigitModel {
    fn new(lr: f64) -> Result<DigitModel> {
        let vars = nn::VarStore::new(Device::Cpu);
        let backbone = ResNet::new(&(vars.root() / "backbone"))?;
        let head = nn::linear(ResNet::FEATURES, 10).at(vars.root() / "head")?;
        Ok(DigitModel { vars, backbone, head, lr })
    }

    fn forward(&self, images: &Tensor) -> Tensor {
        self.head.forward(&self.backbone.forward(images))
    }
}

impl LightningModule for DigitModel {
    type Batch = (Tensor, Tensor);

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, (images, labels): Self::Batch, step: &mut Step) -> Result<Loss> {
        let loss = self.forward(&images).cross_entropy_for_logits(&labels);
        step.log("train_loss", &loss).prog_bar();
        Ok(loss.into())
    }

    fn validation_step(&mut self, (images, labels): Self::Batch, step: &mut Step) -> Result<()> {
        let logits = self.forward(&images);
        step.log("val_loss", logits.cross_entropy_for_logits(&labels)).prog_bar();
        step.log("val_acc", logits.accuracy_for_logits(&labels)).prog_bar();
        Ok(())
    }

    /// What is frozen is left out, and `BackboneFinetuning` adds it later.
    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        Ok(Adam::new(params::trainable_parameters(&self.vars)).lr(self.lr).into())
    }
}

#[fulgurite::main]
fn main() -> Result<()> {
    let args = Args::parse();
    seed_everything(args.seed)?;
    let Digits { train, val, .. } = Digits::load()?;
    let train = DataLoader::new(train).batch_size(args.batch_size).shuffle(true);
    let val = DataLoader::new(val).batch_size(180);

    let mut model = DigitModel::new(args.lr)?;
    Checkpoint::open(&args.weights)?.replace_prefix("", "backbone.").only("backbone").load_into(&model.vars)?;
    let mut trainer = Trainer::builder()
        .max_epochs(args.max_epochs)
        .log_every_n_steps(1)
        .accelerator(&args.accelerator)
        .default_root_dir(&args.default_root_dir)
        .fast_dev_run(args.fast_dev_run.into())
        .callback(BackboneFinetuning::new().unfreeze_backbone_at_epoch(args.unfreeze_at_epoch))
        .callback(ModelCheckpoint::monitor("val_loss"))
        .build()?;
    trainer.fit(&mut model, (train, val))?.completed()?;
    if !args.fast_dev_run {
        println!("logs: {}", trainer.state().log_dir().display());
    }
    Ok(())
}
