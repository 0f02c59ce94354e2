//! What LBFGS remembers of its steps, and the direction that follows from it.

use std::collections::VecDeque;

use fulgurite_torch::tch::{Device, Kind, Tensor, no_grad_guard};
use fulgurite_torch::{Dict, Value, foreach};

use crate::OptimError;
use crate::typed::number;

pub(super) const NAME: &str = "LBFGS";

#[derive(Default)]
pub(super) struct Memory {
    evaluations: i64,
    iterations: i64,
    /// The step before.
    last: Option<Last>,
    pairs: VecDeque<Pair>,
    h_diag: f64,
}

struct Last {
    direction: Tensor,
    length: f64,
    grad: Tensor,
    loss: f64,
}

/// How the gradient and the parameters changed in a step, and 1 / their product.
struct Pair {
    grad: Tensor,
    step: Tensor,
    ro: f64,
}

impl Memory {
    pub(super) fn iterations(&self) -> i64 {
        self.iterations
    }

    pub(super) fn count_evaluations(&mut self, evaluations: i64) {
        self.evaluations += evaluations;
    }

    /// Counts an iteration, and gives its direction: the gradient times the estimated inverse of the second derivative.
    pub(super) fn direction(&mut self, flat_grad: &Tensor, history_size: i64) -> Result<Tensor, OptimError> {
        let _guard = no_grad_guard();
        self.iterations += 1;
        let mut direction = flat_grad.f_neg()?;
        let Some(last) = &self.last else {
            self.h_diag = 1.0;
            return Ok(direction);
        };
        let change = flat_grad.f_sub(&last.grad)?;
        let step = last.direction.f_mul_scalar(last.length)?;
        let product = dot(&change, &step)?;
        let round = |x: f64| rounded(x, flat_grad.kind());
        if product > 1e-10 {
            if self.pairs.len() as i64 >= history_size {
                self.pairs.pop_front();
            }
            self.h_diag = round(product / dot(&change, &change)?);
            self.pairs.push_back(Pair { grad: change, step, ro: round(1.0 / product) });
        }
        let mut weights = Vec::with_capacity(self.pairs.len());
        for pair in self.pairs.iter().rev() {
            let weight = round(dot(&pair.step, &direction)? * pair.ro);
            foreach::add_tensor_(&mut direction, &pair.grad, -weight)?;
            weights.push(weight);
        }
        let _ = direction.f_mul_scalar_(self.h_diag)?;
        for (pair, weight) in self.pairs.iter().zip(weights.into_iter().rev()) {
            let back = round(dot(&pair.grad, &direction)? * pair.ro);
            foreach::add_tensor_(&mut direction, &pair.step, round(weight - back))?;
        }
        Ok(direction)
    }

    /// Remembers where an iteration begins.
    pub(super) fn note(&mut self, flat_grad: &Tensor, loss: f64) -> Result<(), OptimError> {
        let grad = flat_grad.detach().copy();
        match &mut self.last {
            Some(last) => (last.grad, last.loss) = (grad, loss),
            None => self.last = Some(Last { direction: grad.shallow_clone(), length: 0.0, grad, loss }),
        }
        Ok(())
    }

    /// Remembers the step of an iteration.
    pub(super) fn remember_step(&mut self, length: f64, direction: Tensor) {
        if let Some(last) = &mut self.last {
            (last.length, last.direction) = (length, direction);
        }
    }

    /// PyTorch's layout; nothing before the first step.
    pub(super) fn save(&self, history_size: i64) -> Option<Dict> {
        if self.evaluations == 0 {
            return None;
        }
        let mut state = Dict::new().with("func_evals", self.evaluations).with("n_iter", self.iterations);
        let Some(last) = &self.last else { return Some(state) };
        let options = (last.grad.kind(), last.grad.device());
        let scalar = |x: f64| Value::Tensor(Tensor::from(x).to_kind(options.0).to_device(options.1));
        state.push("d", &last.direction);
        state.push("t", last.length);
        state.push("old_dirs", self.pairs.iter().map(|pair| pair.grad.shallow_clone()).collect::<Vec<_>>());
        state.push("old_stps", self.pairs.iter().map(|pair| pair.step.shallow_clone()).collect::<Vec<_>>());
        state.push("ro", self.pairs.iter().map(|pair| scalar(pair.ro)).collect::<Vec<Value>>());
        // PyTorch's scratch space.
        state.push("al", vec![Value::None; history_size.max(0) as usize]);
        state.push("H_diag", scalar(self.h_diag));
        state.push("prev_flat_grad", &last.grad);
        state.push("prev_loss", last.loss);
        Some(state)
    }

    pub(super) fn load(state: &Dict, params: &[Tensor]) -> Result<Memory, OptimError> {
        let lacks = OptimError::lacks(NAME);
        let numel: usize = params.iter().map(Tensor::numel).sum();
        let (kind, device) = (params[0].f_kind()?, params[0].device());
        let mut memory = Memory {
            evaluations: state.int("func_evals").map_err(&lacks)?,
            iterations: state.int("n_iter").map_err(&lacks)?,
            ..Memory::default()
        };
        if state.get("d").is_none_or(|d| *d == Value::None) {
            return Ok(memory);
        }
        let flat = |key: &str, value: &Value| {
            let tensor = value.as_tensor().filter(|tensor| tensor.size() == [numel as i64]);
            let wrong = || OptimError::state_dict(NAME, format!("`{key}` is no vector of {numel} numbers"));
            copy_to(tensor.ok_or_else(wrong)?, kind, device)
        };
        let float = |key: &str, value: &Value| {
            number(value).ok_or_else(|| OptimError::state_dict(NAME, format!("`{key}` is no number")))
        };
        let entry = |key: &str| state.require(key).map_err(&lacks);
        memory.last = Some(Last {
            direction: flat("d", entry("d")?)?,
            length: float("t", entry("t")?)?,
            grad: flat("prev_flat_grad", entry("prev_flat_grad")?)?,
            loss: float("prev_loss", entry("prev_loss")?)?,
        });
        memory.h_diag = float("H_diag", entry("H_diag")?)?;
        let (grads, steps) = (state.list("old_dirs").map_err(&lacks)?, state.list("old_stps").map_err(&lacks)?);
        let ros = state.list("ro").map_err(&lacks)?;
        if grads.len() != steps.len() || grads.len() != ros.len() {
            return Err(OptimError::state_dict(NAME, "`old_dirs`, `old_stps` and `ro` differ in length"));
        }
        for ((grad, step), ro) in grads.iter().zip(steps).zip(ros) {
            let (grad, step) = (flat("old_dirs", grad)?, flat("old_stps", step)?);
            memory.pairs.push_back(Pair { grad, step, ro: float("ro", ro)? });
        }
        Ok(memory)
    }
}

/// `x` as PyTorch has it, where such numbers are tensors of the parameters' kind: then both take the same way down.
pub(super) fn rounded(x: f64, kind: Kind) -> f64 {
    if kind == Kind::Float { f64::from(x as f32) } else { x }
}

/// The number in a tensor without dimensions, read from the device.
pub(super) fn scalar(tensor: &Tensor) -> Result<f64, OptimError> {
    Ok(tensor.f_double_value(&[])?)
}

pub(super) fn dot(a: &Tensor, b: &Tensor) -> Result<f64, OptimError> {
    scalar(&a.f_dot(b)?)
}

fn copy_to(tensor: &Tensor, kind: Kind, device: Device) -> Result<Tensor, OptimError> {
    Ok(tensor.f_to_device(device)?.f_to_kind(kind)?.copy())
}
