//! Layers, losses and initial values against `torch.nn`: what they begin with, compute, learn and print.

mod case;
mod init;
mod layers;
mod losses;
mod sequences;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use case::{Case, Layer};
use fulgurite_torch::params::{self, Parameters};
use fulgurite_torch::tch::{self, Device, Kind, Tensor};
use fulgurite_torch::{Dict, Value, VarStore, rng, serialization};
use serde::Deserialize;

const SEED: u64 = 7;

#[derive(Deserialize)]
struct Expectations {
    layers: Vec<Case>,
    inits: Vec<init::Init>,
    gains: Vec<(String, Option<f64>, f64)>,
}

/// The furthest that numbers are away, for each kind.
#[derive(Default)]
struct Deviations(RefCell<BTreeMap<String, (f64, String)>>);

impl Deviations {
    fn note(&self, kind: Kind, deviation: f64, what: impl FnOnce() -> String) {
        let mut all = self.0.borrow_mut();
        let furthest = all.entry(format!("{kind:?}")).or_default();
        if deviation > furthest.0 {
            *furthest = (deviation, what());
        }
    }
}

#[test]
fn layers_are_those_of_pytorch() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let expectations = fulgurite_parity::python("nn.py", &[folder.path().to_str().unwrap()]);
    let Expectations { layers, inits, gains } = serde_json::from_value(expectations).unwrap();
    let tensors = tensors(&folder.path().join("tensors.pt"));
    assert!(layers.len() > 1700 && inits.len() > 150, "{} and {}", layers.len(), inits.len());

    let deviations = Deviations::default();
    let mut problems = Vec::new();
    for (case, theirs) in layers.iter().zip(tensors.list("layers").unwrap()) {
        let found = compare(case, theirs.as_dict().unwrap(), &deviations);
        problems.extend(found.into_iter().map(|problem| format!("{case}: {problem}")));
    }
    for (case, theirs) in inits.iter().zip(tensors.list("inits").unwrap()) {
        problems.extend(case.problem(theirs.as_dict().unwrap()).map(|problem| format!("{case}: {problem}")));
    }
    problems.extend(gains.iter().filter_map(|(name, slope, gain)| {
        let ours = init::nonlinearity(name, *slope).gain();
        (ours != *gain).then(|| format!("the gain of {name} is {ours}, not {gain}"))
    }));
    for (kind, (deviation, what)) in &*deviations.0.borrow() {
        println!("{kind}: at most {deviation:.1e} of the scale away, in {what}");
    }
    let shown = &problems[..problems.len().min(80)];
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), shown.join("\n"));
}

fn tensors(path: &Path) -> Dict {
    match serialization::load(path).unwrap() {
        Value::Dict(tensors) => tensors,
        other => panic!("{other:?}"),
    }
}

/// The problems of a layer; after one of the first kinds there is no use in going on.
fn compare(case: &Case, theirs: &Dict, deviations: &Deviations) -> Vec<String> {
    let vars = VarStore::new(Device::Cpu);
    rng::manual_seed(SEED).unwrap();
    let layer = case.build(vars.root());
    let passes = theirs.list("passes").unwrap();
    if let Some(error) = &case.error {
        let inputs = inputs(passes[0].as_dict().unwrap());
        let outputs = layer.and_then(|layer| (layer.forward)(&inputs));
        return outputs.map_or_else(|_| Vec::new(), |_| vec![format!("PyTorch says {error}")]);
    }
    let layer = match layer {
        Ok(layer) => layer,
        Err(error) => return vec![format!("is refused: {error}")],
    };
    let unread = case.unread();
    if !unread.is_empty() {
        return vec![format!("the options {unread:?} are not compared")];
    }
    let mut problems = Vec::new();
    if Some(&layer.repr) != case.repr.as_ref() {
        problems.push(format!("is printed {}, not {}", layer.repr, case.repr.as_deref().unwrap_or_default()));
    }
    problems.extend(draws(theirs));
    let begun = initial(case, &vars, theirs.dict("initial").unwrap());
    if !begun.is_empty() {
        return [problems, begun].concat();
    }
    params::to_kind(&vars, case.kind()).unwrap();
    for (at, pass) in passes.iter().enumerate() {
        let pass = pass.as_dict().unwrap();
        vars.train(at + 1 < passes.len());
        for problem in run(&layer, &vars, pass, SEED + at as u64, deviations, case) {
            problems.push(format!("pass {at}: {problem}"));
        }
    }
    let ours = params::state_dict(&vars).unwrap();
    for (name, theirs) in theirs.dict("final").unwrap().iter() {
        let ours = ours.tensor(name.as_str().unwrap()).unwrap();
        let what = || format!("{case}, {name:?}");
        problems.extend(differs(ours, theirs.as_tensor().unwrap(), deviations, what).map(|p| format!("{name:?} {p}")));
    }
    problems
}

/// Names in their order, shapes and values of what a layer begins with.
fn initial(case: &Case, vars: &VarStore, theirs: &Dict) -> Vec<String> {
    let ours = params::state_dict(vars).unwrap();
    let names = |state: &Dict| state.keys().map(String::from).collect::<Vec<_>>();
    if names(&ours) != names(theirs) {
        return vec![format!("has {:?}, not {:?}", names(&ours), names(theirs))];
    }
    let parameters: Vec<String> = params::named_parameters(vars).into_iter().map(|(name, _)| name).collect();
    if parameters != case.parameters {
        return vec![format!("has the parameters {parameters:?}, not {:?}", case.parameters)];
    }
    let differing = ours.keys().filter(|name| {
        let (ours, theirs) = (ours.tensor(name).unwrap(), theirs.tensor(name).unwrap());
        (ours.kind(), ours.size()) != (theirs.kind(), theirs.size()) || ours != theirs
    });
    differing.map(|name| format!("{name} begins with other values")).collect()
}

/// Whether the generator stands where Python's does.
fn draws(theirs: &Dict) -> Option<String> {
    let drawn = Tensor::rand([2], (Kind::Float, Device::Cpu));
    (drawn != *theirs.tensor("drawn").unwrap()).then(|| "draws other numbers".into())
}

fn optional(value: &Value) -> Option<&Tensor> {
    value.as_tensor()
}

fn inputs(pass: &Dict) -> Vec<Option<Tensor>> {
    pass.list("inputs").unwrap().iter().map(|input| optional(input).map(|x| x.detach().copy())).collect()
}

fn run(layer: &Layer, vars: &VarStore, pass: &Dict, seed: u64, deviations: &Deviations, case: &Case) -> Vec<String> {
    let mut inputs = inputs(pass);
    let input_gradients: Vec<Option<&Tensor>> = pass.list("input_gradients").unwrap().iter().map(optional).collect();
    for (input, gradient) in inputs.iter_mut().zip(&input_gradients) {
        if gradient.is_some() {
            *input = input.take().map(|input| input.set_requires_grad(true));
        }
    }
    for tensor in vars.named_tensors() {
        let mut tensor = tensor.tensor;
        tensor.zero_grad();
    }
    rng::manual_seed(seed).unwrap();
    let outputs = match (layer.forward)(&inputs) {
        Ok(outputs) => outputs,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::from_iter(draws(pass));
    let mut pairs: Vec<(String, Tensor, &Tensor)> = Vec::new();
    let theirs = pass.list("outputs").unwrap();
    if theirs.len() != outputs.len() {
        return vec![format!("there are {} outputs, not {}", outputs.len(), theirs.len())];
    }
    let mut total: Option<Tensor> = None;
    for (at, (ours, cotangent)) in outputs.iter().zip(pass.list("cotangents").unwrap()).enumerate() {
        pairs.push((format!("output {at}"), ours.detach(), theirs[at].as_tensor().unwrap()));
        if let Some(cotangent) = optional(cotangent) {
            if ours.size() != cotangent.size() {
                return vec![format!("output {at} has the size {:?}, not {:?}", ours.size(), cotangent.size())];
            }
            let part = (ours * cotangent).sum(ours.kind());
            total = Some(total.map_or_else(|| part.shallow_clone(), |total| total + &part));
        }
    }
    if let Some(total) = total {
        total.backward();
    }
    for (at, (input, theirs)) in inputs.iter().zip(input_gradients).enumerate() {
        if let (Some(input), Some(theirs)) = (input, theirs) {
            pairs.push((format!("the gradient of input {at}"), input.grad(), theirs));
        }
    }
    let gradients = pass.dict("gradients").unwrap();
    for (name, parameter) in params::named_parameters(vars) {
        match (parameter.grad(), gradients.get(&name)) {
            (gradient, None) if gradient.defined() => problems.push(format!("{name} has a gradient")),
            (_, None) => {}
            (gradient, Some(theirs)) => {
                let gradient = if gradient.is_sparse() { gradient.to_dense(None, false) } else { gradient };
                pairs.push((format!("the gradient of {name}"), gradient, theirs.as_tensor().unwrap()));
            }
        }
    }
    for (what, ours, theirs) in pairs {
        let problem = differs(&ours, theirs, deviations, || format!("{what} of {case}"));
        problems.extend(problem.map(|problem| format!("{what} {problem}")));
    }
    problems
}

/// What is different: kind, shape, or a number by more than a millionth of the largest, or what the kind can say.
fn differs(ours: &Tensor, theirs: &Tensor, deviations: &Deviations, what: impl FnOnce() -> String) -> Option<String> {
    if !ours.defined() {
        return Some("is not there".into());
    }
    if (ours.kind(), ours.size()) != (theirs.kind(), theirs.size()) {
        let (kinds, sizes) = ((ours.kind(), theirs.kind()), (ours.size(), theirs.size()));
        return Some(format!("is {:?} {:?}, not {:?} {:?}", kinds.0, sizes.0, kinds.1, sizes.1));
    }
    if ours.numel() == 0 {
        return None;
    }
    let allowed = match ours.kind() {
        Kind::Half => 1e-3,
        Kind::BFloat16 => 8e-3,
        _ => 1e-6,
    };
    let [a, b] = [ours, theirs].map(|tensor| tensor.detach().to_kind(Kind::Double));
    // Infinities and NaN are at the same places.
    let finite = b.isfinite();
    let others = |x: &Tensor| x.masked_fill(&finite, 0.0).nan_to_num(7.0, 1.0, -1.0);
    if a.isnan() != b.isnan() || others(&a) != others(&b) {
        return Some(format!("is not finite elsewhere: {ours}, not {theirs}"));
    }
    let [a, b] = [a, b].map(|x| x.masked_fill(&finite.logical_not(), 0.0));
    let scale = b.abs().max().double_value(&[]).max(1e-2);
    let deviation = (a - b).abs().max().double_value(&[]) / scale;
    deviations.note(ours.kind(), deviation, what);
    (deviation > allowed).then(|| format!("is {deviation:.1e} of the scale away"))
}
