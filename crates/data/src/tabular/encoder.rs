//! [`OrdinalEncoder`].

use std::collections::BTreeSet;

use fulgurite_torch::tch::Tensor;
use fulgurite_torch::{Dict, Value};

use super::features::not_one;
use crate::DataError;

/// What becomes of a category that the training part does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    /// It is an error, which names it.
    #[default]
    Error,
    /// It gets an index of its own, after those of all known categories.
    OwnIndex,
}

/// Categories as indices, in the order of their names, for an embedding or a loss; follows scikit-learn's `OrdinalEncoder`.
///
/// ```
/// use fulgurite_data::tabular::{OrdinalEncoder, Unknown};
/// use fulgurite_data::torch::tch::Tensor;
///
/// let colors = OrdinalEncoder::fit(["red", "blue", "red"]).unknown(Unknown::OwnIndex);
/// assert_eq!(colors.transform(["red", "blue", "mauve"])?, Tensor::from_slice(&[1i64, 0, 2]));
/// assert_eq!(colors.num_indices(), 3); // rows of an embedding
/// # Ok::<(), fulgurite_data::DataError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdinalEncoder {
    /// Sorted.
    categories: Vec<String>,
    unknown: Unknown,
}

const WHO: &str = "an OrdinalEncoder";
/// Names of categories in a message.
const SHOWN: usize = 16;

impl OrdinalEncoder {
    /// The different texts of the training part.
    pub fn fit<S: Into<String>>(train: impl IntoIterator<Item = S>) -> OrdinalEncoder {
        let categories: BTreeSet<String> = train.into_iter().map(Into::into).collect();
        OrdinalEncoder { categories: categories.into_iter().collect(), unknown: Unknown::Error }
    }

    /// Sets what becomes of other categories. Default: an error.
    pub fn unknown(mut self, unknown: Unknown) -> OrdinalEncoder {
        self.unknown = unknown;
        self
    }

    /// The index of each text, `i64` `[rows]`.
    ///
    /// # Errors
    ///
    /// Fails at a category that is not known, unless that has an index of its own.
    pub fn transform<S: AsRef<str>>(&self, texts: impl IntoIterator<Item = S>) -> Result<Tensor, DataError> {
        let index = |(row, text): (usize, S)| self.index(row, text.as_ref());
        let indices = texts.into_iter().enumerate().map(index).collect::<Result<Vec<i64>, _>>()?;
        Tensor::f_from_slice(&indices)
            .map_err(|error| DataError::Torch { doing: "making a tensor of categories".into(), source: error.into() })
    }

    fn index(&self, row: usize, text: &str) -> Result<i64, DataError> {
        match (self.categories.binary_search_by(|known| known.as_str().cmp(text)), self.unknown) {
            (Ok(index), _) => Ok(index as i64),
            (Err(_), Unknown::OwnIndex) => Ok(self.categories.len() as i64),
            (Err(_), Unknown::Error) => {
                let shown = &self.categories[..self.categories.len().min(SHOWN)];
                let others = match self.categories.len() - shown.len() {
                    0 => String::new(),
                    others => format!(" and {others} others"),
                };
                Err(DataError::Setting(format!(
                    "`{text}` in row {row} is none of the known categories ({}{others}); with `Unknown::OwnIndex` it gets an \
                     index of its own",
                    shown.join(", ")
                )))
            }
        }
    }

    /// The category of an index; `None` for that of unknown categories.
    pub fn category(&self, index: i64) -> Option<&str> {
        usize::try_from(index).ok().and_then(|index| self.categories.get(index)).map(String::as_str)
    }

    /// The known categories, by index.
    pub fn categories(&self) -> &[String] {
        &self.categories
    }

    /// How many different indices there can be, that of unknown categories included.
    pub fn num_indices(&self) -> usize {
        self.categories.len() + usize::from(self.unknown == Unknown::OwnIndex)
    }

    /// As plain data, for hyper-parameters or a checkpoint.
    pub fn to_dict(&self) -> Dict {
        let own_index = self.unknown == Unknown::OwnIndex;
        Dict::new().with("categories", self.categories.clone()).with("unknown_has_own_index", own_index)
    }

    /// From what [`to_dict`](OrdinalEncoder::to_dict) returned.
    ///
    /// # Errors
    ///
    /// Fails if it is anything else.
    pub fn from_dict(dict: &Dict) -> Result<OrdinalEncoder, DataError> {
        let list = dict.list("categories").map_err(|error| not_one(WHO, &error.to_string()))?;
        let own_index = dict.bool("unknown_has_own_index").map_err(|error| not_one(WHO, &error.to_string()))?;
        let texts: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
        let texts = texts.ok_or_else(|| not_one(WHO, "`categories` holds something that is no text"))?;
        if !texts.is_sorted_by(|a, b| a < b) {
            return Err(not_one(WHO, "`categories` are not sorted"));
        }
        let unknown = if own_index { Unknown::OwnIndex } else { Unknown::Error };
        Ok(OrdinalEncoder::fit(texts).unknown(unknown))
    }
}
