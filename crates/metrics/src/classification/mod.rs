//! Metrics of predicted classes and labels.

mod area;
mod confusion_matrix;
mod curve;
mod scores;
mod settings;
mod stat_scores;

pub use area::{
    Auroc, BinaryAUROC, BinaryAveragePrecision, MulticlassAUROC, MulticlassAveragePrecision, MultilabelAUROC,
    MultilabelAveragePrecision, PrecisionArea,
};
pub use confusion_matrix::{
    BinaryConfusionMatrix, ConfusionMatrix, MulticlassConfusionMatrix, MultilabelConfusionMatrix, Normalize,
};
pub use curve::{Area, Curve, Thresholds};
pub use scores::{
    Accuracy, BinaryAccuracy, BinaryF1Score, BinaryFBetaScore, BinaryPrecision, BinaryRecall, F1, FBeta,
    MulticlassAccuracy, MulticlassF1Score, MulticlassFBetaScore, MulticlassPrecision, MulticlassRecall,
    MultilabelAccuracy, MultilabelF1Score, MultilabelFBetaScore, MultilabelPrecision, MultilabelRecall, Precision,
    Recall,
};
pub use settings::{Average, Averaged, Binary, Multiclass, Multilabel, Task, TaskKind, Thresholded};
pub use stat_scores::{Counts, Score, StatScores, ZeroDivision};
