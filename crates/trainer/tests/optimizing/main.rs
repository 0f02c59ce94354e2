//! Optimization by hand, and by several optimizers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod manual;
mod overridden;
mod schedule_length;
mod strategy;
mod turns;

use fulgurite::prelude::*;
use fulgurite::{Console, TrainerBuilder};

fn quiet() -> TrainerBuilder {
    Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .enable_model_summary(false)
        .console(Console::memory())
}

/// Scalars.
fn batches(values: &[f64]) -> Vec<Tensor> {
    values.iter().map(|&x| Tensor::from(x as f32)).collect()
}

/// Scalar parameters of these names, all 1.
fn scalars<const N: usize>(names: [&str; N]) -> (nn::VarStore, [Tensor; N]) {
    let vars = nn::VarStore::new(Device::Cpu);
    let made = names.map(|name| vars.root().var(name, &[], nn::Init::Const(1.0)));
    (vars, made)
}
