//! What each mode leaves in each kind of sink, and what readers see meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use report_api::result::State;
use sqlx::AssertSqlSafe;

use crate::harness::{Ended, World, sqlite_rows};

const SOURCE: &str = "
sources:
  - name: orders
    file: {path: orders.csv}
    columns: [{name: id, type: int64, required: true, description: The order}, {name: city, type: string}, {name: amount, type: 'decimal(10,2)'}]
sinks:
";

/// A pipeline of this one sink, which has all rows of orders.csv.
fn spec(sink: &str) -> String {
    format!("{SOURCE}  - {{name: orders, from: orders, {sink}}}\n")
}

/// The rows of orders.csv and nothing else.
fn csv(rows: &[&str]) -> String {
    format!("id,city,amount\n{}\n", rows.join("\n"))
}

/// Runs the manifest over these rows as the run of this day of January.
fn day(world: &World, manifest: &Path, day: u32, rows: &[&str]) -> Ended {
    world.file("orders.csv", csv(rows));
    world.attempt(manifest, &format!("run-{day}"), &format!("2026-01-{day:02}T00:00:00Z"), &[])
}

const TABLE: &str = "postgres: {{db}, table: '{schema}.orders'}";
const ALL: &str = "SELECT * FROM {schema}.orders ORDER BY id, city";
const NAMES: &str = "SELECT indexname FROM pg_indexes WHERE schemaname = '{schema}' ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_has_the_primary_key_and_comments_of_the_manifest() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, primaryKey: [id]")));
    day(&world, &manifest, 1, &["1,Oslo,1.50"]).ok();
    assert_eq!(world.rows(NAMES).await, ["orders_pkey"]);
    assert_eq!(world.rows("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'p'").await, ["orders_pkey|PRIMARY KEY (id)"]);
    assert_eq!(world.rows("SELECT col_description('{schema}.orders'::regclass, 1)").await, ["The order"]);
    // The next run swaps the table, and the one after it: the names stay.
    for n in 2..4 {
        day(&world, &manifest, n, &["2,Oslo,1.50"]).ok();
        assert_eq!(world.rows(NAMES).await, ["orders_pkey"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_key_whose_usual_name_is_taken_gets_another_one() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.other (x int); CREATE INDEX orders_pkey ON {schema}.other (x)").await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, primaryKey: [id]")));
    for n in 1..3 {
        day(&world, &manifest, n, &["1,Oslo,1.50"]).ok();
        assert_eq!(
            world
                .rows(
                    "SELECT count(*) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'p'"
                )
                .await,
            ["1"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_by_swap_keeps_indexes_rights_comments_and_constraints() {
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE {schema}.orders (id bigint NOT NULL, city text DEFAULT 'Rom', amount numeric(10,2) CHECK (amount >= 0),
               CONSTRAINT the_key PRIMARY KEY (id));
             CREATE INDEX by_city ON {schema}.orders USING btree (lower(city)) WHERE amount > 0;
             CREATE UNIQUE INDEX \"Strange \"\"name\" ON {schema}.orders (city DESC, id);
             COMMENT ON TABLE {schema}.orders IS 'It''s ours'; COMMENT ON COLUMN {schema}.orders.city IS 'Where';
             GRANT SELECT ON {schema}.orders TO reader; GRANT INSERT ON {schema}.orders TO PUBLIC",
        )
        .await;
    const LOOK: &str = "SELECT 'index', indexname::text, indexdef FROM pg_indexes WHERE schemaname = '{schema}'
        UNION ALL SELECT 'constraint', conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass
        UNION ALL SELECT 'right', grantee::text, privilege_type::text FROM information_schema.role_table_grants WHERE table_schema = '{schema}'
        UNION ALL SELECT 'comment', obj_description('{schema}.orders'::regclass), col_description('{schema}.orders'::regclass, 2)
        UNION ALL SELECT 'default', column_name::text, column_default::text FROM information_schema.columns WHERE table_schema = '{schema}'
        ORDER BY 1, 2, 3";
    const OID: &str = "SELECT '{schema}.orders'::regclass::oid";
    let (before, oid) = (world.rows(LOOK).await, world.rows(OID).await);
    let manifest = world.manifest("p", &spec(TABLE));
    for n in 1..4 {
        day(&world, &manifest, n, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        assert_eq!(world.rows(LOOK).await, before);
        assert_eq!(world.rows(ALL).await, ["1|Oslo|1.50", "2|Bern|3.00"]);
    }
    assert_ne!(world.rows(OID).await, oid, "the table was not swapped");
    assert_eq!(world.tables().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_table_survives_its_replacement() {
    let create = "CREATE TABLE {schema}.orders (id bigint PRIMARY KEY, city text, amount numeric(10,2));";
    for (what, setup, look, want) in [
        ("a view", "CREATE VIEW {schema}.v AS SELECT sum(amount) AS total FROM {schema}.orders", "SELECT * FROM {schema}.v", "4.50"),
        ("a materialized view", "CREATE MATERIALIZED VIEW {schema}.v AS SELECT id FROM {schema}.orders", "SELECT count(*) FROM {schema}.v", "0"),
        (
            "a foreign key of another table",
            "CREATE TABLE {schema}.lines (id bigint REFERENCES {schema}.orders)",
            "SELECT count(*) FROM pg_constraint WHERE confrelid = '{schema}.orders'::regclass",
            "1",
        ),
        (
            "a foreign key of its own",
            "CREATE TABLE {schema}.cities (city text PRIMARY KEY); INSERT INTO {schema}.cities VALUES ('Oslo'), ('Bern');
             ALTER TABLE {schema}.orders ADD FOREIGN KEY (city) REFERENCES {schema}.cities",
            "SELECT count(*) FROM pg_constraint WHERE conrelid = '{schema}.orders'::regclass AND contype = 'f'",
            "1",
        ),
        ("a publication", "CREATE PUBLICATION {schema} FOR TABLE {schema}.orders", "SELECT count(*) FROM pg_publication_tables WHERE pubname = '{schema}'", "1"),
        (
            "a trigger",
            "CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
             CREATE TRIGGER note BEFORE INSERT ON {schema}.orders FOR EACH ROW EXECUTE FUNCTION {schema}.note()",
            "SELECT count(*) FROM pg_trigger WHERE tgrelid = '{schema}.orders'::regclass AND NOT tgisinternal",
            "1",
        ),
        ("a policy", "ALTER TABLE {schema}.orders ENABLE ROW LEVEL SECURITY", "SELECT relrowsecurity FROM pg_class WHERE oid = '{schema}.orders'::regclass", "true"),
        ("a wider column", "ALTER TABLE {schema}.orders ALTER amount TYPE numeric", "SELECT amount FROM {schema}.orders WHERE id = 1", "1.50"),
        ("a column more", "ALTER TABLE {schema}.orders ADD loaded int DEFAULT 7", "SELECT loaded FROM {schema}.orders WHERE id = 1", "7"),
    ] {
        let world = World::new().await;
        world.sql(&format!("{create}{setup}")).await;
        let manifest = world.manifest("p", &spec(TABLE));
        day(&world, &manifest, 1, &["7,Oslo,9"]).ok();
        day(&world, &manifest, 2, &["1,Oslo,1.50", "2,Bern,3"]).ok();
        assert_eq!(world.rows(look).await, [want], "{what}");
        assert_eq!(world.rows("SELECT id, city, amount FROM {schema}.orders ORDER BY id").await, ["1|Oslo|1.50", "2|Bern|3.00"], "{what}");
        world.sql("DROP PUBLICATION IF EXISTS {schema}").await;
    }
}

/// Deleting all rows to put most of them back would take the lines along.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_other_tables_refer_to_are_replaced_one_by_one() {
    for action in ["", "ON DELETE CASCADE", "ON DELETE SET NULL"] {
        let world = World::new().await;
        world
            .sql(&format!(
                "CREATE TABLE {{schema}}.orders (id bigint PRIMARY KEY, city text, amount numeric(10,2));
                 CREATE TABLE {{schema}}.lines (line int, id bigint REFERENCES {{schema}}.orders {action})"
            ))
            .await;
        let manifest = world.manifest("p", &spec(TABLE));
        day(&world, &manifest, 1, &["1,Oslo,1", "2,Bern,2", "3,Rom,3"]).ok();
        world.sql("INSERT INTO {schema}.lines VALUES (1, 1), (2, 2)").await;
        day(&world, &manifest, 2, &["1,Oslo,10", "2,Bern,20", "4,Wien,4"]).ok();
        let orders = "SELECT id, amount FROM {schema}.orders ORDER BY id";
        assert_eq!(world.rows(orders).await, ["1|10.00", "2|20.00", "4|4.00"], "{action}");
        assert_eq!(world.rows("SELECT * FROM {schema}.lines ORDER BY line").await, ["1|1", "2|2"], "{action}");
    }
    let world = World::new().await;
    world
        .sql(
            "CREATE TABLE {schema}.orders (id bigint, city text, amount numeric(10,2), number serial UNIQUE);
             CREATE TABLE {schema}.lines (id int REFERENCES {schema}.orders (number))",
        )
        .await;
    let manifest = world.manifest("p", &spec(TABLE));
    let message = day(&world, &manifest, 1, &["1,Oslo,1"]).failed(12, "schema_mismatch");
    assert!(message.contains("foreign keys refer to"), "{message}");
}

/// Two sinks, and the second would refuse its rows: nothing of the first may be committed.
#[tokio::test(flavor = "multi_thread")]
async fn append_finds_rows_that_are_there_before_any_sink_commits() {
    let world = World::new().await;
    let sinks = "sinks:\n  - {name: first, from: orders, postgres: {{db}, table: '{schema}.first'}}";
    let manifest = world
        .manifest("p", &spec(&format!("{TABLE}, mode: {{append: {{}}}}, primaryKey: [id]")).replace("sinks:", sinks));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let message = day(&world, &manifest, 2, &["1,Oslo,1", "2,Bern,2"]).failed(12, "key_invalid");
    assert!(message.contains("use merge"), "{message}");
    assert_eq!(world.rows("SELECT id FROM {schema}.first").await, ["1"]);
    day(&world, &manifest, 3, &["3,Rom,3"]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders ORDER BY id").await, ["1", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_after_the_rows_were_staged_survives_the_commit() {
    let world = World::new().await;
    let manifest = world.manifest(
        "p",
        &spec(TABLE)
            .replace("sinks:", "sinks:\n  - {name: first, from: orders, postgres: {{db}, table: '{schema}.first'}}"),
    );
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    // Both are staged for a swap and one is committed; then somebody makes a view on the other.
    world.file("orders.csv", csv(&["2,Bern,2"]));
    let dead = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    world.sql("CREATE VIEW {schema}.v AS SELECT id FROM {schema}.orders").await;
    world.sql("CREATE INDEX added ON {schema}.orders (city)").await;
    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.v").await, ["2"]);
    assert!(world.rows(NAMES).await.contains(&"added".to_owned()));

    // The same with an index alone, which nothing but a look would tell.
    world.sql("DROP VIEW {schema}.v").await;
    world.file("orders.csv", csv(&["3,Rom,3"]));
    let dead = world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[("REPORT_CRASH_AT", "after_commit_0")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    world.sql("CREATE INDEX later ON {schema}.orders (id)").await;
    world.attempt(&manifest, "run-3", "2026-01-03T00:00:00Z", &[]).ok();
    assert_eq!(world.rows("SELECT id FROM {schema}.orders").await, ["3"]);
    assert!(world.rows(NAMES).await.contains(&"later".to_owned()));
    assert_eq!(world.rows("SELECT id FROM {schema}.first").await, ["3"]);
    assert_eq!(world.tables().await, ["first", "orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_a_missing_empty_or_half_table() {
    const ROWS: u64 = 20_000;
    for by in ["swap", "rows"] {
        let world = World::new().await;
        let manifest =
            world.manifest("p", &spec(&format!("{TABLE}, mode: {{replace: {{by: {by}}}}}, primaryKey: [id]")));
        // The amounts of run n sum to n times the rows.
        let content = |n: u64| {
            csv(&(0..ROWS)
                .map(|id| format!("{id},Oslo,{n}"))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>())
        };
        let run = |n: u64| {
            world.file("orders.csv", content(n));
            world.attempt(&manifest, &format!("run-{n}"), &format!("2026-01-{n:02}T00:00:00Z"), &[]).ok();
        };
        run(1);
        let done = AtomicBool::new(false);
        let sql = format!("SELECT count(*), sum(amount)::bigint FROM {}.orders", world.name);
        let runtime = tokio::runtime::Handle::current();
        let read = async {
            let mut connection = world.connection().await;
            let mut seen = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                let (count, sum): (i64, Option<i64>) = sqlx::query_as(AssertSqlSafe(sql.as_str()))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap_or_else(|error| panic!("{by}: {error}"));
                *seen.entry((count, sum)).or_insert(0_u32) += 1;
            }
            seen
        };
        let seen = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| runtime.block_on(read));
                (2..=20).for_each(run);
                done.store(true, Ordering::Relaxed);
                reader.join().unwrap()
            })
        });
        let rows = ROWS as i64;
        let wrong: Vec<_> =
            seen.iter().filter(|((count, sum), _)| *count != rows || !sum.is_some_and(|sum| sum % rows == 0)).collect();
        assert!(wrong.is_empty(), "{by}: {wrong:?}");
        assert!(seen.len() >= 10, "{by}: the reader saw only {} states", seen.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_adds_an_interval_once() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{append: {{}}}}")));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
    let both = ["1|Oslo|1.00", "2|Oslo|2.00"];
    assert_eq!(world.rows(ALL).await, both);

    // The same tick as another run, and an earlier one.
    for end in ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"] {
        let again = world.attempt(&manifest, "another", end, &[]).ok();
        assert_eq!(again.state, State::Skipped, "{again:?}");
    }
    let exactly = |start: &str, end: &str| {
        world.worker(&["run", manifest.to_str().unwrap(), "--interval-start", start, "--interval-end", end], &[])
    };
    assert_eq!(exactly("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z").ok().state, State::Skipped);
    let message = exactly("2026-01-01T12:00:00Z", "2026-01-03T00:00:00Z").failed(10, "interval_overlaps");
    assert!(message.contains("ask for the part that is missing"), "{message}");
    assert_eq!(world.rows(ALL).await, both);
    world.file("orders.csv", csv(&["3,Rom,3"]));
    exactly("2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z").ok();
    assert_eq!(world.rows(ALL).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_updates_rows_of_the_same_key_and_adds_the_others() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{merge: {{key: [id, city]}}}}")));
    day(&world, &manifest, 1, &["1,Oslo,1", "1,Bern,2", "2,Oslo,3"]).ok();
    day(&world, &manifest, 2, &["1,Bern,20", "3,Rom,"]).ok();
    let merged = ["1|Bern|20.00", "1|Oslo|1.00", "2|Oslo|3.00", "3|Rom|∅"];
    assert_eq!(world.rows(ALL).await, merged);

    for (rows, want) in [
        (["1,Bern,1", "1,Bern,2"], "1 keys (id, city) occur more than once"),
        (["1,,1", "2,Rom,1"], "1 rows have NULL in the key (id, city)"),
    ] {
        let message = day(&world, &manifest, 3, &rows).failed(12, "key_invalid");
        assert!(message.contains("spec.sinks[0].mode.merge.key") && message.contains(want), "{message}");
        assert_eq!(world.rows(ALL).await, merged);
    }
    // The same keys in the same interval change nothing.
    day(&world, &manifest, 4, &["1,Bern,20"]).ok();
    assert_eq!(world.rows(ALL).await, merged);
    assert_eq!(world.tables().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_of_keys_only_adds_what_is_new() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{merge: {{key: [id, city, amount]}}}}")));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    day(&world, &manifest, 2, &["1,Oslo,1", "2,Oslo,1"]).ok();
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Oslo|1.00"]);
}

/// Tables made by somebody else: each is refused with what to do about it, and stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_fit_is_refused_by_column() {
    for (table, mode, exit, code, words) in [
        (
            "id bigint, city text, amount numeric(10,2)",
            "merge: {key: [id]}",
            12,
            "schema_mismatch",
            "CREATE UNIQUE INDEX ON",
        ),
        ("id bigint, city text", "replace: {}", 12, "schema_mismatch", "has no column amount; ALTER TABLE"),
        (
            "id bigint, city text, amount numeric(10,2), booked date NOT NULL",
            "replace: {}",
            12,
            "schema_mismatch",
            "booked of",
        ),
        ("id int, city text, amount numeric(10,2)", "replace: {}", 12, "schema_mismatch", "id is integer in"),
        ("id bigint, city date, amount numeric(10,2)", "append: {}", 12, "schema_mismatch", "city is date in"),
        (
            "id bigint GENERATED ALWAYS AS IDENTITY, city text, amount numeric(10,2)",
            "append: {}",
            12,
            "schema_mismatch",
            "id is generated in",
        ),
        ("id bigint, city varchar(3), amount numeric(10,2)", "replace: {}", 12, "value_invalid", "too long"),
        (
            "id bigint, city text, amount numeric(10,2) CHECK (amount > 5)",
            "replace: {}",
            12,
            "value_invalid",
            "check constraint",
        ),
        (
            "id bigint, city text CHECK (city <> 'Oslo'), amount numeric(12,2)",
            "replace: {}",
            12,
            "value_invalid",
            "check constraint",
        ),
        (
            "id bigint, city text NOT NULL, amount numeric(10,2)",
            "append: {}",
            12,
            "value_invalid",
            "fill the column in the model",
        ),
    ] {
        let world = World::new().await;
        world.sql(&format!("CREATE TABLE {{schema}}.orders ({table}); CREATE TABLE {{schema}}.before AS SELECT * FROM {{schema}}.orders")).await;
        let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{{mode}}}")));
        let message = day(&world, &manifest, 1, &["1,Oslo,1", "1,,2"]).failed(exit, code);
        assert!(message.starts_with("spec.sinks[0]") && message.contains(words), "{table}: {message}");
        assert_eq!(world.rows("SELECT count(*) FROM {schema}.orders").await, ["0"], "{table}");
        assert_eq!(world.tables().await, ["before", "orders"], "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_column_takes_the_rows_and_keeps_its_type() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.orders (id numeric(30,0), city varchar(10), amount numeric(20,4))").await;
    let manifest = world.manifest("p", &spec(TABLE));
    day(&world, &manifest, 1, &["1,Oslo,1.5"]).ok();
    day(&world, &manifest, 2, &["2,Bern,2.5"]).ok();
    assert_eq!(world.rows(ALL).await, ["2|Bern|2.5000"]);
    assert_eq!(world.rows("SELECT data_type FROM information_schema.columns WHERE table_schema = '{schema}' ORDER BY ordinal_position").await, ["numeric", "character varying", "numeric"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_rows_replace_rows_only_where_it_is_allowed() {
    let world = World::new().await;
    for (sink, look) in [
        (TABLE, "postgres"),
        ("lake: {url: '{lake}/orders'}", "lake"),
        ("sqlite: {path: '{folder}/r.db', table: orders}", "sqlite"),
    ] {
        let manifest = world.manifest(look, &spec(sink));
        day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
        let message = day(&world, &manifest, 2, &[]).failed(12, "empty_replace");
        assert!(message.starts_with("spec.sinks[0]: ") && message.contains("allowEmpty: true"), "{message}");
        let allowed = world.manifest(look, &spec(&format!("{sink}, allowEmpty: true")));
        assert_eq!(day(&world, &allowed, 2, &[]).ok().rows_written, 0);
    }
    assert_eq!(world.rows("SELECT count(*) FROM {schema}.orders").await, ["0"]);
    assert_eq!(world.lake_rows("orders").await, [""; 0]);
    assert_eq!(sqlite_rows(&world.folder.path().join("r.db"), "SELECT count(*) FROM orders").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_rows_of_somebody_else_is_taken_over_only_when_asked() {
    let world = World::new().await;
    world.sql("CREATE TABLE {schema}.orders (id bigint, city text, amount numeric(10,2)); INSERT INTO {schema}.orders VALUES (7, 'Rom', 7)").await;
    let manifest = world.manifest("p", &spec(TABLE));
    let message = day(&world, &manifest, 1, &["1,Oslo,1"]).failed(10, "table_not_owned");
    assert!(message.contains("adopt: true"), "{message}");
    assert_eq!(world.rows(ALL).await, ["7|Rom|7.00"]);
    let adopting = world.manifest("p", &spec(&format!("{TABLE}, adopt: true")));
    day(&world, &adopting, 1, &["1,Oslo,1"]).ok();
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00"]);
    // It is ours now.
    day(&world, &manifest, 2, &["2,Oslo,2"]).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pipeline_can_not_replace_the_first_ones_data() {
    let world = World::new().await;
    for sink in [TABLE, "lake: {url: '{lake}/orders'}", "sqlite: {path: '{folder}/r.db', table: orders}"] {
        let first = world.manifest("first", &spec(sink));
        let second = world.manifest("second", &spec(sink));
        day(&world, &first, 1, &["1,Oslo,1"]).ok();
        let message = day(&world, &second, 1, &["2,Bern,2"]).failed(10, "table_not_owned");
        let owner = format!("{}/first", world.name.replace('_', "-"));
        assert!(message.contains(&owner) && message.contains("write to another"), "{message}");
        // The first one goes on.
        day(&world, &first, 2, &["1,Oslo,1"]).ok();
    }
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00"]);
    assert_eq!(world.lake_rows("orders").await, ["1|Oslo|1.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_can_append_to_one_table() {
    let world = World::new().await;
    let spec = spec(&format!("{TABLE}, mode: {{append: {{}}}}"));
    day(&world, &world.manifest("first", &spec), 1, &["1,Oslo,1"]).ok();
    day(&world, &world.manifest("second", &spec), 1, &["2,Bern,2"]).ok();
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Bern|2.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_one_name_in_two_namespaces_share_a_database() {
    let (one, two) = (World::new().await, World::new().await);
    let spec = spec(&format!("{TABLE}, mode: {{append: {{}}}}"));
    for (world, rows) in [(&one, ["1,Oslo,1"]), (&two, ["2,Bern,2"])] {
        let manifest = world.manifest("same", &spec);
        day(world, &manifest, 1, &rows).ok();
        assert_eq!(day(world, &manifest, 1, &rows).ok().state, State::Succeeded);
    }
    assert_eq!(one.rows(ALL).await, ["1|Oslo|1.00"]);
    assert_eq!(two.rows(ALL).await, ["2|Bern|2.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_deleted_and_applied_again_goes_on_where_it_was() {
    let world = World::new().await;
    let spec = spec(&format!("{TABLE}, mode: {{append: {{}}}}"));
    let manifest = world.manifest("p", &spec);
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    std::fs::remove_file(&manifest).unwrap();
    let manifest = world.manifest("p", &spec);
    assert_eq!(world.attempt(&manifest, "new-uid-1", "2026-01-01T00:00:00Z", &[]).ok().state, State::Skipped);
    world.file("orders.csv", csv(&["2,Oslo,2"]));
    let result = world.attempt(&manifest, "new-uid-2", "2026-01-02T00:00:00Z", &[]).ok();
    assert_eq!(result.interval.unwrap().start.to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Oslo|2.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_start_at_once_add_the_rows_once() {
    const WORKERS: usize = 4;
    let world = World::new().await;
    world.file("orders.csv", csv(&["1,Oslo,1", "2,Bern,2"]));
    let manifest = world.manifest("p", &spec(&format!("{TABLE}, mode: {{append: {{}}}}")));
    let run = |n: usize| {
        for _ in 0..60 {
            let ended = world.attempt(&manifest, &format!("run-{n}"), "2026-01-01T00:00:00Z", &[]);
            if ended.code != Some(21) {
                return ended.ok().state;
            }
            assert!(ended.output.contains("is under way"), "{}", ended.output);
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("run {n} never got the lock");
    };
    let states: Vec<State> = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..WORKERS).map(|n| scope.spawn(move || run(n))).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    });
    assert_eq!(states.iter().filter(|state| **state == State::Succeeded).count(), 1, "{states:?}");
    assert_eq!(states.iter().filter(|state| **state == State::Skipped).count(), WORKERS - 1, "{states:?}");
    assert_eq!(world.rows(ALL).await, ["1|Oslo|1.00", "2|Bern|2.00"]);
    assert_eq!(world.tables().await, ["orders"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_takes_every_mode() {
    let world = World::new().await;
    let path = world.folder.path().join("r.db");
    let sink = |name: &str, mode: &str| {
        format!(
            "  - {{name: {name}, from: orders, sqlite: {{path: '{{folder}}/r.db', table: {name}}}, mode: {{{mode}}}}}\n"
        )
    };
    let manifest = world.manifest(
        "p",
        &format!(
            "{SOURCE}{}{}{}",
            sink("replaced", "replace: {}"),
            sink("added", "append: {}"),
            sink("merged", "merge: {key: [id]}")
        ),
    );
    day(&world, &manifest, 1, &["1,Oslo,1.25", "2,Bern,2"]).ok();
    day(&world, &manifest, 2, &["2,Rom,20", "3,,"]).ok();
    assert_eq!(day(&world, &manifest, 2, &["9,Rom,9"]).ok().state, State::Succeeded, "an attempt after the commit");
    for (table, want) in [
        ("replaced", &["2|Rom|20", "3|∅|∅"][..]),
        ("added", &["1|Oslo|1.25", "2|Bern|2", "2|Rom|20", "3|∅|∅"]),
        ("merged", &["1|Oslo|1.25", "2|Rom|20", "3|∅|∅"]),
    ] {
        assert_eq!(sqlite_rows(&path, &format!("SELECT * FROM {table} ORDER BY id, city")).await, want, "{table}");
    }
    let message = day(&world, &manifest, 3, &["1,Oslo,1", "1,Bern,1"]).failed(12, "key_invalid");
    assert!(message.contains("occur more than once"), "{message}");
    assert_eq!(
        sqlite_rows(&path, "SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_report\\_%' ESCAPE '\\'").await,
        ["0"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_refuses_a_decimal_that_it_would_round() {
    let world = World::new().await;
    let spec = |columns: &str| {
        format!(
            "sources: [{{name: t, file: {{path: t.csv}}, columns: [{columns}]}}]\nsinks: [{{name: t, from: t, sqlite: {{path: '{{folder}}/r.db', table: t}}}}]"
        )
    };
    world.file("t.csv", "x\n1234567890.123456\n");
    let message =
        world.run(&world.manifest("p", &spec("{name: x, type: 'decimal(20,6)'}"))).failed(12, "type_unsupported");
    assert!(message.contains("column x") && message.contains("cast it to text"), "{message}");
    world.run(&world.manifest("p", &spec("{name: x, type: string}"))).ok();
    assert_eq!(sqlite_rows(&world.folder.path().join("r.db"), "SELECT x FROM t").await, ["1234567890.123456"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_merge_into_a_table_without_a_unique_index_says_which_one_to_make() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("sqlite: {path: '{folder}/r.db', table: orders}, mode: {append: {}}"));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let merging =
        world.manifest("p", &spec("sqlite: {path: '{folder}/r.db', table: orders}, mode: {merge: {key: [id]}}"));
    let message = day(&world, &merging, 2, &["1,Oslo,2"]).failed(12, "schema_mismatch");
    assert!(message.contains("CREATE UNIQUE INDEX") && message.contains("(id)"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_replaced_or_grows_and_its_partitions_may_be_called_anything() {
    let world = World::new().await;
    let sink = "lake: {url: '{lake}/orders', partitionBy: [city]}";
    let manifest = world.manifest("p", &spec(&format!("{sink}, mode: {{append: {{}}}}")));
    day(&world, &manifest, 1, &["1,a/b=c ü,1", "2,,2", "3,x%20{y},3"]).ok();
    day(&world, &manifest, 2, &["4,a/b=c ü,4", "5,..,5"]).ok();
    let all = ["..|5|5.00", "a/b=c ü|1|1.00", "a/b=c ü|4|4.00", "x%20{y}|3|3.00", "∅|2|2.00"];
    assert_eq!(world.lake_rows("orders").await, all);
    let files = world.parquet_files("orders").await;
    assert!(files.iter().any(|path| path.contains("/city=a%2Fb%3Dc%20%C3%BC/")), "{files:?}");
    assert!(files.iter().any(|path| path.contains("/city=__HIVE_DEFAULT_PARTITION__/")), "{files:?}");
    assert_eq!(world.attempt(&manifest, "again", "2026-01-02T00:00:00Z", &[]).ok().state, State::Skipped);
    assert_eq!(world.lake_rows("orders").await, all);

    let replacing = world.manifest("p", &spec(sink));
    day(&world, &replacing, 3, &["6,Oslo,6"]).ok();
    assert_eq!(world.lake_rows("orders").await, ["Oslo|6|6.00"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_tells_an_empty_partition_value_from_a_missing_one_in_its_manifest() {
    let world = World::new().await;
    let spec = "
sources: [{name: t, file: {path: t.csv}, columns: [{name: id, type: int64}]}]
models: [{name: m, sql: \"SELECT id, CASE id WHEN 1 THEN '' WHEN 2 THEN NULL ELSE 'x' END AS part FROM t\"}]
sinks: [{name: l, from: m, lake: {url: '{lake}/l', partitionBy: [part]}}]";
    world.file("t.csv", "id\n1\n2\n3\n");
    world.run(&world.manifest("p", spec)).ok();
    assert_eq!(world.lake_rows("l").await, ["x|3", "|1", "∅|2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_dead_runs_go_and_files_that_a_kept_manifest_names_stay() {
    let world = World::new().await;
    let manifest = world.manifest("p", &spec("lake: {url: '{lake}/orders'}"));
    day(&world, &manifest, 1, &["1,Oslo,1"]).ok();
    let first = world.parquet_files("orders").await;
    world.put("orders/notes/readme.parquet", "not ours").await;
    world.file("orders.csv", csv(&["2,Oslo,2"]));
    let dead = world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[("REPORT_CRASH_AT", "after_stage")]);
    assert_eq!(dead.code, None, "{}", dead.output);
    let orphans: Vec<_> = world
        .parquet_files("orders")
        .await
        .into_iter()
        .filter(|path| !first.contains(path) && !path.starts_with("notes"))
        .collect();
    assert_eq!(orphans.len(), 1);
    assert_eq!(world.lake_rows("orders").await, ["1|Oslo|1.00"]);

    world.attempt(&manifest, "run-2", "2026-01-02T00:00:00Z", &[]).ok();
    let files = world.parquet_files("orders").await;
    assert!(!files.contains(&orphans[0]), "the dead run's file is still there: {files:?}");
    assert!(files.contains(&first[0]), "a reader of the manifest before misses its file: {files:?}");
    // Ten manifests are kept, two a run.
    for n in 3..10 {
        day(&world, &manifest, n, &["3,Oslo,3"]).ok();
    }
    let files = world.parquet_files("orders").await;
    assert!(!files.contains(&first[0]), "nothing is ever removed: {files:?}");
    assert!(files.len() <= 7, "{files:?}");
    assert!(files.contains(&"notes/readme.parquet".to_owned()), "{files:?}");
}
