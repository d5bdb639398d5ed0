//! Data through the whole chain: manifests are applied, pods run them, psql looks at the tables.

use std::time::Duration;

use serde_json::{Value, json};

use crate::user::{User, psql, real_data, setting, sh};

/// From asking for a run to its end, with pods that start within seconds.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// From applying a pipeline that runs each minute to the end of its first run.
const TICK_LIMIT: Duration = Duration::from_secs(150);

const GOOD: &str = "id,amount\n1,1.50\n2,2.25\n";

/// A pipeline over one small CSV file on the data server, into a table and a lake.
fn orders(user: &User) -> Value {
    json!({
        "apiVersion": "report-operator.dev/v1alpha1", "kind": "ReportPipeline", "metadata": {"name": "orders"},
        "spec": {
            "retries": 0,
            "sources": [{
                "name": "orders", "http": {"url": user.upload_url("orders.csv")}, "format": {"csv": {}},
                "columns": [
                    {"name": "id", "type": "int64", "required": true}, {"name": "amount", "type": "decimal(10,2)"},
                ],
            }],
            "checks": [{"name": "positive", "sql": "SELECT * FROM orders WHERE amount < 0"}],
            "sinks": [
                {"name": "table", "from": "orders", "primaryKey": ["id"], "postgres": {
                    "connection": {"secretRef": {"name": "reporting-db"}}, "table": format!("{}.orders", user.schema())}},
                {"name": "lake", "from": "orders", "lake": {"url": user.lake("orders")}},
            ],
            "worker": user.worker(),
        },
    })
}

fn ids(user: &User) -> String {
    psql(&format!("SELECT string_agg(id::text, ',' ORDER BY id) FROM {}.orders", user.schema()))
}

/// What goes wrong: (name, what is done to bring it about, the file, the condition's reason, words of its message).
type Case = (&'static str, fn(&User, &mut Value), &'static str, &'static str, &'static [&'static str]);

const FAILURES: &[Case] = &[
    (
        "text in a number",
        |_, _| {},
        "id,amount\n1,1.50\n2,n/a\n",
        "ValueInvalid",
        &["spec.sources[0]", "line 3", "amount"],
    ),
    ("a broken row", |_, _| {}, "id,amount\n1,1.50\n2,2.25,x\n", "InputMalformed", &["spec.sources[0]", "line 3"]),
    ("a failing check", |_, _| {}, "id,amount\n1,-1.50\n", "CheckFailed", &["spec.checks[0]", "positive"]),
    (
        "503 for ever",
        |_, m| m["spec"]["sources"][0]["http"]["url"] = format!("{}/status/503", setting("TEST_DATA_URL")).into(),
        GOOD,
        "SourceUnreachable",
        &["spec.sources[0].http.url", "503"],
    ),
    (
        "nobody listens",
        |_, m| m["spec"]["sources"][0]["http"]["url"] = "http://10.243.0.1:9/orders.csv".into(),
        GOOD,
        "SourceUnreachable",
        &["spec.sources[0].http.url", "10.243.0.1"],
    ),
    ("a wrong password", |user, _| user.database("app", "wrong"), GOOD, "LoginDenied", &["spec.sinks[0]", "password"]),
    (
        "no right to write",
        |user, _| user.database("reader", "readerpw"),
        GOOD,
        "PermissionDenied",
        &["spec.sinks[0]", "grant"],
    ),
    (
        "S3 denies",
        |user, _| user.s3("denied", "deniedsecret"),
        GOOD,
        "PermissionDenied",
        &["spec.sinks[1].lake.url", "s3:PutObject"],
    ),
    (
        "an unknown column",
        |_, m| m["spec"]["checks"][0]["sql"] = "SELECT amout FROM orders".into(),
        GOOD,
        "SqlInvalid",
        &["spec.checks[0].sql", "amout"],
    ),
];

#[test]
fn each_failure_says_field_and_remedy_keeps_the_tables_and_is_healed_by_the_next_good_run() {
    let user = User::new("failures");
    user.upload("orders.csv", GOOD);
    user.apply(&orders(&user));
    user.run("orders", "good", RUN_LIMIT).state("Succeeded");
    assert_eq!(ids(&user), "1,2");
    for (at, (what, bring_about, file, reason, words)) in FAILURES.iter().enumerate() {
        user.upload("orders.csv", file);
        let mut manifest = orders(&user);
        bring_about(&user, &mut manifest);
        user.apply(&manifest);
        user.run("orders", &format!("bad-{at}"), RUN_LIMIT).state("Failed");
        let condition = user.condition("reportpipeline/orders", "LastRunSucceeded", "False");
        assert_eq!(condition["reason"], *reason, "{what}: {condition}");
        let message = condition["message"].as_str().unwrap();
        for word in *words {
            assert!(message.contains(word), "{what}: no {word:?} in {message}");
        }
        assert!(user.has_event("orders", reason), "{what}: no event {reason}");
        assert!(!message.contains("testpw") && !message.contains("testsecret"), "{what}: a secret in {message}");
        assert_eq!(ids(&user), "1,2", "{what}: the table has changed");
        user.condition("reportpipeline/orders", "Ready", "True");

        user.database("app", "testpw");
        user.s3("testkey", "testsecret");
        user.upload("orders.csv", GOOD);
        user.apply(&orders(&user));
        user.run("orders", &format!("healed-{at}"), RUN_LIMIT).state("Succeeded");
        user.condition("reportpipeline/orders", "LastRunSucceeded", "True");
    }
}

#[test]
fn a_transient_failure_is_retried_by_the_job_and_an_access_error_is_not() {
    let user = User::new("retries");
    user.upload("orders.csv", GOOD);
    let mut manifest = orders(&user);
    manifest["spec"]["retries"] = 1.into();
    manifest["spec"]["sources"][0]["http"]["url"] = "http://10.243.0.1:9/orders.csv".into();
    user.apply(&manifest);
    let run = user.run("orders", "refused", RUN_LIMIT * 2);
    assert_eq!(run.state("Failed").0["status"]["attempts"], 2, "{}", run.0["status"]);

    user.apply(&orders(&user));
    user.database("app", "wrong");
    let mut manifest = orders(&user);
    manifest["spec"]["retries"] = 1.into();
    user.apply(&manifest);
    let run = user.run("orders", "denied", RUN_LIMIT);
    assert_eq!(run.state("Failed").0["status"]["attempts"], 1, "{}", run.0["status"]);
}

#[test]
fn runs_asked_for_at_the_same_time_come_one_after_the_other_and_double_no_row() {
    let user = User::new("twice");
    user.upload("orders.csv", GOOD);
    user.apply(&orders(&user));
    for run in ["a", "b", "c"] {
        user.ask("orders", run);
    }
    for run in ["a", "b", "c"] {
        let ended = user.ended(run, RUN_LIMIT * 2);
        let state = ended.0["status"]["state"].as_str().unwrap().to_owned();
        assert!(["Succeeded", "Skipped"].contains(&state.as_str()), "{run}: {}", ended.0["status"]);
    }
    assert_eq!(ids(&user), "1,2");
    // The same manifest again changes nothing.
    let before = user.get("reportpipeline/orders")["metadata"]["resourceVersion"].clone();
    user.apply(&orders(&user));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(user.get("reportpipeline/orders")["metadata"]["resourceVersion"], before);
}

#[test]
fn a_pod_that_is_killed_is_replaced_and_the_rows_are_right() {
    let user = User::new("killed");
    user.upload("orders.csv", GOOD);
    let mut manifest = orders(&user);
    let slow = user.upload_url("orders.csv").replace("/upload/", "/slow/6/upload/");
    manifest["spec"]["sources"][0]["http"]["url"] = slow.into();
    // A pod that a person deletes counts as an attempt.
    manifest["spec"]["retries"] = 1.into();
    user.apply(&manifest);
    user.ask("orders", "killed");
    user.until("reportrun/killed", RUN_LIMIT, |run| run["status"]["state"] == "Running");
    std::thread::sleep(Duration::from_secs(2));
    user.kubectl(&["delete", "pod", "-l", "batch.kubernetes.io/job-name=killed", "--grace-period=0", "--force"]);
    user.ended("killed", RUN_LIMIT * 2).state("Succeeded");
    assert_eq!(ids(&user), "1,2");
}

#[test]
fn one_name_in_two_namespaces_works_and_a_table_has_one_owner() {
    let (one, two) = (User::new("owner-a"), User::second("owner-b"));
    for user in [&one, &two] {
        user.upload("orders.csv", GOOD);
        user.apply(&orders(user));
        user.run("orders", "first", RUN_LIMIT).state("Succeeded");
        assert_eq!(ids(user), "1,2");
    }
    // Deleted and applied again: it goes on where it was.
    one.kubectl(&["delete", "reportpipeline", "orders", "--wait=true"]);
    assert_eq!(ids(&one), "1,2", "the data stays");
    one.upload("orders.csv", "id,amount\n3,1.00\n");
    one.apply(&orders(&one));
    one.run("orders", "again", RUN_LIMIT).state("Succeeded");
    assert_eq!(ids(&one), "3");

    let mut thief = orders(&two);
    thief["metadata"]["name"] = "thief".into();
    thief["spec"]["sinks"][0]["postgres"]["table"] = format!("{}.orders", one.schema()).into();
    thief["spec"]["sinks"][1]["lake"]["url"] = two.lake("thief").into();
    two.apply(&thief);
    let run = two.run("thief", "steals", RUN_LIMIT);
    let message = run.state("Failed").0["status"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains(&format!("{}/orders", one.namespace)), "{message}");
    assert_eq!(ids(&one), "3");
}

#[test]
fn a_gigabyte_goes_through_256_mib() {
    const ROWS: u64 = 27_000_000; // 1.03 GB
    let user = User::new("gigabyte");
    let mut manifest = orders(&user);
    manifest["spec"]["sources"] = json!([{
        "name": "orders", "http": {"url": format!("{}/generated/orders.csv?rows={ROWS}", setting("TEST_DATA_URL"))},
        "columns": [
            {"name": "id", "type": "int64", "required": true}, {"name": "customer", "type": "string"},
            {"name": "amount", "type": "decimal(10,2)"}, {"name": "day", "type": "date"},
        ],
    }]);
    manifest["spec"]["models"] = json!([
        {"name": "by_customer", "sql": "SELECT customer, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY customer"},
        {"name": "big", "sql": "SELECT id, customer, amount, day FROM orders WHERE amount > 990"},
    ]);
    manifest["spec"]["checks"] = json!([{"name": "all", "from": "orders", "rows": {"min": ROWS, "max": ROWS}}]);
    let table = |name: &str| json!({"connection": {"secretRef": {"name": "reporting-db"}}, "table": format!("{}.{name}", user.schema())});
    manifest["spec"]["sinks"] = json!([
        {"name": "big", "from": "big", "postgres": table("big")},
        {"name": "by-customer", "from": "by_customer", "postgres": table("by_customer")},
        {"name": "lake", "from": "by_customer", "lake": {"url": user.lake("by_customer")}},
    ]);
    user.apply(&manifest);
    let run = user.run("orders", "gigabyte", Duration::from_secs(900));
    let result = &run.state("Succeeded").0["status"]["result"];
    println!("peak memory: {} MiB", result["peakMemoryBytes"].as_u64().unwrap_or(0) >> 20);
    assert_eq!(result["rowsRead"], ROWS);
    assert_eq!(psql(&format!("SELECT sum(orders) FROM {}.by_customer", user.schema())), ROWS.to_string());
}

#[test]
fn a_run_by_hand_has_the_interval_that_it_names_and_a_full_refresh_all_of_them() {
    let user = User::new("intervals");
    let mut manifest = orders(&user);
    manifest["spec"]["models"] = json!([
        {"name": "step", "sql": "SELECT id, $interval_start AS since, $interval_end AS until FROM orders"},
    ]);
    manifest["spec"]["sinks"][0]["from"] = "step".into();
    manifest["spec"]["sinks"][0]["primaryKey"] = json!([]);
    manifest["spec"]["sinks"][0]["mode"] = json!({"append": {}});
    user.upload("orders.csv", "id,amount\n1,1.50\n");
    user.apply(&manifest);
    let ask = |name: &str, fields: Value| {
        let mut spec = json!({"pipelineRef": {"name": "orders"}});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        user.apply(&json!({"apiVersion": "report-operator.dev/v1alpha1", "kind": "ReportRun", "metadata": {"name": name}, "spec": spec}));
        user.ended(name, RUN_LIMIT).state("Succeeded").0.clone()
    };
    let of = |start: u8, end: u8| json!({"start": format!("2027-03-{start:02}T00:00:00Z"), "end": format!("2027-03-{end:02}T00:00:00Z")});
    let rows = || {
        let table = format!("{}.orders", user.schema());
        psql(&format!(
            "SELECT string_agg(to_char(since AT TIME ZONE 'UTC', 'DD') || to_char(until AT TIME ZONE 'UTC', '-DD'), ' ' ORDER BY since) FROM {table}"
        ))
    };
    ask("first", json!({"interval": of(1, 2)}));
    let third = ask("third", json!({"interval": of(3, 4)}));
    assert_eq!(third["status"]["result"]["interval"], of(3, 4));
    assert_eq!(rows(), "01-02 03-04");
    let missing = |pipeline: &Value| pipeline["status"]["missingIntervals"]["count"] == 1;
    let pipeline = user.until("reportpipeline/orders", RUN_LIMIT, missing);
    assert_eq!(pipeline["status"]["missingIntervals"]["oldest"], of(2, 3));
    ask("second", json!({"interval": of(2, 3)}));
    assert_eq!(rows(), "01-02 02-03 03-04");
    user.until("reportpipeline/orders", RUN_LIMIT, |pipeline| pipeline["status"]["missingIntervals"].is_null());
    ask("all", json!({"interval": of(1, 5), "fullRefresh": true}));
    assert_eq!(rows(), "01-05");
    let refused = user.try_apply(&json!({
        "apiVersion": "report-operator.dev/v1alpha1", "kind": "ReportRun", "metadata": {"name": "empty"},
        "spec": {"pipelineRef": {"name": "orders"}, "interval": {"start": "2027-03-02T00:00:00Z", "end": "2027-03-01T00:00:00Z"}},
    }));
    assert!(refused.contains("spec.interval is empty"), "{refused}");
}

/// A scheduled run of an example, and what psql's own COPY and SQL say of the same files.
fn example(name: &str, expected: &[(&str, &str)]) {
    let user = User::new(name);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/overlays/demo");
    let manifests = sh("kubectl", &["kustomize", &format!("{folder}/{name}")], None)
        .replace("table: reporting.", &format!("table: {}.", user.schema()))
        .replace("url: s3://lake/", &format!("url: s3://lake/{}/", user.namespace));
    sh("kubectl", &["-n", &user.namespace, "apply", "-f", "-"], Some(&manifests));
    let pipeline = format!("reportpipeline/{name}");
    let object = user.until(&pipeline, TICK_LIMIT, |object| object["status"]["lastRun"]["state"].is_string());
    assert_eq!(object["status"]["lastRun"]["state"], "Succeeded", "{}", object["status"]);
    assert_eq!(object["status"]["lastRun"]["trigger"], "Schedule");
    for (sql, want) in expected {
        let sql = sql.replace("reporting.", &format!("{}.", user.schema()));
        assert_eq!(psql(&sql), *want, "{sql}");
    }
    let columns = user.kubectl(&["get", "reportpipelines"]);
    for column in ["READY", "SCHEDULE", "LAST RUN", "ROWS", "DATA AS OF", "NEXT", "AGE"] {
        assert!(columns.contains(column), "{columns}");
    }
    // Deleting it takes what the operator made, and leaves the data.
    user.kubectl(&["delete", &pipeline, "--wait=true"]);
    for kind in ["cronjobs", "configmaps", "reportruns", "jobs"] {
        user.until_gone(kind, &format!("report-operator.dev/pipeline={name}"));
    }
    let (sql, want) = expected[0];
    assert_eq!(psql(&sql.replace("reporting.", &format!("{}.", user.schema()))), want, "after the delete");
}

#[test]
fn quickstart_runs_on_schedule_and_its_data_outlives_it() {
    example(
        "quickstart",
        &[
            ("SELECT count(*), sum(amount) FROM reporting.sales", "60|2221.40"),
            ("SELECT count(*) FROM reporting.yearly_sales", "18"),
        ],
    );
}

#[test]
fn productivity_has_the_numbers_of_the_files() {
    if real_data().is_none() {
        return;
    }
    example(
        "productivity",
        &[
            ("SELECT count(*), count(DISTINCT series_id), sum(value) FROM reporting.series", "37881|282|1228663.323"),
            ("SELECT count(*) FROM reporting.best_year", "237"),
            (
                "SELECT series_id, year, round(total, 1) FROM reporting.best_year ORDER BY series_id LIMIT 1",
                "PRS30006011|2022|16.4",
            ),
            ("SELECT count(*) FROM reporting.population", "624"),
            (
                "SELECT round(mean::numeric, 2), round(standard_deviation::numeric, 2) FROM reporting.population_stats",
                "320985765.17|4148367.23",
            ),
        ],
    );
}

#[test]
fn covid_ar_has_the_numbers_of_the_files() {
    if real_data().is_none() {
        return;
    }
    example(
        "covid-ar",
        &[
            (
                "SELECT count(*), sum(doses), count(DISTINCT jurisdiction) FROM reporting.doses_by_date",
                "101223|118950690|24",
            ),
            ("SELECT count(*) FROM reporting.doses_by_vaccine", "191"),
        ],
    );
}
