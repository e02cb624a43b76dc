//! One suite for every journal: in memory, in a file, in a database, and behind gRPC.
#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod append;
#[path = "../../../../crates/postgres/tests/support/database.rs"]
mod database;
mod definitions;
mod fixture;
mod leases;
mod listing;
mod loading;
mod remote;
mod retention;

use fixture::{Fixture, database, file, memory, pooled, remote};

/// Runs a case against every backend.
macro_rules! contract {
    ($($module:ident::$case:ident),* $(,)?) => {
        $(mod $case {
            use super::*;

            #[tokio::test]
            async fn in_memory() {
                let fixture: Fixture = memory();
                $module::$case(fixture).await;
            }

            #[tokio::test]
            async fn in_a_file() {
                $module::$case(file()).await;
            }

            #[tokio::test]
            async fn in_a_database() {
                $module::$case(database().await).await;
            }

            #[tokio::test]
            async fn in_a_database_behind_a_pooler() {
                $module::$case(pooled().await).await;
            }

            #[tokio::test]
            async fn behind_grpc() {
                $module::$case(remote().await).await;
            }
        })*
    };
}

contract![
    leases::acquiring_raises_the_epoch,
    leases::held_partitions_are_not_given_away,
    leases::renewal_says_what_is_lost,
    leases::released_partitions_are_free,
    leases::who_comes_back_at_another_address_takes_its_own,
    leases::executors_join_and_leave,
    leases::a_membership_that_is_not_renewed_ends,
    leases::a_renewal_shows_who_owns_what,
    append::what_was_appended_is_read_back,
    append::stale_epochs_are_refused,
    append::a_wrong_sequence_refuses_the_whole_batch,
    append::a_duplicate_is_refused,
    append::one_batch_may_write_a_run_twice,
    append::contradictions_are_refused,
    append::queued_batches_keep_their_order,
    append::an_ended_run_may_be_reopened,
    append::another_partition_is_refused,
    append::namespaces_do_not_meet,
    loading::states_at_any_number_are_read,
    loading::snapshots_are_thinned_at_the_end,
    loading::open_runs_come_in_pages,
    loading::due_runs_come_soonest_first,
    loading::large_payloads_come_back_whole,
    loading::entries_are_bounded,
    listing::newest_first_in_stable_pages,
    listing::every_filter_filters,
    listing::changed_labels_are_found,
    listing::nonsense_cursors_are_refused,
    definitions::stored_once_and_immutable,
    definitions::listed_by_name_and_by_age,
    retention::old_runs_go,
    retention::only_so_many_runs_stay,
    retention::a_blob_goes_with_its_last_user,
    retention::open_runs_stay,
];
