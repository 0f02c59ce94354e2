//! The program's own launcher, with real processes: this test starts itself as the program that is launched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test may fail"
)]

mod dying;
mod meeting;
mod outsiders;
mod process;
mod program;
mod signals;
mod starting;

use std::process::ExitCode;

const TESTS: &[(&str, fn())] = &[
    ("ranks_know_who_they_are", starting::ranks_know_who_they_are),
    ("arguments_arrive_as_they_are", starting::arguments_arrive_as_they_are),
    ("threads_are_shared_out", starting::threads_are_shared_out),
    ("a_rank_starts_a_run_of_its_own", starting::a_rank_starts_a_run_of_its_own),
    ("rank_0_has_the_input", starting::rank_0_has_the_input),
    ("lines_are_whole", starting::lines_are_whole),
    ("a_process_left_behind", starting::a_process_left_behind),
    ("contradictions", starting::contradictions),
    ("several_nodes", starting::several_nodes),
    ("a_rank_that_fails", dying::a_rank_that_fails),
    ("a_rank_that_is_killed", dying::a_rank_that_is_killed),
    ("a_rank_that_aborts", dying::a_rank_that_aborts),
    ("ranks_that_do_not_end", dying::ranks_that_do_not_end),
    ("rank_0_fails", dying::rank_0_fails),
    ("a_rank_that_leaves_by_itself", dying::a_rank_that_leaves_by_itself),
    ("the_supervisor_is_killed", dying::the_supervisor_is_killed),
    ("sigterm_is_passed_on", signals::sigterm_is_passed_on),
    ("a_signal_to_the_group", signals::a_signal_to_the_group),
    ("ctrl_c_in_a_terminal", signals::ctrl_c_in_a_terminal),
    ("a_second_signal", signals::a_second_signal),
    ("a_rank_that_fails_while_leaving", signals::a_rank_that_fails_while_leaving),
    ("without_a_handler", signals::without_a_handler),
    ("nohup", signals::nohup),
    ("ranks_meet", meeting::ranks_meet),
    ("on_a_given_port", meeting::on_a_given_port),
    ("a_port_in_use", meeting::a_port_in_use),
    ("a_rank_that_ends_before", meeting::a_rank_that_ends_before),
    ("a_rank_that_never_comes", meeting::a_rank_that_never_comes),
    ("ranks_that_differ", meeting::ranks_that_differ),
    ("started_by_somebody_else", meeting::started_by_somebody_else),
    ("two_programs", meeting::two_programs),
    ("no_process_at_the_address", meeting::no_process_at_the_address),
    ("two_nodes", meeting::two_nodes),
    ("a_rank_dies_on_another_node", meeting::a_rank_dies_on_another_node),
    ("the_first_node_is_gone", meeting::the_first_node_is_gone),
    ("a_node_that_waits", meeting::a_node_that_waits),
    ("mpirun", meeting::mpirun),
    ("the_store_of_one_node_is_of_this_machine_alone", outsiders::the_store_of_one_node_is_of_this_machine_alone),
    ("messages_from_outside_the_run_are_ignored", outsiders::messages_from_outside_the_run_are_ignored),
    ("the_token_is_in_the_environment_alone", outsiders::the_token_is_in_the_environment_alone),
    ("nodes_with_different_tokens", outsiders::nodes_with_different_tokens),
    ("lines_of_ranks_are_escaped", outsiders::lines_of_ranks_are_escaped),
];

/// Runs the tests whose names contain the arguments, or all.
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|word| word == program::WORD) {
        return program::run(&args[1..]);
    }
    fulgurite_test_support::run_named("launcher", TESTS)
}
