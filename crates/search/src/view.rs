//! [`View`]: what samplers and pruners see of a study.

use crate::trial::{Direction, Trial};

/// What samplers and pruners see of a study.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is wanted.
    pub direction: Direction,
    /// All trials, by number.
    pub trials: Vec<&'a Trial>,
}
