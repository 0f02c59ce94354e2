//! The optimizers: a file each, and a line here. All but [`LBFGS`] are [`Rule`](crate::Rule)s.

use crate::build::{BuildOptimizer, OptimizerVisitor};
use crate::options::classes;
use crate::{IntoParamGroups, OptimError, Optimizer, Optimizers, ParamGroupConfig};

type Built = Result<Box<dyn Optimizer>, OptimError>;

classes! {
    /// An optimizer as data: its class and its options.
    ///
    /// ```
    /// use fulgurite_optim::{AdamWOptions, OptimizerOptions};
    /// use fulgurite_torch::tch::{Device, nn};
    ///
    /// let vs = nn::VarStore::new(Device::Cpu);
    /// let _layer = nn::linear(vs.root(), 4, 2, Default::default());
    /// let options = OptimizerOptions::AdamW(AdamWOptions::default().lr(3e-4));
    /// let (optimizers, _) = options.build(&vs).build()?;
    /// assert_eq!(optimizers[0].param_groups()[0].lr, 3e-4);
    /// # Ok::<(), fulgurite_optim::OptimError>(())
    /// ```
    OptimizerOptions, OptimizerVisitor, BuildOptimizer::build_optimizer as fn(Vec<ParamGroupConfig>) -> Built {
        adadelta: Adadelta(AdadeltaOptions);
        adafactor: Adafactor(AdafactorOptions);
        adagrad: Adagrad(AdagradOptions);
        adam: Adam(AdamOptions), AdamW(AdamWOptions);
        adamax: Adamax(AdamaxOptions);
        asgd: ASGD(AsgdOptions);
        lbfgs: LBFGS(LbfgsOptions);
        lion: Lion(LionOptions);
        muon: Muon(MuonOptions);
        nadam: NAdam(NAdamOptions);
        radam: RAdam(RAdamOptions);
        rmsprop: RMSprop(RMSpropOptions);
        rprop: Rprop(RpropOptions);
        sgd: SGD(SgdOptions);
        sparse_adam: SparseAdam(SparseAdamOptions);
    }
}

impl OptimizerOptions {
    /// The optimizer for a `VarStore`, tensors, or groups. What is wrong with the options is reported when it is built.
    pub fn build(self, params: impl IntoParamGroups) -> Optimizers {
        Optimizers::from_result(self.make(params.into_param_groups()))
    }
}
