//! [`BackboneFinetuning`]: trains the head first, and unfreezes the backbone at a given epoch.

use std::sync::Arc;

use derive_setters::Setters;
use fulgurite_engine::config::Configurable;
use fulgurite_engine::{Error, ModuleView, Result, TrainerState};
use fulgurite_optim::Optimizer;
use fulgurite_torch::{Dict, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BaseFinetuning, Finetuning, Unfreeze, freeze, unfreeze_and_add_param_group};

/// Trains the head alone until an epoch, and from then on the backbone too, with a learning rate that grows until it is
/// the head's, like Lightning's callback of the same name.
///
/// The backbone consists of the layers created under `vars.root() / "backbone"`, or under another path, which
/// [`backbone`](Self::backbone) names. It is frozen before `configure_optimizers`, which gives the optimizer what is
/// not frozen. Its batch norms are trained all the time, with the head.
///
/// ```
/// use fulgurite::prelude::*;
/// use fulgurite::torch::params;
///
/// struct Classifier { vars: nn::VarStore, backbone: nn::Linear, head: nn::Linear }
///
/// impl Classifier {
///     fn new() -> Result<Classifier> {
///         let vars = nn::VarStore::new(Device::Cpu);
///         let backbone = nn::linear(8, 8).at(vars.root() / "backbone")?;
///         let head = nn::linear(8, 2).at(vars.root() / "head")?;
///         Ok(Classifier { vars, backbone, head })
///     }
/// }
///
/// impl LightningModule for Classifier {
///     type Batch = (Tensor, Tensor);
///
///     fn vars(&self) -> &dyn Parameters { &self.vars }
///
///     fn training_step(&mut self, (x, y): Self::Batch, _: &mut Step) -> Result<Loss> {
///         let features = self.backbone.forward(&x).relu();
///         Ok(self.head.forward(&features).cross_entropy_for_logits(&y).into())
///     }
///
///     fn configure_optimizers(&mut self, _: &mut TrainerState) -> Result<Optimizers> {
///         Ok(Adam::new(params::trainable_parameters(&self.vars)).lr(1e-3).into())
///     }
/// }
///
/// let finetuning = BackboneFinetuning::new().unfreeze_backbone_at_epoch(5).lambda_func(|_| 1.5);
/// let trainer = Trainer::builder().callback(finetuning);
/// # Classifier::new()?;
/// # Ok::<(), fulgurite::BoxError>(())
/// ```
pub type BackboneFinetuning = BaseFinetuning<Backbone>;

/// What [`BackboneFinetuning`] freezes, and when it unfreezes it.
pub struct Backbone {
    options: BackboneFinetuningOptions,
    lambda_func: Arc<dyn Fn(u64) -> f64 + Send + Sync>,
    previous_backbone_lr: Option<f64>,
}

/// Options of [`BackboneFinetuning`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option, generate_delegates(ty = "BackboneFinetuning", method = "options_mut"))]
#[non_exhaustive]
pub struct BackboneFinetuningOptions {
    /// The path of the backbone: the prefix of its variables' names.
    #[setters(into)]
    pub backbone: String,
    /// The epoch, counted from 0, at which the backbone is unfrozen.
    pub unfreeze_backbone_at_epoch: u64,
    /// The initial learning rate of the backbone, as a fraction of the head's.
    pub backbone_initial_ratio_lr: f64,
    /// The initial learning rate of the backbone; by default set by `backbone_initial_ratio_lr`.
    pub backbone_initial_lr: Option<f64>,
    /// Whether the backbone's learning rate stops growing where it meets the head's.
    pub should_align: bool,
    /// The divisor of the head's learning rate, if no other option sets the backbone's.
    pub initial_denom_lr: f64,
    /// Whether the backbone's batch norms join the backbone's group, unless they are in another.
    pub train_bn: bool,
    /// Prints both learning rates at the start of each epoch.
    pub verbose: bool,
    /// The number of decimals of printed learning rates.
    pub rounding: u32,
}

impl Default for BackboneFinetuningOptions {
    fn default() -> BackboneFinetuningOptions {
        BackboneFinetuningOptions {
            backbone: "backbone".into(),
            unfreeze_backbone_at_epoch: 10,
            backbone_initial_ratio_lr: 0.1,
            backbone_initial_lr: None,
            should_align: true,
            initial_denom_lr: 10.0,
            train_bn: true,
            verbose: false,
            rounding: 12,
        }
    }
}

impl Configurable for BackboneFinetuning {
    type Options = BackboneFinetuningOptions;

    fn class_name() -> &'static str {
        "BackboneFinetuning"
    }

    fn from_options(options: BackboneFinetuningOptions) -> Result<BackboneFinetuning, Error> {
        options.check()?;
        Ok(BackboneFinetuning::of(options))
    }
}

impl BackboneFinetuningOptions {
    fn check(&self) -> Result<(), Error> {
        let lrs = [
            ("backbone_initial_ratio_lr", Some(self.backbone_initial_ratio_lr)),
            ("backbone_initial_lr", self.backbone_initial_lr),
        ];
        match lrs.into_iter().find(|(_, lr)| lr.is_some_and(|lr| !lr.is_finite() || lr < 0.0)) {
            Some((option, lr)) => Err(Error::Config(format!(
                "BackboneFinetuning: {option} is {}; write a finite number, 0.0 or more",
                lr.unwrap_or_default()
            ))),
            None => Ok(()),
        }
    }
}

impl Default for BackboneFinetuning {
    fn default() -> BackboneFinetuning {
        BackboneFinetuning::new()
    }
}

impl BackboneFinetuning {
    /// Unfreezes the backbone in epoch 10, with a tenth of the head's learning rate, which doubles in each epoch.
    #[must_use]
    pub fn new() -> BackboneFinetuning {
        BackboneFinetuning::of(BackboneFinetuningOptions::default())
    }

    fn of(options: BackboneFinetuningOptions) -> BackboneFinetuning {
        BaseFinetuning::with(Backbone { options, lambda_func: Arc::new(|_| 2.0), previous_backbone_lr: None })
    }

    fn options_mut(&mut self) -> &mut BackboneFinetuningOptions {
        &mut self.finetuning.options
    }

    /// What the backbone's learning rate is multiplied by in each later epoch, from the number of the epoch counted
    /// from 1; 2 by default.
    #[must_use]
    pub fn lambda_func(mut self, lambda_func: impl Fn(u64) -> f64 + Send + Sync + 'static) -> Self {
        self.finetuning.lambda_func = Arc::new(lambda_func);
        self
    }
}

impl Finetuning for Backbone {
    fn state_key(&self) -> String {
        "BackboneFinetuning".into()
    }

    fn state_dict(&self) -> Result<Dict> {
        Ok(Dict::new().with("previous_backbone_lr", self.previous_backbone_lr))
    }

    fn load_state_dict(&mut self, state: &Dict) -> Result<()> {
        self.previous_backbone_lr = match state.require("previous_backbone_lr")? {
            Value::None => None,
            _ => Some(state.float("previous_backbone_lr")?),
        };
        Ok(())
    }

    fn freeze_before_training(&mut self, module: &mut dyn ModuleView) -> Result<()> {
        self.options.check()?;
        self.previous_backbone_lr = None;
        freeze(module.vars(), &[&self.options.backbone], true)
            .map_err(|error| Error::Config(format!("BackboneFinetuning: {error}")).into())
    }

    fn finetune_function(
        &mut self,
        trainer: &mut TrainerState,
        module: &mut dyn ModuleView,
        epoch: u64,
        optimizer: &mut dyn Optimizer,
    ) -> Result<()> {
        let options = &self.options;
        let Some(head_lr) = optimizer.param_groups().first().map(|group| group.lr) else { return Ok(()) };
        let backbone_lr = if epoch < options.unfreeze_backbone_at_epoch {
            return Ok(());
        } else if epoch == options.unfreeze_backbone_at_epoch {
            let lr = options.backbone_initial_lr.unwrap_or(head_lr * options.backbone_initial_ratio_lr);
            let how = Unfreeze { lr: Some(lr), initial_denom_lr: options.initial_denom_lr, train_bn: options.train_bn };
            unfreeze_and_add_param_group(trainer, module.vars(), &[&options.backbone], optimizer, how)?;
            lr
        } else {
            let Some(previous) = self.previous_backbone_lr else { return Ok(()) };
            let lr = previous * (self.lambda_func)(epoch + 1);
            if !lr.is_finite() {
                return Err(format!(
                    "lambda_func makes the learning rate of the backbone {lr} in epoch {epoch}; return a finite factor"
                )
                .into());
            }
            let lr = if options.should_align && lr > head_lr { head_lr } else { lr };
            if let Some(group) = optimizer.param_groups_mut().last_mut() {
                group.lr = lr;
            }
            lr
        };
        self.previous_backbone_lr = Some(backbone_lr);
        if options.verbose {
            let rounded = |lr: f64| {
                let unit = 10f64.powi(options.rounding as i32);
                (lr * unit).round() / unit
            };
            trainer.print(&format!("Current lr: {}, Backbone lr: {}", rounded(head_lr), rounded(backbone_lr)));
        }
        Ok(())
    }
}
