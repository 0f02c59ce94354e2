//! `sweep`, with real processes: this program starts itself again as the one that is searched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::panic, reason = "a test may fail")]

mod outside;
mod process;
mod program;
mod python;
mod stops;
mod trials;

use std::process::ExitCode;

const TESTS: &[(&str, fn())] = &[
    ("report_lines", outside::report_lines),
    ("report_of_an_error", outside::report_of_an_error),
    ("report_to_standard_output", outside::report_to_standard_output),
    ("report_of_checkpoints", outside::report_of_checkpoints),
    ("a_pruned_run_leaves_no_checkpoint", outside::prune),
    ("arguments_of_a_wandb_agent", outside::wandb_agent),
    ("wrong_variables", outside::wrong_variables),
    ("the_parent_ends", outside::the_parent_ends),
    ("a_grid_is_tried_and_the_best_can_be_trained", trials::grid),
    ("random_and_tpe_with_two_at_once", trials::random_and_tpe),
    ("the_median_prunes", trials::median),
    ("bad_trials_fail_and_the_sweep_goes_on", trials::bad_trials),
    ("what_is_wrong_is_said_before_the_first_trial", trials::wrong),
    ("the_best_follows_links", trials::links),
    ("trials_of_two_processes", trials::ranks),
    ("the_best_checkpoint_is_named", trials::checkpoints),
    ("optuna_its_dashboard_and_rustuna_read_the_study", python::readers),
    ("two_sweeps_and_optuna_share_a_study", python::several),
    ("optuna_drives_the_program", python::optuna_drives),
    ("ray_drives_the_program", python::ray_drives),
    ("ctrl_c_ends_the_trials", stops::ctrl_c),
    ("a_killed_sweep_leaves_no_child_and_is_gone_on_with", stops::kill),
    ("time_limits", stops::time_limits),
];

/// Runs the tests whose names contain the arguments, or all.
fn main() -> ExitCode {
    if std::env::var_os(process::IS_PROGRAM).is_some() {
        return program::cli().run();
    }
    fulgurite_test_support::run_named("sweep", TESTS)
}
