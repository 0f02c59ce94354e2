//! [`Hook`]: the hooks of modules and callbacks.

use std::fmt;

macro_rules! hooks {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $logging:ident,)*) => {
        /// A hook: a point of a run at which the module or callbacks are called.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Hook {
            $($(#[$doc])* $variant,)*
        }

        impl Hook {
            /// Lightning's name of the hook, such as `on_train_batch_end`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Hook::$variant => $name,)*
                }
            }

            /// The hook with the given name.
            pub(crate) fn from_name(name: &str) -> Option<Hook> {
                match name {
                    $($name => Some(Hook::$variant),)*
                    _ => None,
                }
            }

            /// Which logging options are allowed in the hook, and their defaults.
            pub fn logging(self) -> Logging {
                match self {
                    $(Hook::$variant => Logging::$logging,)*
                }
            }
        }
    };
}

/// The logging options allowed in a hook, and their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// Per step by default; either is allowed.
    Step,
    /// Per epoch by default; either is allowed.
    Epoch,
    /// Per epoch only.
    EpochOnly,
    /// Logging is not allowed.
    Forbidden,
}

hooks! {
    /// Hyper-parameters are requested.
    Hparams = "hparams" => Forbidden,
    /// A module is switched between training and evaluation.
    Train = "train" => Forbidden,
    /// Before anything runs: the extra callbacks of the module.
    ConfigureCallbacks = "configure_callbacks" => Forbidden,
    /// Download and prepare data, once per node.
    PrepareData = "prepare_data" => Forbidden,
    /// In every process, at the start of an entry point.
    Setup = "setup" => Forbidden,
    /// Creation of the model's layers.
    ConfigureModel = "configure_model" => Forbidden,
    /// Optimizers and schedulers.
    ConfigureOptimizers = "configure_optimizers" => Forbidden,
    /// In every process, at the end of an entry point.
    Teardown = "teardown" => Forbidden,
    /// The training loader is requested.
    TrainDataloader = "train_dataloader" => Forbidden,
    /// The validation loaders are requested.
    ValDataloader = "val_dataloader" => Forbidden,
    /// The test loaders are requested.
    TestDataloader = "test_dataloader" => Forbidden,
    /// The prediction loaders are requested.
    PredictDataloader = "predict_dataloader" => Forbidden,
    /// Before a batch moves to the device.
    OnBeforeBatchTransfer = "on_before_batch_transfer" => Forbidden,
    /// A batch moves to the device.
    TransferBatchToDevice = "transfer_batch_to_device" => Forbidden,
    /// After a batch moved to the device.
    OnAfterBatchTransfer = "on_after_batch_transfer" => Forbidden,
    /// Called when fit begins.
    OnFitStart = "on_fit_start" => Forbidden,
    /// Called when fit ends.
    OnFitEnd = "on_fit_end" => Forbidden,
    /// Called when the sanity check begins.
    OnSanityCheckStart = "on_sanity_check_start" => Forbidden,
    /// Called when the sanity check ends.
    OnSanityCheckEnd = "on_sanity_check_end" => Forbidden,
    /// Called when training begins.
    OnTrainStart = "on_train_start" => EpochOnly,
    /// Called when training ends.
    OnTrainEnd = "on_train_end" => Forbidden,
    /// Called at the start of a training epoch.
    OnTrainEpochStart = "on_train_epoch_start" => EpochOnly,
    /// Called at the end of a training epoch.
    OnTrainEpochEnd = "on_train_epoch_end" => EpochOnly,
    /// Start of a training batch.
    OnTrainBatchStart = "on_train_batch_start" => Step,
    /// End of a training batch.
    OnTrainBatchEnd = "on_train_batch_end" => Step,
    /// The loss of a batch.
    TrainingStep = "training_step" => Step,
    /// Before gradients are zeroed.
    OnBeforeZeroGrad = "on_before_zero_grad" => Step,
    /// Gradients are zeroed.
    OptimizerZeroGrad = "optimizer_zero_grad" => Step,
    /// Before the backward pass.
    OnBeforeBackward = "on_before_backward" => Step,
    /// The backward pass.
    Backward = "backward" => Step,
    /// Called after the backward pass.
    OnAfterBackward = "on_after_backward" => Step,
    /// Before the optimizer step; gradients are not clipped yet.
    OnBeforeOptimizerStep = "on_before_optimizer_step" => Step,
    /// Gradient clipping.
    ConfigureGradientClipping = "configure_gradient_clipping" => Step,
    /// The optimizer step.
    OptimizerStep = "optimizer_step" => Step,
    /// The scheduler step.
    LrSchedulerStep = "lr_scheduler_step" => Forbidden,
    /// Switches the module to evaluation mode for validation.
    OnValidationModelEval = "on_validation_model_eval" => Forbidden,
    /// Switches the module back to training mode after validation.
    OnValidationModelTrain = "on_validation_model_train" => Forbidden,
    /// Gradients are zeroed before validation.
    OnValidationModelZeroGrad = "on_validation_model_zero_grad" => Forbidden,
    /// Called when validation begins.
    OnValidationStart = "on_validation_start" => EpochOnly,
    /// Called when validation ends.
    OnValidationEnd = "on_validation_end" => Forbidden,
    /// Start of the validation epoch.
    OnValidationEpochStart = "on_validation_epoch_start" => EpochOnly,
    /// End of the validation epoch.
    OnValidationEpochEnd = "on_validation_epoch_end" => EpochOnly,
    /// Start of a validation batch.
    OnValidationBatchStart = "on_validation_batch_start" => Epoch,
    /// End of a validation batch.
    OnValidationBatchEnd = "on_validation_batch_end" => Epoch,
    /// The metrics of a validation batch.
    ValidationStep = "validation_step" => Epoch,
    /// Switches the module to evaluation mode for test.
    OnTestModelEval = "on_test_model_eval" => Forbidden,
    /// Switches the module back to training mode after test.
    OnTestModelTrain = "on_test_model_train" => Forbidden,
    /// Called when test begins.
    OnTestStart = "on_test_start" => EpochOnly,
    /// Called when test ends.
    OnTestEnd = "on_test_end" => Forbidden,
    /// Start of the test epoch.
    OnTestEpochStart = "on_test_epoch_start" => EpochOnly,
    /// End of the test epoch.
    OnTestEpochEnd = "on_test_epoch_end" => EpochOnly,
    /// Start of a test batch.
    OnTestBatchStart = "on_test_batch_start" => Epoch,
    /// End of a test batch.
    OnTestBatchEnd = "on_test_batch_end" => Epoch,
    /// The metrics of a test batch.
    TestStep = "test_step" => Epoch,
    /// Switches the module to evaluation mode for prediction.
    OnPredictModelEval = "on_predict_model_eval" => Forbidden,
    /// Called when prediction begins.
    OnPredictStart = "on_predict_start" => Forbidden,
    /// Called when prediction ends.
    OnPredictEnd = "on_predict_end" => Forbidden,
    /// Start of the prediction epoch.
    OnPredictEpochStart = "on_predict_epoch_start" => Forbidden,
    /// End of the prediction epoch.
    OnPredictEpochEnd = "on_predict_epoch_end" => Forbidden,
    /// Start of a prediction batch.
    OnPredictBatchStart = "on_predict_batch_start" => Forbidden,
    /// End of a prediction batch.
    OnPredictBatchEnd = "on_predict_batch_end" => Forbidden,
    /// The predictions of a batch.
    PredictStep = "predict_step" => Forbidden,
    /// A checkpoint is about to be written.
    OnSaveCheckpoint = "on_save_checkpoint" => Forbidden,
    /// Called after a checkpoint was read.
    OnLoadCheckpoint = "on_load_checkpoint" => Forbidden,
    /// The state is collected for a checkpoint.
    StateDict = "state_dict" => Forbidden,
    /// The state is restored from a checkpoint.
    LoadStateDict = "load_state_dict" => Forbidden,
    /// The tuner changes a hyper-parameter.
    SetHparam = "set_hparam" => Forbidden,
    /// Called when an error ends the run.
    OnException = "on_exception" => Forbidden,
    /// A checkpoint is complete on the disk.
    OnCheckpointWritten = "on_checkpoint_written" => Forbidden,
    /// A checkpoint could not be written.
    OnCheckpointFailed = "on_checkpoint_failed" => Forbidden,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
