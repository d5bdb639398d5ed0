//! The examples over the real files, held against SQL of PostgreSQL over the same files, loaded by psql's `\copy`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{World, setting};

/// The folder of the real data; None, said aloud, where it is not there.
fn data() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var("REPORT_DATA").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder.canonicalize().unwrap());
    }
    assert_ne!(
        std::env::var("REPORT_DATA_REQUIRED").as_deref(),
        Ok("1"),
        "REPORT_DATA is not there: {}",
        folder.display()
    );
    eprintln!("NOT RUN: REPORT_DATA is not there: {}", folder.display());
    None
}

/// An example's manifest with its addresses turned to the data server and its targets into this world.
fn example(world: &World, name: &str, addresses: &[(&str, &str)]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name).join("pipeline.yaml");
    let mut text = std::fs::read_to_string(path).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "the example {name} does not have {from}");
        text = text.replace(from, to);
    };
    for (from, to) in addresses {
        replace(from, &format!("{}/data/{to}", setting("TEST_DATA_URL")));
    }
    replace("reporting.", &format!("{}.", world.name));
    replace("s3://lake/", &format!("{}/", world.lake()));
    replace(&format!("name: {name}\n"), &format!("name: {name}\n  namespace: {}\n", world.name.replace('_', "-")));
    world.file(&format!("{name}.yaml"), text)
}

/// Runs a script of psql, in which {data} is the real data and {schema} this world's schema.
fn psql(world: &World, data: &Path, script: &str) {
    let script = script.replace("{data}", data.to_str().unwrap()).replace("{schema}", &world.name);
    let file = world.file("load.sql", script);
    let output = Command::new(Path::new(&setting("TEST_POSTGRES_BIN")).join("psql"))
        .args(["-qX", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap(), &setting("TEST_POSTGRES_URL")])
        .current_dir(world.folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Holds a table against a query: as many rows of each kind on both sides.
async fn same(world: &World, table: &str, query: &str) {
    let table = format!("SELECT * FROM {{schema}}.{table}");
    for (left, right) in [(table.as_str(), query), (query, table.as_str())] {
        let differing = world.rows(&format!("(({left}) EXCEPT ALL ({right})) LIMIT 5")).await;
        assert_eq!(differing, [""; 0], "in {left}, not in {right}");
    }
    assert_ne!(world.rows(&format!("SELECT count(*) FROM ({query}) AS q")).await, ["0"], "{query}");
}

/// Holds a lake against a query of its columns, partition first.
async fn same_lake(world: &World, lake: &str, query: &str) {
    let mut want = world.rows(query).await;
    want.sort();
    let found = world.lake_rows(lake).await;
    assert!(
        found == want,
        "{lake}: {} rows, want {}; first difference: {:?}",
        found.len(),
        want.len(),
        found.iter().zip(&want).find(|(one, other)| one != other)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn productivity_holds_what_sql_over_the_files_says() {
    let Some(data) = data() else { return };
    let mut world = World::new().await;
    world.set("SECRET_REPORTING_DB_URL", &setting("TEST_POSTGRES_URL"));
    world.set("SECRET_BLS_CONTACT_EMAIL", "someone@example.org");
    let manifest = example(
        &world,
        "productivity",
        &[
            ("https://download.bls.gov/pub/time.series/pr/pr.data.0.Current", "bls/pr.data.0.Current"),
            ("https://datausa.io/api/data?drilldowns=State&measures=Population", "bls/datausa_population.json"),
        ],
    );
    let result = world.run(&manifest).ok();
    assert!(result.checks.iter().all(|check| check.passed), "{:?}", result.checks);
    psql(
        &world,
        &data,
        r#"
CREATE TABLE {schema}.raw_series (series_id text, year int, period text, value numeric, footnote_codes text);
\copy {schema}.raw_series FROM PROGRAM 'sed -e "s/\r$//" -e "s/ *\t */\t/g" -e "s/^ *//" -e "s/ *$//" "{data}/bls/pr.data.0.Current"' WITH (FORMAT csv, DELIMITER E'\t', HEADER)
\set content `cat "{data}/bls/datausa_population.json"`
CREATE TABLE {schema}.raw_population AS
  SELECT r->>'State ID' AS state_id, r->>'State' AS state, (r->>'Year')::int AS year, (r->>'Population')::numeric::bigint AS population
  FROM jsonb_array_elements((:'content'::jsonb)->'data') AS r;
"#,
    );
    same(&world, "series", "SELECT * FROM {schema}.raw_series").await;
    same(&world, "population", "SELECT * FROM {schema}.raw_population").await;
    same(
        &world,
        "best_year",
        "SELECT DISTINCT ON (series_id) series_id, year, sum(value) FROM {schema}.raw_series WHERE period IN ('Q01', 'Q02', 'Q03', 'Q04')
         GROUP BY series_id, year ORDER BY series_id, sum(value) DESC, year",
    )
    .await;
    same(
        &world,
        "series_population",
        "SELECT series_id, year, period, value, (SELECT sum(population) FROM {schema}.raw_population p WHERE p.year = s.year) AS population
         FROM {schema}.raw_series s WHERE year IN (SELECT year FROM {schema}.raw_population)",
    )
    .await;
    same(
        &world,
        "population_stats",
        "SELECT 2013, 2018, count(*), round(avg(total), 2), round(stddev_samp(total), 2)
         FROM (SELECT sum(population) AS total FROM {schema}.raw_population WHERE year >= 2013 AND year < 2019 GROUP BY year) AS y",
    )
    .await;
    same_lake(
        &world,
        "silver/series",
        "SELECT year, series_id, period, value::numeric(18,3), footnote_codes FROM {schema}.raw_series",
    )
    .await;

    for (sql, want) in [
        ("SELECT count(*), count(DISTINCT series_id), sum(value) FROM {schema}.series", "37881|282|1228663.323"),
        ("SELECT count(*), min(series_id) FROM {schema}.best_year", "237|PRS30006011"),
        ("SELECT year, trim_scale(total) FROM {schema}.best_year WHERE series_id = 'PRS30006011'", "2022|16.4"),
        ("SELECT count(*) FROM {schema}.population", "624"),
        ("SELECT mean, standard_deviation FROM {schema}.population_stats", "320985765.17|4148367.23"),
    ] {
        assert_eq!(world.rows(sql).await, [want], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn covid_ar_holds_what_sql_over_the_files_says() {
    let Some(data) = data() else { return };
    let mut world = World::new().await;
    world.set("SECRET_REPORTING_DB_URL", &setting("TEST_POSTGRES_URL"));
    let manifest = example(
        &world,
        "covid-ar",
        &[
            (
                "https://raw.githubusercontent.com/j-e-d/datosvacunas/main/datos_nomivac_covid19_por_fecha_y_dosis.csv",
                "covid-ar/datos_nomivac_covid19_por_fecha_y_dosis.csv",
            ),
            (
                "https://raw.githubusercontent.com/j-e-d/datosvacunas/main/Covid19VacunasAgrupadas.csv",
                "covid-ar/Covid19VacunasAgrupadas.csv",
            ),
        ],
    );
    world.run(&manifest).ok();
    psql(
        &world,
        &data,
        r#"
CREATE TABLE {schema}.raw_dates (doses int, jurisdiction text, applied_on date, dose text);
CREATE TABLE {schema}.raw_vaccines (code text, jurisdiction text, vaccine text, a bigint, b bigint, c bigint, d bigint, e bigint);
\copy {schema}.raw_dates FROM '{data}/covid-ar/datos_nomivac_covid19_por_fecha_y_dosis.csv' WITH (FORMAT csv, HEADER)
\copy {schema}.raw_vaccines FROM '{data}/covid-ar/Covid19VacunasAgrupadas.csv' WITH (FORMAT csv, HEADER)
"#,
    );
    let dates = "SELECT jurisdiction, applied_on, date_part('year', applied_on)::int AS year, dose, doses FROM {schema}.raw_dates";
    same(&world, "doses_by_date", dates).await;
    same(&world, "doses_by_vaccine", "SELECT *, a + b + c + d + e FROM {schema}.raw_vaccines").await;
    same_lake(&world, "covid-ar/doses_by_date", "SELECT date_part('year', applied_on)::int AS year, jurisdiction, applied_on, dose, doses FROM {schema}.raw_dates").await;
    same_lake(
        &world,
        "covid-ar/doses_by_vaccine",
        "SELECT code, jurisdiction, vaccine, a, b, c, d, e, a + b + c + d + e FROM {schema}.raw_vaccines",
    )
    .await;
    for (sql, want) in [
        (
            "SELECT count(*), sum(doses), count(DISTINCT jurisdiction) FROM {schema}.doses_by_date",
            "101223|118950690|24",
        ),
        ("SELECT min(jurisdiction_code) FROM {schema}.doses_by_vaccine", "02"),
    ] {
        assert_eq!(world.rows(sql).await, [want], "{sql}");
    }
}
