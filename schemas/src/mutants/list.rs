//! What each mutant does, what falls by it, and what it takes to show.

use super::{Facts, Mutant, Program};

impl Mutant {
    pub const ALL: [Mutant; 31] = [
        Mutant::NoFencing,
        Mutant::CheckpointBeforeFencing,
        Mutant::CheckpointUnsettled,
        Mutant::CheckpointOutside,
        Mutant::NoCheckpoint,
        Mutant::NoGapCheck,
        Mutant::NoRowCount,
        Mutant::RowCountForgotten,
        Mutant::ConfirmEarly,
        Mutant::KeepaliveInFlight,
        Mutant::KeepaliveWithoutCheckpoint,
        Mutant::AbortedIsDone,
        Mutant::RandomPartition,
        Mutant::NoPlan,
        Mutant::PlanIgnored,
        Mutant::PlanAtTheEnd,
        Mutant::CommitUnawaited,
        Mutant::NoHandOver,
        Mutant::NoToken,
        Mutant::TokenPerOwner,
        Mutant::NoProvenance,
        Mutant::FirstTokenForgotten,
        Mutant::RestLeftOut,
        Mutant::MovesIgnored,
        Mutant::LettersOutside,
        Mutant::LettersAfterPlan,
        Mutant::LettersAgain,
        Mutant::RefusedIsDone,
        Mutant::InsertGivenUp,
        Mutant::ReadUncommitted,
        Mutant::BentValue,
    ];

    #[must_use]
    pub const fn facts(self) -> Facts {
        match self {
            Mutant::NoFencing => Facts {
                name: "no-fencing",
                program: Program::Relay,
                does: "takes a transactional id of its own instead of the slot's, and so fences \
                       nobody",
                breaks: "I2, I3: records twice, in Kafka and in the table",
                shows: "a relay under load stands still (SIGSTOP) with records sent and not \
                        committed, its walsender is terminated, a second relay takes over, and \
                        the first goes on within relay.transaction_timeout",
            },
            Mutant::CheckpointBeforeFencing => Facts {
                name: "checkpoint-before-fencing",
                program: Program::Relay,
                does: "reads the checkpoint before it fences older relays",
                breaks: "I2, I3: records twice, in Kafka and in the table",
                shows: "the walsender of a relay under load is terminated while a second relay \
                        waits: the first commits what it has sent after the second has read; \
                        rare, so again and again",
            },
            Mutant::CheckpointUnsettled => Facts {
                name: "checkpoint-unsettled",
                program: Program::Relay,
                does: "does not wait for open transactions of other slots before it reads the \
                       checkpoint",
                breaks: "I2: records twice, in Kafka and in the table",
                shows: "the relay of another slot stands still (SIGSTOP) in the middle of its \
                        commit, and this one is restarted after it has committed meanwhile",
            },
            Mutant::CheckpointOutside => Facts {
                name: "checkpoint-outside",
                program: Program::Relay,
                does: "commits records in one Kafka transaction and their checkpoint in the \
                       next",
                breaks: "I2: records twice, in Kafka and in the table",
                shows: "the relay is killed under load, between the two",
            },
            Mutant::NoCheckpoint => Facts {
                name: "no-checkpoint",
                program: Program::Relay,
                does: "starts where the slot stands, whatever the checkpoint says",
                breaks: "I2: records twice, in Kafka and in the table",
                shows: "the relay is killed, or PostgreSQL is restarted, under load: what was \
                        confirmed lags behind what is committed by up to a second",
            },
            Mutant::NoGapCheck => Facts {
                name: "no-gap-check",
                program: Program::Relay,
                does: "does not compare slot and checkpoint at its start",
                breaks: "I1: events are missing in Kafka, without a refusal to start",
                shows: "the relay is down while events are written and \
                        pg_replication_slot_advance moves the slot past them",
            },
            Mutant::NoRowCount => Facts {
                name: "no-row-count",
                program: Program::Relay,
                does: "leaves the row out of a checkpoint inside a database transaction",
                breaks: "I2: the transaction's first records twice, in Kafka and in the table",
                shows: "the relay is killed within a database transaction of more rows than \
                        relay.max_transaction_rows, a part of which is committed",
            },
            Mutant::RowCountForgotten => Facts {
                name: "row-count-forgotten",
                program: Program::Relay,
                does: "forgets that row when a keepalive comes before the rest of the \
                       transaction",
                breaks: "I2: the transaction's first records twice, in Kafka and in the table",
                shows: "the relay is killed twice within such a transaction, with 10 s of other \
                        log or 16 MiB between its start and the commit, so that a keepalive is \
                        worth a checkpoint",
            },
            Mutant::ConfirmEarly => Facts {
                name: "confirm-early",
                program: Program::Relay,
                does: "confirms a position to PostgreSQL before Kafka has committed it",
                breaks: "I7: the slot stands past the checkpoint, so that the next start is \
                         refused with exit code 3",
                shows: "Kafka stands still for two seconds while events come, so that the \
                        position is sent, and the relay is killed then, or Kafka stays away \
                        beyond relay.transaction_timeout",
            },
            Mutant::KeepaliveInFlight => Facts {
                name: "keepalive-in-flight",
                program: Program::Relay,
                does: "acknowledges keepalives while records wait for their commit",
                breaks: "I7: the slot stands past the checkpoint, so that the next start is \
                         refused with exit code 3",
                shows: "the same, with a keepalive between two transactions: Kafka stands still \
                        for some seconds while few events come",
            },
            Mutant::KeepaliveWithoutCheckpoint => Facts {
                name: "keepalive-without-checkpoint",
                program: Program::Relay,
                does: "confirms an idle position without writing it to a checkpoint first",
                breaks: "I7: the slot stands past the checkpoint, so that the next start is \
                         refused with exit code 3 though nothing is lost",
                shows: "the relay idles for two seconds while other tables are written, and is \
                        killed or restarted",
            },
            Mutant::AbortedIsDone => Facts {
                name: "aborted-is-done",
                program: Program::Relay,
                does: "takes a Kafka transaction for committed though its commit was refused, or \
                       not answered",
                breaks: "I7, I1: the slot stands past the checkpoint, so that the next start is \
                         refused with exit code 3",
                shows: "Kafka stands still under load for longer than relay.transaction_timeout, \
                        with a commit on its way; or the relay does (SIGSTOP), with records sent \
                        and their commit not",
            },
            Mutant::RandomPartition => Facts {
                name: "random-partition",
                program: Program::Relay,
                does: "sends a record to any partition instead of its key's",
                breaks: "I3: the events of a key in several partitions",
                shows: "a topic of several partitions; nothing has to fail",
            },
            Mutant::NoPlan => Facts {
                name: "no-plan",
                program: Program::Consumer,
                does: "commits the start of a batch without a plan",
                breaks: "I5: rows twice in the table; letters twice",
                shows: "the consumer is killed between insert and next commit, and the batch is \
                        cut otherwise when it is read again: under a load that changes",
            },
            Mutant::PlanIgnored => Facts {
                name: "plan-ignored",
                program: Program::Consumer,
                does: "reads a planned range again to another end",
                breaks: "I5: rows twice in the table; letters twice",
                shows: "the same",
            },
            Mutant::PlanAtTheEnd => Facts {
                name: "plan-at-the-end",
                program: Program::Consumer,
                does: "commits the end of a batch before it is inserted, as automatic commits \
                       do",
                breaks: "I6, I4: rows are missing in the table",
                shows: "the consumer is killed between commit and insert: ClickHouse is slow, \
                        stands still or is away",
            },
            Mutant::CommitUnawaited => Facts {
                name: "commit-unawaited",
                program: Program::Consumer,
                does: "does not wait for its commits, and so does not hear that they are \
                       refused",
                breaks: "I5: rows twice in the table",
                shows: "a consumer under load stands still (SIGSTOP) for longer than \
                        consumer.session_timeout, another takes over, and the first goes on: it \
                        inserts what it had at hand; or Kafka stands still and the consumer is \
                        killed",
            },
            Mutant::NoHandOver => Facts {
                name: "no-hand-over",
                program: Program::Consumer,
                does: "gives a partition up while its writer goes on",
                breaks: "I5: rows twice in the table",
                shows: "a rebalance under load: consumers come and go while batches wait, best \
                        with a slow ClickHouse",
            },
            Mutant::NoToken => Facts {
                name: "no-token",
                program: Program::Consumer,
                does: "gives each attempt of an insert a token of its own (without any, \
                       ClickHouse would take the block's hash)",
                breaks: "I5: rows twice in the table",
                shows: "an answer is lost: the consumer is killed between insert and next \
                        commit, or its connection to ClickHouse is cut in an insert",
            },
            Mutant::TokenPerOwner => Facts {
                name: "token-per-owner",
                program: Program::Consumer,
                does: "makes its process part of the token",
                breaks: "I5: rows twice in the table",
                shows: "the consumer is killed between insert and next commit; or it stands \
                        still with an insert before it, another takes over, and it goes on",
            },
            Mutant::NoProvenance => Facts {
                name: "no-provenance",
                program: Program::Consumer,
                does: "inserts a planned range again under a new token where its content has \
                       changed, instead of asking the table",
                breaks: "I5: rows twice in the table",
                shows: "the consumer is killed between insert and next commit, and a column is \
                        added before the next one starts; or a column is added under load while \
                        answers of ClickHouse are slow",
            },
            Mutant::FirstTokenForgotten => Facts {
                name: "first-token-forgotten",
                program: Program::Consumer,
                does: "inserts what a table does not have under the token of its own content, \
                       not of the range's first plan",
                breaks: "I5: rows twice in the table",
                shows: "a consumer stands still (SIGSTOP) with an insert on its way that ClickHouse \
                        has not got yet (held back in between), a column is added, another \
                        takes over, and then the insert arrives",
            },
            Mutant::RestLeftOut => Facts {
                name: "rest-left-out",
                program: Program::Consumer,
                does: "does not ask the table again after an insert under the range's first token",
                breaks: "I4: rows are missing in the table",
                shows: "an insert that partitions share is refused for a row of one of them",
            },
            Mutant::MovesIgnored => Facts {
                name: "moves-ignored",
                program: Program::Consumer,
                does: "takes an offset that somebody has moved for its own",
                breaks: "I5: rows twice in the table",
                shows: "the group's offset is moved back by hand while no consumer runs",
            },
            Mutant::LettersOutside => Facts {
                name: "letters-outside",
                program: Program::Consumer,
                does: "writes letters before their plan, without a transaction",
                breaks: "I4: letters twice",
                shows: "records that fit no column, and the consumer is killed under load, \
                        between letters and plan; Kafka being slow helps",
            },
            Mutant::LettersAfterPlan => Facts {
                name: "letters-after-plan",
                program: Program::Consumer,
                does: "commits a plan before the letters that it names, without a transaction",
                breaks: "I4: records neither in the table nor among the letters",
                shows: "the same",
            },
            Mutant::LettersAgain => Facts {
                name: "letters-again",
                program: Program::Consumer,
                does: "parks again what the plan that it found has parked",
                breaks: "I4: letters twice",
                shows: "records that fit no column, and the consumer is killed between plan and \
                        next commit; ClickHouse being slow helps",
            },
            Mutant::RefusedIsDone => Facts {
                name: "refused-is-done",
                program: Program::Consumer,
                does: "takes a batch for stored that ClickHouse refuses for what is in it",
                breaks: "I4: rows are missing in the table",
                shows: "a record that is encoded and that ClickHouse refuses: a CONSTRAINT of \
                        the table; nothing has to fail",
            },
            Mutant::InsertGivenUp => Facts {
                name: "insert-given-up",
                program: Program::Consumer,
                does: "takes a batch for stored after five attempts at its insert",
                breaks: "I4, I6: rows are missing in the table",
                shows: "ClickHouse is away for ten seconds under load",
            },
            Mutant::ReadUncommitted => Facts {
                name: "read-uncommitted",
                program: Program::Consumer,
                does: "reads records of Kafka transactions that were aborted",
                breaks: "I5: rows twice in the table, at different offsets",
                shows: "the relay is killed under load, with records sent and not committed",
            },
            Mutant::BentValue => Facts {
                name: "bent-value",
                program: Program::Consumer,
                does: "changes the last digit of a Decimal now and then",
                breaks: "values: a Decimal in the table is not the payload's",
                shows: "a column of type Decimal whose values are compared; nothing has to fail",
            },
        }
    }
}
