//! Signals, sent to real processes: this program starts itself again as the one that trains.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a test may fail")]

mod child;
mod leaving;
mod process;
mod recorded;
mod slurm;

use std::process::ExitCode;

const TESTS: &[(&str, fn())] = &[
    ("sigterm_in_a_training_batch", leaving::in_a_training_batch),
    ("sigterm_at_other_safe_points", leaving::at_other_safe_points),
    ("before_anything_was_trained", leaving::before_anything_was_trained),
    ("hangup_and_ctrl_c", leaving::hangup_and_ctrl_c),
    ("a_signal_that_comes_too_late", leaving::too_late),
    ("nothing_follows", leaving::nothing_follows),
    ("in_a_trial_of_the_tuner", leaving::in_a_trial_of_the_tuner),
    ("the_usual_meaning_outside_of_runs", leaving::outside_of_runs),
    ("the_second_ends_at_once", leaving::the_second_ends_at_once),
    ("a_rank_does_not_count_signals", leaving::a_rank_does_not_count_signals),
    ("the_grace_period", leaving::the_grace_period),
    ("max_time", leaving::max_time),
    ("an_error_beside_a_signal", leaving::an_error_beside_a_signal),
    ("ignored_signals_stay_ignored", leaving::ignored_signals_stay_ignored),
    ("in_evaluation", leaving::in_evaluation),
    ("the_record_of_a_killed_run", recorded::a_kill_leaves_no_end),
    ("the_record_of_a_run_that_was_asked_to_end", recorded::a_signal_is_an_end),
    ("slurm_requeues_and_resumes", slurm::requeues_and_resumes),
    ("slurm_array", slurm::names_the_task_of_an_array),
    ("slurm_refusal", slurm::goes_on_when_the_scheduler_refuses),
    ("slurm_sigterm", slurm::sigterm_leaves_a_checkpoint_for_the_next_run),
    ("slurm_off", slurm::only_in_a_job_and_when_on),
    ("slurm_damaged", slurm::a_damaged_checkpoint_is_passed_over),
    ("hpc", slurm::hpc_without_a_job),
];

/// Runs the tests whose names contain the arguments, or all.
fn main() -> ExitCode {
    if std::env::var_os(process::PLAN).is_some() {
        return child::train();
    }
    fulgurite_test_support::run_named("signals", TESTS)
}
