"""The table of faults: each with what is expected of it, and the tests that inject it and look.

`python -m tests.faults.table` prints it; `test_table.py` holds it against the tests that there are.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

from tests.faults.rows import FAULTS

TESTS = Path(__file__).parents[1]
SCENE = "faults/test_faults.py::test_a_fault"


class Row(NamedTuple):
    """A fault, what is expected, and where it is tested."""

    fault: str
    expected: str
    tests: tuple[str, ...]
    """``file::function``, relative to `tests/`."""


STANDING = (
    Row(
        "a server killed between the renames of meta.inf and meta.sum; a flipped bit there; a directory that is gone",
        "the start is refused with a sentence, `doctor --repair` restores all readings, nothing is created anew",
        (
            "live/test_lost_streams.py::test_streams_with_damaged_metadata",
            "live/test_lost_streams.py::test_all_at_once_and_the_server_is_killed_with_it",
            "live/test_lost_streams.py::test_a_log_that_cannot_be_rebuilt",
            "live/test_lost_streams.py::test_a_whole_store_that_is_gone",
        ),
    ),
    Row(
        "a copied machine beside the living one",
        "the centre takes one and refuses the other at both; after a takeover all of it comes up, none twice",
        (
            "live/test_two_writers.py::test_a_copied_machine_loses_nothing_and_is_told",
            "tiers/test_writers.py::test_a_copied_machine_beside_the_living_one_waits_and_is_told",
            "tiers/test_writers.py::test_control_without_the_writer_the_copys_readings_are_skipped",
        ),
    ),
    Row(
        "a disk that is full three times quickly; a full intake; a full log",
        "no PUBACK while it lasts, with room all goes on by itself, the books balance",
        (
            "live/test_stores.py::test_a_disk_full_three_times",
            "bus/test_disk.py::test_a_disk_full_three_times",
            "bus/test_disk.py::test_a_full_disk_tears_nothing_and_heals",
            "live/test_stores.py::test_a_full_intake",
            "live/test_stores.py::test_a_full_log",
        ),
    ),
    Row(
        "a power cut, or an older copy of the store put back",
        "a cursor behind the lost end is refused with 410 and `first`; what is sent again is taken once",
        (
            "live/test_lost_end.py::test_an_older_copy_put_back_skips_nothing",
            "live/test_stores.py::test_an_older_copy_of_the_store",
            "share/test_histories.py::test_a_power_cut_skips_nothing",
        ),
    ),
    Row(
        "altered rows of the duplicate index; damaged or cut blocks of the log",
        "counted, named and alarmed; the index is rebuilt; what was lost is taken when it comes again",
        (
            "live/test_scrub.py::test_a_damaged_store_is_told_counted_and_taken_again",
            "live/test_scrub.py::test_a_damaged_index_of_a_running_gateway_doubles_nothing",
            "persist/test_commit.py::test_control_an_index_that_is_believed_drops_what_was_lost",
        ),
    ),
    Row(
        "a gateway destroyed with its disk, with a backup",
        "what was acknowledged before the backup is there, the centre keeps what it has beyond it, nothing is doubled",
        (
            "live/test_backup.py::test_a_node_that_is_destroyed",
            "live/test_backup.py::test_a_centre_that_is_restored",
            "tiers/test_restored_writers.py::test_whatever_the_original_did_since",
            "tiers/test_restored_writers.py::test_control_a_takeover_alone_skips_what_was_not_up",
        ),
    ),
    Row(
        "a restore beside the living original",
        "refused on the same machine; elsewhere the centre takes the original alone, and says so at the other",
        (
            "live/test_backup.py::test_beside_the_living_original",
            "tiers/test_restored_writers.py::test_beside_the_living_original_it_waits",
        ),
    ),
    Row(
        "a node destroyed with its disk, without a backup",
        "a new one has what the centre had; what is missing is named by time and by number",
        ("live/test_node_lost.py::test_a_node_lost_with_its_disk",),
    ),
    Row(
        "kills of gateway, server, both, link, a replaced worker, under load",
        "0 lost, 0 doubled, books balance",
        (
            "ledger/test_kills.py::test_kills_lose_and_double_nothing",
            "ledger/test_video.py::test_a_few_kills_lose_and_double_no_vehicle",
            "bus/test_engine.py::test_a_killed_server_is_started_again_with_everything_it_had",
        ),
    ),
    Row(
        "a link that is cut for minutes",
        "what waited goes up beside the live lane, exactly once",
        (
            "ledger/test_link.py::test_a_cut_link_delays_and_loses_nothing",
            "tiers/test_uplink.py::test_uplinks_killed_at_any_moment",
        ),
    ),
    Row(
        "SIGTERM under load; a second gateway on the same store",
        "an orderly end; the second is refused",
        (
            "test_flow.py::test_an_orderly_stop_under_load",
            "test_flow.py::test_a_second_gateway_on_one_store_is_refused",
        ),
    ),
    Row(
        "garbage on every listener",
        "refused or quarantined; the gateway lives",
        ("live/test_garbage.py::test_a_gateway_lives_with_garbage_of_every_kind",),
    ),
    Row(
        "subscribers that read slowly or never",
        "they are closed or held, their cursor stays valid, nobody else waits",
        (
            "web/test_feeds.py::test_a_slow_subscriber_is_cut_and_hurts_nobody",
            "live/test_brokered.py::test_a_slow_mqtt_subscriber_is_held_and_shown",
            "live/test_webhooks.py::test_a_slow_receiver_holds_up_nobody",
        ),
    ),
    Row(
        "two centres: the active one killed for good, or held, replaced, woken; its standby killed; a hostile node",
        "0 lost, 0 doubled, cursors go on, the old one is fenced, nothing of the hostile node's lies is taken",
        (
            "live/test_sites.py::test_fail_over",
            "border/test_campaign.py::test_rounds_are_repeated_by_their_seed",
            "border/test_campaign.py::test_control_a_lie_that_is_taken_is_seen",
        ),
    ),
    Row(
        "a standby that is to take over before its copy is whole",
        "`centre promote` refuses and names what is missing; no vote is asked for; its store is encrypted, too",
        (
            "failover/test_standby.py::test_without_the_registries_it_takes_over_by_no_vote",
            "test_centre_cli.py::test_it_orders_only_what_loses_nothing",
            "live/test_sites.py::test_fail_over",
        ),
    ),
    Row(
        "an active centre that was restarted, or was replaced while it was away",
        "503 for a cursor that it does not know until it has heard the other one; one that it knows goes on",
        (
            "share/test_reader.py::test_a_cursor_of_what_is_stored_and_not_yet_visible_is_good",
            "share/test_reader.py::test_a_centre_that_has_not_heard_the_other_judges_no_cursor_that_it_does_not_know",
            "failover/test_replica.py::test_the_other_centre_settles_which_log_is_followed",
        ),
    ),
    Row(
        "a centre that was fenced and copies all anew, beside the active one",
        "what it asks confirms nothing until it follows the same timelines; delivery goes on meanwhile",
        (
            "failover/test_replica.py::test_a_fenced_centre_confirms_nothing",
            "live/test_sites.py::test_fail_over",
        ),
    ),
    Row(
        "a peer that reads nothing more, when a connection is closed",
        "the connection is aborted after some seconds; nobody waits for it",
        (
            "bus/test_connect.py::test_closing_does_not_wait_for_a_peer_that_does_not_read",
            "bus/test_connect.py::test_a_peer_that_swallows_everything_is_left_at_once",
        ),
    ),
    Row(
        "an entry of a log, a sum or a record that does not decode",
        "passed over, counted and alarmed; `log quarantine` sets it aside and `log restore` puts it back",
        (
            "live/test_garbage.py::test_an_entry_is_set_aside_and_restored",
            "live/test_garbage.py::test_sums_that_cannot_be_read_stop_no_page",
            "live/test_garbage.py::test_a_commit_record_that_cannot_be_read",
            "bus/test_decoders.py::test_what_cannot_be_read_is_passed_over",
        ),
    ),
    Row(
        "no inodes left; a path that contains the words of a fault",
        "no room is told; no fault is made up",
        (
            "bus/test_disk.py::test_a_disk_without_inodes_has_no_room",
            "test_cli_doctor.py::test_a_disk_without_inodes",
            "test_cli_doctor.py::test_a_path_is_no_complaint",
        ),
    ),
    Row(
        "a node that raids, lies or floods",
        "it harms nobody but itself",
        (
            "border/test_raid.py::*",
            "border/test_hostile.py::*",
            "border/test_floods.py::test_others_are_served_while_one_floods",
        ),
    ),
    Row(
        "a clock that jumps by a day, to the years 2051, 2100 and 2262, and back",
        "the gateway goes on; readings are marked, and judged again when it is right",
        (
            "faults/test_system.py::test_a_clock_that_jumps",
            "persist/test_commit.py::test_a_clock_that_was_far_ahead_spoils_the_judgement_of_one_hour_only",
        ),
    ),
    Row(
        "more idle connections than descriptors; too few descriptors to begin",
        "503 for those that are too many, who is connected is served on; one sentence with the remedy",
        (
            "faults/test_system.py::test_descriptors_used_up",
            "faults/test_system.py::test_too_few_descriptors_to_begin",
            "bus/test_descriptors.py::test_some_descriptors_stay_free",
        ),
    ),
    Row(
        "a file in the place of a directory, and the other way round",
        "one sentence with path and remedy, exit code 2",
        (
            "faults/test_system.py::test_what_stands_in_the_way",
            "test_system_errors.py::test_a_sentence_names_path_and_remedy",
        ),
    ),
    Row(
        "a warning that repeats every half second",
        "written once, then once a minute with the number of those left out",
        ("test_logs.py::test_a_warning_that_repeats",),
    ),
)


def rows() -> list[Row]:
    """Return all rows: those with tests of their own, and those of the scene."""
    scene = [Row(fault.title, fault.expected, (f"{SCENE}[{fault.title}]",)) for fault in FAULTS]
    return [*STANDING, *scene]


def functions(file: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def markdown() -> str:
    """Return the table as it stands in README.md."""
    lines = ["| fault | expected | tests |", "|---|---|---|"]
    for row in rows():
        tests = "<br>".join(f"`{test.partition('[')[0]}`" for test in row.tests)
        lines.append(f"| {row.fault} | {row.expected} | {tests} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
