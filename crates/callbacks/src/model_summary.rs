//! [`ModelSummary`]: prints a summary of the model and the environment.

mod layers;
mod summary;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use derive_setters::Setters;
use fulgurite_engine::config::{Configurable, Maximum};
use fulgurite_engine::{Callback, DefaultCallback, Error, ModuleView, Result, TrainerState};
use fulgurite_torch::grad::NoGradGuard;
use fulgurite_torch::params;
use fulgurite_torch::record::{OpRecord, record_ops};
use fulgurite_torch::rng::RngState;
use fulgurite_torch::runtime::RuntimeReport;
use fulgurite_torch::tch::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use summary::{LayerSummary, Summary};

/// Prints a summary of the model when fit begins, preceded by the environment of the run.
///
/// ```text
/// cpu, precision 32-true, strategy single_device, 2 thread(s) on 2 processor(s)
///
///   | Name         | Type   | Params | Mode  | FLOPs  | In sizes  | Out sizes
/// ---------------------------------------------------------------------------
/// 0 | fc1          | Linear | 100 K  | train | 6.4 M  | [32, 784] | [32, 128]
/// 1 | fc2          | Linear | 1.3 K  | train | 81.9 K | [32, 128] | [32, 10]
///   | other params | n/a    | 3      | n/a   | n/a    | n/a       | n/a
/// ---------------------------------------------------------------------------
/// 101 K     Trainable params
/// 0         Non-trainable params
/// 101 K     Total params
/// 0.407     Total estimated model params size (MB)
/// 2         Modules in train mode
/// 0         Modules in eval mode
/// 6.5 M     Total Flops
/// ```
///
/// Modules are what the dotted names of the [`VarStore`](fulgurite_torch::VarStore) say, in the order they
/// were created; those without parameters and buffers, such as activations, are not known to it. Parameters that are
/// one tensor under several names count once in the totals. A module none of whose parameters requires a gradient is
/// `frozen`, one whose layers are in evaluation mode `eval`.
///
/// FLOPs and sizes are those of one [`example_forward`](fulgurite_engine::LightningModule::example_forward), in
/// evaluation, without gradients; the generators of random numbers are left as they were. Operations belong to the
/// module whose parameter they use, and those between two layers to the innermost module around both. Sizes of a module
/// of modules are those at its first and at its last layer with parameters. A layer's type is guessed from the
/// operation that uses it; without an `example_forward`, or when that does not use the layer, from the shapes of its
/// parameters where they leave no doubt.
///
/// ```
/// use fulgurite::prelude::*;
///
/// let trainer = Trainer::builder().callback(ModelSummary::new().max_depth(Maximum::Unlimited));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ModelSummary {
    options: ModelSummaryOptions,
}

/// Options of [`ModelSummary`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(generate_delegates(ty = "ModelSummary", field = "options"))]
#[non_exhaustive]
pub struct ModelSummaryOptions {
    /// The maximum depth of nested modules: 0 for the totals alone, -1 for all levels.
    ///
    /// In Rust, all levels are [`Maximum::Unlimited`].
    #[setters(into)]
    pub max_depth: Maximum,
}

impl Default for ModelSummaryOptions {
    fn default() -> ModelSummaryOptions {
        ModelSummaryOptions { max_depth: Maximum::Of(1) }
    }
}

impl Configurable for ModelSummary {
    const ALIASES: &'static [&'static str] = &["RichModelSummary"];
    type Options = ModelSummaryOptions;

    fn from_options(options: ModelSummaryOptions) -> Result<ModelSummary, Error> {
        Ok(ModelSummary { options })
    }
}

impl ModelSummary {
    /// A summary of the model's direct children.
    pub fn new() -> ModelSummary {
        ModelSummary::default()
    }

    /// The summary of a module, without a trainer.
    ///
    /// ```
    /// use fulgurite::prelude::*;
    ///
    /// # struct Line { vars: nn::VarStore, fc: nn::Linear }
    /// # impl LightningModule for Line {
    /// #     type Batch = Tensor;
    /// #     fn vars(&self) -> &dyn Parameters { &self.vars }
    /// #     fn training_step(&mut self, _: Self::Batch, _: &mut Step) -> Result<Loss> { Ok(Loss::skip()) }
    /// #     fn example_forward(&mut self) -> Result<Tensor> {
    /// #         Ok(Tensor::ones([8, 4], (Kind::Float, self.vars.device())).apply(&self.fc))
    /// #     }
    /// # }
    /// # let vars = nn::VarStore::new(Device::Cpu);
    /// # let fc = nn::linear(4, 2).at(vars.root() / "fc")?;
    /// # let mut module = Line { vars, fc };
    /// let summary = ModelSummary::new().max_depth(Maximum::Unlimited).of(&mut module)?;
    /// assert_eq!(summary.total_parameters, 10);
    /// assert_eq!(summary.layers[0].layer_type.as_deref(), Some("Linear"));
    /// assert_eq!(summary.total_flops, Some(2 * 8 * 4 * 2));
    /// # Ok::<(), fulgurite::BoxError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Fails if `example_forward` fails.
    pub fn of(&self, module: &mut dyn ModuleView) -> Result<Summary> {
        let ops = example_ops(module)?;
        Ok(layers::summarize(module.vars(), ops.as_deref(), self.options.max_depth))
    }
}

impl ModelSummary {
    /// The summary in a precision that `example_forward` may not support.
    fn of_converted(&self, trainer: &TrainerState, module: &mut dyn ModuleView) -> Result<Summary> {
        let random = RngState::capture()?;
        let summary = catch_unwind(AssertUnwindSafe(|| self.of(module)));
        if let Ok(Ok(summary)) = summary {
            return Ok(summary);
        }
        random.restore()?;
        trainer.warn(&format!(
            "{}::example_forward does not run in precision {}, so the summary has no sizes; make its input of the kind of the parameters",
            module.name(),
            trainer.fabric().precision().name()
        ));
        Ok(layers::summarize(module.vars(), None, self.options.max_depth))
    }
}

/// The operations of the module's example pass; `None` if it has none.
fn example_ops(module: &mut dyn ModuleView) -> Result<Option<Vec<OpRecord>>> {
    let (random, modes) = (RngState::capture()?, params::modes(module.vars()));
    module.train(false)?;
    let recorded = catch_unwind(AssertUnwindSafe(|| {
        let _no_grad = NoGradGuard::new();
        record_ops(|| module.example_forward())
    }));
    let switched = module.train(true);
    modes.restore();
    switched?;
    random.restore()?;
    let (output, ops) = recorded.unwrap_or_else(|panic| resume_unwind(panic))?;
    Ok(output?.map(|_output| ops))
}

impl Callback for ModelSummary {
    fn stands_for(&self) -> Option<DefaultCallback> {
        Some(DefaultCallback::ModelSummary)
    }

    fn on_fit_start(&mut self, trainer: &mut TrainerState, module: &mut dyn ModuleView) -> Result<()> {
        if trainer.is_global_zero() {
            let summary = match trainer.fabric().precision().input_kind() {
                None => self.of(module)?,
                Some(_) => self.of_converted(trainer, module)?,
            };
            let summary = format!("{}\n\n{summary}\n", stands_on(trainer));
            trainer.print_model_summary(&summary);
        }
        Ok(())
    }
}

fn stands_on(trainer: &TrainerState) -> String {
    let fabric = trainer.fabric();
    let device = match fabric.device() {
        Device::Cuda(index) => format!(":{index}"),
        _ => String::new(),
    };
    let runtime = RuntimeReport::collect();
    format!(
        "{}{device}, precision {}, strategy {}, {} thread(s) on {} processor(s)",
        fabric.accelerator(),
        fabric.precision().name(),
        fabric.strategy().name(),
        runtime.num_threads,
        runtime.num_processors
    )
}
