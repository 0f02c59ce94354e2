//! What comes out of a run besides its results.

use fulgurite::Console;
use fulgurite::config::Deterministic;
use fulgurite::loggers::{Logged, MemoryLogger};
use fulgurite::prelude::*;
use fulgurite::torch::serialization;

use super::{batches, quiet, weight};

#[test]
fn predictions_need_not_be_kept() {
    let mut trainer = quiet().build().unwrap();
    let mut module = weight();
    let kept = trainer.predict(&mut module, batches(&[2.0, 3.0])).unwrap();
    let values: Vec<f64> = kept[0].iter().map(|value| value.as_tensor().unwrap().double_value(&[])).collect();
    assert_eq!(values, [2.0, 3.0]);
    let dropped = trainer.return_predictions(false).predict(&mut module, batches(&[2.0, 3.0])).unwrap();
    assert!(dropped.is_empty());
    assert_eq!(module.evaluated, ["0.0", "0.1", "0.0", "0.1"]);
}

#[test]
fn a_checkpoint_can_be_written_at_any_time() {
    let root = tempfile::tempdir().unwrap();
    let mut trainer = quiet().max_epochs(2).build().unwrap();
    let mut module = weight();
    _ = trainer.fit(&mut module, batches(&[1.0])).unwrap();
    let keys = |path: &std::path::Path| {
        let Value::Dict(saved) = serialization::load(path).unwrap() else { panic!("no dict") };
        let keys: Vec<String> = saved.keys().map(str::to_owned).collect();
        assert_eq!(saved.int("global_step").unwrap(), 2);
        keys
    };
    let (whole, weights) = (root.path().join("folder/whole.ckpt"), root.path().join("weights.ckpt"));
    trainer.save_checkpoint(&mut module, &whole, false).unwrap();
    trainer.save_checkpoint(&mut module, &weights, true).unwrap();
    assert!(keys(&whole).contains(&"optimizer_states".to_owned()));
    for key in ["optimizer_states", "lr_schedulers", "callbacks"] {
        assert!(!keys(&weights).contains(&key.to_owned()), "{key}");
    }

    let mut resumed = weight();
    let mut longer = quiet().max_epochs(3).build().unwrap();
    _ = longer.ckpt_path(whole.to_str().unwrap()).fit(&mut resumed, batches(&[1.0])).unwrap();
    assert_eq!((resumed.w(), longer.state().global_step()), (1.0 - 3.0 * 0.125, 3));
}

#[test]
fn hyper_parameters_go_to_the_loggers_unless_turned_off() {
    for (on, expected) in [(true, 1), (false, 0)] {
        let logger = MemoryLogger::new();
        let mut trainer = quiet().enable_autolog_hparams(on).logger(logger.clone()).build().unwrap();
        _ = trainer.fit(&mut weight(), batches(&[1.0])).unwrap();
        let hparams = logger.take().into_iter().filter(|call| matches!(call, Logged::Hyperparams(_))).count();
        assert_eq!(hparams, expected);
    }
}

#[test]
fn lines_are_printed_on_the_console() {
    let console = Console::memory();
    quiet().console(console.clone()).build().unwrap().print("hello");
    assert_eq!(console.contents(), "hello\n");
}

#[test]
fn benchmark_is_an_argument() {
    let console = Console::memory();
    let mut trainer = quiet().benchmark(true).console(console.clone()).build().unwrap();
    _ = trainer.fit(&mut weight(), batches(&[1.0])).unwrap();
    assert_eq!(trainer.state().config().benchmark, Some(true));
    assert!(!console.contents().contains("warning"), "{}", console.contents());
    quiet().benchmark(true).deterministic(Deterministic::Warn).console(console.clone()).build().unwrap();
    assert_eq!(
        console.contents().lines().last().unwrap(),
        "warning: benchmark=true lets cuDNN choose its algorithms anew, so runs may differ although `deterministic` is on; leave one of the two out"
    );
}
