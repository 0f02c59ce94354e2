//! The schedulers as data.

use super::{classes, options};
use crate::{
    AnnealStrategy, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR, CyclicMode, ExponentialLR,
    LinearLR, LinearWarmupCosineAnnealingLR, LrScheduler, MultiStepLR, OneCycleLR, OptimError, PerGroup, PlateauMode,
    PolynomialLR, ReduceLROnPlateau, StepLR, ThresholdMode,
};

type Built = Result<Box<dyn LrScheduler>, OptimError>;

classes! {
    /// A learning-rate scheduler as data: its class and its options.
    ///
    /// Schedulers that hold functions or other schedulers (`LambdaLR`, `SequentialLR`, …) are made in code.
    ///
    /// ```
    /// use fulgurite_optim::{LrSchedulerConfig, SchedulerOptions, StepLROptions};
    ///
    /// let options = SchedulerOptions::StepLR(StepLROptions::default().step_size(30u32));
    /// let scheduler = LrSchedulerConfig::from(options.build(None)?);
    /// # Ok::<(), fulgurite_optim::OptimError>(())
    /// ```
    SchedulerOptions: "StepLR" {
        StepLR(StepLROptions),
        MultiStepLR(MultiStepLROptions),
        ConstantLR(ConstantLROptions),
        LinearLR(LinearLROptions),
        ExponentialLR(ExponentialLROptions),
        PolynomialLR(PolynomialLROptions),
        CosineAnnealingLR(CosineAnnealingLROptions),
        CosineAnnealingWarmRestarts(CosineAnnealingWarmRestartsOptions),
        LinearWarmupCosineAnnealingLR(LinearWarmupCosineAnnealingLROptions),
        CyclicLR(CyclicLROptions),
        OneCycleLR(OneCycleLROptions),
        ReduceLROnPlateau(ReduceLROnPlateauOptions),
    }
}

impl SchedulerOptions {
    /// The scheduler. `run` is the length of the run, in what it is stepped by, for those that want to know.
    ///
    /// # Errors
    ///
    /// An option without a default was left out.
    pub fn build(self, run: Option<u32>) -> Built {
        match self {
            SchedulerOptions::StepLR(options) => options.build(run),
            SchedulerOptions::MultiStepLR(options) => options.build(run),
            SchedulerOptions::ConstantLR(options) => options.build(run),
            SchedulerOptions::LinearLR(options) => options.build(run),
            SchedulerOptions::ExponentialLR(options) => options.build(run),
            SchedulerOptions::PolynomialLR(options) => options.build(run),
            SchedulerOptions::CosineAnnealingLR(options) => options.build(run),
            SchedulerOptions::CosineAnnealingWarmRestarts(options) => options.build(run),
            SchedulerOptions::LinearWarmupCosineAnnealingLR(options) => options.build(run),
            SchedulerOptions::CyclicLR(options) => options.build(run),
            SchedulerOptions::OneCycleLR(options) => options.build(run),
            SchedulerOptions::ReduceLROnPlateau(options) => options.build(run),
        }
    }
}

options! {
    StepLR as StepLROptions(_run: Option<u32>) -> Built { Ok(Box::new(StepLR::new(step_size.ok_or(OptimError::MissingOption { owner: "StepLR", option: "step_size" })?).gamma(gamma))) } {
        /// Epochs (or steps) between two falls; needed.
        step_size: Option<u32> = None,
        /// The factor.
        gamma: f64 = 0.1,
    }
}

options! {
    MultiStepLR as MultiStepLROptions(_run: Option<u32>) -> Built { Ok(Box::new(MultiStepLR::new(milestones.ok_or(OptimError::MissingOption { owner: "MultiStepLR", option: "milestones" })?).gamma(gamma))) } {
        /// The epochs (or steps) at which it falls; needed.
        milestones: Option<Vec<u32>> = None,
        /// The factor.
        gamma: f64 = 0.1,
    }
}

options! {
    ConstantLR as ConstantLROptions(_run: Option<u32>) -> Built { Ok(Box::new(ConstantLR::new().factor(factor).total_iters(total_iters))) } {
        /// The factor.
        factor: f64 = 1.0 / 3.0,
        /// How long.
        total_iters: u32 = 5,
    }
}

options! {
    LinearLR as LinearLROptions(_run: Option<u32>) -> Built { Ok(Box::new(LinearLR::new().start_factor(start_factor).end_factor(end_factor).total_iters(total_iters))) } {
        /// The first factor.
        start_factor: f64 = 1.0 / 3.0,
        /// The last factor.
        end_factor: f64 = 1.0,
        /// How long.
        total_iters: u32 = 5,
    }
}

options! {
    ExponentialLR as ExponentialLROptions(_run: Option<u32>) -> Built { Ok(Box::new(ExponentialLR::new(gamma.ok_or(OptimError::MissingOption { owner: "ExponentialLR", option: "gamma" })?))) } {
        /// The factor of each epoch (or step); needed.
        gamma: Option<f64> = None,
    }
}

options! {
    PolynomialLR as PolynomialLROptions(_run: Option<u32>) -> Built { Ok(Box::new(PolynomialLR::new(total_iters).power(power))) } {
        /// How long it falls.
        total_iters: u32 = 5,
        /// The power; 1 is a straight line.
        power: f64 = 1.0,
    }
}

options! {
    CosineAnnealingLR as CosineAnnealingLROptions(_run: Option<u32>) -> Built { Ok(Box::new(CosineAnnealingLR::new(t_max.ok_or(OptimError::MissingOption { owner: "CosineAnnealingLR", option: "T_max" })?).eta_min(eta_min))) } {
        /// How long it falls; needed.
        #[serde(rename = "T_max")]
        t_max: Option<u32> = None,
        /// The lowest learning rate.
        eta_min: f64 = 0.0,
    }
}

options! {
    CosineAnnealingWarmRestarts as CosineAnnealingWarmRestartsOptions(_run: Option<u32>) -> Built { Ok(Box::new(CosineAnnealingWarmRestarts::new(t_0.ok_or(OptimError::MissingOption { owner: "CosineAnnealingWarmRestarts", option: "T_0" })?).t_mult(t_mult).eta_min(eta_min))) } {
        /// How long it falls the first time; needed.
        #[serde(rename = "T_0")]
        t_0: Option<u32> = None,
        /// How many times as long each fall takes as the one before.
        #[serde(rename = "T_mult")]
        t_mult: u32 = 1,
        /// The lowest learning rate.
        eta_min: f64 = 0.0,
    }
}

options! {
    LinearWarmupCosineAnnealingLR as LinearWarmupCosineAnnealingLROptions(run: Option<u32>) -> Built { Ok(Box::new(LinearWarmupCosineAnnealingLR::new(warmup_epochs.ok_or(OptimError::MissingOption { owner: "LinearWarmupCosineAnnealingLR", option: "warmup_epochs" })?, max_epochs.or(run).ok_or(OptimError::MissingOption { owner: "LinearWarmupCosineAnnealingLR", option: "max_epochs" })?).warmup_start_lr(warmup_start_lr).eta_min(eta_min))) } {
        /// How long it rises; needed.
        warmup_epochs: Option<u32> = None,
        /// How long it rises and falls; the length of the run by default, when stepped by steps.
        max_epochs: Option<u32> = None,
        /// The first learning rate.
        warmup_start_lr: f64 = 0.0,
        /// The last learning rate.
        eta_min: f64 = 0.0,
    }
}

options! {
    CyclicLR as CyclicLROptions(_run: Option<u32>) -> Built { Ok(Box::new({ let cyclic = CyclicLR::new(base_lr.ok_or(OptimError::MissingOption { owner: "CyclicLR", option: "base_lr" })?, max_lr.ok_or(OptimError::MissingOption { owner: "CyclicLR", option: "max_lr" })?).step_size_up(step_size_up).mode(mode).gamma(gamma).cycle_momentum(cycle_momentum).base_momentum(base_momentum).max_momentum(max_momentum); match step_size_down { Some(steps) => cyclic.step_size_down(steps), None => cyclic } })) } {
        /// The lowest learning rate; needed.
        base_lr: Option<PerGroup> = None,
        /// The highest learning rate; needed.
        max_lr: Option<PerGroup> = None,
        /// Steps up.
        step_size_up: u32 = 2000,
        /// Steps down; as many as up by default.
        step_size_down: Option<u32> = None,
        /// How the peaks change.
        mode: CyclicMode = CyclicMode::Triangular,
        /// The factor of `exp_range`.
        gamma: f64 = 1.0,
        /// Whether momentum (or the first of the betas) goes the other way.
        cycle_momentum: bool = true,
        /// Momentum at the highest learning rate.
        base_momentum: PerGroup = 0.8.into(),
        /// Momentum at the lowest learning rate.
        max_momentum: PerGroup = 0.9.into(),
    }
}

options! {
    OneCycleLR as OneCycleLROptions(run: Option<u32>) -> Built { Ok(Box::new(OneCycleLR::new(max_lr.ok_or(OptimError::MissingOption { owner: "OneCycleLR", option: "max_lr" })?, total_steps.or(run).ok_or(OptimError::MissingOption { owner: "OneCycleLR", option: "total_steps" })?).pct_start(pct_start).anneal_strategy(anneal_strategy).cycle_momentum(cycle_momentum).base_momentum(base_momentum).max_momentum(max_momentum).div_factor(div_factor).final_div_factor(final_div_factor).three_phase(three_phase))) } {
        /// The highest learning rate; needed.
        max_lr: Option<PerGroup> = None,
        /// Optimizer steps of the run; counted by default, when stepped by steps.
        total_steps: Option<u32> = None,
        /// The part of the steps, between 0 and 1, that goes up.
        pct_start: f64 = 0.3,
        /// The curve.
        anneal_strategy: AnnealStrategy = AnnealStrategy::Cos,
        /// Whether momentum (or the first of the betas) goes the other way.
        cycle_momentum: bool = true,
        /// Momentum at the highest learning rate.
        base_momentum: PerGroup = 0.85.into(),
        /// Momentum at the lowest learning rate.
        max_momentum: PerGroup = 0.95.into(),
        /// `max_lr` is this many times the first learning rate.
        div_factor: f64 = 25.0,
        /// The first learning rate is this many times the last one.
        final_div_factor: f64 = 1e4,
        /// Come down as fast as it went up, and spend the rest going to the last learning rate.
        three_phase: bool = false,
    }
}

options! {
    ReduceLROnPlateau as ReduceLROnPlateauOptions(_run: Option<u32>) -> Built { Ok(Box::new(ReduceLROnPlateau::new().mode(mode).factor(factor).patience(patience).threshold(threshold).threshold_mode(threshold_mode).cooldown(cooldown).min_lr(min_lr).eps(eps))) } {
        /// Whether low or high is better.
        mode: PlateauMode = PlateauMode::Min,
        /// The factor.
        factor: f64 = 0.1,
        /// How many epochs without improvement are tolerated.
        patience: u32 = 10,
        /// By how much a value must be better than the best one.
        threshold: f64 = 1e-4,
        /// What the threshold is measured in.
        threshold_mode: ThresholdMode = ThresholdMode::Rel,
        /// How many epochs after a change do not count.
        cooldown: u32 = 0,
        /// The lowest learning rate.
        min_lr: PerGroup = 0.0.into(),
        /// Changes smaller than this are not made.
        eps: f64 = 1e-8,
    }
}
