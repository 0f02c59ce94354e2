//! What is printed of a model when fit begins.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use expect_test::expect;
use fulgurite::Console;
use fulgurite::prelude::*;

struct Net {
    vars: nn::VarStore,
    body: nn::Linear,
    head: nn::Linear,
}

impl Net {
    fn new() -> Net {
        let vars = nn::VarStore::new(Device::Cpu);
        let body = nn::linear(vars.root() / "body", 784, 128, Default::default());
        let head = nn::linear(vars.root() / "head", 128, 10, Default::default());
        Net { vars, body, head }
    }
}

impl LightningModule for Net {
    type Batch = Tensor;

    fn vars(&self) -> &nn::VarStore {
        &self.vars
    }

    fn training_step(&mut self, batch: Tensor, _: &mut Step) -> Result<Loss> {
        Ok(batch.apply(&self.body).apply(&self.head).mean(Kind::Double).into())
    }

    fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
        self.body.ws = self.body.ws.set_requires_grad(false);
        Ok(SGD::new(&self.vars).lr(0.1).into())
    }
}

fn printed(precision: &str, summary: ModelSummary) -> String {
    let console = Console::memory();
    let mut trainer = Trainer::builder()
        .max_epochs(1)
        .accelerator("cpu")
        .precision(precision)
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .callback(summary)
        .console(console.clone())
        .build()
        .unwrap();
    let batch = Tensor::ones([2, 784], (Kind::Float, Device::Cpu));
    trainer.fit(&mut Net::new(), vec![batch]).unwrap();
    let printed = console.contents();
    // How many processors there are differs from machine to machine.
    let (stands_on, rest) = printed.split_once(" thread(s)").unwrap();
    let (stands_on, threads) = stands_on.rsplit_once(' ').unwrap();
    assert!(threads.parse::<usize>().is_ok_and(|threads| threads >= 1), "{threads}");
    let (_, table) = rest.split_once('\n').unwrap();
    format!("{stands_on} …\n{table}")
}

#[test]
fn the_model_and_what_the_run_stands_on_are_printed_before_training() {
    expect![[r#"
        cpu, precision 32-true, strategy single_device, …

          | Name | Shapes           | Params
        ------------------------------------
        0 | body | [128, 784] [128] | 100 K
        1 | head | [10, 128] [10]   | 1.3 K
        ------------------------------------
        1.4 K     Trainable params
        100 K     Non-trainable params
        101 K     Total params
        0.407     Total estimated model params size (MB)

        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]]
    .assert_eq(&printed("32-true", ModelSummary::new()));
}

#[test]
fn the_size_follows_the_precision() {
    expect![[r#"
        cpu, precision 64-true, strategy single_device, …

        1.4 K     Trainable params
        100 K     Non-trainable params
        101 K     Total params
        0.814     Total estimated model params size (MB)

        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]]
    .assert_eq(&printed("64-true", ModelSummary::new().max_depth(0)));
}
