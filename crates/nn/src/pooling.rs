//! Pooling layers: [`Pool`], and [`MaxUnpool`].

use std::fmt;

use fulgurite_torch::Path;
use fulgurite_torch::tch::{TchError, Tensor};

use crate::error::Result;
use crate::module::{Build, Label, debug, module, output, python_bool, python_float, python_tuple, setters};
use crate::size::Size;

/// Pooling over windows of an input `[batch, channels, …]`: PyTorch's `nn.MaxPool1d`, `nn.AvgPool2d`, `nn.LPPool3d` and so on.
#[derive(Clone)]
pub struct Pool<const N: usize> {
    operation: Operation<N>,
    label: Label,
}

#[derive(Debug, Clone, Copy)]
enum Operation<const N: usize> {
    Max(MaxPoolOptions<N>),
    Average(AvgPoolOptions<N>),
    Norm(LpPoolOptions<N>),
    Fractional(Size<N>, Extent<N>),
    AdaptiveMax(OutputSize<N>),
    AdaptiveAverage(OutputSize<N>),
}

/// The options of maximum pooling.
#[derive(Debug, Clone, Copy)]
pub struct MaxPoolOptions<const N: usize> {
    kernel_size: Size<N>,
    stride: Size<N>,
    padding: Size<N>,
    dilation: Size<N>,
    ceil_mode: bool,
}

/// The options of average pooling.
#[derive(Debug, Clone, Copy)]
pub struct AvgPoolOptions<const N: usize> {
    kernel_size: Size<N>,
    stride: Size<N>,
    padding: Size<N>,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Option<i64>,
}

/// The options of pooling by a norm.
#[derive(Debug, Clone, Copy)]
pub struct LpPoolOptions<const N: usize> {
    norm_type: f64,
    kernel_size: Size<N>,
    stride: Option<Size<N>>,
    ceil_mode: bool,
}

/// The options of fractional maximum pooling.
#[derive(Debug, Clone, Copy)]
pub struct FractionalMaxPoolOptions<const N: usize> {
    kernel_size: Size<N>,
    output_size: Option<Size<N>>,
    output_ratio: Option<f64>,
}

/// How large the output of a fractional pool is.
#[derive(Debug, Clone, Copy)]
enum Extent<const N: usize> {
    Size([i64; N]),
    Ratio(f64),
}

/// The size of the output of an adaptive pool: a number for each dimension, of which `None` leaves that of the input.
#[derive(Debug, Clone, Copy)]
pub struct OutputSize<const N: usize> {
    each: [Option<i64>; N],
    is_one_number: bool,
}

impl<const N: usize> From<i64> for OutputSize<N> {
    fn from(size: i64) -> OutputSize<N> {
        OutputSize { each: [Some(size); N], is_one_number: true }
    }
}

impl<const N: usize> From<[i64; N]> for OutputSize<N> {
    fn from(size: [i64; N]) -> OutputSize<N> {
        size.map(Some).into()
    }
}

impl<const N: usize> From<[Option<i64>; N]> for OutputSize<N> {
    fn from(size: [Option<i64>; N]) -> OutputSize<N> {
        OutputSize { each: size, is_one_number: false }
    }
}

impl<const N: usize> OutputSize<N> {
    /// As Python prints what was given.
    fn as_given(&self) -> String {
        let each = self.each.map(|size| size.map_or_else(|| "None".to_owned(), |size| size.to_string()));
        if self.is_one_number { each[0].clone() } else { python_tuple(&each) }
    }
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident$([$first:ident: $type:ty])?($size:ident: $into:ty) -> $result:ty = $inner:expr;)+) => { $(
        $(#[$doc])*
        pub fn $name($($first: $type,)? $size: impl Into<$into>) -> $result {
            $inner($($first,)? $size.into())
        }
    )+ };
}

fn max_pool<const N: usize>(kernel_size: Size<N>) -> MaxPoolOptions<N> {
    MaxPoolOptions { kernel_size, stride: kernel_size, padding: 0.into(), dilation: 1.into(), ceil_mode: false }
}

fn avg_pool<const N: usize>(kernel_size: Size<N>) -> AvgPoolOptions<N> {
    AvgPoolOptions {
        kernel_size,
        stride: kernel_size,
        padding: 0.into(),
        ceil_mode: false,
        count_include_pad: true,
        divisor_override: None,
    }
}

fn lp_pool<const N: usize>(norm_type: f64, kernel_size: Size<N>) -> LpPoolOptions<N> {
    LpPoolOptions { norm_type, kernel_size, stride: None, ceil_mode: false }
}

fn fractional_max_pool<const N: usize>(kernel_size: Size<N>) -> FractionalMaxPoolOptions<N> {
    FractionalMaxPoolOptions { kernel_size, output_size: None, output_ratio: None }
}

fn adaptive<const N: usize>(name: &str, size: OutputSize<N>, operation: Operation<N>) -> Pool<N> {
    let label = Label::unnamed(format!("{name}{N}d(output_size={})", size.as_given()));
    Pool { operation, label }
}

fn adaptive_max_pool<const N: usize>(size: OutputSize<N>) -> Pool<N> {
    adaptive("AdaptiveMaxPool", size, Operation::AdaptiveMax(size))
}

fn adaptive_avg_pool<const N: usize>(size: OutputSize<N>) -> Pool<N> {
    adaptive("AdaptiveAvgPool", size, Operation::AdaptiveAverage(size))
}

constructors! {
    /// The largest value of each window: PyTorch's `nn.MaxPool1d`.
    max_pool1d(kernel_size: Size<1>) -> MaxPoolOptions<1> = max_pool;
    /// The largest value of each window: PyTorch's `nn.MaxPool2d`.
    max_pool2d(kernel_size: Size<2>) -> MaxPoolOptions<2> = max_pool;
    /// The largest value of each window: PyTorch's `nn.MaxPool3d`.
    max_pool3d(kernel_size: Size<3>) -> MaxPoolOptions<3> = max_pool;
    /// The mean of each window: PyTorch's `nn.AvgPool1d`.
    avg_pool1d(kernel_size: Size<1>) -> AvgPoolOptions<1> = avg_pool;
    /// The mean of each window: PyTorch's `nn.AvgPool2d`.
    avg_pool2d(kernel_size: Size<2>) -> AvgPoolOptions<2> = avg_pool;
    /// The mean of each window: PyTorch's `nn.AvgPool3d`.
    avg_pool3d(kernel_size: Size<3>) -> AvgPoolOptions<3> = avg_pool;
    /// The `norm_type`-th root of the sum of `norm_type`-th powers of each window: PyTorch's `nn.LPPool1d`.
    lp_pool1d[norm_type: f64](kernel_size: Size<1>) -> LpPoolOptions<1> = lp_pool;
    /// The `norm_type`-th root of the sum of `norm_type`-th powers of each window: PyTorch's `nn.LPPool2d`.
    lp_pool2d[norm_type: f64](kernel_size: Size<2>) -> LpPoolOptions<2> = lp_pool;
    /// The `norm_type`-th root of the sum of `norm_type`-th powers of each window: PyTorch's `nn.LPPool3d`.
    lp_pool3d[norm_type: f64](kernel_size: Size<3>) -> LpPoolOptions<3> = lp_pool;
    /// The largest value of windows at random places (Graham 2015), drawn in every forward pass: PyTorch's
    /// `nn.FractionalMaxPool2d`. It needs an output's size or ratio.
    fractional_max_pool2d(kernel_size: Size<2>) -> FractionalMaxPoolOptions<2> = fractional_max_pool;
    /// The largest value of windows at random places (Graham 2015), drawn in every forward pass: PyTorch's
    /// `nn.FractionalMaxPool3d`. It needs an output's size or ratio.
    fractional_max_pool3d(kernel_size: Size<3>) -> FractionalMaxPoolOptions<3> = fractional_max_pool;
    /// The largest values of as many windows as give the output its size: PyTorch's `nn.AdaptiveMaxPool1d`.
    adaptive_max_pool1d(output_size: OutputSize<1>) -> Pool<1> = adaptive_max_pool;
    /// The largest values of as many windows as give the output its size: PyTorch's `nn.AdaptiveMaxPool2d`.
    adaptive_max_pool2d(output_size: OutputSize<2>) -> Pool<2> = adaptive_max_pool;
    /// The largest values of as many windows as give the output its size: PyTorch's `nn.AdaptiveMaxPool3d`.
    adaptive_max_pool3d(output_size: OutputSize<3>) -> Pool<3> = adaptive_max_pool;
    /// The means of as many windows as give the output its size: PyTorch's `nn.AdaptiveAvgPool1d`.
    adaptive_avg_pool1d(output_size: OutputSize<1>) -> Pool<1> = adaptive_avg_pool;
    /// The means of as many windows as give the output its size: PyTorch's `nn.AdaptiveAvgPool2d`.
    adaptive_avg_pool2d(output_size: OutputSize<2>) -> Pool<2> = adaptive_avg_pool;
    /// The means of as many windows as give the output its size: PyTorch's `nn.AdaptiveAvgPool3d`.
    adaptive_avg_pool3d(output_size: OutputSize<3>) -> Pool<3> = adaptive_avg_pool;
}

impl<const N: usize> MaxPoolOptions<N> {
    setters! {
        /// The distance of the windows; the default is their size.
        stride: Size<N>;
        /// What is added on both sides, which is never the largest; the default is 0.
        padding: Size<N>;
        /// The distance of the values of a window; the default is 1.
        dilation: Size<N>;
        /// Whether a window may begin in the input and end outside; the default is `false`.
        ceil_mode: bool;
    }
}

impl<const N: usize> AvgPoolOptions<N> {
    setters! {
        /// The distance of the windows; the default is their size.
        stride: Size<N>;
        /// How many zeros are added on both sides; the default is 0.
        padding: Size<N>;
        /// Whether a window may begin in the input and end outside; the default is `false`.
        ceil_mode: bool;
        /// Whether padding counts in the mean; the default is `true`.
        count_include_pad: bool;
        /// What the sum is divided by instead of the number of values, in two and three dimensions.
        divisor_override: Option<i64>;
    }
}

impl<const N: usize> LpPoolOptions<N> {
    setters! {
        /// Whether a window may begin in the input and end outside; the default is `false`.
        ceil_mode: bool;
    }

    /// The distance of the windows; the default is their size.
    #[must_use]
    pub fn stride(mut self, stride: impl Into<Size<N>>) -> Self {
        self.stride = Some(stride.into());
        self
    }
}

impl<const N: usize> FractionalMaxPoolOptions<N> {
    setters! {
        /// The size of the output as a part of the input's, between 0 and 1.
        output_ratio: Option<f64>;
    }

    /// The size of the output.
    #[must_use]
    pub fn output_size(mut self, size: impl Into<Size<N>>) -> Self {
        self.output_size = Some(size.into());
        self
    }
}

fn check<const N: usize>(label: &Label, sizes: &[(&str, Size<N>)]) -> Result<()> {
    sizes.iter().try_for_each(|(name, size)| label.check_positive(&size.each.map(|size| (*name, size))))
}

impl<const N: usize> Build for MaxPoolOptions<N> {
    type Layer = Pool<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Pool<N>> {
        let MaxPoolOptions { kernel_size, stride, padding, dilation, ceil_mode } = *self;
        let [kernel, steps, pad, distance] = [kernel_size, stride, padding, dilation].map(|size| size.as_given());
        let ceil = python_bool(ceil_mode);
        let repr = format!(
            "MaxPool{N}d(kernel_size={kernel}, stride={steps}, padding={pad}, dilation={distance}, ceil_mode={ceil})"
        );
        let label = Label::new(&path.into(), repr);
        check(&label, &[("kernel_size", kernel_size), ("stride", stride), ("dilation", dilation)])?;
        Ok(Pool { operation: Operation::Max(*self), label })
    }
}

impl<const N: usize> Build for AvgPoolOptions<N> {
    type Layer = Pool<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Pool<N>> {
        // In one dimension PyTorch makes tuples of numbers.
        let as_printed = |size: Size<N>| if N == 1 { size.as_tuple() } else { size.as_given() };
        let [kernel, stride, padding] = [self.kernel_size, self.stride, self.padding].map(as_printed);
        let repr = format!("AvgPool{N}d(kernel_size={kernel}, stride={stride}, padding={padding})");
        let label = Label::new(&path.into(), repr);
        check(&label, &[("kernel_size", self.kernel_size), ("stride", self.stride)])?;
        if N == 1 && self.divisor_override.is_some() {
            return Err(label.options("divisor_override is for two and three dimensions"));
        }
        Ok(Pool { operation: Operation::Average(*self), label })
    }
}

impl<const N: usize> Build for LpPoolOptions<N> {
    type Layer = Pool<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Pool<N>> {
        let (kernel, norm, ceil) =
            (self.kernel_size.as_given(), python_float(self.norm_type), python_bool(self.ceil_mode));
        let stride = self.stride.map_or_else(|| "None".to_owned(), |stride| stride.as_given());
        let repr = format!("LPPool{N}d(norm_type={norm}, kernel_size={kernel}, stride={stride}, ceil_mode={ceil})");
        let label = Label::new(&path.into(), repr);
        check(&label, &[("kernel_size", self.kernel_size), ("stride", self.stride.unwrap_or(self.kernel_size))])?;
        Ok(Pool { operation: Operation::Norm(*self), label })
    }
}

impl<const N: usize> Build for FractionalMaxPoolOptions<N> {
    type Layer = Pool<N>;

    fn at<'a>(&self, path: impl Into<Path<'a>>) -> Result<Pool<N>> {
        let label = Label::new(&path.into(), format!("FractionalMaxPool{N}d()"));
        check(&label, &[("kernel_size", self.kernel_size)])?;
        let extent = match (self.output_size, self.output_ratio) {
            (Some(size), None) => {
                check(&label, &[("output_size", size)])?;
                Extent::Size(size.each)
            }
            (None, Some(ratio)) if ratio > 0.0 && ratio < 1.0 => Extent::Ratio(ratio),
            (None, Some(ratio)) => {
                return Err(label.options(format!("output_ratio is {ratio}; it must be between 0 and 1")));
            }
            _ => return Err(label.options("output_size or output_ratio is needed, and not both")),
        };
        Ok(Pool { operation: Operation::Fractional(self.kernel_size, extent), label })
    }
}

impl<const N: usize> Build for Pool<N> {
    type Layer = Pool<N>;

    fn at<'a>(&self, _: impl Into<Path<'a>>) -> Result<Pool<N>> {
        Ok(self.clone())
    }
}

impl<const N: usize> Pool<N> {
    /// [`forward`](crate::Module::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit.
    pub fn try_forward(&self, input: &Tensor) -> Result<Tensor> {
        let (name, pooled) = match &self.operation {
            Operation::Max(options) => ("max_pool", options.pool(input)),
            Operation::Average(options) => ("avg_pool", options.pool(input)),
            Operation::Norm(options) => ("lp_pool", options.pool(input)),
            Operation::Fractional(kernel_size, extent) => {
                ("fractional_max_pool", fractional_max(input, kernel_size, extent).map(|(pooled, _)| pooled))
            }
            Operation::AdaptiveMax(size) => ("adaptive_max_pool", adaptive_max(input, size).map(|(pooled, _)| pooled)),
            Operation::AdaptiveAverage(size) => ("adaptive_avg_pool", adaptive_average(input, size)),
        };
        self.label.forward(name, pooled)
    }

    /// [`forward`](crate::Module::forward) of a maximum pool, with the places of the largest values: PyTorch's
    /// `return_indices=True`.
    ///
    /// # Errors
    ///
    /// Fails if the input does not fit, or the pool is of another kind.
    pub fn try_forward_with_indices(&self, input: &Tensor) -> Result<(Tensor, Tensor)> {
        match &self.operation {
            Operation::Max(options) => self.label.forward("max_pool_with_indices", options.pool_with_indices(input)),
            Operation::AdaptiveMax(size) => self.label.forward("adaptive_max_pool", adaptive_max(input, size)),
            Operation::Fractional(kernel_size, extent) => {
                self.label.forward("fractional_max_pool", fractional_max(input, kernel_size, extent))
            }
            _ => Err(self.label.input("only maximum pools have indices")),
        }
    }
}

module!(Pool<1>, Pool<2>, Pool<3>);

impl<const N: usize> MaxPoolOptions<N> {
    fn pool(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let MaxPoolOptions { kernel_size, stride, padding, dilation, ceil_mode } = *self;
        let [kernel_size, stride, padding, dilation] = [kernel_size, stride, padding, dilation].map(|size| size.each);
        match N {
            1 => input.f_max_pool1d(kernel_size, stride, padding, dilation, ceil_mode),
            2 => input.f_max_pool2d(kernel_size, stride, padding, dilation, ceil_mode),
            _ => input.f_max_pool3d(kernel_size, stride, padding, dilation, ceil_mode),
        }
    }

    fn pool_with_indices(&self, input: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let MaxPoolOptions { kernel_size, stride, padding, dilation, ceil_mode } = *self;
        let [kernel_size, stride, padding, dilation] = [kernel_size, stride, padding, dilation].map(|size| size.each);
        match N {
            1 => input.f_max_pool1d_with_indices(kernel_size, stride, padding, dilation, ceil_mode),
            2 => input.f_max_pool2d_with_indices(kernel_size, stride, padding, dilation, ceil_mode),
            _ => input.f_max_pool3d_with_indices(kernel_size, stride, padding, dilation, ceil_mode),
        }
    }
}

impl<const N: usize> AvgPoolOptions<N> {
    fn pool(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let [kernel_size, stride, padding] = [self.kernel_size, self.stride, self.padding].map(|size| size.each);
        let AvgPoolOptions { ceil_mode, count_include_pad, divisor_override, .. } = *self;
        match N {
            1 => input.f_avg_pool1d(kernel_size, stride, padding, ceil_mode, count_include_pad),
            2 => input.f_avg_pool2d(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override),
            _ => input.f_avg_pool3d(kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override),
        }
    }
}

impl<const N: usize> LpPoolOptions<N> {
    /// As PyTorch computes it, signs of odd powers included.
    fn pool(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let stride = self.stride.unwrap_or(self.kernel_size);
        let average = AvgPoolOptions { ceil_mode: self.ceil_mode, stride, ..avg_pool(self.kernel_size) };
        let mean = average.pool(&input.f_pow_tensor_scalar(self.norm_type)?)?;
        let count: i64 = self.kernel_size.each.iter().product();
        let sum = mean.f_sign()?.f_mul(&mean.f_abs()?.f_relu()?)?.f_mul_scalar(count)?;
        sum.f_pow_tensor_scalar(1.0 / self.norm_type)
    }
}

/// One random number for each image, channel and direction places the windows.
fn fractional_max<const N: usize>(
    input: &Tensor,
    kernel_size: &Size<N>,
    extent: &Extent<N>,
) -> Result<(Tensor, Tensor), TchError> {
    let of_input = input.size();
    let space = of_input.len().saturating_sub(N);
    let size = |dim: usize| of_input.get(space + dim).copied().unwrap_or(0);
    let output_size: [i64; N] = match extent {
        Extent::Size(size) => *size,
        Extent::Ratio(ratio) => std::array::from_fn(|dim| (size(dim) as f64 * ratio) as i64),
    };
    let channels = space.checked_sub(1).map_or(1, |channels| of_input[channels]);
    let batch = if space > 1 { of_input[0] } else { 1 };
    let samples = Tensor::f_rand([batch, channels, N as i64], (input.kind(), input.device()))?;
    match N {
        2 => input.f_fractional_max_pool2d(kernel_size.each, output_size, &samples),
        _ => input.f_fractional_max_pool3d(kernel_size.each, output_size, &samples),
    }
}

/// The size of the output, where the input has it for what is left open.
fn output_size<const N: usize>(input: &Tensor, size: &OutputSize<N>) -> [i64; N] {
    let of_input = input.size();
    let space = of_input.len().saturating_sub(N);
    std::array::from_fn(|dim| size.each[dim].unwrap_or_else(|| of_input.get(space + dim).copied().unwrap_or(0)))
}

fn adaptive_max<const N: usize>(input: &Tensor, size: &OutputSize<N>) -> Result<(Tensor, Tensor), TchError> {
    let size = output_size(input, size);
    match N {
        1 => input.f_adaptive_max_pool1d(size),
        2 => input.f_adaptive_max_pool2d(size),
        _ => input.f_adaptive_max_pool3d(size),
    }
}

fn adaptive_average<const N: usize>(input: &Tensor, size: &OutputSize<N>) -> Result<Tensor, TchError> {
    let size = output_size(input, size);
    match N {
        1 => input.f_adaptive_avg_pool1d(size),
        2 => input.f_adaptive_avg_pool2d(size),
        _ => input.f_adaptive_avg_pool3d(size),
    }
}

/// The reverse of a maximum pool: PyTorch's `nn.MaxUnpool1d` to `nn.MaxUnpool3d`.
#[derive(Clone, Copy)]
pub struct MaxUnpool<const N: usize> {
    kernel_size: Size<N>,
    stride: Size<N>,
    padding: Size<N>,
}

/// The reverse of a [`max_pool1d`] with a window and distance of `kernel_size`: PyTorch's `nn.MaxUnpool1d`.
pub fn max_unpool1d(kernel_size: impl Into<Size<1>>) -> MaxUnpool<1> {
    max_unpool(kernel_size.into())
}

/// The reverse of a [`max_pool2d`] with a window and distance of `kernel_size`: PyTorch's `nn.MaxUnpool2d`.
pub fn max_unpool2d(kernel_size: impl Into<Size<2>>) -> MaxUnpool<2> {
    max_unpool(kernel_size.into())
}

/// The reverse of a [`max_pool3d`] with a window and distance of `kernel_size`: PyTorch's `nn.MaxUnpool3d`.
pub fn max_unpool3d(kernel_size: impl Into<Size<3>>) -> MaxUnpool<3> {
    max_unpool(kernel_size.into())
}

fn max_unpool<const N: usize>(kernel_size: Size<N>) -> MaxUnpool<N> {
    MaxUnpool { kernel_size, stride: kernel_size, padding: 0.into() }
}

impl<const N: usize> MaxUnpool<N> {
    setters! {
        /// The distance of the windows; the default is their size.
        stride: Size<N>;
        /// What was added on both sides; the default is 0.
        padding: Size<N>;
    }

    /// Puts values at the places that the pool returned as indices, and 0 elsewhere. `output_size` is the size of the
    /// pool's input, where windows leave several possible.
    ///
    /// # Panics
    ///
    /// Panics if the inputs do not fit.
    pub fn forward(&self, input: &Tensor, indices: &Tensor, output_size: Option<[i64; N]>) -> Tensor {
        output(self.try_forward(input, indices, output_size))
    }

    /// [`forward`](MaxUnpool::forward), whose errors are returned.
    ///
    /// # Errors
    ///
    /// Fails if the inputs do not fit.
    pub fn try_forward(&self, input: &Tensor, indices: &Tensor, output_size: Option<[i64; N]>) -> Result<Tensor> {
        let size = input.size();
        let Some(space) = size.len().checked_sub(N) else {
            return Err(self.label().input(format!("an input of {N} or more dimensions is needed, not {size:?}")));
        };
        let (kernel, stride, padding) = (self.kernel_size.each, self.stride.each, self.padding.each);
        let default: [i64; N] =
            std::array::from_fn(|dim| (size[space + dim] - 1) * stride[dim] - 2 * padding[dim] + kernel[dim]);
        let size = output_size.unwrap_or(default);
        if (0..N).any(|dim| (size[dim] - default[dim]).abs() >= stride[dim]) {
            let message =
                format!("the output size {size:?} was requested, which is not less than {stride:?} from {default:?}");
            return Err(self.label().input(message));
        }
        let unpooled = match N {
            1 => {
                let plane = [size[0], 1];
                let (input, indices) = (input.unsqueeze(-1), indices.unsqueeze(-1));
                input.f_max_unpool2d(&indices, plane).and_then(|plane| plane.f_squeeze_dim(-1))
            }
            2 => input.f_max_unpool2d(indices, size),
            _ => input.f_max_unpool3d(indices, size, stride, padding),
        };
        self.label().forward("max_unpool", unpooled)
    }

    /// For messages alone, as its options can be changed until it is used.
    fn label(&self) -> Label {
        Label::unnamed(self.to_string())
    }
}

impl<const N: usize> fmt::Display for MaxUnpool<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kernel, stride, padding] = [self.kernel_size, self.stride, self.padding].map(|size| size.as_tuple());
        write!(f, "MaxUnpool{N}d(kernel_size={kernel}, stride={stride}, padding={padding})")
    }
}

debug!(MaxUnpool<1>, MaxUnpool<2>, MaxUnpool<3>);
