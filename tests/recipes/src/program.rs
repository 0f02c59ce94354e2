//! The command line: a line for each custom class.

use fulgurite::cli::Cli;

use crate::callback::Announce;
use crate::logger::TextLogger;
use crate::model::{Line, Points};
use crate::optimizer::SignSgdOptions;
use crate::scheduler::InverseSqrtOptions;
use crate::strategy::PoliteStrategy;

pub fn cli() -> Cli<Line, Points> {
    Cli::new("recipes")
        .callback::<Announce>()
        .logger::<TextLogger>()
        .optimizer::<SignSgdOptions>()
        .lr_scheduler::<InverseSqrtOptions>()
        .strategy("polite", PoliteStrategy::build)
}
