//! Every message, word for word.

use fulgurite_optim::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, ChainedScheduler, ConstantLR, CosineAnnealingLR,
    CosineAnnealingWarmRestarts, CyclicLR, ExponentialLR, LBFGS, LambdaLR, LinearLR, LinearWarmupCosineAnnealingLR,
    Lion, LrScheduler, LrSchedulerConfig, Muon, NAdam, OneCycleLR, OptimError, Optimizers, ParamGroupConfig,
    PolynomialLR, RAdam, RMSprop, ReduceLROnPlateau, Rprop, SGD, SWALR, SequentialLR, SparseAdam, StepLR,
};
use fulgurite_torch::Dict;
use fulgurite_torch::tch::{Device, Kind, Tensor, nn};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn weight() -> Tensor {
    Tensor::ones([2, 3], FLOAT).set_requires_grad(true)
}

fn weights() -> Vec<Tensor> {
    vec![weight()]
}

fn message<T>(result: Result<T, OptimError>) -> String {
    result.err().map_or_else(|| "no error".into(), |error| error.to_string())
}

#[test]
fn a_schedule_that_is_not_a_number_is_refused_before_the_group_has_it() {
    let mut optimizer = SGD::new(weights()).lr(1.0).build().unwrap();
    let mut scheduler = LambdaLR::new(|epoch| if epoch == 1 { f64::NAN } else { 1.0 });
    scheduler.attach(optimizer.as_mut()).unwrap();
    assert_eq!(
        message(scheduler.step(optimizer.as_mut(), None)),
        "LambdaLR: invalid learning rate of group 0 at last_epoch=1: NaN; it must be finite"
    );
    assert_eq!(optimizer.param_groups()[0].lr, 1.0);
}

#[test]
fn settings_of_optimizers() {
    let cases = [
        (
            AdamW::new(weights()).lr(-1.0).build(),
            "AdamW: invalid learning rate: -1; it must be a finite number, 0 or more",
        ),
        (
            SGD::new(weights()).lr(f64::NAN).build(),
            "SGD: invalid learning rate: NaN; it must be a finite number, 0 or more",
        ),
        (
            LBFGS::new(weights()).lr(-1.0).build(),
            "LBFGS: invalid learning rate: -1; it must be a finite number, 0 or more",
        ),
        (
            Adam::new(weights()).weight_decay(-0.1).build(),
            "Adam: invalid weight_decay value: -0.1; it must be a finite number, 0 or more",
        ),
        (
            Adam::new(weights()).betas(1.0, 0.999).build(),
            "Adam: invalid beta parameter at index 0: 1; it must be in [0, 1)",
        ),
        (
            Lion::new(weights()).betas(0.9, -0.1).build(),
            "Lion: invalid beta parameter at index 1: -0.1; it must be in [0, 1)",
        ),
        (
            SGD::new(weights()).momentum(-0.9).build(),
            "SGD: invalid momentum value: -0.9; it must be a finite number, 0 or more",
        ),
        (
            SGD::new(weights()).dampening(f64::INFINITY).build(),
            "SGD: invalid dampening: inf; it must be a finite number",
        ),
        (
            SGD::new(weights()).nesterov(true).build(),
            "Nesterov momentum requires a momentum and zero dampening, got momentum 0 and dampening 0; set momentum (0.9 \
             is usual) and leave dampening at 0",
        ),
        (
            SGD::new(weights()).nesterov(true).momentum(0.9).dampening(0.5).build(),
            "Nesterov momentum requires a momentum and zero dampening, got momentum 0.9 and dampening 0.5; set momentum \
             (0.9 is usual) and leave dampening at 0",
        ),
        (
            AdamW::new(weights()).eps(-1.0).build(),
            "AdamW: invalid epsilon value: -1; it must be a finite number, 0 or more",
        ),
        (
            Adamax::new(weights()).eps(-1.0).build(),
            "Adamax: invalid epsilon value: -1; it must be a finite number, 0 or more",
        ),
        (
            NAdam::new(weights()).eps(-1.0).build(),
            "NAdam: invalid epsilon value: -1; it must be a finite number, 0 or more",
        ),
        (
            NAdam::new(weights()).momentum_decay(-1.0).build(),
            "NAdam: invalid momentum_decay value: -1; it must be a finite number, 0 or more",
        ),
        (
            RAdam::new(weights()).eps(-1.0).build(),
            "RAdam: invalid epsilon value: -1; it must be a finite number, 0 or more",
        ),
        (
            RMSprop::new(weights()).alpha(-1.0).build(),
            "RMSprop: invalid alpha value: -1; it must be a finite number, 0 or more",
        ),
        (
            Adagrad::new(weights()).lr_decay(-1.0).build(),
            "Adagrad: invalid lr_decay value: -1; it must be a finite number, 0 or more",
        ),
        (
            Adagrad::new(weights()).initial_accumulator_value(-1.0).build(),
            "Adagrad: invalid initial_accumulator_value value: -1; it must be a finite number, 0 or more",
        ),
        (Adadelta::new(weights()).rho(1.5).build(), "Adadelta: invalid rho value: 1.5; it must be between 0 and 1"),
        (
            Rprop::new(weights()).etas(1.2, 0.5).build(),
            "Rprop: invalid eta values: 1.2, 0.5; it must be below 1 (but above 0) and above 1",
        ),
        (
            Rprop::new(weights()).step_sizes(1.0, 0.1).build(),
            "Rprop: invalid step_sizes: 1, 0.1; it must be the smallest and the largest",
        ),
        (
            ASGD::new(weights()).alpha(f64::NAN).build(),
            "ASGD: invalid lambd, alpha, t0: 0.0001, NaN, 1000000; it must be numbers",
        ),
        (
            Adafactor::new(weights()).beta2_decay(0.8).build(),
            "Adafactor: invalid beta2_decay: 0.8; it must be 0 or less",
        ),
        (
            Adafactor::new(weights()).eps(Some(-1.0), 1e-3).build(),
            "Adafactor: invalid epsilon1: -1; it must be a finite number, 0 or more",
        ),
        (
            Adafactor::new(weights()).eps(None, -1.0).build(),
            "Adafactor: invalid epsilon2: -1; it must be a finite number, 0 or more",
        ),
        (
            Adafactor::new(weights()).d(0.5).build(),
            "Adafactor: invalid clipping threshold d: 0.5; it must be 1 or more",
        ),
        (Muon::new(weights()).ns_steps(100).build(), "Muon: invalid ns_steps: 100; it must be less than 100"),
        (
            Muon::new(vec![Tensor::ones([3], FLOAT)]).build(),
            "Muon: invalid parameter of shape: [3]; it must be a matrix; give parameters that are none to AdamW",
        ),
        (LBFGS::new(weights()).history_size(0).build(), "LBFGS: invalid history_size: 0; it must be 1 or more"),
    ];
    for (result, expected) in cases {
        assert_eq!(message(result), expected);
    }
}

#[test]
fn parameters() {
    let vs = nn::VarStore::new(Device::Cpu);
    assert_eq!(
        message(AdamW::new(&vs).build()),
        "optimizer got an empty parameter list: AdamW has nothing to train; create the layers before the optimizer, and \
         check that they are in the VarStore it is given"
    );
    let shared = weight();
    let groups = vec![ParamGroupConfig::new([&weight(), &shared]), ParamGroupConfig::new([&shared])];
    assert_eq!(
        message(SGD::new(groups).build()),
        "some parameters appear more than once: SGD got parameter 0 of group 1 already as parameter 1 of group 0; give \
         each parameter to one group"
    );
    assert_eq!(
        message(SGD::new(vec![weight() * 2.0]).build()),
        "SGD cannot optimize parameter 0 of group 0: it is computed from other tensors (can't optimize a non-leaf Tensor); \
         give the optimizer the tensors it is computed from, or a detached copy that requires a gradient"
    );
    assert_eq!(
        message(SGD::new(vec![weight(), Tensor::from_slice(&[1i64])]).build()),
        "SGD cannot optimize parameter 1 of group 0: it is of kind Int64, and only real floating-point tensors have \
         gradients that can be followed"
    );
    assert_eq!(
        message(SGD::new(vec![Tensor::new()]).build()),
        "SGD cannot optimize parameter 0 of group 0: it is an undefined tensor; create it before the optimizer"
    );
    assert_eq!(
        message(SGD::new(vec![Tensor::ones([4, 4], FLOAT).narrow(1, 0, 2)]).build()),
        "SGD cannot optimize parameter 0 of group 0: it is a view with gaps or overlaps in memory; use a .contiguous() copy"
    );
    let two = || vec![ParamGroupConfig::new([&weight()]), ParamGroupConfig::new([&weight()])];
    assert_eq!(
        message(LBFGS::new(two()).build()),
        "LBFGS doesn't support parameter groups, got 2; give it all parameters in one group"
    );
    let with = |group: ParamGroupConfig| vec![ParamGroupConfig::new([&weight()]), group];
    assert_eq!(
        message(Rprop::new(with(ParamGroupConfig::new([&weight()]).weight_decay(0.1))).build()),
        "parameter group 1 sets weight_decay, which Rprop does not have; leave it out"
    );
    assert_eq!(
        message(AdamW::new(with(ParamGroupConfig::new([&weight()]).momentum(0.9))).build()),
        "parameter group 1 sets momentum, which AdamW does not have; leave it out"
    );
    assert_eq!(
        message(SGD::new(with(ParamGroupConfig::new([&weight()]).betas(0.9, 0.99))).build()),
        "parameter group 1 sets betas, which SGD does not have; leave it out"
    );
}

#[test]
fn stepping() {
    let mut lbfgs = LBFGS::new(weights()).build().unwrap();
    assert_eq!(
        message(lbfgs.step()),
        "LBFGS needs a closure that evaluates the model and its gradients again; call step_with(closure) instead of step()"
    );
    let mut adam = Adam::new(weights()).build().unwrap();
    for optimizer in [&mut adam, &mut lbfgs] {
        assert_eq!(
            message(optimizer.step_with(&mut |_| Err("the cat sat on the GPU".into()))),
            "the cat sat on the GPU"
        );
    }
    adam.param_groups_mut()[0].params.push(weight());
    assert_eq!(
        message(adam.step()),
        "Adam: the parameters of group 0 were changed after the optimizer was built; build a new optimizer and load the old \
         one's state dict"
    );
    let table = Tensor::ones([4, 2], FLOAT).set_requires_grad(true);
    Tensor::embedding(&table, &Tensor::from_slice(&[1i64]), -1, false, true).sum(None).backward();
    let table = || vec![table.shallow_clone()];
    assert_eq!(
        message(Adam::new(table()).build().unwrap().step()),
        "Adam does not support sparse gradients; use SparseAdam, SGD or Adagrad for the parameters that have them, or build \
         their embedding with sparse: false"
    );
    assert_eq!(
        message(SGD::new(table()).weight_decay(0.1).build().unwrap().step()),
        "SGD: weight_decay is not compatible with sparse gradients; set weight_decay of the embedding's parameter group to 0"
    );
    let dense = weights();
    let mut sparse_adam = SparseAdam::new(dense).build().unwrap();
    (&sparse_adam.param_groups()[0].params[0] * 2.0).sum(None).backward();
    assert_eq!(
        message(sparse_adam.step()),
        "SparseAdam does not support dense gradients; use Adam for the parameters that have them, or build their embedding \
         with sparse: true"
    );
    let clipped = fulgurite_torch::grad::clip_grad_norm(&table(), 1.0, 2.0).unwrap_err().to_string();
    assert_eq!(
        clipped,
        "sparse gradients have no norm that is known, and cannot be clipped; build the embedding with sparse: false, or clip \
         without its weight"
    );
}

#[test]
fn state_dicts_of_optimizers() {
    let mut adam = Adam::new(weights()).build().unwrap();
    let mut load = |state: &Dict| message(adam.load_state_dict(state));
    let group = || Dict::new().with("lr", 0.1).with("betas", (0.9, 0.99)).with("params", vec![0]);
    let state = |groups: Vec<Dict>| Dict::new().with("state", Dict::new()).with("param_groups", groups);
    assert_eq!(load(&Dict::new()), "cannot load this state dict into Adam: no entry `param_groups`; there are: ");
    assert_eq!(
        load(&state(vec![])),
        "cannot load this state dict into Adam: it has a different number of parameter groups, 0 instead of 1; build the \
         optimizer with the groups it was saved with"
    );
    assert_eq!(
        load(&state(vec![group().with("params", vec![0, 1])])),
        "cannot load this state dict into Adam: parameter group 0 doesn't match the size of the optimizer's group, 2 \
         parameters instead of 1; is it of another model?"
    );
    let listed = Dict::new().with("state", Dict::new()).with("param_groups", vec![3]);
    assert_eq!(load(&listed), "cannot load this state dict into Adam: parameter group 0 is int, expected dict");
    assert_eq!(
        load(&state(vec![group().with("amsgrad", "yes")])),
        "cannot load this state dict into Adam: entry `amsgrad` is `yes`, expected a bool"
    );
    assert_eq!(
        load(&state(vec![group().with("lr", "fast")])),
        "cannot load this state dict into Adam: entry `lr` of a parameter group is no number"
    );
    assert_eq!(
        load(&state(vec![group().with("betas", vec![0.9])])),
        "cannot load this state dict into Adam: entry `betas` of a parameter group is no number"
    );
    assert_eq!(
        load(&state(vec![group().with("lr", -0.1)])),
        "Adam: invalid learning rate: -0.1; it must be a finite number, 0 or more"
    );
    assert_eq!(
        load(&Dict::new().with("param_groups", vec![group()])),
        "cannot load this state dict into Adam: no entry `state`; there are: param_groups"
    );
    let of = |entry: Dict| state(vec![group()]).with("state", Dict::new().with(0, entry));
    assert_eq!(
        load(&state(vec![group()]).with("state", Dict::new().with(0, 7))),
        "cannot load this state dict into Adam: state of parameter 0: it is int, expected dict"
    );
    assert_eq!(
        load(&of(Dict::new().with("momentum_buffer", weight()))),
        "cannot load this state dict into Adam: state of parameter 0: no entry `step`; there are: momentum_buffer"
    );
    assert_eq!(
        load(&of(Dict::new().with("step", "three"))),
        "cannot load this state dict into Adam: state of parameter 0: entry `step` is str, expected a number"
    );
    assert_eq!(
        load(&of(Dict::new().with("step", 3).with("exp_avg", 1.0))),
        "cannot load this state dict into Adam: state of parameter 0: entry `exp_avg` is float, expected tensor"
    );
    assert_eq!(
        load(&of(Dict::new().with("step", 3).with("exp_avg", Tensor::ones([3], FLOAT)))),
        "cannot load this state dict into Adam: state of parameter 0: `exp_avg` has shape [3], expected [2, 3]; is it of \
         another model?"
    );
}

#[test]
fn state_dicts_of_lbfgs() {
    let mut lbfgs = LBFGS::new(weights()).build().unwrap();
    let mut load = |entry: Dict| {
        let group = Dict::new().with("lr", 1.0).with("params", vec![0]);
        let state = Dict::new().with("state", Dict::new().with(0, entry)).with("param_groups", vec![group]);
        message(lbfgs.load_state_dict(&state))
    };
    assert_eq!(load(Dict::new()), "cannot load this state dict into LBFGS: no entry `func_evals`; there are: ");
    let begun = || Dict::new().with("func_evals", 1).with("n_iter", 1);
    assert_eq!(
        load(begun().with("d", Tensor::ones([4], FLOAT))),
        "cannot load this state dict into LBFGS: `d` is no vector of 6 numbers"
    );
    let flat = || Tensor::ones([6], FLOAT);
    assert_eq!(
        load(begun().with("d", flat()).with("t", "long")),
        "cannot load this state dict into LBFGS: `t` is no number"
    );
    let full = begun().with("d", flat()).with("t", 1.0).with("prev_flat_grad", flat()).with("prev_loss", 1.0);
    let full = full.with("H_diag", 1).with("old_dirs", vec![flat()]).with("old_stps", Vec::<Tensor>::new());
    assert_eq!(
        load(full.with("ro", Vec::<Tensor>::new())),
        "cannot load this state dict into LBFGS: `old_dirs`, `old_stps` and `ro` differ in length"
    );
}

fn attach(scheduler: impl LrScheduler + 'static) -> String {
    message(Optimizers::from(SGD::new(weights())).scheduler(LrSchedulerConfig::new(scheduler)).build())
}

#[test]
fn settings_of_schedulers() {
    let cases = [
        (attach(StepLR::new(0)), "StepLR: invalid step_size: 0; it must be 1 or more"),
        (
            attach(ConstantLR::new().factor(0.0)),
            "ConstantLR: invalid constant multiplicative factor: 0; it must be greater than 0 and at most 1",
        ),
        (
            attach(LinearLR::new().start_factor(0.0)),
            "LinearLR: invalid starting multiplicative factor: 0; it must be greater than 0 and at most 1",
        ),
        (
            attach(LinearLR::new().end_factor(1.5)),
            "LinearLR: invalid ending multiplicative factor: 1.5; it must be between 0 and 1",
        ),
        (attach(PolynomialLR::new(0)), "PolynomialLR: invalid total_iters: 0; it must be 1 or more"),
        (attach(CosineAnnealingLR::new(0)), "CosineAnnealingLR: invalid T_max: 0; it must be 1 or more"),
        (
            attach(CosineAnnealingWarmRestarts::new(0)),
            "CosineAnnealingWarmRestarts: invalid T_0: 0; it must be 1 or more",
        ),
        (
            attach(CosineAnnealingWarmRestarts::new(5).t_mult(0)),
            "CosineAnnealingWarmRestarts: invalid T_mult: 0; it must be 1 or more",
        ),
        (attach(CyclicLR::new(0.1, 0.2).step_size_up(0)), "CyclicLR: invalid step_size_up: 0; it must be 1 or more"),
        (
            attach(CyclicLR::new(0.1, 0.2).step_size_down(0)),
            "CyclicLR: invalid step_size_down: 0; it must be 1 or more",
        ),
        (attach(OneCycleLR::new(0.1, 0)), "OneCycleLR: invalid total_steps: 0; it must be 1 or more"),
        (
            attach(OneCycleLR::new(0.1, 9).pct_start(1.5)),
            "OneCycleLR: invalid pct_start: 1.5; it must be between 0 and 1",
        ),
        (
            attach(OneCycleLR::new(0.1, 9).div_factor(0.0)),
            "OneCycleLR: invalid div_factor: 0; it must be greater than 0",
        ),
        (
            attach(OneCycleLR::new(0.1, 9).final_div_factor(-1.0)),
            "OneCycleLR: invalid final_div_factor: -1; it must be greater than 0",
        ),
        (attach(ReduceLROnPlateau::new().factor(1.0)), "ReduceLROnPlateau: invalid factor: 1; it must be less than 1"),
        (
            attach(LinearWarmupCosineAnnealingLR::new(10, 10)),
            "LinearWarmupCosineAnnealingLR: invalid max_epochs: 10; it must be more than warmup_epochs",
        ),
        (
            attach(LinearWarmupCosineAnnealingLR::new(1, 10).warmup_start_lr(-1.0)),
            "LinearWarmupCosineAnnealingLR: invalid warmup_start_lr: -1; it must be a finite number, 0 or more",
        ),
        (
            attach(LinearWarmupCosineAnnealingLR::new(1, 10).eta_min(-1.0)),
            "LinearWarmupCosineAnnealingLR: invalid eta_min: -1; it must be a finite number, 0 or more",
        ),
        (
            attach(SequentialLR::new(StepLR::new(1)).then(5, StepLR::new(1)).then(5, StepLR::new(1))),
            "SequentialLR: invalid milestones: [5, 5]; it must be increasing",
        ),
        (
            attach(OneCycleLR::new(vec![0.1, 0.2], 9)),
            "OneCycleLR: max_lr has 2 values, the optimizer has 1 parameter groups; give one value per group, or a single \
             one for all",
        ),
        (
            attach(LambdaLR::per_group(vec![])),
            "LambdaLR: lr_lambda has 0 values, the optimizer has 1 parameter groups; give one value per group, or a single \
             one for all",
        ),
    ];
    for (message, expected) in cases {
        assert_eq!(message, expected);
    }
    let no_momentum =
        |scheduler: LrSchedulerConfig| message(Optimizers::from(Adagrad::new(weights())).scheduler(scheduler).build());
    for (scheduler, name) in
        [(OneCycleLR::new(0.1, 9).into(), "OneCycleLR"), (CyclicLR::new(0.1, 0.2).into(), "CyclicLR")]
    {
        assert_eq!(
            no_momentum(scheduler),
            format!(
                "{name}: optimizer must support momentum or beta1 with cycle_momentum, and Adagrad has neither; call \
                 .cycle_momentum(false)"
            )
        );
    }
    assert_eq!(
        message(Optimizers::none().scheduler(StepLR::new(1)).build()),
        "a scheduler was added before any optimizer; call .scheduler(...) after the optimizer it belongs to"
    );
}

#[test]
fn adding_groups() {
    let first = weights();
    let mut sgd = SGD::new(&first[..]).lr(0.1).build().unwrap();
    let mut add = |group: ParamGroupConfig| message(sgd.add_param_group(group));
    assert_eq!(
        add(ParamGroupConfig::new(&first)),
        "some parameters appear more than once: SGD got parameter 0 of group 1 already as parameter 0 of group 0; give \
         each parameter to one group"
    );
    assert_eq!(
        add(ParamGroupConfig::new([&weight()]).lr(-1.0)),
        "SGD: invalid learning rate: -1; it must be a finite number, 0 or more"
    );
    assert_eq!(
        add(ParamGroupConfig::new([&weight()]).betas(0.9, 0.99)),
        "parameter group 1 sets betas, which SGD does not have; leave it out"
    );
    assert!(add(ParamGroupConfig::new(&[] as &[Tensor])).starts_with("optimizer got an empty parameter list: SGD"));
    // Nothing of these was added.
    sgd.step().unwrap();
    assert_eq!(sgd.param_groups().len(), 1);
    assert_eq!(
        message(LBFGS::new(weights()).build().unwrap().add_param_group(ParamGroupConfig::new(&weights()))),
        "LBFGS doesn't support parameter groups, got 2; give it all parameters in one group"
    );
    let mut per_group = LambdaLR::per_group(vec![Box::new(|_| 1.0)]);
    per_group.attach(sgd.as_mut()).unwrap();
    sgd.add_param_group(ParamGroupConfig::new(&weights())).unwrap();
    assert_eq!(
        message(per_group.step(sgd.as_mut(), None)),
        "LambdaLR: lr_lambda has 1 values, the optimizer has 2 parameter groups; give one value per group, or a single \
         one for all"
    );
    let mut sgd = SGD::new(weights()).build().unwrap();
    assert_eq!(
        message(SWALR::new(vec![0.1, 0.2]).attach(sgd.as_mut())),
        "SWALR: swa_lr has 2 values, the optimizer has 1 parameter groups; give one value per group, or a single one for \
         all"
    );
}

#[test]
fn stepping_schedulers() {
    let mut sgd = SGD::new(weights()).build().unwrap();
    let not_attached = "is not attached to an optimizer; call attach(&mut optimizer) once before the first step";
    assert_eq!(message(StepLR::new(1).step(sgd.as_mut(), None)), format!("StepLR {not_attached}"));
    assert_eq!(
        message(ReduceLROnPlateau::new().step(sgd.as_mut(), Some(1.0))),
        format!("ReduceLROnPlateau {not_attached}")
    );
    assert_eq!(
        message(StepLR::new(1).load_state_dict(&StepLR::new(1).state_dict().unwrap())),
        format!("StepLR {not_attached}")
    );
    assert_eq!(
        message(ReduceLROnPlateau::new().step(sgd.as_mut(), None)),
        "ReduceLROnPlateau needs the value it monitors at every step; name a logged value with .monitor(\"val_loss\")"
    );
    let mut one_cycle = OneCycleLR::new(0.1, 1);
    one_cycle.attach(sgd.as_mut()).unwrap();
    one_cycle.step(sgd.as_mut(), None).unwrap();
    assert_eq!(
        message(one_cycle.step(sgd.as_mut(), None)),
        "OneCycleLR: tried to step 2 times, the specified number of total steps is 1; make total_steps the number of \
         optimizer steps of the whole run, and step it once per optimizer step"
    );
}

#[test]
fn state_dicts_of_schedulers() {
    let mut sgd = SGD::new(weights()).build().unwrap();
    let mut step = StepLR::new(1);
    step.attach(sgd.as_mut()).unwrap();
    let good = step.state_dict().unwrap();
    let mut load = |state: Dict| message(step.load_state_dict(&state));
    assert_eq!(load(Dict::new()), "cannot load this state dict into StepLR: no entry `base_lrs`; there are: ");
    let none: Vec<f64> = Vec::new();
    assert_eq!(
        load(good.clone().with("base_lrs", none)),
        "cannot load this state dict into StepLR: `base_lrs` has 0 values, the optimizer has 1 parameter groups"
    );
    assert_eq!(
        load(good.clone().with("_last_lr", vec!["slow"])),
        "cannot load this state dict into StepLR: `_last_lr` holds a str, no number"
    );
    assert_eq!(
        load(good.clone().with("gamma", ())),
        "cannot load this state dict into StepLR: entry `gamma` is None, expected a number"
    );
    assert_eq!(
        load(good.with("last_epoch", "one")),
        "cannot load this state dict into StepLR: entry `last_epoch` is str, expected int"
    );

    let mut chain = ChainedScheduler::new(StepLR::new(1)).and(ExponentialLR::new(0.9));
    chain.attach(sgd.as_mut()).unwrap();
    let state = chain.state_dict().unwrap();
    assert_eq!(
        message(chain.load_state_dict(&state.clone().with("_schedulers", vec![3]))),
        "cannot load this state dict into ChainedScheduler: it has 1 schedulers, expected 2"
    );
    assert_eq!(
        message(chain.load_state_dict(&state.with("_schedulers", vec![3, 4]))),
        "cannot load this state dict into ChainedScheduler: a part's state is no dict"
    );
    let mut sequence = SequentialLR::new(StepLR::new(1)).then(3, ExponentialLR::new(0.9));
    sequence.attach(sgd.as_mut()).unwrap();
    let state = sequence.state_dict().unwrap();
    assert_eq!(
        message(sequence.load_state_dict(&state.clone().with("_milestones", Vec::<i64>::new()))),
        "cannot load this state dict into SequentialLR: it has 1 schedulers, expected 2"
    );
    assert_eq!(
        message(sequence.load_state_dict(&state.with("_milestones", vec![0.5]))),
        "cannot load this state dict into SequentialLR: a milestone is no int"
    );

    let mut adam = Adam::new(weights()).build().unwrap();
    let mut cycle = OneCycleLR::new(0.1, 9);
    let before = adam.state_dict().unwrap();
    cycle.attach(adam.as_mut()).unwrap();
    adam.load_state_dict(&before).unwrap();
    assert_eq!(
        message(cycle.step(adam.as_mut(), None)),
        "cannot load this state dict into OneCycleLR: the optimizer's parameter group has no `max_lr`; load the optimizer \
         state that was saved with this scheduler"
    );
    let state = cycle.state_dict().unwrap().with("_anneal_func_type", "sideways");
    assert_eq!(
        message(cycle.load_state_dict(&state)),
        "cannot load this state dict into OneCycleLR: entry `_anneal_func_type` is `sideways`, expected `cos` or `linear`"
    );
    let mut cyclic = CyclicLR::new(0.1, 0.2);
    cyclic.attach(adam.as_mut()).unwrap();
    let state = cyclic.state_dict().unwrap().with("max_lrs", vec![0.1, 0.2]);
    assert_eq!(
        message(cyclic.load_state_dict(&state)),
        "cannot load this state dict into CyclicLR: its lists have not one value for each of the 1 parameter groups"
    );
}
