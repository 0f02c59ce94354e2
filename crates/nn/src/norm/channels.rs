//! What norms with statistics of channels share.

use fulgurite_torch::Path;
use fulgurite_torch::tch::Tensor;

use crate::error::Result;
use crate::module::{Label, python_bool, python_float};
use crate::parameter::{buffer, constant, counter};

/// The options of such a norm.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelNorm {
    /// The dimensions beside batch and channels.
    pub(super) space: usize,
    pub(super) num_features: i64,
    pub(super) eps: f64,
    pub(super) momentum: Option<f64>,
    pub(super) affine: bool,
    pub(super) track_running_stats: bool,
}

/// The tensors of such a norm.
pub(super) struct Tensors {
    pub(super) weight: Option<Tensor>,
    pub(super) bias: Option<Tensor>,
    pub(super) running_mean: Option<Tensor>,
    pub(super) running_var: Option<Tensor>,
    pub(super) num_batches_tracked: Option<Tensor>,
}

impl ChannelNorm {
    pub(super) fn build(&self, path: &Path<'_>, name: &str) -> Result<(Tensors, Label)> {
        let ChannelNorm { num_features, affine, track_running_stats, .. } = *self;
        let label = Label::new(path, self.repr(name));
        label.check_positive(&[("num_features", num_features)])?;
        let size = [num_features];
        let parameter = |name, value| affine.then(|| constant(path, name, &size, value)).transpose();
        let statistic = |name, value| track_running_stats.then(|| buffer(path, name, &size, value)).transpose();
        let tensors = Tensors {
            weight: parameter("weight", 1.0)?,
            bias: parameter("bias", 0.0)?,
            running_mean: statistic("running_mean", 0.0)?,
            running_var: statistic("running_var", 1.0)?,
            num_batches_tracked: track_running_stats.then(|| counter(path, "num_batches_tracked")).transpose()?,
        };
        Ok((tensors, label))
    }

    fn repr(&self, name: &str) -> String {
        let ChannelNorm { space, num_features, .. } = *self;
        let eps = python_float(self.eps);
        let momentum = self.momentum.map_or_else(|| "None".to_owned(), python_float);
        let [affine, track] = [self.affine, self.track_running_stats].map(python_bool);
        format!(
            "{name}{space}d({num_features}, eps={eps}, momentum={momentum}, affine={affine}, \
             track_running_stats={track})"
        )
    }
}

/// The layer and the options of such a norm, and the functions that make them in one to three dimensions.
macro_rules! channel_norm {
    (
        $(#[$doc:meta])*
        $layer:ident, $options:ident, $name:literal, counter: $(#[$counter:meta])*;
        default: $default:expr;
        $($(#[$new_doc:meta])* $new:ident, $space:literal;)+
    ) => {
        $(#[$doc])*
        pub struct $layer {
            /// The scale of each channel.
            pub weight: Option<Tensor>,
            /// The offset of each channel.
            pub bias: Option<Tensor>,
            /// The running mean of each channel.
            pub running_mean: Option<Tensor>,
            /// The running variance of each channel.
            pub running_var: Option<Tensor>,
            $(#[$counter])*
            pub num_batches_tracked: Option<Tensor>,
            options: ChannelNorm,
            mode: Mode,
            label: Label,
        }

        #[doc = concat!("The options of a layer [`", stringify!($layer), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $options(ChannelNorm);

        $(
            $(#[$new_doc])*
            pub fn $new(num_features: i64) -> $options {
                $options(ChannelNorm { space: $space, num_features, ..$default })
            }
        )+

        impl Build for $options {
            type Layer = $layer;

            fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<$layer> {
                let path = path.into();
                let (Tensors { weight, bias, running_mean, running_var, num_batches_tracked }, label) =
                    self.0.build(&path, $name)?;
                let (options, mode) = (self.0, path.mode());
                Ok($layer { weight, bias, running_mean, running_var, num_batches_tracked, options, mode, label })
            }
        }

        module_with_mode!($layer);
    };
}

pub(super) use channel_norm;
