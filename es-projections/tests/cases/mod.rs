//! Test cases for every database: written once, run against each. A case is given the URL of an empty database.

#![allow(dead_code, unreachable_pub, reason = "two test binaries include this, each with a use of its own")]

pub mod accounts;
pub mod audit;
pub mod builds;
pub mod bulk;
pub mod damaged;
pub mod databases;
pub mod export;
pub mod faults;
pub mod models;
pub mod names;
pub mod parked;
pub mod past;
pub mod replay;
pub mod sharing;
pub mod silence;
pub mod support;
pub mod switch;
pub mod values;
pub mod verify;
pub mod waiting;

/// Gives the names of all cases, by module, to a macro.
#[macro_export]
macro_rules! for_each_case {
    ($tests:ident) => {
        $tests! {
            replay:
                rows_equal_the_fold_after_stops_at_every_batch_size
                replaying_twice_changes_nothing
                a_torn_command_is_not_visible_until_it_is_complete
                a_torn_command_that_a_claim_voids_never_becomes_visible
                foreign_and_void_records_are_counted_and_change_nothing
                two_aggregate_types_go_into_one_read_model
                a_read_model_of_another_version_is_refused_and_can_be_removed;
            faults:
                a_crash_between_rows_and_commit_leaves_neither
                a_panic_is_retried_and_shown
                a_commit_of_unknown_outcome_is_looked_up
                a_database_that_went_back_is_filled_again
                an_older_worker_can_not_commit
                a_lost_tail_stops_the_worker
                a_topic_made_anew_stops_the_worker
                a_log_that_goes_away_is_read_on
                a_large_command_is_not_split
                a_worker_of_a_removed_read_model_can_not_commit_to_the_next;
            sharing:
                partitions_are_split_evenly_while_workers_join_and_leave
                a_worker_that_starts_and_stops_beside_another_ends_nothing
                every_handle_waits_for_every_partition
                who_gets_nothing_done_loses_its_partitions
                an_event_that_fails_for_long_is_parked
                who_is_frozen_in_a_batch_loses_its_partitions_and_changes_nothing
                what_a_dead_machine_has_locked_keeps_nobody_from_the_rest
                a_slow_one_keeps_its_partitions
                who_comes_back_under_its_name_need_not_wait
                who_does_not_share_has_all_until_it_stops
                more_workers_than_partitions_is_said
                an_incomplete_command_is_nobodys_silence
                who_stands_in_takes_nothing_from_others
                a_removed_read_model_ends_who_shares
                a_rebuild_takes_the_place_of_what_two_share
                who_holds_the_partition_sees_to_a_wish
                rows_of_several_partitions_lose_no_update
                whoever_joins_leaves_or_dies_no_event_is_lost_or_doubled;
            waiting:
                a_wait_ends_when_the_event_is_visible
                a_wait_ends_at_its_deadline_and_says_where_it_is
                a_read_model_that_is_behind_is_not_well
                a_stopped_worker_ends_waits_with_its_error
                a_worker_is_stopped_by_its_token;
            bulk:
                every_kind_of_value_comes_back
                of_rows_with_one_key_the_last_is_written
                duplicates_fail_or_stay
                thousands_of_rows_are_written_loaded_and_deleted
                rows_that_do_not_fit_are_refused
                statements_of_ones_own_run_on_both
                a_transaction_that_is_dropped_changes_nothing
                who_changes_the_same_rows_waits_in_no_circle
                thousands_of_partitions_move_at_once
                a_number_is_one_key_however_it_is_written
                tables_of_a_newer_release_are_refused
                tables_of_the_first_release_are_brought_up_and_gone_on_with;
            databases:
                read_models_are_read_at_one_moment
                a_worker_that_can_fold_nothing_in_does_not_start
                what_no_checkpoint_tells_is_durable
                what_is_given_up_ends
                any_time_may_be_allowed;
            models:
                rows_are_the_same_at_every_batch_size
                every_change_is_refused_that_can_not_be
                a_row_tells_what_changed_it_last
                every_type_of_field_comes_back
                a_row_made_twice_is_refused_at_every_batch_size
                a_row_made_anew_tells_nothing_of_the_one_before;
            parked:
                one_bad_event_stops_one_aggregate
                what_waits_is_folded_in_once_it_can_be
                an_event_is_left_out_by_name_and_reason
                a_command_is_parked_as_a_whole
                a_projection_that_fails_on_all_parks_none
                any_number_of_bad_aggregates_stops_no_other
                each_command_has_attempts_of_its_own
                a_projection_that_breaks_half_way_parks_few
                a_bad_event_in_a_full_batch_is_found_in_few_attempts
                what_takes_too_long_is_tried_in_smaller_parts
                a_skip_leaves_out_what_was_seen_and_nothing_else
                who_passes_over_a_failed_statement_has_failed
                what_may_pass_parks_nothing_whatever_is_told_of_it
                event_types_that_are_not_known_may_be_passed_over
                a_wish_outlives_a_database_that_is_away
                a_wish_that_hangs_does_not_keep_a_worker
                what_was_left_out_is_left_out_of_a_rebuild
                what_is_visible_is_not_parked_by_a_rebuild
                a_read_model_as_of_a_time_tells_what_is_parked;
            builds:
                a_rebuild_takes_the_live_ones_place_under_load
                a_rebuild_that_differs_is_refused_with_the_rows
                a_rebuild_goes_on_where_it_was_stopped
                another_version_replaces_the_one_before
                a_switch_shuts_out_workers_of_sources_that_are_not_read_any_more
                a_version_with_one_more_source_becomes_live
                a_new_release_is_deployed_beside_the_old_one
                a_passing_error_ends_no_deployment
                a_read_model_as_of_a_time_is_the_same_whenever_it_is_built
                a_read_model_as_of_a_business_time_lacks_what_was_not_there_yet
                a_read_model_as_of_a_cut_holds_what_is_before_it
                a_build_that_was_begun_anew_meanwhile_is_not_made_live
                a_build_that_is_removed_meanwhile_is_not_gone_on_with
                a_rebuild_that_never_gets_close_ends
                a_rebuild_makes_way_for_commands
                a_rebuild_is_not_taken_for_silent
                a_long_query_puts_the_switch_off_and_nobody_else
                readers_of_two_tables_put_no_switch_off
                a_long_query_keeps_no_rows_from_being_taken_over
                a_setup_that_fails_is_told
                tables_that_are_named_like_builds_are_refused;
            switch:
                what_users_made_outlives_a_rebuild
                whatever_columns_another_version_has_are_taken_over
                what_would_go_with_a_column_is_told
                what_stands_in_the_way_is_told_before_anything_is_built;
            names:
                what_is_not_ones_own_is_refused
                declared_indexes_are_part_of_what_a_version_is
                a_table_that_is_gone_is_told
                the_version_of_all_rows_counts;
            values:
                rows_of_every_kind_do_not_depend_on_the_batch
                what_can_not_be_read_back_is_refused;
            verify:
                what_is_untouched_is_equal
                what_was_changed_by_hand_is_found
                few_of_many_differences_are_told
                who_shares_goes_on_while_it_is_verified
                who_does_not_share_goes_on_while_it_is_verified
                any_number_of_workers_gives_the_same_state
                what_a_killed_one_left_is_dropped
                who_waits_is_not_taken_for_dead
                of_two_the_later_one_goes_on
                what_is_parked_or_left_out_is_so_in_the_replay
                what_goes_on_meanwhile_is_replayed
                nothing_compared_is_not_equal
                a_log_that_lost_its_tail_is_told
                a_rebuild_beside_it_does_no_harm
                a_switch_while_it_is_compared_does_no_harm
                the_audit_trail_is_verified;
            past:
                each_version_tells_what_it_changed
                impossible_questions_about_a_past_are_refused
                a_state_is_told_as_of_a_version_and_of_either_time
                what_was_not_there_yet_is_not_told
                a_version_of_very_many_is_told_from_a_kept_state
                states_of_an_earlier_release_are_kept_anew
                business_times_in_any_order_are_told_as_if_all_were_read
                what_can_not_be_folded_again_is_told
                a_past_that_was_changed_is_noticed
                a_row_leads_to_the_event_that_changed_it;
            audit:
                every_field_comes_back_whatever_it_holds
                payloads_that_are_not_json_are_kept
                filters_combine
                pages_follow_each_other_in_both_orders
                a_tree_holds_all_that_was_caused
                pages_are_bounded_whatever_is_filtered
                a_trail_of_before_gets_its_indexes_by_a_rebuild
                impossible_queries_are_refused
                every_filter_is_served_by_an_index;
            damaged:
                damaged_entries_take_no_page_with_them
                damaged_refusals_take_no_page_with_them
                a_damaged_version_takes_no_history_with_it
                a_damaged_entry_takes_no_lineage_with_it
                damaged_rows_take_no_list_with_them
                damaged_rows_take_nothing_parked_with_them;
            export:
                a_line_is_enough_to_prove_its_event
                an_export_is_the_whole_of_what_was_asked_for
                what_was_changed_in_an_export_is_found
                an_export_that_does_not_end_is_none
                a_manifest_comes_last;
        }
    };
}
