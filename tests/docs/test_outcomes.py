# SPDX-License-Identifier: Apache-2.0
"""Each row of the tables of outcomes has a test, and each of these tests is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What a row of a page begins with, and the test that proves it.
TESTS = {
    "dataflow.md": {
        "a staging node is never started": "end_to_end/test_gone.py::"
        "test_staging_nodes_that_never_start_end_the_run_before_the_simulation",
        "a staging node is killed": "end_to_end/test_killed.py::"
        "test_a_staging_node_that_is_killed_takes_along_only_some_steps",
        "a staging node stands still": "end_to_end/test_faults.py::"
        "test_a_staging_node_and_a_controller_that_stand_still_for_20_s_and_go_on",
        "the network to a staging node stands still": "end_to_end/test_faults.py::"
        "test_a_network_that_hangs_and_heals_loses_nothing_and_one_that_does_not_costs_one_wait",
        "a connection breaks and comes back": "end_to_end/test_faults.py::"
        "test_a_network_that_hangs_and_heals_loses_nothing_and_one_that_does_not_costs_one_wait",
        "the controller was never started": "end_to_end/test_external.py::"
        "test_an_old_contact_file_costs_a_wait_and_the_simulation_goes_on",
        "the controller is killed": "end_to_end/test_killed.py::"
        "test_a_controller_that_is_killed_leaves_the_simulation_to_its_end",
        "the controller stands still": "end_to_end/test_faults.py::"
        "test_a_staging_node_and_a_controller_that_stand_still_for_20_s_and_go_on",
        "a run of the same name begins": "end_to_end/test_gone.py::"
        "test_a_run_of_the_same_name_begins_while_ranks_of_one_whose_controller_was_killed_go_on",
        "a rank is killed in the middle of a step": "end_to_end/test_gone.py::"
        "test_a_rank_that_is_killed_in_mid_step_while_the_others_go_on_takes_along_later_steps",
        "a rank cannot load an operator": "analytics/test_where.py::"
        "test_an_operator_that_a_rank_cannot_prepare_is_told_with_the_cure",
        "an operator raises": "end_to_end/test_operators.py::test_the_siblings_and_the_simulation_go_on",
        "the simulation forks": "client/test_fork.py::"
        "test_children_of_a_simulation_publish_nothing_and_leave_it_its_memory",
        "the keys of the contact file": "end_to_end/test_external.py::"
        "test_a_contact_file_with_other_keys_is_told_at_once",
        "somebody sends what is no message": "end_to_end/test_security.py::test_nonsense_from_a_socket_harms_nobody",
        "the wall clock jumps": "end_to_end/test_clock_jumps.py::test_every_wait_keeps_its_bound_and_results_are_right",
        "the disk is full": "end_to_end/test_policies.py::"
        "test_a_full_disk_makes_steps_wait_and_then_drops_them_for_all_ranks",
        "no shared memory is to be had": "end_to_end/test_security.py::"
        "test_without_room_for_shared_memory_it_goes_on_and_says_so",
    },
    "steering.md": {
        "all ranks have applied it": "steering/test_processes.py::"
        "test_all_ranks_take_each_value_at_the_same_step_and_a_record_gives_the_same_bits",
        "a value is out of bounds, of another type or shape": "steering/test_processes.py::"
        "test_what_is_wrong_with_an_action_is_said_and_changes_nothing",
        "ranks declare it differently": "steering/test_processes.py::"
        "test_what_is_wrong_with_an_action_is_said_and_changes_nothing",
        "a rank dies before the commit": "steering/test_processes.py::"
        "test_a_rank_killed_between_promise_and_commit_ends_the_action",
        "a rank has ended, or ends before the step": "controller/test_steering.py::"
        "test_once_a_rank_is_missing_nothing_is_asked_of_the_others_but_to_stop",
        "the function of an action raises on all ranks": "steering/test_processes.py::"
        "test_what_is_wrong_with_an_action_is_said_and_changes_nothing",
        "the simulation has ended, or was asked to stop before": "controller/test_steering.py::"
        "test_one_action_is_under_way_at_a_time_and_a_stop_goes_first",
        "no step is agreed on within 600 s": "controller/test_steering.py::test_what_finds_no_step_expires",
        "a rank is slow, the network is slow": "steering/test_processes.py::"
        "test_what_a_slow_rank_holds_up_is_tried_again_and_leaves_nobody_in_doubt",
        "the link of a rank stands still between its promise": "steering/test_processes.py::"
        "test_a_link_that_stands_still_between_promise_and_commit_is_torn",
        "a rank or all of the machine is stopped for a while": "client/test_steering.py::"
        "test_a_rank_that_was_stopped_itself_does_not_take_that_for_silence",
        "the same, and nothing was committed": "controller/test_steering.py::"
        "test_a_doubt_about_what_was_not_committed_stops_all_but_tears_nothing",
        "a rank dies after the commit": "controller/test_steering.py::"
        "test_a_rank_lost_after_the_commit_makes_it_torn_and_the_others_stop",
        "the function of an action raises on some ranks": "steering/test_processes.py::"
        "test_what_is_wrong_with_an_action_is_said_and_changes_nothing",
        "the controller is killed before the commit": "steering/test_processes.py::"
        "test_a_controller_killed_between_propose_and_commit_leaves_nothing_applied",
        "the controller is killed after the commit": "steering/test_processes.py::"
        "test_a_controller_killed_after_the_commit_leaves_a_record_that_reads_as_torn",
        "the controller stands still for `max_wait`": "steering/test_processes.py::"
        "test_a_controller_that_stands_still_too_long_is_a_link_that_does",
        "the controller is gone during a pause": "client/test_steering.py::"
        "test_a_pause_ends_when_the_controller_is_silent",
        "an action is asked for on the way to a pause": "steering/test_processes.py::"
        "test_a_resume_with_steps_pauses_all_ranks_again_after_as_many_published_steps",
    },
    "rules.md": {
        "a wrong operator, result, function, key or type": "config/test_steering.py::"
        "test_a_mistake_is_found_before_the_run",
        "an expression with anything that is not in the vocabulary": "steering/test_expressions.py::"
        "test_what_is_not_in_the_vocabulary_is_refused_before_anything_is_computed",
        "a rule or a controller of an operator with `window: run`": "config/test_steering.py::"
        "test_a_mistake_is_found_before_the_run",
        "a parameter that the simulation does not declare": "end_to_end/test_contract.py::"
        "test_what_only_the_simulation_can_tell_is_a_mistake_of_the_configuration",
        "an expression without a value": "steering/test_rules.py::"
        "test_an_action_without_a_value_is_refused_with_the_reason",
        "a value out of bounds, of the wrong type, or not finite": "end_to_end/test_rules.py::"
        "test_rules_act_on_the_simulation_and_every_wish_has_its_receipt",
        "two that fight": "steering/test_rules.py::test_of_two_that_fight_neither_or_the_higher_priority_has_its_way",
        "a controller that raises, or returns what is no action": "controller/test_decisions.py::"
        "test_a_controller_that_fails_is_stopped_by_name_and_the_others_go_on",
        "a controller that takes longer than its `max_time`": "end_to_end/test_rules.py::"
        "test_a_pid_settles_against_a_disturbance_and_controllers_that_fail_are_stopped_by_name",
        "a controller of results that are too large to be gathered": "controller/test_decisions.py::"
        "test_a_controller_of_results_that_are_not_gathered_is_told_so",
        "an operator that is stopped": "controller/test_decisions.py::"
        "test_rules_that_read_a_stopped_operator_end_and_the_others_go_on",
        "rules or controllers slower than the run": "controller/test_decisions.py::"
        "test_what_waits_is_bounded_and_what_is_left_out_is_told_once",
    },
}


def rows(page: str) -> list[str]:
    """The first cells of the table of outcomes of a page."""
    text = (ROOT / "docs" / page).read_text()
    (table,) = re.findall(r"<!-- outcomes -->(.*?)<!-- end -->", text, re.DOTALL)
    return [line.split("|")[1].strip() for line in table.strip().splitlines()[2:]]


@pytest.mark.parametrize("page", TESTS)
def test_every_row_has_a_test(page: str) -> None:
    for row in rows(page):
        assert [begin for begin in TESTS[page] if row.startswith(begin)], f"docs/{page}: no test of: {row}"
    for begin in TESTS[page]:
        assert any(row.startswith(begin) for row in rows(page)), f"docs/{page} has no row any more: {begin}"


@pytest.mark.parametrize("test", sorted({test for page in TESTS.values() for test in page.values()}))
def test_every_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
