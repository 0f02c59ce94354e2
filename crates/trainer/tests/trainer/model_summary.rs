//! What is printed of a model when fit begins, and what a summary knows of any model.

use expect_test::expect;
use fulgurite::Console;
use fulgurite::prelude::*;
use fulgurite::tch::nn;

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

    fn vars(&self) -> &dyn Parameters {
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
    _ = trainer.fit(&mut Net::new(), vec![batch]).unwrap();
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

          | Name | Type   | Params | Mode
        ----------------------------------
        0 | body | Linear | 100 K  | train
        1 | head | Linear | 1.3 K  | train
        ----------------------------------
        1.4 K     Trainable params
        100 K     Non-trainable params
        101 K     Total params
        0.407     Total estimated model params size (MB)
        2         Modules in train mode
        0         Modules in eval mode

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
        2         Modules in train mode
        0         Modules in eval mode

        `Trainer.fit` stopped: `max_epochs=1` reached.
    "#]]
    .assert_eq(&printed("64-true", ModelSummary::new().max_depth(0)));
}

/// A model of parts: what it consists of, and what it does with an example.
struct Parts {
    vars: nn::VarStore,
    forward: Option<Box<dyn Fn(bool) -> Tensor + Send>>,
    training: bool,
}

impl LightningModule for Parts {
    type Batch = Tensor;

    fn vars(&self) -> &dyn Parameters {
        &self.vars
    }

    fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
        Err("it is only summarized".into())
    }

    fn train(&mut self, mode: bool) -> Result<()> {
        self.training = mode;
        Ok(())
    }

    fn example_forward(&mut self) -> Result<Tensor> {
        match &self.forward {
            Some(forward) => Ok(forward(self.training)),
            None => fulgurite::not_implemented("example_forward"),
        }
    }
}

fn summary(vars: nn::VarStore, max_depth: impl Into<Maximum>) -> String {
    let mut parts = Parts { vars, forward: None, training: true };
    ModelSummary::new().max_depth(max_depth).of(&mut parts).unwrap().to_string()
}

fn blocks() -> nn::VarStore {
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    nn::linear(&root / "embed", 784, 128, Default::default());
    for block in 0..2 {
        let block = &root / "blocks" / block;
        nn::batch_norm1d(&block / "norm", 128, Default::default());
        nn::linear(&block / "head", 128, 128, Default::default());
    }
    let _scale = root.var("scale", &[3], nn::Init::Const(1.0));
    vars
}

#[test]
fn the_direct_children_are_listed_in_the_order_they_were_made() {
    expect![[r#"
          | Name         | Type   | Params | Mode
        ------------------------------------------
        0 | embed        | Linear | 100 K  | train
        1 | blocks       |        | 33.5 K | train
          | other params | n/a    | 3      | n/a
        ------------------------------------------
        134 K     Trainable params
        0         Non-trainable params
        134 K     Total params
        0.536     Total estimated model params size (MB)
        8         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(blocks(), 1));
}

#[test]
fn deeper_modules_follow_their_parents() {
    assert_eq!(summary(blocks(), 3), summary(blocks(), Maximum::Unlimited));
    expect![[r#"
          | Name         | Type   | Params | Mode
        ------------------------------------------
        0 | embed        | Linear | 100 K  | train
        1 | blocks       |        | 33.5 K | train
        2 | blocks.0     |        | 16.8 K | train
        3 | blocks.1     |        | 16.8 K | train
          | other params | n/a    | 3      | n/a
        ------------------------------------------
        134 K     Trainable params
        0         Non-trainable params
        134 K     Total params
        0.536     Total estimated model params size (MB)
        8         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(blocks(), 2));
    expect![[r#"
          | Name          | Type      | Params | Mode
        ----------------------------------------------
        0 | embed         | Linear    | 100 K  | train
        1 | blocks        |           | 33.5 K | train
        2 | blocks.0      |           | 16.8 K | train
        3 | blocks.0.norm | BatchNorm | 256    | train
        4 | blocks.0.head | Linear    | 16.5 K | train
        5 | blocks.1      |           | 16.8 K | train
        6 | blocks.1.norm | BatchNorm | 256    | train
        7 | blocks.1.head | Linear    | 16.5 K | train
          | other params  | n/a       | 3      | n/a
        ----------------------------------------------
        134 K     Trainable params
        0         Non-trainable params
        134 K     Total params
        0.536     Total estimated model params size (MB)
        8         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(blocks(), Maximum::Unlimited));
}

#[test]
fn depth_zero_leaves_the_totals() {
    expect![[r#"
        134 K     Trainable params
        0         Non-trainable params
        134 K     Total params
        0.536     Total estimated model params size (MB)
        8         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(blocks(), 0));
}

#[test]
fn frozen_modules_say_so() {
    let vars = blocks();
    for (name, mut tensor) in vars.variables() {
        if name.starts_with("blocks.0") {
            let _ = tensor.requires_grad_(false);
        }
    }
    expect![[r#"
          | Name         | Type   | Params | Mode
        -------------------------------------------
        0 | embed        | Linear | 100 K  | train
        1 | blocks       |        | 33.5 K | train
        2 | blocks.0     |        | 16.8 K | frozen
        3 | blocks.1     |        | 16.8 K | train
          | other params | n/a    | 3      | n/a
        -------------------------------------------
        117 K     Trainable params
        16.8 K    Non-trainable params
        134 K     Total params
        0.536     Total estimated model params size (MB)
        8         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(vars, 2));
}

#[test]
fn a_tensor_under_two_names_counts_once() {
    let vars = nn::VarStore::new(Device::Cpu);
    let tied = (vars.root() / "embed").var("weight", &[10, 4], nn::Init::Const(0.0));
    vars.variables_.lock().unwrap().named_variables.insert("head.weight".into(), tied.shallow_clone());
    let forward = move |_| {
        Tensor::embedding(&tied, &Tensor::from_slice(&[1i64, 2, 3]), -1, false, false).linear(&tied, None::<&Tensor>)
    };
    let mut parts = Parts { vars, forward: Some(Box::new(forward)), training: true };
    expect![[r#"
          | Name  | Type      | Params | Mode  | FLOPs | In sizes | Out sizes
        ---------------------------------------------------------------------
        0 | embed | Embedding | 40     | train | 0     | [3]      | [3, 4]
        1 | head  | Linear    | 40     | train | 240   | [3, 4]   | [3, 10]
        ---------------------------------------------------------------------
        40        Trainable params
        0         Non-trainable params
        40        Total params
        0.000     Total estimated model params size (MB)
        2         Modules in train mode
        0         Modules in eval mode
        240       Total Flops"#]]
    .assert_eq(&ModelSummary::new().of(&mut parts).unwrap().to_string());
}

#[test]
fn a_model_without_parameters_has_an_empty_table() {
    expect![[r#"
         | Name | Type | Params | Mode
        ------------------------------
        ------------------------------
        0         Trainable params
        0         Non-trainable params
        0         Total params
        0.000     Total estimated model params size (MB)
        0         Modules in train mode
        0         Modules in eval mode"#]]
    .assert_eq(&summary(nn::VarStore::new(Device::Cpu), 1));
}

#[test]
fn an_example_pass_tells_types_sizes_and_flops() {
    let vars = nn::VarStore::new(Device::Cpu);
    let root = vars.root();
    let tokens = nn::embedding(&root / "tokens", 50, 8, Default::default());
    let norm = nn::layer_norm(&root / "block" / "norm", vec![8], Default::default());
    let qkv = nn::linear(&root / "block" / "attn" / "qkv", 8, 24, Default::default());
    let out = nn::linear(&root / "block" / "attn" / "out", 8, 8, Default::default());
    let lstm = nn::lstm(&root / "lstm", 8, 6, Default::default());
    let conv = nn::conv_transpose2d(&root / "up", 1, 2, 3, Default::default());
    let batch_norm = nn::batch_norm2d(&root / "bn", 2, Default::default());
    let unused = nn::linear(&root / "unused", 3, 3, Default::default());
    let scale = root.var("scale", &[1], nn::Init::Const(1.0));
    let forward = move |training: bool| {
        assert!(!training, "the pass is one of evaluation");
        let x = Tensor::zeros([2, 5], (Kind::Int64, Device::Cpu)).apply(&tokens) * &scale;
        let heads = x.apply(&norm).apply(&qkv).chunk(3, -1);
        let scores = heads[0].matmul(&heads[1].transpose(1, 2)).softmax(-1, Kind::Float);
        let x = x + scores.matmul(&heads[2]).apply(&out);
        let (x, _) = nn::RNN::seq(&lstm, &x);
        assert!(!x.requires_grad(), "nothing records gradients");
        let x = x.unsqueeze(1).apply(&conv).apply_t(&batch_norm, training);
        let _ = (&unused, Tensor::rand([3], (Kind::Float, Device::Cpu)));
        x
    };
    let mut parts = Parts { vars, forward: Some(Box::new(forward)), training: true };
    seed_everything(7).unwrap();
    let drawn = Tensor::rand([3], (Kind::Float, Device::Cpu));
    seed_everything(7).unwrap();
    let summary = ModelSummary::new().max_depth(Maximum::Unlimited).of(&mut parts).unwrap();
    assert_eq!(Tensor::rand([3], (Kind::Float, Device::Cpu)), drawn, "random numbers go on as if nothing had run");
    assert!(parts.training);
    expect![[r#"
          | Name           | Type            | Params | Mode  | FLOPs | In sizes     | Out sizes
        -------------------------------------------------------------------------------------------
        0 | tokens         | Embedding       | 400    | train | 0     | [2, 5]       | [2, 5, 8]
        1 | block          |                 | 304    | train | 6.7 K | [2, 5, 8]    | [2, 5, 8]
        2 | block.norm     | LayerNorm       | 16     | train | 0     | [2, 5, 8]    | [2, 5, 8]
        3 | block.attn     |                 | 288    | train | 6.7 K | [2, 5, 8]    | [2, 5, 8]
        4 | block.attn.qkv | Linear          | 216    | train | 3.8 K | [2, 5, 8]    | [2, 5, 24]
        5 | block.attn.out | Linear          | 72     | train | 1.3 K | [2, 5, 8]    | [2, 5, 8]
        6 | lstm           | LSTM            | 384    | train | 0     | [2, 5, 8]    | [2, 5, 6]
        7 | up             | ConvTranspose2d | 20     | train | 2.2 K | [2, 1, 5, 6] | [2, 2, 7, 8]
        8 | bn             | BatchNorm2d     | 4      | train | 0     | [2, 2, 7, 8] | [2, 2, 7, 8]
        9 | unused         | Linear          | 12     | train | 0     | ?            | ?
          | other params   | n/a             | 1      | n/a   | n/a   | n/a          | n/a
        -------------------------------------------------------------------------------------------
        1.1 K     Trainable params
        0         Non-trainable params
        1.1 K     Total params
        0.004     Total estimated model params size (MB)
        10        Modules in train mode
        0         Modules in eval mode
        8.9 K     Total Flops"#]]
    .assert_eq(&summary.to_string());
}

#[test]
fn an_example_that_fails_is_an_error_of_the_summary() {
    struct Broken(nn::VarStore);
    impl LightningModule for Broken {
        type Batch = Tensor;
        fn vars(&self) -> &dyn Parameters {
            &self.0
        }
        fn training_step(&mut self, _: Tensor, _: &mut Step) -> Result<Loss> {
            Err("it is only summarized".into())
        }
        fn example_forward(&mut self) -> Result<Tensor> {
            Err("no image at hand".into())
        }
        fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
            Ok(Optimizers::none())
        }
    }
    let mut trainer = Trainer::builder()
        .max_epochs(1)
        .no_logger()
        .enable_checkpointing(false)
        .enable_progress_bar(false)
        .console(Console::memory())
        .build()
        .unwrap();
    let batch = vec![Tensor::ones([2], (Kind::Float, Device::Cpu))];
    let error = trainer.fit(&mut Broken(nn::VarStore::new(Device::Cpu)), batch).unwrap_err();
    expect!["ModelSummary::on_fit_start failed (epoch 0): no image at hand"].assert_eq(&error.to_string());
}
