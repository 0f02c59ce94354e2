//! [`Stage`] and [`TrainerFn`]: the current stage of a run, and its entry point.

use crate::config::{Limit, TrainerConfig};
use crate::hook::Hook;

/// The current stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Training.
    Train,
    /// A few validation batches before training.
    SanityCheck,
    /// Validation.
    Validate,
    /// Test.
    Test,
    /// Prediction.
    Predict,
}

/// The entry point of a run, passed to `setup` and `teardown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrainerFn {
    /// `fit`.
    Fit,
    /// `validate`.
    Validate,
    /// `test`.
    Test,
    /// `predict`.
    Predict,
}

/// The description of a stage for the loops.
pub(crate) struct StageInfo {
    /// The name of the stage in messages.
    pub noun: &'static str,
    /// The method of the module that is called with each batch.
    pub step: Hook,
    /// The method that returns its loaders.
    pub loader: Hook,
    /// The argument that limits its batches.
    pub limit_name: &'static str,
    /// The profiler's name for fetching a batch.
    pub fetch_action: &'static str,
}

const TRAINING: StageInfo = StageInfo {
    noun: "training",
    step: Hook::TrainingStep,
    loader: Hook::TrainDataloader,
    limit_name: "limit_train_batches",
    fetch_action: "[_TrainingEpochLoop].train_dataloader_next",
};
const VALIDATION: StageInfo = StageInfo {
    noun: "validation",
    step: Hook::ValidationStep,
    loader: Hook::ValDataloader,
    limit_name: "limit_val_batches",
    fetch_action: "[_EvaluationLoop].val_next",
};
const TEST: StageInfo = StageInfo {
    noun: "test",
    step: Hook::TestStep,
    loader: Hook::TestDataloader,
    limit_name: "limit_test_batches",
    fetch_action: "[_EvaluationLoop].test_next",
};
const PREDICTION: StageInfo = StageInfo {
    noun: "prediction",
    step: Hook::PredictStep,
    loader: Hook::PredictDataloader,
    limit_name: "limit_predict_batches",
    fetch_action: "[_PredictionLoop].predict_next",
};

impl Stage {
    /// The description of this stage for the loops.
    pub(crate) fn info(self) -> &'static StageInfo {
        match self {
            Stage::Train => &TRAINING,
            Stage::SanityCheck | Stage::Validate => &VALIDATION,
            Stage::Test => &TEST,
            Stage::Predict => &PREDICTION,
        }
    }

    /// Its limit among the trainer's arguments.
    pub(crate) fn limit(self, config: &TrainerConfig) -> Limit {
        match self {
            Stage::Train => config.limit_train_batches,
            Stage::SanityCheck | Stage::Validate => config.limit_val_batches,
            Stage::Test => config.limit_test_batches,
            Stage::Predict => config.limit_predict_batches,
        }
    }

    /// Sets its limit among the trainer's arguments.
    pub(crate) fn set_limit(self, config: &mut TrainerConfig, limit: Limit) {
        *match self {
            Stage::Train => &mut config.limit_train_batches,
            Stage::SanityCheck | Stage::Validate => &mut config.limit_val_batches,
            Stage::Test => &mut config.limit_test_batches,
            Stage::Predict => &mut config.limit_predict_batches,
        } = limit;
    }

    /// Whether `overfit_batches` applies to its loaders.
    pub(crate) fn may_overfit(self) -> bool {
        matches!(self, Stage::Train | Stage::SanityCheck | Stage::Validate)
    }
}

impl TrainerFn {
    /// Its first stage.
    pub(crate) fn stage(self) -> Stage {
        match self {
            TrainerFn::Fit => Stage::Train,
            TrainerFn::Validate => Stage::Validate,
            TrainerFn::Test => Stage::Test,
            TrainerFn::Predict => Stage::Predict,
        }
    }

    /// The name of its method of `Trainer`.
    pub fn name(self) -> &'static str {
        match self {
            TrainerFn::Fit => "fit",
            TrainerFn::Validate => "validate",
            TrainerFn::Test => "test",
            TrainerFn::Predict => "predict",
        }
    }
}
