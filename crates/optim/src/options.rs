//! Options, each defined once: [`options`] writes a struct of them, [`classes`] registers it under a class name.

/// A struct of options, and the setters of its builder.
///
/// A field has its documentation and its default here and nowhere else. The builder's setter takes a value of the field's
/// type, or the arguments that stand after the name: `betas(beta1: f64, beta2: f64 => (beta1, beta2)): (f64, f64)`.
macro_rules! options {
    (
        $(#[doc = $about:literal])*
        $name:ident of $builder:ty {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde $serde:tt])?
                $field:ident $(($($argument:ident: $argument_type:ty),* => $value:expr))?: $type:ty = $default:expr,
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(
            Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema, derive_setters::Setters,
        )]
        #[serde(default, deny_unknown_fields)]
        #[setters(strip_option, into)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[doc = ""]
                #[doc = concat!("Default: `", stringify!($default), "`.")]
                $(#[serde $serde])?
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $builder {
            $($crate::options::setter! {
                [$($doc)*] $field $(($($argument: $argument_type),* => $value))?: $type = $default
            })*
        }
    };
}
pub(crate) use options;

/// A setter of a builder, whose options are in its field `options`.
macro_rules! setter {
    ([$($doc:literal)*] $field:ident: $type:ty = $default:expr) => {
        $crate::options::setter! { [$($doc)*] $field($field: $type => $field): $type = $default }
    };
    (
        [$($doc:literal)*]
        $field:ident($($argument:ident: $argument_type:ty),* => $value:expr): $type:ty = $default:expr
    ) => {
        $(#[doc = $doc])*
        #[doc = ""]
        #[doc = concat!("Default: `", stringify!($default), "`.")]
        #[must_use]
        pub fn $field(mut self, $($argument: $argument_type),*) -> Self {
            self.options.$field = $value;
            self
        }
    };
}
pub(crate) use setter;

/// Registers classes: a line has their module and their options.
///
/// An enum of the options by class name follows, and `visit_all`, by which a program learns of every class.
macro_rules! classes {
    (
        $(#[$meta:meta])*
        $enum:ident, $visitor:ident, $build:path as fn($argument:ty) -> $made:ty {
            $($module:ident: $($class:ident($options:ident)),+;)*
        }
    ) => {
        $(mod $module;)*
        $(pub use $module::*;)*

        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "class_path", content = "init_args")]
        #[non_exhaustive]
        pub enum $enum {
            $($(#[doc = concat!("[`", stringify!($class), "`](crate::", stringify!($class), ").")] $class($options),)+)*
        }

        impl $enum {
            /// The name of the class, such as `AdamW`.
            pub fn name(&self) -> &'static str {
                match self {
                    $($($enum::$class(_) => stringify!($class),)+)*
                }
            }

            fn make(self, argument: $argument) -> $made {
                match self {
                    $($($enum::$class(options) => $build(options, argument),)+)*
                }
            }

            /// Shows `visitor` the options of every class of this crate.
            pub fn visit_all(visitor: &mut impl $visitor) {
                $($(visitor.visit::<$options>();)+)*
            }
        }
    };
}
pub(crate) use classes;
