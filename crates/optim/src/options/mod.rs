//! Optimizers and schedulers as data: what a file or a command line says of them.
//!
//! Each has a struct of options with PyTorch's names and defaults; [`OptimizerOptions`] and [`SchedulerOptions`] are one
//! of them, under its class name.

mod optimizers;
mod schedulers;

pub use optimizers::*;
pub use schedulers::*;

/// A struct of options with PyTorch's names and defaults, and how it is made into what it is of.
macro_rules! options {
    ($class:ident as $name:ident($argument:ident: $from:ty) -> $result:ty $body:block
        { $($(#[$meta:meta])* $field:ident: $type:ty = $default:expr,)* }
    ) => {
        #[doc = concat!("Options of [`", stringify!($class), "`](crate::", stringify!($class), ").")]
        #[derive(
            Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, derive_setters::Setters,
        )]
        #[serde(default, deny_unknown_fields)]
        #[setters(strip_option, into)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$meta])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            fn build(self, $argument: $from) -> $result {
                let $name { $($field,)* } = self;
                $body
            }
        }
    };
}
use options;

/// An enum of options by class name, with what a program wants to know of the classes.
macro_rules! classes {
    ($(#[$meta:meta])* $enum:ident: $what:literal { $($class:ident($options:ident),)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "class_path", content = "init_args")]
        #[non_exhaustive]
        pub enum $enum {
            $(#[doc = concat!("[`", stringify!($class), "`](crate::", stringify!($class), ").")] $class($options),)*
        }

        impl $enum {
            /// The names of all classes.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($class)),*];

            /// The JSON schema of the options of a class; `None` if there is no such class.
            pub fn schema(name: &str) -> Option<schemars::Schema> {
                match name {
                    $(stringify!($class) => Some(schemars::schema_for!($options)),)*
                    _ => None,
                }
            }

            /// The class's name, such as
            #[doc = concat!("`", $what, "`.")]
            pub fn name(&self) -> &'static str {
                match self {
                    $($enum::$class(_) => stringify!($class),)*
                }
            }
        }
    };
}
use classes;
