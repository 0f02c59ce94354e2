//! Answers that need neither a run nor libtorch.

use fulgurite_engine::{LightningDataModule, LightningModule};

use super::args::is_answered_early;
use super::layout::Layout;
use super::registry::Registry;
use super::schema::options_schema;
use super::{Cli, FromConfig};

impl<M, D> Cli<M, D>
where
    M: LightningModule + FromConfig,
    D: LightningDataModule<Batch = M::Batch> + FromConfig,
{
    /// The requested text, if the arguments request only text.
    #[doc(hidden)]
    pub fn answer(mut self) -> Option<String> {
        let args = self.args.take()?;
        if !is_answered_early(&args) {
            return None;
        }
        self.args = Some(args);
        let registry = std::mem::replace(&mut self.registry, Registry::empty());
        let layout = Layout::new(registry, options_schema::<M::Config>(), options_schema::<D::Config>());
        self.printed(&layout)
    }
}
