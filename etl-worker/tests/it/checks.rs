//! Checks: what each counts on real rows, what it keeps of them, and what it remembers from run to run.

use report_api::check::Severity;
use report_api::result::{CheckResult, RunResult};

use crate::harness::World;

const SPEC: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns:
      - {name: id, type: int64, required: true}
      - {name: status, type: string}
      - {name: amount, type: 'decimal(10,2)'}
      - {name: day, type: date}
      - {name: seen, type: timestamptz}
      - {name: email, type: string}
      - {name: customer, type: int32}
      - {name: ratio, type: float64}
  - {name: customers, file: {path: customers.csv}, columns: [{name: id, type: int64, required: true}]}
models:
  - {name: paid, sql: 'SELECT * FROM orders WHERE amount IS NOT NULL'}
sinks:
  - {name: paid, from: paid, postgres: {{db}, table: '{schema}.paid'}, allowEmpty: true}
";

const ORDERS: &str = "id,status,amount,day,seen,email,customer,ratio
1,open,10.00,2024-01-01,2024-01-01T00:00:00Z,a@example.org,1,0.5
2,closed,-0.01,2024-06-30,2024-06-30T12:00:00Z,b@example.org,2,NaN
2,OPEN,99.99,2024-12-31,2024-12-31T23:59:59.999999Z,nonsense,9,1.5
4,,,,,,,
";

fn world(world: &World, orders: &str) {
    world.file("orders.csv", orders);
    world.file("customers.csv", "id\n1\n2\n2\n");
}

fn manifest(world: &World, checks: &str) -> std::path::PathBuf {
    world.manifest("p", &format!("{SPEC}checks:\n{checks}"))
}

fn found<'a>(result: &'a RunResult, name: &str) -> &'a CheckResult {
    result.checks.iter().find(|check| check.name == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_check_counts_the_rows_that_fail() {
    let cases = [
        ("from: orders, notNull: [id]", Some(0), None),
        (
            "from: orders, notNull: [status, amount]",
            Some(1),
            Some("1 of 4 rows of orders: status is NULL in 1, amount is NULL in 1"),
        ),
        ("from: paid, notNull: [status]", Some(0), None),
        ("from: orders, unique: [id]", Some(2), Some("2 of 4 rows of orders: 1 value occurs more than once in id")),
        ("from: orders, unique: [id, status]", Some(0), None),
        ("from: paid, unique: [id]", Some(2), Some("2 of 3 rows of paid: 1 value occurs more than once in id")),
        // NULL passes.
        ("from: orders, accepted: {column: status, values: [open, closed, OPEN]}", Some(0), None),
        (
            "from: orders, accepted: {column: status, values: [open, closed]}",
            Some(1),
            Some("1 of 4 rows of orders: status is none of the 2 accepted values"),
        ),
        (
            "from: orders, accepted: {column: status, values: [open]}",
            Some(2),
            Some("2 of 4 rows of orders: status is not open"),
        ),
        ("from: orders, accepted: {column: id, values: [1, 2, '4']}", Some(0), None),
        (
            "from: paid, accepted: {column: amount, values: ['10', 99.99]}",
            Some(1),
            Some("1 of 3 rows of paid: amount is none of the 2 accepted values"),
        ),
        (
            "from: orders, accepted: {column: day, values: [2024-01-01]}",
            Some(2),
            Some("2 of 4 rows of orders: day is not 2024-01-01"),
        ),
        // Both bounds belong to the range, exactly.
        ("from: orders, range: {column: amount, min: -0.01, max: '99.99'}", Some(0), None),
        ("from: orders, range: {column: amount, min: 0}", Some(1), Some("1 of 4 rows of orders: amount is below 0")),
        (
            "from: orders, range: {column: amount, max: 99.98}",
            Some(1),
            Some("1 of 4 rows of orders: amount is above 99.98"),
        ),
        (
            "from: orders, range: {column: amount, min: 0, max: 99.98}",
            Some(2),
            Some("2 of 4 rows of orders: amount is below 0 or above 99.98"),
        ),
        ("from: orders, range: {column: id, min: 1, max: 4}", Some(0), None),
        (
            "from: orders, range: {column: day, min: 2024-01-02, max: 2024-12-31}",
            Some(1),
            Some("1 of 4 rows of orders: day is below 2024-01-02 or above 2024-12-31"),
        ),
        (
            "from: orders, range: {column: seen, max: '2024-12-31T23:59:59.999998Z'}",
            Some(1),
            Some("1 of 4 rows of orders: seen is above 2024-12-31T23:59:59.999998Z"),
        ),
        // NaN is in no range.
        ("from: orders, range: {column: ratio, min: 0}", Some(1), Some("1 of 4 rows of orders: ratio is below 0")),
        (
            "from: orders, range: {column: ratio, min: 0, max: 1}",
            Some(2),
            Some("2 of 4 rows of orders: ratio is below 0 or above 1"),
        ),
        // A pattern may match anywhere.
        (
            "from: orders, regex: {column: email, pattern: '@example'}",
            Some(1),
            Some("1 of 4 rows of orders: email does not match @example"),
        ),
        (
            "from: orders, regex: {column: email, pattern: '^[ab]@example\\.org$'}",
            Some(1),
            Some("1 of 4 rows of orders: email does not match ^[ab]@example\\.org$"),
        ),
        ("from: orders, regex: {column: status, pattern: '(?i)^(open|closed)$'}", Some(0), None),
        // Keys of two types, one of them twice in the other table.
        (
            "from: orders, references: {columns: [customer], to: customers, toColumns: [id]}",
            Some(1),
            Some("1 of 4 rows of orders: customer is not in customers.id"),
        ),
        ("from: customers, references: {columns: [id], to: orders}", Some(0), None),
        ("from: paid, references: {columns: [id, status], to: orders}", Some(0), None),
        ("from: orders, references: {columns: [id, status], to: paid}", Some(0), None),
        (
            "from: orders, references: {columns: [id], to: paid}",
            Some(1),
            Some("1 of 4 rows of orders: id is not in paid.id"),
        ),
        (
            "from: orders, references: {columns: [customer], to: orders, toColumns: [id]}",
            Some(1),
            Some("1 of 4 rows of orders: customer is not in orders.id"),
        ),
        ("from: orders, rows: {min: 4, max: 4}", None, None),
        ("from: orders, fresh: {column: seen, maxAge: 3660d}", None, None),
        ("sql: 'SELECT id FROM paid WHERE amount > 5'", Some(2), Some("2 rows should not be there")),
        ("sql: 'SELECT id FROM paid WHERE amount > 50'", Some(1), Some("1 row should not be there")),
    ];
    let world_ = World::new().await;
    world(&world_, ORDERS);
    let lines = cases.iter().enumerate();
    let checks: String =
        lines.map(|(n, (check, ..))| format!("  - {{name: c{n}, {check}, severity: warn}}\n")).collect();
    // The whole list would not fit into a termination message.
    let path = manifest(&world_, &checks);
    let result = world_.worker(&["run", path.to_str().unwrap()], &[("REPORT_RESULT_BYTES", "1000000")]).ok();
    for (n, (check, failing, words)) in cases.iter().enumerate() {
        let found = found(&result, &format!("c{n}"));
        assert_eq!(found.failing_rows, *failing, "{check}: {found:?}");
        assert_eq!(found.passed, failing.unwrap_or_default() == 0, "{check}: {found:?}");
        if failing.is_some() {
            assert_eq!(found.message.as_deref(), *words, "{check}");
        }
        let rows = if check.contains("from: orders") { 4 } else { 3 };
        assert_eq!(found.rows, (!check.starts_with("sql")).then_some(rows), "{check}");
    }
    assert_eq!(world_.rows("SELECT count(*) FROM {schema}.paid").await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_say_how_many_failing_rows_are_too_many() {
    // One of four rows fails.
    for (threshold, exit, passed, severity) in [
        ("errorIf: {count: 1}", 0, true, Severity::Error),
        ("errorIf: {count: 0}", 13, false, Severity::Error),
        ("errorIf: {ratio: 0.25}", 0, true, Severity::Error),
        ("errorIf: {ratio: 0.24}", 13, false, Severity::Error),
        ("errorIf: {count: 100, ratio: 0.24}", 13, false, Severity::Error),
        ("warnIf: {count: 0}", 0, false, Severity::Warn),
        ("warnIf: {count: 0}, errorIf: {count: 1}", 0, false, Severity::Warn),
        ("warnIf: {count: 0}, errorIf: {ratio: 0.2}", 13, false, Severity::Error),
    ] {
        let world_ = World::new().await;
        world(&world_, ORDERS);
        let ended =
            world_.run(&manifest(&world_, &format!("  - {{name: c, from: orders, notNull: [status], {threshold}}}\n")));
        assert_eq!(ended.code, Some(exit), "{threshold}: {}", ended.output);
        let result = ended.result.unwrap();
        let found = found(&result, "c");
        assert_eq!((found.passed, found.severity, found.failing_rows), (passed, severity, Some(1)), "{threshold}");
        assert_eq!(found.message.as_deref(), Some("1 of 4 rows of orders: status is NULL"), "{threshold}");
        assert_eq!(world_.tables().await.len(), usize::from(exit == 0), "{threshold}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_rows_are_kept_in_the_ledger_and_nowhere_else() {
    let world_ = World::new().await;
    let many: String = (0..50).map(|n| format!("{n},open,1,2024-01-01,,secret-{n},1,1\n")).collect();
    world(&world_, &format!("{}\n{many}", ORDERS.lines().next().unwrap()));
    let checks = "  - {name: emails, from: orders, regex: {column: email, pattern: '@'}, errorIf: {count: 100}}
  - {name: customers, from: orders, references: {columns: [id], to: customers}, severity: warn}
  - {name: twice, from: orders, unique: [customer]}
";
    let ended = world_.run(&manifest(&world_, checks));
    assert!(!ended.output.contains("secret-"), "{}", ended.output);
    assert_eq!(ended.code, Some(13), "{}", ended.output);
    let result = ended.result.unwrap();
    assert!(result.checks.iter().all(|check| check.samples.is_empty()), "{result:?}");
    assert_eq!(result.shortened, ["samples"]);
    let kept = "SELECT c->>'name', c->>'failingRows', jsonb_array_length(c->'samples'), c->'samples'->0->>'email', c->'samples'->0->>'(times)'
        FROM report_operator.runs, jsonb_array_elements(result->'checks') AS c WHERE run_id = '<run>'";
    let kept = world_.rows(&kept.replace("<run>", result.run_id.as_deref().unwrap())).await;
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(kept[0], "emails|50|5|secret-0|∅");
    assert!(kept[1].starts_with("customers|48|5|secret-"), "{kept:?}");
    assert_eq!(kept[2], "twice|50|1|∅|50");
}

fn orders(rows: usize, amount: &str) -> String {
    let rows: String = (0..rows).map(|n| format!("{n},open,{amount},2024-01-01,,,,\n")).collect();
    format!("{}\n{rows}", ORDERS.lines().next().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_with_the_last_good_run() {
    let world_ = World::new().await;
    let manifest = manifest(&world_, "  - {name: steady, from: orders, rowsChange: {max: 0.5}}\n");
    let run = |n: usize, rows: usize| {
        world(&world_, &orders(rows, "1"));
        world_.attempt(&manifest, &format!("run-{n}"), &format!("2026-01-01T00:00:{n:02}Z"), &[])
    };
    let message = |result: &RunResult| found(result, "steady").message.clone().unwrap();
    assert_eq!(message(&run(1, 100).ok()), "there is no good run yet to compare with");
    // A source cut to nothing, or doubled, commits nothing and is no baseline.
    for (n, rows, words) in [
        (2, 0, "orders has 0 rows, 100% fewer than the 100 of the last good run; the largest change is 50%"),
        (3, 49, "orders has 49 rows, 51% fewer than the 100 of the last good run; the largest change is 50%"),
        (4, 151, "orders has 151 rows, 51% more than the 100 of the last good run; the largest change is 50%"),
    ] {
        let failure = run(n, rows).failed(13, "check_failed");
        assert!(failure.contains(words), "{failure}");
        assert_eq!(world_.rows("SELECT count(*) FROM {schema}.paid").await, ["100"]);
    }
    assert_eq!(message(&run(5, 150).ok()), "orders has 150 rows, 50% more than the 100 of the last good run");
    assert_eq!(message(&run(6, 75).ok()), "orders has 75 rows, 50% fewer than the 150 of the last good run");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_checks_remember_moves_with_the_commit_also_when_another_run_completes_it() {
    let world_ = World::new().await;
    let spec = format!(
        "{SPEC}  - {{name: copy, from: paid, postgres: {{{{db}}, table: '{{schema}}.copy'}}}}\nchecks: [{{name: steady, from: orders, rowsChange: {{max: 0.5}}}}]\n"
    );
    let manifest = world_.manifest("p", &spec);
    let run = |id: &str, n: usize, rows: usize, crash: &str| {
        world(&world_, &orders(rows, "1"));
        world_.attempt(&manifest, id, &format!("2026-01-01T00:00:{n:02}Z"), &[("REPORT_CRASH_AT", crash)])
    };
    run("a", 1, 100, "").ok();
    // Nothing is committed: the next attempt is compared with 100.
    assert_eq!(run("b", 2, 150, "after_prepared").code, None);
    run("b", 2, 160, "").failed(13, "check_failed");
    // One sink is committed: the next attempt completes the other, and the run after it is compared with 150.
    assert_eq!(run("c", 3, 150, "after_commit_0").code, None);
    run("c", 3, 1, "").ok();
    let result = run("d", 4, 200, "").ok();
    assert_eq!(
        found(&result, "steady").message.as_deref(),
        Some("orders has 200 rows, 33% more than the 150 of the last good run")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn means_are_compared_with_those_of_the_last_good_runs() {
    let world_ = World::new().await;
    let checks = "  - {name: mean, from: paid, meanChange: {column: amount, max: 0.1, runs: 2}, severity: warn}\n";
    let manifest = manifest(&world_, checks);
    let mut got = Vec::new();
    for (n, amount) in ["10", "20", "16", "17.6", "", "17.0"].into_iter().enumerate() {
        world(&world_, &orders(3, amount));
        let n = n + 1;
        let ended = world_.attempt(&manifest, &format!("run-{n}"), &format!("2026-01-01T00:00:{n:02}Z"), &[]);
        let result = ended.result.unwrap();
        got.extend(result.checks.first().map(|check| (check.passed, check.message.clone().unwrap_or_default())));
    }
    let got: Vec<_> = got.iter().map(|(passed, message)| (*passed, message.as_str())).collect();
    assert_eq!(
        got,
        [
            (true, "there is no good run yet to compare with"),
            (
                false,
                "the mean of paid.amount differs by 100% from that of the last good run; the largest change is 10%"
            ),
            // 10 and 20 are 15.
            (true, "the mean of paid.amount differs by 6.7% from that of the last 2 good runs"),
            // 20 and 16 are 18.
            (true, "the mean of paid.amount differs by 2.2% from that of the last 2 good runs"),
            // There is nothing in this one, which leaves nothing for the next.
            (false, "the mean of paid.amount can't be compared with that of the last 2 good runs: there is no value"),
            // 16 and 17.6 are 16.8.
            (true, "the mean of paid.amount differs by 1.2% from that of the last 2 good runs"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_value_may_not_be_too_old() {
    let now = jiff::Timestamp::now();
    for (age_hours, newest, passed) in [(1, "seen", true), (30, "seen", false), (-5, "seen", true), (100, "day", false)]
    {
        let at = now - jiff::SignedDuration::from_hours(age_hours);
        let day = at.strftime("%Y-%m-%d");
        let world_ = World::new().await;
        let row = format!("1,open,1,{day},{at:.6},,,\n2,open,1,2020-01-01,2020-01-01T00:00:00Z,,,\n");
        world(&world_, &format!("{}\n{row}", ORDERS.lines().next().unwrap()));
        let check = format!("  - {{name: c, from: paid, fresh: {{column: {newest}, maxAge: 24h}}}}\n");
        let ended = world_.run(&manifest(&world_, &check));
        assert_eq!(ended.code, Some(if passed { 0 } else { 13 }), "{age_hours}: {}", ended.output);
    }
    let world_ = World::new().await;
    world(&world_, &orders(3, "1"));
    let failure = world_.run(&manifest(&world_, "  - {name: c, from: orders, fresh: {column: seen, maxAge: 24h}}\n"));
    assert!(failure.failed(13, "check_failed").contains("orders.seen has no value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_does_not_go_with_its_columns_is_found_before_anything_runs() {
    let world_ = World::new().await;
    for (check, want) in [
        (
            "from: paid, accepted: {column: statsu, values: [a]}",
            "spec.checks[0].accepted.column: there is no column statsu; did you mean status?",
        ),
        (
            "from: paid, accepted: {column: id, values: [1, x]}",
            "spec.checks[0].accepted.values[1]: \"x\" is not int64, the column's type; write values of that type",
        ),
        (
            "from: paid, range: {column: amount, min: 0.001}",
            "spec.checks[0].range.min: \"0.001\" is not decimal(10,2), it has more digits after the point, the column's type",
        ),
        (
            "from: paid, range: {column: status, min: 0}",
            "spec.checks[0].range.column: the column status is string; range is for numbers, dates and times",
        ),
        (
            "from: paid, range: {column: seen, min: 2024-01-01}",
            "spec.checks[0].range.min: \"2024-01-01\" is not timestamptz",
        ),
        (
            "from: paid, regex: {column: id, pattern: a}",
            "spec.checks[0].regex.column: the column id is int64; regex is for texts; cast it to text in a model",
        ),
        (
            "from: paid, regex: {column: status, pattern: '(a'}",
            "spec.checks[0].regex.pattern: the pattern can't be read: regex parse error: (a",
        ),
        ("from: paid, regex: {column: status, pattern: '(?=a)'}", "look-around"),
        (
            "from: paid, references: {columns: [idd], to: customers, toColumns: [id]}",
            "spec.checks[0].references.columns[0]: there is no column idd; did you mean id?",
        ),
        (
            "from: orders, references: {columns: [id], to: paid, toColumns: [x]}",
            "spec.checks[0].references.toColumns[0]: paid has no column x; it has id, status",
        ),
        (
            "from: orders, references: {columns: [day], to: customers, toColumns: [id]}",
            "spec.checks[0].references.columns[0]: orders.day is date and customers.id is int64; cast one of them in a model",
        ),
        (
            "from: paid, meanChange: {column: status, max: 1}",
            "spec.checks[0].meanChange.column: the column status is string; only numbers have a mean",
        ),
        (
            "from: paid, fresh: {column: id, maxAge: 1h}",
            "spec.checks[0].fresh.column: the column id is int64; only dates and times have an age",
        ),
    ] {
        let manifest = manifest(&world_, &format!("  - {{name: c, {check}}}\n"));
        let ended = world_.worker(&["validate", manifest.to_str().unwrap()], &[]);
        assert_eq!(ended.code, Some(10), "{check}: {}", ended.output);
        let said = ended.output.replace("\\\"", "\"");
        let (field, message) = want.split_once(": ").unwrap_or(("", want));
        assert!(said.contains(field) && said.contains(message), "{check}: no {want:?} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_look_at_rows_on_their_way_and_only_queries_read_them_again() {
    for (check, kept) in [
        ("from: paid, notNull: [id]", false),
        ("from: paid, accepted: {column: status, values: [open, closed, OPEN]}", false),
        ("from: paid, range: {column: amount, max: 1000}", false),
        ("from: paid, regex: {column: status, pattern: '.'}", false),
        ("from: paid, rowsChange: {max: 1}", false),
        ("from: paid, meanChange: {column: amount, max: 1}", false),
        ("from: paid, fresh: {column: day, maxAge: 3660d}", false),
        ("from: paid, unique: [id, status]", true),
    ] {
        let world_ = World::new().await;
        world(&world_, ORDERS);
        let ended = world_.run(&manifest(&world_, &format!("  - {{name: c, {check}}}\n")));
        // A table that is read twice is written to the scratch folder, which is a step of its own.
        assert_eq!(ended.output.contains("\"transform\""), kept, "{check}: {}", ended.output);
        ended.ok();
    }
}
