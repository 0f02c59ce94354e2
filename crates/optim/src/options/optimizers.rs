//! The optimizers as data.

use super::{classes, options};
use crate::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, IntoParamGroups, LBFGS, LineSearch, Lion, Muon,
    NAdam, Optimizers, ParamGroupConfig, RAdam, RMSprop, Rprop, SGD,
};

type Groups = Vec<ParamGroupConfig>;

classes! {
    /// An optimizer as data: its class and its options.
    ///
    /// ```
    /// use fulgurite_optim::{AdamWOptions, OptimizerOptions};
    /// use fulgurite_torch::tch::{Device, nn};
    ///
    /// let vs = nn::VarStore::new(Device::Cpu);
    /// let _layer = nn::linear(vs.root(), 4, 2, Default::default());
    /// let options = OptimizerOptions::AdamW(AdamWOptions::default().lr(3e-4));
    /// let (optimizers, _) = options.build(&vs).build()?;
    /// assert_eq!(optimizers[0].param_groups()[0].lr, 3e-4);
    /// # Ok::<(), fulgurite_optim::OptimError>(())
    /// ```
    OptimizerOptions: "AdamW" {
        Adadelta(AdadeltaOptions),
        Adafactor(AdafactorOptions),
        Adagrad(AdagradOptions),
        Adam(AdamOptions),
        AdamW(AdamWOptions),
        Adamax(AdamaxOptions),
        ASGD(AsgdOptions),
        LBFGS(LbfgsOptions),
        Lion(LionOptions),
        Muon(MuonOptions),
        NAdam(NAdamOptions),
        RAdam(RAdamOptions),
        RMSprop(RMSpropOptions),
        Rprop(RpropOptions),
        SGD(SgdOptions),
    }
}

impl OptimizerOptions {
    /// The optimizer for a `VarStore`, tensors, or groups. What is wrong with the options is reported when it is built.
    pub fn build(self, params: impl IntoParamGroups) -> Optimizers {
        let groups = params.into_param_groups();
        match self {
            OptimizerOptions::Adadelta(options) => options.build(groups),
            OptimizerOptions::Adafactor(options) => options.build(groups),
            OptimizerOptions::Adagrad(options) => options.build(groups),
            OptimizerOptions::Adam(options) => options.build(groups),
            OptimizerOptions::AdamW(options) => options.build(groups),
            OptimizerOptions::Adamax(options) => options.build(groups),
            OptimizerOptions::ASGD(options) => options.build(groups),
            OptimizerOptions::LBFGS(options) => options.build(groups),
            OptimizerOptions::Lion(options) => options.build(groups),
            OptimizerOptions::Muon(options) => options.build(groups),
            OptimizerOptions::NAdam(options) => options.build(groups),
            OptimizerOptions::RAdam(options) => options.build(groups),
            OptimizerOptions::RMSprop(options) => options.build(groups),
            OptimizerOptions::Rprop(options) => options.build(groups),
            OptimizerOptions::SGD(options) => options.build(groups),
        }
    }
}

options! {
    Adadelta as AdadeltaOptions(groups: Groups) -> Optimizers { Adadelta::new(groups).lr(lr).rho(rho).eps(eps).weight_decay(weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1.0,
        /// How slowly the averages move.
        rho: f64 = 0.9,
        /// Added under both roots.
        eps: f64 = 1e-6,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Adafactor as AdafactorOptions(groups: Groups) -> Optimizers { Adafactor::new(groups).lr(lr).beta2_decay(beta2_decay).eps(eps.0, eps.1).d(d).weight_decay(weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// The power of the step that says how much a new gradient counts.
        beta2_decay: f64 = -0.8,
        /// The smallest square to divide by (null: as small as the kind allows), and the smallest size of a parameter.
        eps: (Option<f64>, f64) = (None, 1e-3),
        /// The size above which updates are scaled down.
        d: f64 = 1.0,
        /// Weight decay, taken off the weights.
        weight_decay: f64 = 0.0,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Adagrad as AdagradOptions(groups: Groups) -> Optimizers { Adagrad::new(groups).lr(lr).lr_decay(lr_decay).weight_decay(weight_decay).initial_accumulator_value(initial_accumulator_value).eps(eps).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// How fast the learning rate falls with the steps.
        lr_decay: f64 = 0.0,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// What the sums of squares start from.
        initial_accumulator_value: f64 = 0.0,
        /// Added to the denominator.
        eps: f64 = 1e-10,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Adam as AdamOptions(groups: Groups) -> Optimizers { Adam::new(groups).lr(lr).betas(betas.0, betas.1).eps(eps).weight_decay(weight_decay).amsgrad(amsgrad).maximize(maximize).decoupled_weight_decay(decoupled_weight_decay).into() } {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// How slowly the averages of the gradient and of its square move.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Divide by the largest average of the squared gradient so far.
        amsgrad: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
        /// Take weight decay off the weights, which makes it AdamW.
        decoupled_weight_decay: bool = false,
    }
}

options! {
    AdamW as AdamWOptions(groups: Groups) -> Optimizers { AdamW::new(groups).lr(lr).betas(betas.0, betas.1).eps(eps).weight_decay(weight_decay).amsgrad(amsgrad).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// How slowly the averages of the gradient and of its square move.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// Weight decay, taken off the weights.
        weight_decay: f64 = 1e-2,
        /// Divide by the largest average of the squared gradient so far.
        amsgrad: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Adamax as AdamaxOptions(groups: Groups) -> Optimizers { Adamax::new(groups).lr(lr).betas(betas.0, betas.1).eps(eps).weight_decay(weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 2e-3,
        /// How slowly the average of the gradient moves, and how slowly its largest value is forgotten.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the gradient's absolute value.
        eps: f64 = 1e-8,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    ASGD as AsgdOptions(groups: Groups) -> Optimizers { ASGD::new(groups).lr(lr).lambd(lambd).alpha(alpha).t0(t0).weight_decay(weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// How fast the weights and the learning rate decay.
        lambd: f64 = 1e-4,
        /// The power of the learning rate's decay.
        alpha: f64 = 0.75,
        /// The step at which averaging begins.
        t0: f64 = 1e6,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    LBFGS as LbfgsOptions(groups: Groups) -> Optimizers { let built = LBFGS::new(groups).lr(lr).max_iter(max_iter).tolerance_grad(tolerance_grad).tolerance_change(tolerance_change).history_size(history_size).line_search_fn(line_search_fn.unwrap_or_default()); let built = match max_eval { Some(n) => built.max_eval(n), None => built }; built.into() } {
        /// The learning rate.
        lr: f64 = 1.0,
        /// The most iterations in a step.
        max_iter: u32 = 20,
        /// The most evaluations of the model in a step; a quarter more than iterations by default.
        max_eval: Option<u32> = None,
        /// A step ends when no gradient is larger than this.
        tolerance_grad: f64 = 1e-7,
        /// A step ends when neither the loss nor a parameter changes by more than this.
        tolerance_change: f64 = 1e-9,
        /// How many iterations it remembers.
        history_size: u32 = 100,
        /// How it finds the length of a step; null takes the learning rate.
        line_search_fn: Option<LineSearch> = None,
    }
}

options! {
    Lion as LionOptions(groups: Groups) -> Optimizers { Lion::new(groups).lr(lr).betas(betas.0, betas.1).weight_decay(weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-4,
        /// How much of momentum is in a step, and how slowly momentum moves.
        betas: (f64, f64) = (0.9, 0.99),
        /// Weight decay, taken off the weights.
        weight_decay: f64 = 0.0,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Muon as MuonOptions(groups: Groups) -> Optimizers { Muon::new(groups).lr(lr).weight_decay(weight_decay).momentum(momentum).nesterov(nesterov).ns_coefficients(ns_coefficients.0, ns_coefficients.1, ns_coefficients.2).eps(eps).ns_steps(ns_steps).adjust_lr_fn(adjust_lr_fn.unwrap_or_default()).into() } {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// Weight decay, taken off the weights.
        weight_decay: f64 = 0.1,
        /// Momentum.
        momentum: f64 = 0.95,
        /// Nesterov's momentum.
        nesterov: bool = true,
        /// The coefficients of the Newton-Schulz polynomial.
        ns_coefficients: (f64, f64, f64) = (3.4445, -4.775, 2.0315),
        /// The smallest norm to divide by.
        eps: f64 = 1e-7,
        /// The number of Newton-Schulz iterations.
        ns_steps: u32 = 5,
        /// How the learning rate is fitted to the shape of a matrix; null is `original`.
        adjust_lr_fn: Option<AdjustLr> = None,
    }
}

options! {
    NAdam as NAdamOptions(groups: Groups) -> Optimizers { NAdam::new(groups).lr(lr).betas(betas.0, betas.1).eps(eps).weight_decay(weight_decay).momentum_decay(momentum_decay).decoupled_weight_decay(decoupled_weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 2e-3,
        /// How slowly the averages of the gradient and of its square move.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// Weight decay, added to the gradient unless it is decoupled.
        weight_decay: f64 = 0.0,
        /// How fast momentum warms up.
        momentum_decay: f64 = 4e-3,
        /// Take weight decay off the weights, as AdamW does.
        decoupled_weight_decay: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    RAdam as RAdamOptions(groups: Groups) -> Optimizers { RAdam::new(groups).lr(lr).betas(betas.0, betas.1).eps(eps).weight_decay(weight_decay).decoupled_weight_decay(decoupled_weight_decay).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// How slowly the averages of the gradient and of its square move.
        betas: (f64, f64) = (0.9, 0.999),
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// Weight decay, added to the gradient unless it is decoupled.
        weight_decay: f64 = 0.0,
        /// Take weight decay off the weights, as AdamW does.
        decoupled_weight_decay: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    RMSprop as RMSpropOptions(groups: Groups) -> Optimizers { RMSprop::new(groups).lr(lr).alpha(alpha).eps(eps).weight_decay(weight_decay).momentum(momentum).centered(centered).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// How slowly the average square of the gradient moves.
        alpha: f64 = 0.99,
        /// Added to the denominator.
        eps: f64 = 1e-8,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Momentum.
        momentum: f64 = 0.0,
        /// Divide by the standard deviation of the gradient instead.
        centered: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    Rprop as RpropOptions(groups: Groups) -> Optimizers { Rprop::new(groups).lr(lr).etas(etas.0, etas.1).step_sizes(step_sizes.0, step_sizes.1).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-2,
        /// The factors of a step that turns around, and of one that goes on.
        etas: (f64, f64) = (0.5, 1.2),
        /// The smallest and the largest step.
        step_sizes: (f64, f64) = (1e-6, 50.0),
        /// Go up the gradient.
        maximize: bool = false,
    }
}

options! {
    SGD as SgdOptions(groups: Groups) -> Optimizers { SGD::new(groups).lr(lr).momentum(momentum).dampening(dampening).weight_decay(weight_decay).nesterov(nesterov).maximize(maximize).into() } {
        /// The learning rate.
        lr: f64 = 1e-3,
        /// Momentum; 0.9 is usual.
        momentum: f64 = 0.0,
        /// How much of each gradient the momentum leaves out.
        dampening: f64 = 0.0,
        /// Weight decay, added to the gradient.
        weight_decay: f64 = 0.0,
        /// Nesterov's momentum.
        nesterov: bool = false,
        /// Go up the gradient.
        maximize: bool = false,
    }
}
