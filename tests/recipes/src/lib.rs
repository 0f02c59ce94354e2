//! A callback, a logger, an optimizer, a scheduler, a metric and a strategy that somebody else wrote, and a program that uses
//! them.

pub mod callback;
pub mod logger;
pub mod metric;
pub mod model;
pub mod optimizer;
pub mod program;
pub mod scheduler;
pub mod strategy;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::ExitCode;

    use fulgurite::optim::Optimizer;
    use fulgurite::prelude::*;
    use fulgurite::torch::serialization;

    use crate::optimizer::{SignSGD, SignSgdOptions};
    use crate::program::cli;
    use crate::scheduler::{InverseSqrtLR, InverseSqrtOptions};

    fn answer(args: &str) -> (String, ExitCode) {
        let console = fulgurite::Console::memory();
        let code = cli().args(args.split_whitespace()).env::<String>([]).console(console.clone()).run();
        (console.contents(), code)
    }

    #[test]
    fn help_names_everything() {
        let (help, code) = answer("fit --help");
        assert_eq!(code, ExitCode::SUCCESS, "{help}");
        for class in ["Announce", "TextLogger", "SignSGD", "InverseSqrtLR"] {
            assert!(help.contains(class), "{class} is not in {help}");
        }
        let (help, _) = answer("fit --optimizer.help SignSGD");
        assert!(help.contains("--optimizer.momentum <float>"), "{help}");
        let (text, code) = answer("fit --optimizer SignSGD --optimizer.momentun 0.5");
        assert!(code == ExitCode::from(2) && text.contains("did you mean `SignSGD.momentum`?"), "{text}");
    }

    fn fit(folder: &Path, args: &str) -> String {
        let (text, code) = answer(&format!(
            "fit --trainer.accelerator cpu --trainer.strategy polite --trainer.callbacks+=Announce \
             --trainer.logger TextLogger --optimizer SignSGD --optimizer.lr 0.01 --lr_scheduler InverseSqrtLR \
             --lr_scheduler.warmup 1 --trainer.enable_progress_bar false --trainer.enable_model_summary false \
             --trainer.log_every_n_steps 1 --trainer.default_root_dir {} {args}",
            folder.display()
        ));
        assert_eq!(code, ExitCode::SUCCESS, "{text}");
        text
    }

    #[test]
    fn everything_is_used_saved_and_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let text = fit(folder.path(), "--trainer.max_epochs 2");
        assert!(text.contains("2 epochs are done"), "{text}");
        let values = std::fs::read_to_string(folder.path().join("values.txt")).unwrap();
        assert!(values.contains("train_loss = ") && values.contains("max_error = "), "{values}");

        let checkpoints = walk(folder.path());
        let [path] = &checkpoints[..] else { panic!("{checkpoints:?}") };
        let saved = serialization::load(path).unwrap();
        let saved = saved.as_dict().unwrap();
        let optimizer = saved.list("optimizer_states").unwrap()[0].as_dict().unwrap();
        let group = optimizer.list("param_groups").unwrap()[0].as_dict().unwrap();
        assert_eq!((group.float("momentum").unwrap(), group.get("maximize")), (0.9, Some(&false.into())));
        let state = optimizer.dict("state").unwrap().get_value(&0.into()).unwrap().as_dict().unwrap();
        assert!(state.tensor("momentum_buffer").is_ok() && state.get("step").is_some());
        let scheduler = saved.list("lr_schedulers").unwrap()[0].as_dict().unwrap();
        assert_eq!((scheduler.int("warmup").unwrap(), scheduler.int("last_epoch").unwrap()), (1, 2));

        let text = fit(folder.path(), &format!("--trainer.max_epochs 3 --ckpt_path {}", path.display()));
        assert!(text.contains("3 epochs are done") && !text.contains("1 epochs are done"), "{text}");
        let text = fit(folder.path(), "--trainer.max_epochs 4 --resume");
        assert!(text.contains("4 epochs are done") && !text.contains("1 epochs are done"), "{text}");
    }

    fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => found.extend(walk(&path)),
                false => found.extend(path.extension().is_some_and(|kind| kind == "ckpt").then_some(path)),
            }
        }
        found
    }

    #[test]
    fn they_are_made_in_code_as_well() {
        let vars = nn::VarStore::new(Device::Cpu);
        let _layer = nn::linear(1, 1).at(&vars).unwrap();
        let options = SignSgdOptions { lr: 0.5, ..SignSgdOptions::default() };
        let optimizers: Optimizers = SignSGD::from_options(&vars, options).into();
        let scheduler = InverseSqrtLR::from_options(InverseSqrtOptions { warmup: 2 });
        let (optimizers, _) = optimizers.scheduler(scheduler).build().unwrap();
        let optimizer: &dyn Optimizer = optimizers[0].as_ref();
        assert_eq!((optimizer.name(), optimizer.param_groups()[0].lr), ("SignSGD", 0.25));
    }
}
