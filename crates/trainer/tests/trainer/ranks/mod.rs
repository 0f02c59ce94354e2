//! Runs of two processes, which the program starts itself. Their results are those of one process with the doubled batch.
//!
//! Each test starts this very program again with a [`Plan`]; that process becomes the supervisor of two ranks, which are
//! this program once more.

pub(crate) mod program;
#[cfg(all(feature = "parquet", feature = "webdataset"))]
mod streams;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fulgurite::Trainer;
use fulgurite::fabric::DdpOptions;
use fulgurite::torch::{Dict, Value, serialization};
use program::{BEGAN, BUILT, PLAN, Plan, Report};

/// Not a test of its own: what the processes run that the tests start.
#[test]
fn program() {
    if let Some(Err(error)) = program::run_from_env() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn start(plan: &Plan) -> Child {
    fulgurite_test_support::this_program("ranks::program")
        .arg("--test-threads=1")
        .env(PLAN, serde_json::to_string(plan).unwrap())
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(plan: &Plan) -> Output {
    start(plan).wait_with_output().unwrap()
}

fn reports(plan: &Plan, ranks: usize) -> Vec<Report> {
    let output = run(plan);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{said}", output.status);
    (0..ranks).map(|rank| report(&plan.folder, rank)).collect()
}

fn report(folder: &Path, rank: usize) -> Report {
    serde_json::from_str(&std::fs::read_to_string(folder.join(format!("rank{rank}.json"))).unwrap()).unwrap()
}

fn failed(plan: &Plan) -> String {
    let output = run(plan);
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "they differ by {worst}");
}

/// What comes of two ranks, and of one with the doubled batch.
fn two_and_one(plan: Plan) -> (Vec<Report>, Report) {
    let (first, second) = (folder(), folder());
    let two = reports(&Plan { folder: first.path().into(), ..plan.clone() }, 2);
    let one = Plan { folder: second.path().into(), devices: 1, batch_size: 2 * plan.batch_size, ..plan };
    (two, reports(&one, 1).remove(0))
}

/// Two ranks do what one does with the doubled batch.
fn as_one_with_the_doubled_batch(plan: Plan) {
    let (two, one) = two_and_one(plan);
    assert_eq!(two[0].weights, two[1].weights);
    assert_close(&two[0].weights, &one.weights, 1e-6);
    assert_eq!(two[0].buffers, two[1].buffers);
    assert_close(&two[0].buffers, &one.buffers, 1e-6);
    assert_eq!((two[0].steps, two[0].batches), (one.steps, one.batches));
    for name in ["train_loss_epoch", "synced", "val_loss"] {
        assert_close(&[two[0].logged[name]], &[one.logged[name]], 1e-6);
    }
    let joined = two[0].seen.iter().zip(&two[1].seen).map(|(a, b)| {
        let mut joined: Vec<i64> = a.iter().zip(b).flat_map(|(a, b)| [*a, *b]).collect();
        joined.sort_unstable();
        joined
    });
    let mut seen = one.seen;
    seen.iter_mut().for_each(|batch| batch.sort_unstable());
    assert_eq!(joined.collect::<Vec<_>>(), seen);
}

#[test]
fn two_ranks_do_what_one_does_with_the_doubled_batch() {
    as_one_with_the_doubled_batch(Plan::default());
}

#[test]
fn ranks_are_started_by_the_run_and_not_with_the_trainer() {
    let folder = folder();
    reports(&Plan { folder: folder.path().into(), ..Plan::default() }, 2);
    let built = std::fs::read_to_string(folder.path().join(BUILT)).unwrap();
    let mut lines: Vec<&str> = built.lines().collect();
    assert_eq!(lines[0], "launched false, zero false, of 2");
    lines[1..].sort_unstable();
    assert_eq!(lines[1..], ["launched true, zero false, of 2", "launched true, zero true, of 2"]);

    let trainer = Trainer::builder().accelerator("cpu").devices(2).no_logger().build().unwrap();
    let error = trainer.state().broadcast_number(1.0).unwrap_err().to_string();
    assert_eq!(
        error,
        "a broadcast needs the 2 processes of the run, which are not started yet; call `launch` before it"
    );
}

#[test]
fn so_they_do_when_gradients_are_accumulated() {
    as_one_with_the_doubled_batch(Plan { accumulate: 2, ..Plan::default() });
}

#[test]
fn so_they_do_with_synchronized_batch_norms() {
    let plan = Plan { batch_norm: true, sync_batchnorm: true, ..Plan::default() };
    as_one_with_the_doubled_batch(plan.clone());
    as_one_with_the_doubled_batch(Plan { accumulate: 2, ..plan });
}

#[test]
fn batch_norms_that_are_not_synchronized_normalize_what_their_rank_sees() {
    let (two, one) = two_and_one(Plan { batch_norm: true, ..Plan::default() });
    let worst = two[0].weights.iter().zip(&one.weights).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst > 1e-4, "{worst}");
}

#[test]
fn synchronized_batch_norms_end_an_epoch_with_the_shortest_stream() {
    let folder = folder();
    let plan = Plan { batch_norm: true, sync_batchnorm: true, stream_lacks: Some(9), ..Plan::default() };
    let two = reports(&Plan { folder: folder.path().into(), ..plan }, 2);
    assert_eq!((two[0].batches, two[1].batches), (12, 12));
    assert_eq!((&two[0].weights, &two[0].buffers), (&two[1].weights, &two[1].buffers));
}

#[test]
fn a_batch_without_a_loss_is_refused_where_batch_norms_wait_for_it() {
    let folder = folder();
    let strategy = DdpOptions::default().timeout(Duration::from_secs(5)).into();
    let plan = Plan { strategy, batch_norm: true, sync_batchnorm: true, skip_at: Some(2), ..Plan::default() };
    let said = failed(&Plan { folder: folder.path().into(), ..plan });
    let error = "training_step of rank 1 returned no loss for batch 1, and with sync_batchnorm the other ranks wait";
    assert!(said.contains(error), "{said}");
}

#[test]
fn an_evaluation_counts_every_item_once() {
    let (first, second) = (folder(), folder());
    let two = reports(&Plan { folder: first.path().into(), epochs: 1, ..Plan::default() }, 2);
    let one = Plan { folder: second.path().into(), devices: 1, batch_size: 8, epochs: 1, ..Plan::default() };
    let one = reports(&one, 1).remove(0);

    let mut tested: Vec<i64> = two.iter().flat_map(|report| report.tested.clone()).collect();
    tested.sort_unstable();
    assert_eq!(tested, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(two[0].test_results, two[1].test_results);
    for (name, value) in &one.test_results[0] {
        assert_close(&[two[0].test_results[0][name]], &[*value], 1e-6);
    }
}

#[test]
fn what_one_rank_asks_for_all_do() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), stop_at: Some(2), ..Plan::default() }, 2);
    // It is known after the batch that comes next.
    assert_eq!((two[0].batches, two[1].batches), (3, 3));
    assert_eq!(two[0].weights, two[1].weights);
    assert_eq!(two[0].outcome, r#"Stopped("another process requested it")"#);
    assert_eq!(two[1].outcome, r#"Stopped("rank 1 has seen enough")"#);
}

#[test]
fn all_ranks_validate_when_rank_zero_says_that_it_is_time() {
    let folder = folder();
    let plan = Plan { items: 64, epochs: 1, batch_ms: 5, eval_ms: 5, validate_after_ms: Some(1), ..Plan::default() };
    let two = reports(&Plan { folder: folder.path().into(), ..plan }, 2);
    assert_eq!(two[0].validated, two[1].validated);
    let mut after = two[0].validated.clone();
    after.dedup();
    // It is time after every batch, known to all after the one that follows, and over with the validation.
    assert!(after.len() >= 3 && after.windows(2).all(|pair| pair[1] == pair[0] + 2), "{after:?}");
}

#[test]
fn an_epoch_ends_with_the_shortest_stream() {
    let folder = folder();
    let plan = Plan { folder: folder.path().into(), stream_lacks: Some(9), ..Plan::default() };
    let two = reports(&plan, 2);
    // 23 items in batches of 4 are 6.
    assert_eq!((two[0].batches, two[1].batches), (12, 12));
    assert_eq!(two[0].weights, two[1].weights);
}

#[test]
fn an_epoch_ends_with_the_shortest_stream_whatever_they_say() {
    for says in [8, 7, 3, 20] {
        let folder = folder();
        let plan = Plan { stream_lacks: Some(9), stream_says: Some(says), eval_lacks: Some(3), ..Plan::default() };
        let two = reports(&Plan { folder: folder.path().into(), accumulate: 4, ..plan }, 2);
        assert_eq!((two[0].batches, two[1].batches), (12, 12));
        // Four batches, and the two that are left.
        assert_eq!((two[0].steps, two[1].steps), (4, 4));
        assert_eq!(two[0].weights, two[1].weights);
        assert_eq!((two[0].validated.len(), two[1].validated.len()), (2 * 7, 2 * 4));
        assert_eq!(two[0].logged["val_loss"], two[1].logged["val_loss"]);
    }
}

#[test]
fn a_rank_without_a_loss_does_not_keep_the_others_waiting() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), skip_at: Some(2), ..Plan::default() }, 2);
    assert_eq!(two[0].weights, two[1].weights);
    assert_eq!(two[0].steps, 8);
}

/// The others notice when its connections close, so no rank waits until a timeout.
#[test]
fn an_error_of_one_rank_ends_the_run() {
    for (panics, reason) in [(false, "rank 1 read a broken file"), (true, "rank 1 has a bug")] {
        let folder = folder();
        let plan = Plan {
            folder: folder.path().into(),
            fail_at: Some(3),
            panics,
            save_every: Some(1),
            saves_errors: true,
            ..Plan::default()
        };
        let output = run(&plan);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason) && said.contains("rank 1 (process"), "{said}");
        assert!(said.contains("no checkpoint is written after an error of one process"), "{said}");
        assert!(folder.path().join("saved").read_dir().unwrap().count() > 0);
    }
    let folder = folder();
    reports(&Plan { folder: folder.path().into(), save_every: Some(1), saves_errors: true, ..Plan::default() }, 2);
}

#[test]
fn ranks_without_an_item_know_what_the_others_saw() {
    let (first, second) = (folder(), folder());
    let plan = Plan { folder: first.path().into(), eval_items: 1, epochs: 2, ..Plan::default() };
    let two = reports(&plan, 2);
    let one = Plan { folder: second.path().into(), devices: 1, batch_size: 8, ..plan };
    let one = reports(&one, 1).remove(0);
    assert_eq!(two[0].logged["val_loss"], two[1].logged["val_loss"]);
    assert_close(&[two[1].logged["val_loss"]], &[one.logged["val_loss"]], 1e-6);
    assert_eq!((&two[1].tested, &two[0].test_results), (&vec![], &two[1].test_results));
}

#[test]
fn a_learning_rate_is_found_for_all_ranks() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), lr_find: true, ..Plan::default() }, 2);
    assert_eq!(two[0].weights, two[1].weights);
    // What the trial wished for does not end the training.
    assert_eq!((two[0].steps, two[0].outcome.as_str()), (8, "Finished"));
}

#[test]
fn weights_stay_equal_under_dropout() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), dropout: 0.5, ..Plan::default() }, 2);
    assert_eq!(two[0].weights, two[1].weights);
}

/// What is unfrozen is averaged over the ranks from its first batch on.
#[test]
fn so_they_do_when_a_layer_is_unfrozen() {
    as_one_with_the_doubled_batch(Plan { unfreeze_at: Some(1), epochs: 3, ..Plan::default() });
    as_one_with_the_doubled_batch(Plan { thaw_at: Some(3), ..Plan::default() });
}

#[test]
fn a_layer_that_is_unfrozen_stays_equal_when_a_run_goes_on() {
    let (whole, cut) = (folder(), folder());
    let plan = Plan { unfreeze_at: Some(1), epochs: 3, ..Plan::default() };
    let undisturbed = reports(&Plan { folder: whole.path().into(), ..plan.clone() }, 2);
    // Within the epoch that begins with it unfrozen.
    reports(&Plan { folder: cut.path().into(), cut_at: Some(6), ..plan.clone() }, 2);
    let ckpt_path = Some(cut.path().join("cut.ckpt").display().to_string());
    let resumed = reports(&Plan { folder: cut.path().into(), ckpt_path, ..plan }, 2);
    assert_eq!(resumed[0].weights, resumed[1].weights);
    assert_eq!(resumed[0].weights, undisturbed[0].weights);
}

/// Random numbers are each rank's own, so rank zero's choice counts.
#[test]
fn weights_stay_equal_when_they_are_pruned_by_chance() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), prunes: true, ..Plan::default() }, 2);
    assert_eq!(two[0].weights, two[1].weights);
}

#[test]
fn a_run_goes_on_bit_by_bit_on_all_ranks() {
    let (whole, cut) = (folder(), folder());
    let plan = Plan { dropout: 0.3, accumulate: 2, epochs: 3, ..Plan::default() };
    let undisturbed = reports(&Plan { folder: whole.path().into(), ..plan.clone() }, 2);
    reports(&Plan { folder: cut.path().into(), cut_at: Some(3), ..plan.clone() }, 2);
    let ckpt_path = Some(cut.path().join("cut.ckpt").display().to_string());
    let resumed = reports(&Plan { folder: cut.path().into(), ckpt_path, ..plan }, 2);
    for (resumed, undisturbed) in resumed.iter().zip(&undisturbed) {
        assert_eq!(resumed.weights, undisturbed.weights);
        assert_eq!(resumed.logged, undisturbed.logged);
        assert_eq!(resumed.steps, undisturbed.steps);
    }
}

/// Batch norms of two and of three ranks, each of which sees its own batches.
#[test]
fn what_is_validated_is_what_is_saved() {
    for (ranks, ema) in [(2, false), (3, false), (2, true)] {
        let folder = folder();
        let plan = Plan {
            folder: folder.path().into(),
            devices: ranks,
            batch_norm: true,
            epochs: 1,
            items: 48,
            ema,
            ..Plan::default()
        };
        let reports = reports(&Plan { save_every: Some(48 / 4 / ranks as u64), ..plan }, ranks);
        for report in &reports {
            let again = report.validated_again.unwrap();
            assert!(
                (report.logged["val_loss"] - again).abs() < 1e-6,
                "{} and {again}, {ema}",
                report.logged["val_loss"]
            );
        }
    }
}

#[test]
fn nan_of_any_rank_wins_in_values_of_a_step() {
    for rank in [0, 1] {
        let folder = folder();
        let plan = Plan { folder: folder.path().into(), epochs: 1, nan_of: Some(rank), ..Plan::default() };
        for report in reports(&plan, 2) {
            assert_eq!(report.nans, ["max", "min"], "NaN of rank {rank}");
            assert_eq!(report.logged["finite"], 1.0);
        }
    }
}

/// The gradients of the others are lost with the next step, so each would say it of another batch.
#[test]
fn a_loss_that_is_lost_on_one_rank_is_reported_once_and_names_the_rank() {
    let folder = folder();
    let output = run(&Plan { folder: folder.path().into(), lost_at: Some(2), ..Plan::default() });
    let said = String::from_utf8_lossy(&output.stderr);
    let first = "is NaN on rank 1 at epoch 0, batch 1 (global step 1); the weights";
    let end = "was NaN or infinite on rank 1, first at epoch 0, batch 1 (global step 1); do not trust";
    assert_eq!((said.matches("is NaN").count(), said.matches("was NaN").count()), (1, 1), "{said}");
    assert!(said.contains(first) && said.contains(end), "{said}");
}

#[test]
fn a_loader_that_grows_with_each_epoch_is_read_to_its_end() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), grows: true, epochs: 3, ..Plan::default() }, 2);
    assert_eq!((two[0].batches, two[1].batches), (2 + 3 + 4, 2 + 3 + 4));
}

/// All ranks know the run by one name, or they would look for its files at different times.
#[test]
fn a_second_fit_after_a_test_of_the_first_ones_checkpoint() {
    let folder = folder();
    let two = reports(&Plan { folder: folder.path().into(), save_every: Some(2), again: true, ..Plan::default() }, 2);
    assert_eq!(two[0].weights, two[1].weights);
}

#[test]
fn a_run_goes_on_bit_by_bit_from_within_a_validation() {
    let (whole, cut) = (folder(), folder());
    let plan = Plan { batch_norm: true, dropout: 0.3, accumulate: 2, epochs: 3, ..Plan::default() };
    let undisturbed = reports(&Plan { folder: whole.path().into(), ..plan.clone() }, 2);
    reports(&Plan { folder: cut.path().into(), cut_in_validation: Some(2), ..plan.clone() }, 2);
    let ckpt_path = Some(cut.path().join("cut.ckpt").display().to_string());
    let resumed = reports(&Plan { folder: cut.path().into(), ckpt_path, ..plan }, 2);
    for (resumed, undisturbed) in resumed.iter().zip(&undisturbed) {
        assert_eq!((&resumed.weights, &resumed.buffers), (&undisturbed.weights, &undisturbed.buffers));
        assert_eq!(resumed.logged, undisturbed.logged);
    }
}

/// From the checkpoint of an epoch's last batch, whose end is due: its values are those of all ranks, whatever their number
/// is now.
#[test]
fn metrics_of_an_epoch_are_those_of_all_ranks_after_a_resume() {
    for ranks in [2, 3] {
        let (whole, cut) = (folder(), folder());
        let plan = Plan { devices: ranks, items: 48, epochs: 1, ..Plan::default() };
        let last = Some(48 / 4 / ranks as u64);
        let undisturbed = reports(&Plan { folder: whole.path().into(), ..plan.clone() }, ranks);
        reports(&Plan { folder: cut.path().into(), cut_at: last, ..plan.clone() }, ranks);
        let ckpt_path = Some(cut.path().join("cut.ckpt").display().to_string());
        for now in [ranks, 1, 2] {
            let resumed =
                Plan { folder: cut.path().into(), ckpt_path: ckpt_path.clone(), devices: now, ..plan.clone() };
            for report in reports(&resumed, now) {
                for name in ["train_acc", "train_loss_epoch", "narrow"] {
                    let (resumed, undisturbed) = (report.logged[name], undisturbed[0].logged[name]);
                    let same = if now == ranks { resumed == undisturbed } else { (resumed - undisturbed).abs() < 1e-6 };
                    assert!(same, "{name} of {ranks} ranks, now {now}: {resumed} and {undisturbed}");
                }
            }
        }
    }
}

#[test]
fn what_a_checkpoint_lacks_of_one_rank_is_said_and_named() {
    let folder = folder();
    let plan = Plan { folder: folder.path().into(), dropout: 0.3, ..Plan::default() };
    reports(&Plan { cut_at: Some(3), ..plan.clone() }, 2);
    let (whole, changed) = (folder.path().join("cut.ckpt"), folder.path().join("changed.ckpt"));
    let resume = |change: &dyn Fn(&mut Dict)| {
        let mut checkpoint = serialization::load(&whole).unwrap();
        let Value::Dict(entries) = &mut checkpoint else { panic!("no dict") };
        let Some(Value::Dict(more)) = entries.get_mut("fulgurite") else { panic!("no entry") };
        let Some(Value::List(ranks)) = more.get_mut("ranks") else { panic!("no ranks") };
        let Some(Value::Dict(of_rank)) = ranks.get_mut(1) else { panic!("no rank 1") };
        change(of_rank);
        serialization::save(&changed, &checkpoint).unwrap();
        let output = run(&Plan { ckpt_path: Some(changed.display().to_string()), ..plan.clone() });
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (goes_on, said) = resume(&|of_rank| drop(of_rank.remove("rng")));
    assert!(goes_on && said.contains("the checkpoint lacks `fulgurite.ranks[1].rng`"), "{said}");
    let (goes_on, said) = resume(&|of_rank| of_rank.set("metrics", 3));
    assert!(!goes_on && said.contains("entry `fulgurite.ranks[1].metrics` is int, expected list"), "{said}");
}

#[test]
fn another_number_of_ranks_begins_an_epoch_and_does_not_continue_one() {
    let folder = folder();
    let plan = Plan { folder: folder.path().into(), epochs: 3, ..Plan::default() };
    let ckpt_path = Some(folder.path().join("cut.ckpt").display().to_string());
    reports(&Plan { cut_at: Some(3), ..plan.clone() }, 2);
    let said = failed(&Plan { ckpt_path: ckpt_path.clone(), devices: 1, ..plan.clone() });
    assert!(said.contains("was written by 2 process(es) in the middle of an epoch, and this run has 1"), "{said}");

    reports(&Plan { cut_at: Some(4), ..plan.clone() }, 2);
    let alone = reports(&Plan { ckpt_path, devices: 1, batch_size: 8, ..plan }, 1);
    assert_eq!(alone[0].steps, 12);
}

#[test]
fn a_parameter_without_a_part_in_the_loss_is_named() {
    let folder = folder();
    let plan = Plan { folder: folder.path().into(), unused: true, ..Plan::default() };
    let said = failed(&plan);
    assert!(said.contains("spare.weight") && said.contains("find_unused_parameters"), "{said}");
    for strategy in
        ["ddp_find_unused_parameters_true".into(), DdpOptions::default().find_unused_parameters(true).into()]
    {
        reports(&Plan { strategy, ..plan.clone() }, 2);
    }
}

#[test]
fn rank_zero_alone_writes_the_record() {
    let folder = folder();
    reports(&Plan { folder: folder.path().into(), epochs: 1, ..Plan::default() }, 2);
    let events = crate::record::events(folder.path());
    let starts = crate::record::of_kind(&events, "start");
    assert_eq!(starts.iter().map(|start| &start["entry"]).collect::<Vec<_>>(), ["fit", "test"]);
    assert_eq!((&starts[0]["ranks"], &starts[0]["strategy"]), (&2.into(), &"ddp".into()));
    let end = crate::record::of_kind(&events, "end")[0];
    assert_eq!((&end["batches"], &end["samples"]), (&4.into(), &32.into()), "{end}");
}

/// The reports of two ranks after SIGTERM in a slow batch.
fn terminated(plan: Plan) -> [Report; 2] {
    let folder = folder();
    let child = start(&Plan { folder: folder.path().into(), ..plan });
    while !folder.path().join(BEGAN).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    [0, 1].map(|rank| report(folder.path(), rank))
}

#[test]
fn a_signal_to_the_program_ends_all_ranks_after_the_same_batch() {
    let [first, second] = terminated(Plan { epochs: 1000, batch_ms: 20, ..Plan::default() });
    assert_eq!(first.batches, second.batches);
    assert_eq!(first.weights, second.weights);
}

#[test]
fn so_it_does_in_a_validation() {
    let [first, second] = terminated(Plan { epochs: 1, eval_items: 8001, eval_ms: 30, ..Plan::default() });
    assert_eq!(first.validated, second.validated);
    assert!(first.validated.len() < 1000, "{}", first.validated.len());
}
