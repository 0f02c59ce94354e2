//! Norms of gradients.

use fulgurite::callbacks::{GradientAction, GradientNorm};
use fulgurite::loggers::MemoryLogger;
use fulgurite::prelude::*;
use fulgurite::torch::host_reads;

use crate::callbacks::scripted::{Scripted, batches, quiet};
use crate::callbacks::watched::{Watched, values, watch, watch_with};

/// Ten ordinary gradients, and then these.
fn after_ten(gradients: &[f64]) -> Vec<f64> {
    [&[1.0; 10], gradients].concat()
}

fn stopping() -> GradientNorm {
    GradientNorm::new().window(10).action(GradientAction::Stop)
}

/// The reason a run over these gradients stopped.
fn reason(norm: GradientNorm, gradients: &[f64]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    match watch(norm, gradients, folder.path()).outcome.unwrap() {
        Outcome::Stopped(reason) => Some(reason),
        _ => None,
    }
}

#[test]
fn norms_are_logged_before_clipping() {
    let folder = tempfile::tempdir().unwrap();
    let clip = |builder: fulgurite::TrainerBuilder| builder.gradient_clip_val(0.5);
    let run = watch_with(GradientNorm::new().per_parameter(true), &[3.0, 0.25], folder.path(), clip);
    assert_eq!(run.logger.metric("grad_2.0_norm_total"), [(0, 3.0), (1, 0.25)]);
    assert_eq!(run.logger.metric("grad_2.0_norm/w"), [(0, 3.0), (1, 0.25)]);
    let run = watch(GradientNorm::new().norm_type(f64::INFINITY), &[3.0], folder.path());
    assert_eq!(run.logger.metric("grad_inf_norm_total"), [(0, 3.0)]);
    assert!(!run.logger.metric_names().contains(&"grad_inf_norm/w".into()));
}

#[test]
fn gradients_that_explode_end_the_run() {
    let explodes = |norm: GradientNorm, gradients: &[f64], expected: &str| {
        let reason = reason(norm, gradients).unwrap();
        let start = format!("GradientNorm: the gradients of epoch 0, batch {expected}.");
        assert!(reason.starts_with(&start), "{reason}");
    };
    explodes(
        stopping(),
        &after_ten(&[99.0, 2000.0]),
        "11 explode: their norm is 2.000e3, more than 100 times the mean of the 10 before it, 1.080e1",
    );
    explodes(
        stopping().max_factor(50.0),
        &after_ten(&[51.0]),
        "10 explode: their norm is 5.100e1, more than 50 times the mean of the 10 before it, 1.000e0",
    );
    explodes(stopping().max_norm(5.0), &[1.0, 5.0, 6.0], "2 explode: their norm is 6.000e0, above max_norm=5");
    explodes(stopping(), &[1.0, f64::NAN], "1 explode: their norm is nan");
    explodes(stopping().max_factor(None), &after_ten(&[1e9, f64::INFINITY]), "11 explode: their norm is inf");
    explodes(stopping().min_norm(1e-3), &[1.0, 1e-4], "1 vanish: their norm is 1.000e-4, below min_norm=0.001");
    assert_eq!(reason(stopping(), &[1.0, 1000.0, 1.0]), None, "there is no mean of ten yet");
    assert_eq!(reason(stopping(), &after_ten(&[0.0, 80.0])), None);
}

#[test]
fn a_warning_is_said_once_and_what_exploded_is_not_part_of_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    let gradients = after_ten(&[500.0, 500.0, 500.0, 1e-9, 1e-9]);
    let run = watch(GradientNorm::new().window(10).min_norm(1e-6), &gradients, folder.path());
    assert_eq!(run.outcome.unwrap(), Outcome::Finished);
    let text = run.console.contents();
    assert!(text.contains("gradients of epoch 0, batch 10 explode") && text.contains("batch 13 vanish"), "{text}");
    assert_eq!(text.matches("GradientNorm:").count(), 2, "{text}");
    // Had the first 500 been taken in, the others would be ordinary.
    let state = run.trainer.callback::<GradientNorm>().unwrap().state_dict().unwrap();
    let window = state.list("totals").unwrap()[0].as_dict().unwrap().list("window").unwrap();
    assert!(window.iter().all(|norm| norm.as_float().unwrap() <= 1.0));
}

#[test]
fn norms_are_read_together_and_survive_a_checkpoint_unread() {
    let folder = tempfile::tempdir().unwrap();
    let seldom = || stopping().every_n_steps(8);
    let before = host_reads();
    watch_with(seldom(), &[1.0; 16], folder.path(), |builder| builder.log_every_n_steps(1000));
    assert_eq!(host_reads() - before, 2);

    // Saved after 12 steps, of which the last 4 are not looked at yet.
    let fit = |steps: Maximum, gradients: &[f64], from: Option<&str>| {
        let checkpoint = ModelCheckpoint::new().dirpath(folder.path()).filename("{step}").every_n_train_steps(12);
        let builder = quiet(folder.path()).max_epochs(1).max_steps(steps).callback(checkpoint).callback(seldom());
        let mut trainer = builder.build().unwrap();
        from.map(|from| trainer.ckpt_path(folder.path().join(from).to_str().unwrap()));
        let outcome = trainer.fit(&mut Watched::new(), Loaders::from(values(gradients))).unwrap();
        (trainer.callback::<GradientNorm>().unwrap().state_dict().unwrap(), outcome)
    };
    _ = fit(Maximum::Of(12), &[1.0; 20], None);
    let mut gradients = vec![1.0; 20];
    gradients[12] = 150.0;
    let (_, outcome) = fit(Maximum::Unlimited, &gradients, Some("step=12.ckpt"));
    assert!(matches!(outcome, Outcome::Stopped(reason) if reason.contains("batch 12 explode")));
}

#[test]
fn each_optimizer_has_its_own_norm() {
    let folder = tempfile::tempdir().unwrap();
    let logger = MemoryLogger::new();
    let mut trainer = quiet(folder.path())
        .max_epochs(1)
        .enable_checkpointing(false)
        .log_every_n_steps(1)
        .logger(logger.clone())
        .callback(GradientNorm::new())
        .build()
        .unwrap();
    let mut module = Scripted::new(&[1.0]);
    module.optimizers = |module| {
        let of = |parameter: &Tensor| Optimizers::from(SGD::new(std::slice::from_ref(parameter)).lr(0.01)).frequency(1);
        of(&module.layer.ws).and(of(module.layer.bs.as_ref().unwrap()))
    };
    _ = trainer.fit(&mut module, Loaders::from(batches(4))).unwrap();
    let ((first, weight), (second, bias)) =
        (logger.metric("grad_2.0_norm_total/0")[0], logger.metric("grad_2.0_norm_total/1")[0]);
    assert_eq!((first, second), (0, 1));
    assert!(weight > 0.0 && bias > 0.0 && weight != bias);
    assert_eq!(logger.metric("grad_2.0_norm_total"), []);
}

#[test]
fn options_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (norm, expected) in [
        (GradientNorm::new().norm_type(0.0), "GradientNorm: norm_type=0 is not the p of a norm"),
        (GradientNorm::new().max_factor(1.0), "GradientNorm: max_factor is above 1"),
        (GradientNorm::new().window(0), "GradientNorm: max_factor is above 1"),
    ] {
        let error = watch(norm, &[1.0], folder.path()).outcome.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
