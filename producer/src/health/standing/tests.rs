use super::*;

const LIMIT: Duration = Duration::from_secs(30);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn view(end: u64, sent: u64) -> Result<LogView, String> {
    Ok(LogView {
        end: Lsn(end),
        confirmed: Some(Lsn(50)),
        retained_bytes: Some(end),
        safe_bytes: None,
        sent: Some(Lsn(sent)),
    })
}

/// A relay that has published everything up to 100, which is the log's end.
fn idle() -> (Standing, Instant) {
    let now = Instant::now();
    let mut standing = Standing::new(now);
    standing.started(Lsn(100), now);
    standing.looked(view(100, 100), now);
    (standing, now)
}

fn reason(standing: &Standing, now: Instant) -> String {
    standing.readiness(now, LIMIT).reason.unwrap_or_default()
}

#[test]
fn rounds_of_polling_are_progress_unless_all_rows_are_locked() {
    let begun = Instant::now();
    let mut standing = Standing::new(begun);
    standing.started(Lsn::ZERO, begun);
    let now = begun + LIMIT;
    standing.polled(false, now);
    assert_eq!(reason(&standing, now), "");
    assert_eq!(standing.snapshot(None, now + secs(1), LIMIT).behind, Duration::ZERO);
    standing.polled(true, now + LIMIT);
    assert!(reason(&standing, now + LIMIT).contains("locked by another session for 30 s"));
    assert_eq!(standing.snapshot(None, now + LIMIT, LIMIT).behind, LIMIT);
    standing.polled(false, now + LIMIT);
    assert_eq!(reason(&standing, now + LIMIT), "");
    standing.began(now + LIMIT);
    assert!(reason(&standing, now + LIMIT * 2).contains("Kafka"));
}

#[test]
fn an_idle_relay_whose_outbox_is_not_published_is_not_ready_and_says_what_to_do() {
    let (mut standing, now) = idle();
    standing.unpublished(Some("publication `p` does not publish inserts of t".to_owned()));
    let told = reason(&standing, now);
    assert!(told.starts_with("publication `p`"), "{told}");
    assert!(told.contains("reconcile --outbox --fix"), "{told}");
    standing.unpublished(None);
    assert_eq!(reason(&standing, now), "");
}

#[test]
fn a_relay_is_not_ready_before_its_first_session() {
    let now = Instant::now();
    let standing = Standing::new(now);
    assert!(!standing.readiness(now, LIMIT).ready);
    assert_eq!(standing.readiness(now, LIMIT).state, "starting");
}

#[test]
fn an_idle_relay_is_ready_for_ever() {
    let (mut standing, now) = idle();
    let later = now + secs(100_000);
    standing.looked(view(100, 100), later);
    assert_eq!(reason(&standing, later + secs(5)), "");
    assert_eq!(standing.snapshot(None, later, LIMIT).behind, Duration::ZERO);
}

#[test]
fn log_that_was_read_and_held_nothing_is_no_work() {
    let (mut standing, now) = idle();
    standing.caught_up(Lsn(180));
    let later = now + secs(60);
    standing.looked(view(180, 180), later);
    assert_eq!(reason(&standing, later), "");
    assert_eq!(standing.snapshot(None, later, LIMIT).lag_bytes, Some(0));
}

#[test]
fn a_server_that_reads_through_log_of_others_is_progress() {
    let (mut standing, now) = idle();
    for step in 1..20 {
        let at = now + secs(10 * step);
        standing.looked(view(1 << 40, 100 + step), at);
        assert_eq!(reason(&standing, at), "");
    }
}

#[test]
fn records_that_kafka_does_not_commit_are_a_stall_whatever_the_server_sends() {
    let (mut standing, now) = idle();
    let row = now + secs(1000);
    standing.looked(view(100, 100), row);
    standing.began(row);
    for step in 1..6 {
        standing.looked(view(500, 100 + step), row + secs(5 * step));
    }
    assert_eq!(reason(&standing, row + secs(29)), "");
    let stalled = reason(&standing, row + secs(30));
    assert!(stalled.contains("Kafka") && stalled.contains("30 s"), "{stalled}");
    let snapshot = standing.snapshot(Some(secs(31)), row + secs(30), LIMIT);
    assert_eq!((snapshot.behind, snapshot.ready), (secs(31), false));

    standing.published(Lsn(500), Some(7), row + secs(40));
    assert_eq!(reason(&standing, row + secs(40)), "");
    let snapshot = standing.snapshot(None, row + secs(40), LIMIT);
    assert_eq!((snapshot.behind, snapshot.published_commit_us), (Duration::ZERO, Some(7)));
}

#[test]
fn log_that_nothing_comes_of_is_a_stall() {
    let (mut standing, now) = idle();
    standing.looked(view(500, 100), now + secs(5));
    standing.looked(view(500, 100), now + secs(29));
    assert_eq!(reason(&standing, now + secs(29)), "");
    let stalled = reason(&standing, now + secs(30));
    assert!(stalled.contains("0/64") && stalled.contains("0/1F4"), "{stalled}");
    assert_eq!(standing.snapshot(None, now + secs(30), LIMIT).lag_bytes, Some(400));
}

#[test]
fn a_server_that_does_not_answer_is_a_stall_unless_something_is_published() {
    let (mut standing, now) = idle();
    standing.looked(Err("refused".to_owned()), now + secs(20));
    let stalled = reason(&standing, now + secs(30));
    assert!(stalled.contains("PostgreSQL") && stalled.contains("refused"), "{stalled}");
    // What is not known is not shown.
    assert_eq!(standing.snapshot(None, now + secs(30), LIMIT).lag_bytes, None);
    standing.published(Lsn(120), None, now + secs(30));
    assert_eq!(reason(&standing, now + secs(31)), "");
}

#[test]
fn one_failure_passes_and_repeated_ones_do_not() {
    let (mut standing, now) = idle();
    standing.failed("broken pipe".to_owned(), now);
    assert_eq!(reason(&standing, now), "");
    assert_eq!(standing.readiness(now, LIMIT).state, "retrying");
    standing.failed("broken pipe".to_owned(), now);
    // The next session works for as long as it takes to fail again.
    standing.started(Lsn(100), now);
    standing.looked(view(200, 100), now);
    assert_eq!(reason(&standing, now), "");
    standing.failed("bent".to_owned(), now);
    let failing = reason(&standing, now);
    assert!(failing.contains("3 sessions") && failing.contains("bent"), "{failing}");
    standing.started(Lsn(100), now + secs(1));
    assert_ne!(reason(&standing, now + secs(1)), "", "not yet proved to be better");
    standing.published(Lsn(200), None, now + secs(2));
    assert_eq!(reason(&standing, now + secs(2)), "");
}

#[test]
fn a_relay_without_a_session_for_long_is_not_ready_however_few_attempts_there_were() {
    let (mut standing, now) = idle();
    standing.failed("refused".to_owned(), now + secs(1));
    assert_eq!(reason(&standing, now + secs(30)), "");
    assert!(reason(&standing, now + secs(31)).contains("1 session"));
    // Idle again: there is nothing to prove it by but that nothing waits.
    standing.started(Lsn(100), now + secs(32));
    standing.looked(view(100, 100), now + secs(32));
    assert_eq!(reason(&standing, now + secs(32)), "");
}

#[test]
fn a_standby_is_ready_and_not_behind() {
    let now = Instant::now();
    let mut standing = Standing::new(now);
    standing.stands_by(now);
    let later = now + secs(1000);
    standing.looked(view(900, 100), later);
    let readiness = standing.readiness(later, LIMIT);
    assert_eq!((readiness.ready, readiness.state), (true, "standby"));
    let snapshot = standing.snapshot(None, later, LIMIT);
    assert_eq!((snapshot.behind, snapshot.lag_bytes), (Duration::ZERO, Some(850)));
}

#[test]
fn a_standby_that_came_of_a_relay_that_kept_failing_says_so_for_a_while() {
    let (mut standing, now) = idle();
    for _ in 0..3 {
        standing.failed("poison".to_owned(), now);
    }
    // Its own last session may still hold the slot.
    standing.stands_by(now);
    assert!(reason(&standing, now + secs(1)).contains("poison"));
    assert_eq!(reason(&standing, now + secs(30)), "");
}
