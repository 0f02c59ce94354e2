//! Which operation produced the first NaN or infinity of a step: [`AnomalyWatch`], [`check_loss`],
//! [`explain_backward`].

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::error::TorchError;
use crate::record::{OpRecord, RawFinding, Recorder, TensorRecord};
use crate::storage_id;
use crate::tch::Tensor;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Recorder>>> = const { RefCell::new(None) };
}

/// Watches the operations of this thread until it is dropped: checks all of their results, and records where
/// values that are not finite originate. Meanwhile a backward pass that produces a NaN is an error.
///
/// An infinity by itself is not an error: attention masks are full of them. It is one when it reaches the loss, which
/// [`check_loss`] detects. Slow: the results of every operation are checked.
///
/// ```
/// use fulgurite_torch::anomaly::{self, AnomalyWatch};
/// use fulgurite_torch::tch::Tensor;
///
/// let watch = AnomalyWatch::new()?;
/// let loss = Tensor::from_slice(&[1.0f32, 0.0]).log().sum(None);
/// let error = anomaly::check_loss(&loss, &[]).unwrap_err();
/// assert_eq!(error.to_string(), "the loss is -inf: `aten::log` made an infinity of [2] Float");
/// # Ok::<(), fulgurite_torch::TorchError>(())
/// ```
#[derive(Debug)]
#[must_use = "it watches until it is dropped"]
pub struct AnomalyWatch {
    outer: Option<Rc<Recorder>>,
}

impl AnomalyWatch {
    /// Starts watching.
    ///
    /// # Errors
    ///
    /// Fails if libtorch cannot register an observer.
    pub fn new() -> Result<AnomalyWatch, TorchError> {
        let recorder = Rc::new(Recorder::start(true)?);
        Ok(AnomalyWatch { outer: CURRENT.replace(Some(recorder)) })
    }
}

impl Drop for AnomalyWatch {
    fn drop(&mut self) {
        CURRENT.replace(self.outer.take());
    }
}

/// What [`AnomalyWatch`] found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AnomalyError {
    /// A loss that is not finite.
    #[error("the loss is {value}{}", .origin.as_ref().map_or(String::new(), |origin| format!(": {origin}")))]
    Loss {
        /// The loss.
        value: f64,
        /// Its origin; `None` if no operation of this thread produced it.
        origin: Option<Box<Origin>>,
    },
    /// A NaN in the backward pass.
    #[error("{message}{}", .operation.as_ref().map_or(String::new(), |site| format!(" It is the gradient of {site}")))]
    Backward {
        /// The error of libtorch.
        message: String,
        /// The operation of the forward pass that it is the gradient of, if known.
        operation: Option<Box<Site>>,
    },
}

/// The origin of a value that is not finite.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Origin {
    /// The operation that produced it, or had it as an input.
    pub site: Site,
    /// Whether it is NaN, or an infinity.
    pub is_nan: bool,
    /// Its origin.
    pub how: How,
}

/// The origin of a value that is not finite.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum How {
    /// The operation produced it from finite inputs.
    Made,
    /// The operation produced NaN from an infinity, which originates there.
    Of(Box<Origin>),
    /// It was in an input that no operation produced: in this parameter or, if `None`, in the batch.
    Given {
        /// The input.
        input: TensorRecord,
        /// The parameter's name.
        parameter: Option<String>,
    },
}

/// An operation, and where in the model it is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Site {
    /// The operation, such as `aten::addmm`.
    pub op: String,
    /// The operation that the program called, such as `aten::linear`, if it is another one.
    pub called_by: Option<String>,
    /// Its input tensors.
    pub inputs: Vec<TensorRecord>,
    /// The layer or parameter that it belongs to.
    pub place: Place,
}

/// Where in the model an operation is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// One of its inputs is this parameter.
    With(String),
    /// None is, and this parameter was used last before it.
    After(String),
    /// No parameter was used before.
    Unknown,
}

/// Checks that a loss is finite. Without a watch on this thread, nothing is checked.
///
/// Layers are named by `parameters`, as [`named_parameters`](crate::params::named_parameters) lists them.
///
/// # Errors
///
/// Returns [`AnomalyError::Loss`] if the loss is not finite.
pub fn check_loss(loss: &Tensor, parameters: &[(String, Tensor)]) -> Result<(), AnomalyError> {
    let Some(recorder) = CURRENT.with_borrow(Clone::clone) else { return Ok(()) };
    let Ok(value) = f64::try_from(loss) else { return Ok(()) };
    if value.is_finite() {
        return Ok(());
    }
    let history = History::new(&recorder, parameters);
    let origin = recorder.origin(loss).and_then(|finding| history.origin(finding));
    Err(AnomalyError::Loss { value, origin: origin.map(Box::new) })
}

/// Explains an error of libtorch about a NaN in the backward pass: adds the operation whose gradient it is. `None`
/// if the message is about something else, or if this thread is not watched.
pub fn explain_backward(message: &str, parameters: &[(String, Tensor)]) -> Option<AnomalyError> {
    let recorder = CURRENT.with_borrow(Clone::clone)?;
    if !message.contains("returned nan values in its") {
        return None;
    }
    let history = History::new(&recorder, parameters);
    let node = recorder.last_node();
    // Several operations may have begun while a number was the next one; the last of them took it.
    let index = if node < 0 { None } else { history.ops.iter().rposition(|op| op.sequence == node) };
    let operation = index.and_then(|index| history.site(index)).map(Box::new);
    Some(AnomalyError::Backward { message: message.to_owned(), operation })
}

/// The operations so far, and the parameters by memory.
struct History<'a> {
    recorder: &'a Recorder,
    ops: Vec<OpRecord>,
    parameters: Vec<(usize, &'a str)>,
}

impl<'a> History<'a> {
    fn new(recorder: &'a Recorder, parameters: &'a [(String, Tensor)]) -> History<'a> {
        let known = parameters.iter().filter_map(|(name, tensor)| Some((storage_id(tensor).ok()?, name.as_str())));
        History { recorder, ops: recorder.ops(), parameters: known.collect() }
    }

    fn parameter(&self, tensor: &TensorRecord) -> Option<String> {
        let (_, name) = self.parameters.iter().find(|(storage, _)| *storage == tensor.storage_id)?;
        Some((*name).to_owned())
    }

    fn origin(&self, finding: RawFinding) -> Option<Origin> {
        let site = self.site(usize::try_from(finding.op).ok()?)?;
        let how = match usize::try_from(finding.input) {
            Ok(input) => {
                let input = site.inputs.get(input)?.clone();
                How::Given { parameter: self.parameter(&input), input }
            }
            Err(_) => match self.recorder.finding(finding.cause).and_then(|cause| self.origin(cause)) {
                Some(cause) => How::Of(Box::new(cause)),
                None => How::Made,
            },
        };
        Some(Origin { site, is_nan: finding.nan, how })
    }

    fn site(&self, index: usize) -> Option<Site> {
        let op = self.ops.get(index)?;
        let mut outermost = index;
        while let Some(parent) = self.ops.get(outermost)?.parent {
            outermost = parent;
        }
        let caller = self.ops.get(outermost)?;
        let uses = |op: &OpRecord| op.input_tensors().into_iter().find_map(|tensor| self.parameter(tensor));
        let place = match uses(op).or_else(|| uses(caller)) {
            Some(parameter) => Place::With(parameter),
            None => self.ops[..index].iter().rev().find_map(uses).map_or(Place::Unknown, Place::After),
        };
        Some(Site {
            op: op.name.clone(),
            called_by: (outermost != index && caller.name != op.name).then(|| caller.name.clone()),
            inputs: op.input_tensors().into_iter().cloned().collect(),
            place,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_nan { "NaN" } else { "an infinity" };
        let Site { inputs, place, .. } = &self.site;
        let op = self.site.name();
        match &self.how {
            How::Made => write!(f, "{op} made {what} of {}{place}", shapes(inputs)),
            How::Of(cause) => write!(f, "{cause}; {op} made {what} of that{place}"),
            How::Given { input, parameter } => {
                let op = self.site.called_by.as_ref().unwrap_or(&self.site.op);
                let input = shape(input);
                match parameter {
                    Some(parameter) => {
                        write!(
                            f,
                            "the parameter `{parameter}` of {input} contained {what} when it was passed to `{op}`"
                        )
                    }
                    None => {
                        write!(
                            f,
                            "`{op}` was passed {what} in {input} that no operation of this step produced{place}; "
                        )?;
                        f.write_str("it is in the batch, or in a constant")
                    }
                }
            }
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}{}", self.name(), shapes(&self.inputs), self.place)
    }
}

impl Site {
    fn name(&self) -> String {
        match &self.called_by {
            Some(caller) => format!("`{}` (in `{caller}`)", self.op),
            None => format!("`{}`", self.op),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (preposition, parameter) = match self {
            Place::With(parameter) => ("in", parameter),
            Place::After(parameter) => ("after", parameter),
            Place::Unknown => return Ok(()),
        };
        match parameter.rsplit_once('.') {
            Some((layer, _)) => write!(f, ", {preposition} layer `{layer}`"),
            None => write!(f, ", {preposition} the use of parameter `{parameter}`"),
        }
    }
}

fn shapes(tensors: &[TensorRecord]) -> String {
    if tensors.is_empty() {
        return "nothing".into();
    }
    tensors.iter().map(shape).collect::<Vec<_>>().join(" and ")
}

fn shape(tensor: &TensorRecord) -> String {
    let kind = tensor.kind.map_or_else(|| "?".to_owned(), |kind| format!("{kind:?}"));
    format!("{:?} {kind}", tensor.shape)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::grad::backward;
    use crate::params::named_parameters;
    use crate::tch::nn::Module;
    use crate::tch::{Device, Kind, nn};

    fn of_loss(compute: impl FnOnce(&Tensor) -> Tensor, expected: Expect) {
        let x = Tensor::from_slice(&[0.0f32, 1.0, 1000.0]);
        let _watch = AnomalyWatch::new().unwrap();
        let found = match check_loss(&compute(&x).sum(Kind::Float), &[]) {
            Ok(()) => "fine".to_owned(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&found);
    }

    #[test]
    fn the_first_operation_is_named() {
        of_loss(Tensor::sin, expect!["fine"]);
        of_loss(Tensor::log, expect!["the loss is -inf: `aten::log` made an infinity of [3] Float"]);
        of_loss(|x| x / x, expect!["the loss is NaN: `aten::div` made NaN of [3] Float and [3] Float"]);
        of_loss(|x| x.exp() + 1.0, expect!["the loss is inf: `aten::exp` made an infinity of [3] Float"]);
        of_loss(|x| (x - 1.0).sqrt(), expect!["the loss is NaN: `aten::sqrt` made NaN of [3] Float"]);
    }

    #[test]
    fn an_infinity_that_becomes_nan_is_followed_back() {
        of_loss(
            |x| x.exp() * 2.0 * x.sign() - x.exp(),
            expect!["the loss is NaN: `aten::exp` made an infinity of [3] Float; `aten::sub` made NaN of that"],
        );
    }

    #[test]
    fn views_and_changes_in_place_keep_the_trail() {
        of_loss(
            |x| x.log().view([3, 1]).neg_().reshape([3]),
            expect!["the loss is inf: `aten::log` made an infinity of [3] Float"],
        );
        of_loss(|x| x.copy().log_(), expect!["the loss is -inf: `aten::log_` made an infinity of [3] Float"]);
    }

    #[test]
    fn a_mask_of_infinities_is_no_mistake() {
        of_loss(|x| x.masked_fill(&x.gt(1.0), f64::NEG_INFINITY).softmax(0, Kind::Float), expect!["fine"]);
        of_loss(
            |x| x.masked_fill(&x.ge(0.0), f64::NEG_INFINITY).softmax(0, Kind::Float),
            expect![
                "the loss is NaN: `aten::masked_fill` made an infinity of [3] Float and [3] Bool; `aten::_softmax` (in `aten::softmax`) made NaN of that"
            ],
        );
    }

    #[test]
    fn inputs_are_distinguished_from_results() {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root() / "fc", 2, 1, Default::default());
        let run = |x: Tensor| {
            let _watch = AnomalyWatch::new().unwrap();
            check_loss(&layer.forward(&x).sum(Kind::Float), &named_parameters(&vars)).unwrap_err().to_string()
        };
        expect!["the loss is NaN: `aten::linear` was passed NaN in [1, 2] Float that no operation of this step produced, in layer `fc`; it is in the batch, or in a constant"]
            .assert_eq(&run(Tensor::from_slice(&[f32::NAN, 0.0]).view([1, 2])));
        let _ = crate::tch::no_grad(|| layer.ws.shallow_clone().fill_(f64::NAN));
        expect!["the loss is NaN: the parameter `fc.weight` of [1, 2] Float contained NaN when it was passed to `aten::linear`"]
            .assert_eq(&run(Tensor::ones([1, 2], (Kind::Float, Device::Cpu))));
    }

    #[test]
    fn a_nan_of_the_backward_pass_names_the_forward_operation() {
        let vars = nn::VarStore::new(Device::Cpu);
        let layer = nn::linear(vars.root() / "fc", 2, 3, Default::default());
        let x = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu));
        let _watch = AnomalyWatch::new().unwrap();
        let loss = ((layer.forward(&x) * 0.0).sqrt() * 0.0).sum(Kind::Float);
        check_loss(&loss, &[]).unwrap();
        let message = backward(&loss).unwrap_err().to_string();
        let error = explain_backward(&message, &named_parameters(&vars)).unwrap();
        expect!["Function 'SqrtBackward0' returned nan values in its 0th output. It is the gradient of `aten::sqrt` of [4, 3] Float, after layer `fc`"]
            .assert_eq(&error.to_string());
        assert_eq!(explain_backward("out of memory", &[]), None);
    }

    #[test]
    fn nothing_is_watched_afterwards() {
        drop(AnomalyWatch::new().unwrap());
        let x = Tensor::from(0.0).set_requires_grad(true);
        let loss = x.sqrt() * 0.0;
        backward(&loss).unwrap();
        assert!(x.grad().isnan().double_value(&[]) == 1.0);
        check_loss(&x.grad(), &[]).unwrap();
    }
}
