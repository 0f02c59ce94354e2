//! The losses and distances of a case.

use fulgurite_nn::{self as nn, KlReduction, NnError, Reduction};
use fulgurite_torch::tch::Tensor;

use super::case::{Case, Layer, given, with};

/// A loss of the inputs at the given places.
macro_rules! loss {
    ($loss:expr, $($at:literal),+) => {{
        let loss = $loss;
        Layer { repr: loss.to_string(), forward: Box::new(move |x| Ok(vec![loss.try_forward($(given(&x[$at])),+)?])) }
    }};
}

pub(super) fn build(case: &Case) -> Option<Result<Layer, NnError>> {
    type Weight = Option<Tensor>;
    macro_rules! plain {
        (2, $loss:expr $(, $name:ident: $type:ty)*) => {
            loss!(with!(case, $loss, reduction: Reduction $(, $name: $type)*), 0, 1)
        };
        (3, $loss:expr $(, $name:ident: $type:ty)*) => {
            loss!(with!(case, $loss, reduction: Reduction $(, $name: $type)*), 0, 1, 2)
        };
    }
    let loss = match case.name.as_str() {
        "L1Loss" => plain!(2, nn::l1_loss()),
        "MSELoss" => plain!(2, nn::mse_loss()),
        "SmoothL1Loss" => plain!(2, nn::smooth_l1_loss(), beta: f64),
        "HuberLoss" => plain!(2, nn::huber_loss(), delta: f64),
        "CrossEntropyLoss" => {
            plain!(2, nn::cross_entropy_loss(), weight: Weight, ignore_index: i64, label_smoothing: f64)
        }
        "NLLLoss" => plain!(2, nn::nll_loss(), weight: Weight, ignore_index: i64),
        "BCELoss" => plain!(2, nn::bce_loss(), weight: Weight),
        "BCEWithLogitsLoss" => plain!(2, nn::bce_with_logits_loss(), weight: Weight, pos_weight: Weight),
        "KLDivLoss" => loss!(with!(case, nn::kl_div_loss(), reduction: KlReduction, log_target: bool), 0, 1),
        "SoftMarginLoss" => plain!(2, nn::soft_margin_loss()),
        "HingeEmbeddingLoss" => plain!(2, nn::hinge_embedding_loss(), margin: f64),
        "MultiLabelSoftMarginLoss" => plain!(2, nn::multi_label_soft_margin_loss(), weight: Weight),
        "MultiLabelMarginLoss" => plain!(2, nn::multi_label_margin_loss()),
        "MultiMarginLoss" => plain!(2, nn::multi_margin_loss(), p: i64, margin: f64, weight: Weight),
        "PoissonNLLLoss" => plain!(2, nn::poisson_nll_loss(), log_input: bool, full: bool, eps: f64),
        "GaussianNLLLoss" => plain!(3, nn::gaussian_nll_loss(), full: bool, eps: f64),
        "CosineEmbeddingLoss" => plain!(3, nn::cosine_embedding_loss(), margin: f64),
        "MarginRankingLoss" => plain!(3, nn::margin_ranking_loss(), margin: f64),
        "TripletMarginLoss" => plain!(3, nn::triplet_margin_loss(), margin: f64, p: f64, eps: f64, swap: bool),
        "CosineSimilarity" => loss!(with!(case, nn::cosine_similarity(), dim: i64, eps: f64), 0, 1),
        "PairwiseDistance" => loss!(with!(case, nn::pairwise_distance(), p: f64, eps: f64, keepdim: bool), 0, 1),
        "normalize" => {
            let (p, dim) = (case.arg(0), case.arg(1));
            Layer {
                repr: "normalize".into(),
                forward: Box::new(move |x| Ok(vec![nn::normalize(given(&x[0]), p, dim)])),
            }
        }
        "CTCLoss" => {
            let loss = with!(case, nn::ctc_loss(), reduction: Reduction, blank: i64, zero_infinity: bool);
            loss!(loss, 0, 1, 2, 3)
        }
        _ => return None,
    };
    Some(Ok(loss))
}
