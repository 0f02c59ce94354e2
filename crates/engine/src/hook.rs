//! [`Hook`]: every moment of a run at which a module or a callback is called.

use std::fmt;

macro_rules! hooks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $logging:ident,)*) => {
        /// A moment of a run at which a module or a callback is called.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Hook {
            $($(#[$doc])* $variant,)*
        }

        impl Hook {
            /// Lightning's name of it, such as `on_train_batch_end`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Hook::$variant => $name,)*
                }
            }

            /// The hook of that name.
            pub(crate) fn from_name(name: &str) -> Option<Hook> {
                match name {
                    $($name => Some(Hook::$variant),)*
                    _ => None,
                }
            }

            /// What may be logged there, and how by default.
            pub fn logging(self) -> Logging {
                match self {
                    $(Hook::$variant => Logging::$logging,)*
                }
            }
        }
    };
}

/// What may be logged in a hook, and how by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// Per step by default; either is allowed.
    Step,
    /// Per epoch by default; either is allowed.
    Epoch,
    /// Per epoch only.
    EpochOnly,
    /// Not at all.
    Forbidden,
}

hooks! {
    /// Hyper-parameters are asked for.
    Hparams = "hparams" => Forbidden,
    /// A module is switched between training and evaluation.
    Train = "train" => Forbidden,
    /// Before anything runs: the extra callbacks of the module.
    ConfigureCallbacks = "configure_callbacks" => Forbidden,
    /// Download and prepare data, once per node.
    PrepareData = "prepare_data" => Forbidden,
    /// Every process, at the start of an entry point.
    Setup = "setup" => Forbidden,
    /// Build the model late.
    ConfigureModel = "configure_model" => Forbidden,
    /// Optimizers and schedulers.
    ConfigureOptimizers = "configure_optimizers" => Forbidden,
    /// Every process, at the end of an entry point.
    Teardown = "teardown" => Forbidden,
    /// The training loader is asked for.
    TrainDataloader = "train_dataloader" => Forbidden,
    /// The validation loaders are asked for.
    ValDataloader = "val_dataloader" => Forbidden,
    /// The test loaders are asked for.
    TestDataloader = "test_dataloader" => Forbidden,
    /// The prediction loaders are asked for.
    PredictDataloader = "predict_dataloader" => Forbidden,
    /// Before a batch moves to the device.
    OnBeforeBatchTransfer = "on_before_batch_transfer" => Forbidden,
    /// A batch moves to the device.
    TransferBatchToDevice = "transfer_batch_to_device" => Forbidden,
    /// After a batch moved to the device.
    OnAfterBatchTransfer = "on_after_batch_transfer" => Forbidden,
    /// Fit begins.
    OnFitStart = "on_fit_start" => Forbidden,
    /// Fit ended.
    OnFitEnd = "on_fit_end" => Forbidden,
    /// The sanity check begins.
    OnSanityCheckStart = "on_sanity_check_start" => Forbidden,
    /// The sanity check ended.
    OnSanityCheckEnd = "on_sanity_check_end" => Forbidden,
    /// Training begins.
    OnTrainStart = "on_train_start" => EpochOnly,
    /// Training ended.
    OnTrainEnd = "on_train_end" => Forbidden,
    /// A training epoch begins.
    OnTrainEpochStart = "on_train_epoch_start" => EpochOnly,
    /// A training epoch ended.
    OnTrainEpochEnd = "on_train_epoch_end" => EpochOnly,
    /// A training batch begins.
    OnTrainBatchStart = "on_train_batch_start" => Step,
    /// A training batch ended.
    OnTrainBatchEnd = "on_train_batch_end" => Step,
    /// The loss of a batch.
    TrainingStep = "training_step" => Step,
    /// Gradients are about to be dropped.
    OnBeforeZeroGrad = "on_before_zero_grad" => Step,
    /// Gradients are dropped.
    OptimizerZeroGrad = "optimizer_zero_grad" => Step,
    /// Before the backward pass.
    OnBeforeBackward = "on_before_backward" => Step,
    /// The backward pass.
    Backward = "backward" => Step,
    /// After the backward pass.
    OnAfterBackward = "on_after_backward" => Step,
    /// The gradients are complete and not yet clipped.
    OnBeforeOptimizerStep = "on_before_optimizer_step" => Step,
    /// Clipping.
    ConfigureGradientClipping = "configure_gradient_clipping" => Step,
    /// The optimizer moves.
    OptimizerStep = "optimizer_step" => Step,
    /// A scheduler moves.
    LrSchedulerStep = "lr_scheduler_step" => Forbidden,
    /// Validation switches the module to evaluation.
    OnValidationModelEval = "on_validation_model_eval" => Forbidden,
    /// Validation switches the module back.
    OnValidationModelTrain = "on_validation_model_train" => Forbidden,
    /// Gradients are dropped before validation.
    OnValidationModelZeroGrad = "on_validation_model_zero_grad" => Forbidden,
    /// Validation begins.
    OnValidationStart = "on_validation_start" => EpochOnly,
    /// Validation ended.
    OnValidationEnd = "on_validation_end" => Forbidden,
    /// A walk through the validation loaders begins.
    OnValidationEpochStart = "on_validation_epoch_start" => EpochOnly,
    /// A walk through the validation loaders ended.
    OnValidationEpochEnd = "on_validation_epoch_end" => EpochOnly,
    /// A validation batch begins.
    OnValidationBatchStart = "on_validation_batch_start" => Epoch,
    /// A validation batch ended.
    OnValidationBatchEnd = "on_validation_batch_end" => Epoch,
    /// The metrics of a validation batch.
    ValidationStep = "validation_step" => Epoch,
    /// Test switches the module to evaluation.
    OnTestModelEval = "on_test_model_eval" => Forbidden,
    /// Test switches the module back.
    OnTestModelTrain = "on_test_model_train" => Forbidden,
    /// Test begins.
    OnTestStart = "on_test_start" => EpochOnly,
    /// Test ended.
    OnTestEnd = "on_test_end" => Forbidden,
    /// A walk through the test loaders begins.
    OnTestEpochStart = "on_test_epoch_start" => EpochOnly,
    /// A walk through the test loaders ended.
    OnTestEpochEnd = "on_test_epoch_end" => EpochOnly,
    /// A test batch begins.
    OnTestBatchStart = "on_test_batch_start" => Epoch,
    /// A test batch ended.
    OnTestBatchEnd = "on_test_batch_end" => Epoch,
    /// The metrics of a test batch.
    TestStep = "test_step" => Epoch,
    /// Prediction switches the module to evaluation.
    OnPredictModelEval = "on_predict_model_eval" => Forbidden,
    /// Prediction begins.
    OnPredictStart = "on_predict_start" => Forbidden,
    /// Prediction ended.
    OnPredictEnd = "on_predict_end" => Forbidden,
    /// A walk through the prediction loaders begins.
    OnPredictEpochStart = "on_predict_epoch_start" => Forbidden,
    /// A walk through the prediction loaders ended.
    OnPredictEpochEnd = "on_predict_epoch_end" => Forbidden,
    /// A prediction batch begins.
    OnPredictBatchStart = "on_predict_batch_start" => Forbidden,
    /// A prediction batch ended.
    OnPredictBatchEnd = "on_predict_batch_end" => Forbidden,
    /// The predictions of a batch.
    PredictStep = "predict_step" => Forbidden,
    /// A checkpoint is about to be written.
    OnSaveCheckpoint = "on_save_checkpoint" => Forbidden,
    /// A checkpoint was read.
    OnLoadCheckpoint = "on_load_checkpoint" => Forbidden,
    /// State is gathered for a checkpoint.
    StateDict = "state_dict" => Forbidden,
    /// State comes back from a checkpoint.
    LoadStateDict = "load_state_dict" => Forbidden,
    /// The tuner changes a hyper-parameter.
    SetHparam = "set_hparam" => Forbidden,
    /// An error ends the run.
    OnException = "on_exception" => Forbidden,
    /// A checkpoint could not be written.
    OnCheckpointFailed = "on_checkpoint_failed" => Forbidden,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
