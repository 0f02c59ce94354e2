//! The program: `cargo run -- fit` trains the model, `cargo run -- fit --help` lists what can be set.

mod data;
mod model;

use fulgurite::cli::Cli;

use crate::data::DigitData;
use crate::model::Classifier;

fn cli() -> Cli<Classifier, DigitData> {
    Cli::new(env!("CARGO_PKG_NAME"))
        .about("A network that reads handwritten digits.")
        .defaults(include_str!("defaults.yaml"))
}

fulgurite::cli_main!(cli);

#[cfg(test)]
mod tests {
    use fulgurite::cli::FromConfig;
    use fulgurite::prelude::*;

    use super::{Classifier, DigitData};

    #[test]
    fn the_model_learns() -> Result<()> {
        seed_everything(0)?;
        let mut model = Classifier::from_config(Default::default())?;
        let mut data = DigitData::from_config(Default::default())?;
        let mut trainer = Trainer::builder()
            .accelerator("cpu")
            .max_epochs(5)
            .no_logger()
            .enable_checkpointing(false)
            .build()?;
        trainer.fit(&mut model, &mut data)?.completed()?;
        let results = trainer.validate(&mut model, &mut data)?;
        let accuracy = results[0]["val_acc"];
        assert!(accuracy > 0.9, "the accuracy is {accuracy}");
        Ok(())
    }
}
