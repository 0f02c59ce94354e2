//! [`LogValues`]: what `log_many` takes.

use fulgurite_metrics::LogValue;

/// Names and values for [`Step::log_many`](crate::Step::log_many): pairs of one type in anything that can be iterated over, or
/// a tuple of two to twelve pairs, whose values may be numbers, tensors and metrics mixed.
///
/// `K` is inferred; it distinguishes the two.
pub trait LogValues<'a, K> {
    /// The pairs, in order.
    fn into_log_values(self) -> Vec<(&'a str, LogValue<'a>)>;
}

/// Marks [`LogValues`] whose values are of one type.
#[derive(Debug)]
pub enum OfOneType {}

/// Marks [`LogValues`] whose values are of several types.
#[derive(Debug)]
pub enum Mixed {}

impl<'a, V: Into<LogValue<'a>>, I: IntoIterator<Item = (&'a str, V)>> LogValues<'a, OfOneType> for I {
    fn into_log_values(self) -> Vec<(&'a str, LogValue<'a>)> {
        self.into_iter().map(|(name, value)| (name, value.into())).collect()
    }
}

macro_rules! tuples {
    ($first:ident $($rest:ident)+) => {
        impl<'a, $first: Into<LogValue<'a>>, $($rest: Into<LogValue<'a>>),+> LogValues<'a, Mixed>
            for ((&'a str, $first), $((&'a str, $rest)),+)
        {
            #[expect(non_snake_case, reason = "a value is named as its type is")]
            fn into_log_values(self) -> Vec<(&'a str, LogValue<'a>)> {
                let ($first, $($rest),+) = self;
                vec![($first.0, $first.1.into()), $(($rest.0, $rest.1.into())),+]
            }
        }
        tuples!($($rest)+);
    };
    ($last:ident) => {};
}

tuples!(A B C D E F G H I J K L);
