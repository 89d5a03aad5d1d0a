//! The replication slot, who holds it, and the log that it keeps.

use outpour_schemas::{config::Config, program::Finding};

use super::{
    super::facts::{Database, Slot},
    bytes,
};
use crate::{sql::literal, wal::slot::lost_by};

/// What the relay's replication sessions are called.
const RELAY: &str = "outpour-relay";

pub(super) fn judge(facts: &Database, config: &Config) -> Vec<Finding> {
    let name = &config.relay.slot;
    let Some(slot) = &facts.slot else {
        return vec![
            Finding::problem(
                "slot",
                format!("replication slot `{name}` does not exist"),
                "The server keeps no log for the relay. If there was one, what was written since \
                 it was dropped may not have been published.",
            )
            .fix("outpour-relay init"),
            headroom(facts, "max_replication_slots", facts.slots_used, true),
            headroom(facts, "max_wal_senders", facts.senders_used, true),
        ];
    };
    let mut findings = vec![kind(facts, slot, config), wal(facts, slot)];
    // Who creates it is to be left alone.
    if slot.waits_for.is_none() {
        findings.push(holder(slot, name));
    }
    findings.extend(idle_timeout(facts));
    // A slot that is there takes no further place, and one that is streamed
    // has its sender already.
    findings.push(headroom(facts, "max_replication_slots", facts.slots_used, false));
    findings.push(headroom(facts, "max_wal_senders", facts.senders_used, slot.holder.is_none()));
    findings
}

fn recreate(name: &str) -> String {
    format!("SELECT pg_drop_replication_slot({});\n-- and then: outpour-relay init", literal(name))
}

fn kind(facts: &Database, slot: &Slot, config: &Config) -> Finding {
    let (check, name) = ("slot", &config.relay.slot);
    if slot.wal_status == "lost" || slot.invalidation.is_some() {
        let reason = lost_by(slot.invalidation.as_deref());
        return Finding::problem(
            check,
            format!("replication slot `{name}` is lost: {reason}"),
            "The server keeps no log for it any more. Events in what was not published yet never \
             reach Kafka by the log; they are still in the outbox table unless it was cleaned.",
        )
        .fix(format!("{}\n-- and once: outpour-relay run --accept-gap", recreate(name)));
    }
    let Slot { plugin, kind, database, .. } = slot;
    if plugin != "pgoutput" || kind != "logical" || *database != facts.user.database {
        return Finding::problem(
            check,
            format!("slot `{name}` is a {kind} slot of `{plugin}` in database `{database}`"),
            "The relay needs a logical slot of pgoutput in the database of postgres.url.",
        )
        .fix(format!("relay.slot: choose another name, or\n{}", recreate(name)));
    }
    if slot.is_temporary {
        return Finding::problem(
            check,
            format!("slot `{name}` is temporary"),
            "It goes with the session that made it, and the log that it keeps with it.",
        )
        .fix("outpour-relay init  -- once that session has ended");
    }
    if let Some(pids) = &slot.waits_for {
        return being_created(slot, pids, name);
    }
    Finding::ok(check, format!("`{name}` stands at {}", slot.confirmed))
}

fn being_created(slot: &Slot, waits_for: &[i32], name: &str) -> Finding {
    let pid = slot.holder.as_ref().map_or(0, |holder| holder.pid);
    // A transaction that is prepared has no backend.
    let (prepared, backends): (Vec<i32>, Vec<i32>) = waits_for.iter().partition(|&&pid| pid == 0);
    let holders: Vec<_> = backends.iter().map(|pid| format!("backend {pid}")).collect();
    let mut holders = holders.join(", ");
    if !prepared.is_empty() || holders.is_empty() {
        holders = "a prepared one (pg_prepared_xacts)".to_owned();
    }
    let end = |pid: &i32| format!("SELECT pg_terminate_backend({pid});  -- once its owner agrees");
    let fixes: Vec<_> = backends.iter().map(end).collect();
    let finding = Finding::warning(
        "slot",
        format!(
            "`{name}` is being created (backend {pid}), and waits for a transaction: {holders}"
        ),
        "A slot begins where no transaction from before it is open any more, in any database. \
         It goes on by itself as soon as these have ended.",
    );
    if fixes.is_empty() { finding } else { finding.fix(fixes.join("\n")) }
}

fn holder(slot: &Slot, name: &str) -> Finding {
    let check = "slot-holder";
    let Some(holder) = &slot.holder else {
        return Finding::ok(check, "no relay is running on the slot");
    };
    let (pid, client) = (holder.pid, if holder.client.is_empty() { "-" } else { &holder.client });
    if holder.application == RELAY || holder.application.is_empty() {
        return Finding::ok(
            check,
            format!("held by a relay at {client} since {} UTC (backend {pid})", holder.since),
        );
    }
    Finding::warning(
        check,
        format!(
            "slot `{name}` is held by `{}` at {client} since {} UTC (backend {pid})",
            holder.application, holder.since
        ),
        "A slot has one reader. What another program reads and confirms, no relay publishes.",
    )
    .fix(format!("SELECT pg_terminate_backend({pid});  -- once its owner agrees"))
}

fn wal(facts: &Database, slot: &Slot) -> Finding {
    /// So much log is a relay that does not get on, not a busy minute.
    const MUCH: u64 = 1 << 30;
    let check = "slot-wal";
    let kept = slot.restart.map_or(0, |restart| facts.end.bytes_since(restart));
    let lag = facts.end.bytes_since(slot.confirmed);
    let fix = "start the relay, or find out what keeps it: outpour-relay status";
    let limit = facts
        .settings
        .get("max_slot_wal_keep_size")
        .and_then(|&mebibytes| u64::try_from(mebibytes).ok())
        .map(|mebibytes| mebibytes << 20);
    let text = format!("the slot keeps {} of log, {} of it unconfirmed", bytes(kept), bytes(lag));
    if slot.wal_status == "lost" {
        return Finding::ok(check, "the slot keeps no log any more");
    }
    if slot.wal_status == "unreserved" {
        return Finding::problem(
            check,
            format!("{text}; it is unreserved"),
            "The server removes log that is still needed at its next checkpoint, and the slot is lost.",
        )
        .fix(format!("{fix}\nALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();"));
    }
    let Some(limit) = limit else {
        if kept < MUCH {
            return Finding::ok(check, text);
        }
        return Finding::warning(
            check,
            text,
            "Nothing limits it (max_slot_wal_keep_size = -1): the disk fills, and then the \
             database stops.",
        )
        .fix(fix);
    };
    let text = format!("{text}; {} are allowed (max_slot_wal_keep_size)", bytes(limit));
    if kept >= limit / 2 {
        return Finding::warning(
            check,
            text,
            "Once it is more, the server removes log that is still needed, and the slot is lost.",
        )
        .fix(fix);
    }
    Finding::ok(check, text)
}

fn idle_timeout(facts: &Database) -> Option<Finding> {
    let check = "idle_replication_slot_timeout";
    let seconds = *facts.settings.get(check)?;
    Some(if seconds == 0 {
        Finding::ok(check, "off")
    } else {
        Finding::warning(
            check,
            format!("the server gives up a slot that nobody reads for {seconds} s"),
            "A relay that is down for longer loses its slot, and with it events.",
        )
        .fix(format!("ALTER SYSTEM SET {check} = 0; SELECT pg_reload_conf();"))
    })
}

fn headroom(facts: &Database, setting: &'static str, used: i64, needs_one: bool) -> Finding {
    let Some(&limit) = facts.settings.get(setting) else {
        return Finding::ok(setting, "not known");
    };
    let free = limit - used;
    let text = format!("{used} of {limit} are in use");
    let fix = format!("ALTER SYSTEM SET {setting} = {};  -- then restart the server", limit + 5);
    if free < i64::from(needs_one) {
        return Finding::problem(
            setting,
            text,
            "There is none left for the relay, which cannot start.",
        )
        .fix(fix);
    }
    if free == i64::from(needs_one) {
        return Finding::warning(
            setting,
            text,
            "The next one that somebody takes is the relay's, or its successor's.",
        )
        .fix(fix);
    }
    Finding::ok(setting, text)
}

#[cfg(test)]
mod tests {
    use outpour_schemas::{Lsn, config::Config, program::Level};

    use super::{
        super::super::{facts::Holder, tests::database},
        *,
    };

    fn found(change: impl FnOnce(&mut Database)) -> Vec<Finding> {
        let mut facts = database();
        change(&mut facts);
        let mut findings = judge(&facts, &Config::default());
        findings.retain(|finding| finding.level != Level::Ok);
        findings
    }

    fn slot(change: impl FnOnce(&mut Slot)) -> Vec<Finding> {
        found(|facts| change(facts.slot.as_mut().unwrap()))
    }

    fn assert_one(findings: &[Finding], level: Level, check: &str, what: &str) {
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert_eq!((findings[0].level, findings[0].check), (level, check));
        assert!(findings[0].what.contains(what), "{findings:?}");
        assert!(findings[0].why.is_some() && findings[0].fix.is_some(), "{findings:?}");
    }

    #[test]
    fn a_slot_that_is_read_or_free_has_no_finding() {
        assert_eq!(found(|_| {}), []);
        let application = RELAY.to_owned();
        let relay = Holder { application, ..Holder::default() };
        assert_eq!(slot(|slot| slot.holder = Some(relay)), []);
    }

    #[test]
    fn a_slot_that_cannot_be_read_is_a_problem() {
        assert_one(&found(|facts| facts.slot = None), Level::Problem, "slot", "does not exist");
        let lost = slot(|slot| slot.wal_status = "lost".into());
        assert_one(&lost, Level::Problem, "slot", "max_slot_wal_keep_size");
        let invalid = slot(|slot| slot.invalidation = Some("idle_timeout".into()));
        assert_one(&invalid, Level::Problem, "slot", "idle_replication_slot_timeout");
        let physical = slot(|slot| slot.plugin = "test_decoding".into());
        assert_one(&physical, Level::Problem, "slot", "test_decoding");
        let elsewhere = slot(|slot| slot.database = "other".into());
        assert_one(&elsewhere, Level::Problem, "slot", "`other`");
        assert_one(&slot(|slot| slot.is_temporary = true), Level::Problem, "slot", "temporary");
    }

    #[test]
    fn who_creates_the_slot_is_not_to_be_ended_but_whom_it_waits_for() {
        let findings = slot(|slot| {
            slot.holder =
                Some(Holder { pid: 7, application: "outpour".into(), ..Holder::default() });
            slot.waits_for = Some(vec![8, 9]);
        });
        assert_one(&findings, Level::Warning, "slot", "being created (backend 7)");
        let fix = findings[0].fix.as_ref().unwrap();
        assert!(fix.contains("(8)") && fix.contains("(9)") && !fix.contains("(7)"), "{fix}");
        let prepared = &slot(|slot| slot.waits_for = Some(vec![0]))[0];
        assert!(prepared.what.contains("pg_prepared_xacts"), "{prepared:?}");
    }

    #[test]
    fn a_stranger_on_the_slot_is_named() {
        let holder = Holder { pid: 7, application: "psycopg".into(), ..Holder::default() };
        let findings = slot(|slot| slot.holder = Some(holder));
        assert_one(&findings, Level::Warning, "slot-holder", "psycopg");
        assert!(findings[0].fix.as_ref().unwrap().contains("pg_terminate_backend(7)"));
    }

    #[test]
    fn log_that_piles_up_is_told_before_the_slot_is_lost() {
        let grow = |gibibytes: u64, limit_mebibytes: i64| {
            found(|facts| {
                facts.end = Lsn(facts.end.0 + (gibibytes << 30));
                facts.settings.insert("max_slot_wal_keep_size".into(), limit_mebibytes);
            })
        };
        assert_one(&grow(2, -1), Level::Warning, "slot-wal", "2.0 GiB");
        assert_eq!(grow(2, 10_240), []);
        assert_one(&grow(6, 10_240), Level::Warning, "slot-wal", "10.0 GiB are allowed");
        let unreserved = slot(|slot| slot.wal_status = "unreserved".into());
        assert_one(&unreserved, Level::Problem, "slot-wal", "unreserved");
    }

    #[test]
    fn places_are_counted_for_who_needs_one() {
        let used = |slots, senders| {
            found(|facts| (facts.slots_used, facts.senders_used) = (slots, senders))
        };
        // Nobody streams the slot: a sender is needed, a slot is not.
        assert_one(&used(10, 1), Level::Warning, "max_replication_slots", "10 of 10");
        assert_one(&used(1, 10), Level::Problem, "max_wal_senders", "10 of 10");
        assert_one(&used(1, 9), Level::Warning, "max_wal_senders", "9 of 10");
    }

    #[test]
    fn a_slot_that_is_given_up_when_idle_is_a_warning() {
        let findings = found(|facts| {
            facts.settings.insert("idle_replication_slot_timeout".into(), 3600);
        });
        assert_one(&findings, Level::Warning, "idle_replication_slot_timeout", "3600 s");
    }
}
