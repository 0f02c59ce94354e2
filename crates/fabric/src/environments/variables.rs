//! Reading environment variables, with errors that name them.

use std::str::FromStr;

use crate::FabricError;

/// Environment variables from any source. An empty one counts as unset.
pub(crate) struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl<'a> Variables<'a> {
    pub(crate) fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Variables<'a> {
        Variables(lookup)
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, FabricError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(FabricError::environment(format!(
                "the environment variable {name}={text} is not a number in the valid range; correct it or unset it"
            ))),
        }
    }

    /// A number that must be set, since `environment` has been detected.
    pub(crate) fn required(&self, name: &str, environment: &str) -> Result<usize, FabricError> {
        self.number(name)?.ok_or_else(|| missing(name, environment))
    }

    /// The first variable that is set among several names for the same number.
    pub(crate) fn first_number(&self, names: &[&'static str]) -> Result<Option<(usize, &'static str)>, FabricError> {
        for name in names {
            if let Some(number) = self.number(name)? {
                return Ok(Some((number, name)));
            }
        }
        Ok(None)
    }

    /// `MASTER_PORT`.
    pub(crate) fn main_port(&self) -> Result<Option<u16>, FabricError> {
        self.number("MASTER_PORT")
    }

    /// `MASTER_ADDR`.
    pub(crate) fn main_address(&self) -> Option<String> {
        self.text("MASTER_ADDR")
    }

    /// Whether the launcher of the ranks hosts their store.
    pub(crate) fn uses_agent_store(&self) -> bool {
        self.text(super::USE_AGENT_STORE).as_deref() == Some("True")
    }
}

pub(crate) fn missing(name: &str, environment: &str) -> FabricError {
    FabricError::environment(format!(
        "{name} is not set, though other variables indicate that {environment} started this process; start it with \
         {environment} as usual, or set {name}"
    ))
}
