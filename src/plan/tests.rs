//! Decisions, as sentences. No server, no clock.

use jiff::SignedDuration;
use report_api::interval::Interval;
use report_api::pipeline::WhenBusy;
use report_api::result::{RunResult, Stage, State};
use report_api::status::RunState;
use report_api::units::Span;

use crate::fixtures::{PodIs, Scenario, at, exited, pipeline, settled};

const TEN_PAST_THREE: &str = "2027-03-01T03:10:00Z";

fn kinds(scenario: &Scenario, now: &str) -> Vec<&'static str> {
    scenario.plan(now).writes.iter().map(super::Write::kind).collect()
}

fn assert_condition(scenario: &Scenario, type_: &str, status: &str, reason: &str) {
    let (is_status, is_reason, message) = scenario.condition(type_);
    assert_eq!((is_status.as_str(), is_reason.as_str()), (status, reason), "{type_}: {message}");
}

fn succeeded(interval_end: &str) -> PodIs {
    let mut result = RunResult::new(State::Succeeded, Stage::Done);
    result.interval = Some(Interval { start: at("2027-02-28T03:00:00Z"), end: at(interval_end) });
    result.rows_written = 7;
    PodIs::Ended(Box::new(result))
}

fn skipped(why: &str, interval_end: &str) -> PodIs {
    let mut result = RunResult::new(State::Skipped, Stage::Plan);
    result.interval = Some(Interval { start: at("2027-02-28T03:00:00Z"), end: at(interval_end) });
    result.skipped = Some(why.into());
    result.unchanged = why == "all inputs are unchanged";
    PodIs::Ended(Box::new(result))
}

#[test]
fn a_new_pipeline_gets_a_config_map_a_cron_job_and_a_status() {
    let (scenario, kinds) = pipeline("daily").settle_with(at("2027-03-01T00:00:00Z"));
    assert_eq!(kinds, ["create_config_map", "create_cron_job", "status"]);
    assert_condition(&scenario, "Ready", "True", "Scheduled");
    assert_condition(&scenario, "Stalled", "False", "Settled");
    assert_eq!(scenario.status().next_schedule_time.as_ref().unwrap().0, at("2027-03-01T03:00:00Z"));
}

#[test]
fn a_settled_pipeline_writes_nothing_until_its_next_tick() {
    for now in ["2027-03-01T00:00:01Z", "2027-03-01T01:00:00Z", "2027-03-01T02:59:59Z"] {
        assert_eq!(kinds(&settled("daily"), now), [""; 0], "{now}");
    }
}

#[test]
fn a_count_that_changes_in_what_a_run_waits_for_is_no_news() {
    let mut scenario = settled("daily").with_job("daily-30064500", PodIs::Missing);
    let uid = scenario.observed.jobs[0].meta.uid.clone();
    let now_says = |scenario: &mut Scenario, words: &str| {
        scenario.observed.job_words.insert(uid.clone(), words.into());
    };
    now_says(&mut scenario, "exceeded quota: pods, used 12 of 10");
    let mut scenario = scenario.settle(at("2027-03-01T03:00:10Z"));
    now_says(&mut scenario, "exceeded quota: pods, used 9 of 10");
    assert_eq!(kinds(&scenario, "2027-03-01T03:00:30Z"), [""; 0]);
    now_says(&mut scenario, "exceeded quota: secrets, used 9 of 10");
    assert_eq!(kinds(&scenario, "2027-03-01T03:00:30Z"), ["run_status", "status"]);
}

#[test]
fn another_operator_that_takes_over_writes_nothing() {
    let mut scenario = settled("daily").with_job("daily-30064500", exited(0)).settle(at(TEN_PAST_THREE));
    scenario.observed.cron_job_written = None;
    assert_eq!(kinds(&scenario, "2027-03-01T04:00:00Z"), [""; 0]);
}

#[test]
fn a_pipeline_without_a_schedule_gets_no_cron_job() {
    let (scenario, kinds) = pipeline("daily").edit(|spec| spec.schedule = None).settle_with(at("2027-03-01T00:00:00Z"));
    assert_eq!(kinds, ["create_config_map", "status"]);
    assert_condition(&scenario, "Ready", "True", "OnDemand");
    assert_eq!(scenario.plan("2027-03-01T01:00:00Z").next_look, None);
}

#[test]
fn a_schedule_that_is_removed_takes_its_cron_job_along_when_no_run_is_under_way() {
    let without = |spec: &mut report_api::pipeline::ReportPipelineSpec| spec.schedule = None;
    let (_, idle) = settled("daily").edit(without).settle_with(at("2027-03-01T01:00:00Z"));
    assert_eq!(idle, ["create_config_map", "delete_cron_job", "status"]);
    let (busy, kinds) =
        settled("daily").with_job("daily-30064500", PodIs::Running).edit(without).settle_with(at(TEN_PAST_THREE));
    assert_eq!(kinds, ["create_config_map", "suspend_cron_job", "create_run", "status"]);
    let (_, kinds) = busy.with_job("daily-30064500", exited(0)).settle_with(at("2027-03-01T03:11:00Z"));
    assert!(kinds.contains(&"delete_cron_job"), "{kinds:?}");
}

#[test]
fn a_failed_check_keeps_the_pipeline_ready() {
    let scenario = settled("daily").with_job("daily-30064500", exited(13)).settle(at(TEN_PAST_THREE));
    assert_condition(&scenario, "Ready", "True", "Scheduled");
    assert_condition(&scenario, "LastRunSucceeded", "False", "CheckFailed");
    assert_eq!(scenario.condition("LastRunSucceeded").2, "run daily-30064500: spec.checks[0]: 3 rows are wrong");
    let last = scenario.status().last_run.clone().unwrap();
    assert_eq!((last.state, last.reason.as_deref()), (RunState::Failed, Some("check_failed")));
    assert_eq!(scenario.run("daily-30064500").conditions[0].type_, "Failed");
    assert_eq!(kinds(&scenario, "2027-03-01T03:11:00Z"), [""; 0]);
}

#[test]
fn the_next_good_run_heals_without_help() {
    let scenario = settled("daily").with_job("daily-30064500", exited(13)).settle(at(TEN_PAST_THREE));
    let plan = scenario.with_job("daily-30065940", succeeded("2027-03-02T03:00:00Z")).plan("2027-03-02T03:10:00Z");
    let notes: Vec<_> = plan
        .writes
        .iter()
        .filter_map(|write| if let super::Write::Status(_, notes) = write { Some(notes.clone()) } else { None })
        .flatten()
        .collect();
    assert_eq!(notes.iter().map(|note| note.reason.as_str()).collect::<Vec<_>>(), ["Recovered"]);
}

#[test]
fn an_invalid_manifest_stalls_the_schedule_and_recovers_without_firing_a_tick_of_the_past() {
    let (scenario, kinds) =
        settled("daily").edit(|spec| spec.sinks[0].from = "totalz".into()).settle_with(at("2027-03-01T01:00:00Z"));
    assert_eq!(kinds, ["suspend_cron_job", "status"]);
    assert_condition(&scenario, "Ready", "False", "InvalidManifest");
    assert_condition(&scenario, "Stalled", "True", "InvalidManifest");
    assert!(scenario.condition("Stalled").2.contains("spec.sinks[0].from"), "{}", scenario.condition("Stalled").2);
    assert_eq!(self::kinds(&scenario, "2027-03-01T05:00:00Z"), [""; 0]);
    let (scenario, kinds) =
        scenario.edit(|spec| spec.sinks[0].from = "totals".into()).settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["move_last_schedule", "apply_cron_job", "status"]);
    assert_condition(&scenario, "Ready", "True", "Scheduled");
    let cron_job = scenario.observed.cron_job.as_ref().unwrap();
    assert_eq!((cron_job.suspended, cron_job.last_schedule), (false, Some(at("2027-03-01T03:00:00Z"))));
}

#[test]
fn resuming_moves_the_last_tick_before_it_lets_the_cron_job_go() {
    let (scenario, kinds) = settled("daily").edit(|spec| spec.suspend = true).settle_with(at("2027-03-01T01:00:00Z"));
    assert_eq!(kinds, ["apply_cron_job", "status"], "suspending is no new manifest");
    assert_condition(&scenario, "Ready", "True", "Suspended");
    assert_eq!(scenario.status().next_schedule_time, None);
    let (scenario, kinds) = scenario.edit(|spec| spec.suspend = false).settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["move_last_schedule", "apply_cron_job", "status"]);
    assert_eq!(scenario.status().schedule_epoch.as_ref().unwrap().since.0, at("2027-03-01T05:00:00Z"));
    assert_eq!(scenario.observed.cron_job.unwrap().last_schedule, Some(at("2027-03-01T03:00:00Z")));
}

#[test]
fn another_schedule_fires_no_tick_of_the_past() {
    let edited = settled("daily").edit(|spec| spec.schedule = Some("30 * * * *".into()));
    let (scenario, kinds) = edited.settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["create_config_map", "move_last_schedule", "apply_cron_job", "status"]);
    assert_eq!(scenario.observed.cron_job.as_ref().unwrap().last_schedule, Some(at("2027-03-01T04:30:00Z")));
    assert_eq!(scenario.status().schedule_epoch.as_ref().unwrap().since.0, at("2027-03-01T05:00:00Z"));
}

#[test]
fn another_manifest_with_the_same_schedule_keeps_its_epoch() {
    let edited = settled("daily").edit(|spec| spec.retries = Some(1));
    let (scenario, kinds) = edited.settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["create_config_map", "apply_cron_job", "status"]);
    assert_eq!(scenario.status().schedule_epoch.as_ref().unwrap().since.0, at("2027-03-01T00:00:00Z"));
}

#[test]
fn what_someone_else_does_to_the_cron_job_is_undone() {
    let scenario = settled("daily").with_cron_job(|cron_job| {
        cron_job.schedule = "* * * * *".into();
        cron_job.meta.generation += 1;
    });
    let (scenario, kinds) = scenario.settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["move_last_schedule", "apply_cron_job", "status"]);
    assert_eq!(scenario.observed.cron_job.unwrap().schedule, "0 3 * * *");
}

#[test]
fn names_that_are_taken_stall_the_pipeline_in_words() {
    for (kind, owner, want) in [
        (
            "CronJob",
            Some(("Deployment", "other")),
            "the CronJob daily is there already and is the Deployment other's; delete it, or rename the pipeline",
        ),
        ("CronJob", None, "the CronJob daily is there already and is nobody's; delete it, or rename the pipeline"),
    ] {
        let scenario = pipeline("daily").with_taken(kind, "daily", owner).settle(at("2027-03-01T00:00:00Z"));
        assert_condition(&scenario, "Ready", "False", "NameTaken");
        assert_condition(&scenario, "Stalled", "True", "NameTaken");
        assert_eq!(scenario.condition("Stalled").2, want);
        assert!(scenario.plan("2027-03-01T00:00:01Z").next_look.is_some());
    }
    let leftover = pipeline("daily")
        .with_taken("CronJob", "daily", Some(("ReportPipeline", "daily")))
        .settle(at("2027-03-01T00:00:00Z"));
    assert_condition(&leftover, "Stalled", "False", "Settled");
    assert_condition(&leftover, "Reconciling", "True", "Waiting");
}

#[test]
fn a_foreign_job_with_the_label_is_not_ours() {
    let scenario = settled("daily").with_foreign_job("daily-30064500");
    assert_eq!(kinds(&scenario, "2027-03-01T02:00:00Z"), [""; 0]);
}

#[test]
fn a_foreign_job_with_the_name_of_a_tick_is_told_and_the_schedule_goes_on() {
    let mut scenario = settled("daily");
    let now = at("2027-03-01T03:00:30Z");
    assert_eq!(super::questions(&scenario.observed, at("2027-03-01T03:00:10Z")).tick, None, "its Job may still come");
    assert_eq!(super::questions(&scenario.observed, now).tick.as_deref(), Some("daily-30064500"));
    scenario.observed.tick_taken = Some(super::Taken { kind: "Job", name: "daily-30064500".into(), owner: None });
    let (scenario, kinds) = scenario.settle_with(now);
    assert_eq!(kinds, ["move_last_schedule", "create_run", "status"]);
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Failed));
    assert_condition(&scenario, "LastRunSucceeded", "False", "NameTaken");
    assert_eq!(scenario.observed.cron_job.as_ref().unwrap().last_schedule, Some(at("2027-03-01T03:00:00Z")));
    assert_eq!(super::questions(&scenario.observed, now).tick, None);
}

#[test]
fn a_look_comes_soon_after_the_next_tick_and_not_before() {
    let plan = settled("daily").plan("2027-03-01T01:00:00Z");
    assert_eq!(plan.next_look, Some(SignedDuration::from_secs(7200) + super::schedule::TICK_DELAY));
}

#[test]
fn a_scheduled_job_is_recorded_followed_and_ended() {
    let scenario = settled("daily").with_job("daily-30064500", PodIs::Running).settle(at("2027-03-01T03:00:10Z"));
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Running));
    assert_eq!(scenario.status().active, ["daily-30064500"]);
    let mut scenario = scenario.with_job("daily-30064500", succeeded("2027-03-01T03:00:00Z"));
    scenario.observed.pods.remove(0);
    let scenario = scenario.settle(at(TEN_PAST_THREE));
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Succeeded));
    assert_eq!(scenario.run("daily-30064500").conditions[0].type_, "Complete");
    let status = scenario.status();
    assert_eq!(status.active, [""; 0]);
    assert_eq!(status.last_run.as_ref().unwrap().rows_written, Some(7));
    assert_eq!(status.data_as_of.as_ref().unwrap().0, at("2027-03-01T03:00:00Z"));
}

#[test]
fn data_as_of_moves_with_commits_and_verified_inputs_only_and_never_back() {
    let base =
        settled("daily").with_job("daily-30064500", succeeded("2027-03-01T03:00:00Z")).settle(at(TEN_PAST_THREE));
    for (pod, want) in [
        (succeeded("2027-03-02T03:00:00Z"), "2027-03-02T03:00:00Z"),
        (succeeded("2027-02-01T03:00:00Z"), "2027-03-01T03:00:00Z"),
        (skipped("all inputs are unchanged", "2027-03-02T03:00:00Z"), "2027-03-02T03:00:00Z"),
        (skipped("the tick is before the last resume", "2027-03-02T03:00:00Z"), "2027-03-01T03:00:00Z"),
        (exited(13), "2027-03-01T03:00:00Z"),
    ] {
        let scenario = base.clone().with_job("daily-30065940", pod).settle(at("2027-03-02T03:10:00Z"));
        assert_eq!(scenario.status().data_as_of.as_ref().unwrap().0, at(want));
    }
}

#[test]
fn data_turns_stale_by_itself() {
    let scenario = settled("daily")
        .edit(|spec| spec.freshness = Some(report_api::pipeline::Freshness { max_age: Span("2h".into()) }))
        .settle(at("2027-03-01T00:00:00Z"));
    assert_condition(&scenario, "DataFresh", "Unknown", "NoRunYet");
    let scenario = scenario.with_job("daily-30064500", succeeded("2027-03-01T03:00:00Z")).settle(at(TEN_PAST_THREE));
    assert_condition(&scenario, "DataFresh", "True", "Fresh");
    assert_eq!(scenario.plan(TEN_PAST_THREE).next_look, Some(SignedDuration::from_mins(110)));
    let (scenario, kinds) = scenario.settle_with(at("2027-03-01T05:00:00Z"));
    assert_eq!(kinds, ["status"]);
    assert_condition(&scenario, "DataFresh", "False", "Stale");
}

#[test]
fn why_a_pod_does_not_start_is_in_the_runs_and_the_pipelines_words() {
    let waiting = PodIs::Waiting("CreateContainerConfigError", "secret \"shop-db\" not found");
    let scenario = settled("daily").with_job("daily-30064500", waiting).settle(at(TEN_PAST_THREE));
    let want = "the Secret \"shop-db\" is not in the namespace shop; create it, the run then goes on";
    assert_eq!(scenario.run("daily-30064500").message.as_deref(), Some(want));
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Pending));
    assert_condition(&scenario, "Ready", "True", "Scheduled");
    assert!(scenario.condition("Ready").2.ends_with(&format!("; run daily-30064500: {want}")));
}

#[test]
fn a_job_without_a_pod_asks_for_its_events() {
    let mut scenario = settled("daily").with_job("daily-30064500", PodIs::Missing);
    assert!(super::questions(&scenario.observed, at("2027-03-01T03:00:03Z")).events.is_empty());
    assert_eq!(super::questions(&scenario.observed, at(TEN_PAST_THREE)).events.len(), 1);
    scenario.observed.job_words.insert("daily-30064500-uid".into(), "exceeded quota: small".into());
    let scenario = scenario.settle(at(TEN_PAST_THREE));
    assert_eq!(
        scenario.run("daily-30064500").message.as_deref(),
        Some("Kubernetes makes no pod for it: exceeded quota: small")
    );
}

#[test]
fn a_job_that_never_started_is_superseded_and_made_anew_under_its_name() {
    let waiting = || PodIs::Waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    let scenario = settled("daily").with_job("daily-30064500", waiting()).settle(at("2027-03-01T03:01:00Z"));
    let (scenario, kinds) = scenario.upgrade("registry/etl-worker:0.1.1").settle_with(at(TEN_PAST_THREE));
    assert_eq!(
        kinds,
        ["create_config_map", "apply_cron_job", "delete_job", "run_status", "create_job", "run_status", "status"]
    );
    let job = &scenario.observed.jobs[0];
    assert_eq!((job.meta.name.as_str(), job.spec_hash.as_deref()), ("daily-30064500", Some(scenario.hash().as_str())));
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Pending));
    assert_eq!(scenario.run("daily-30064500").job_uid.as_ref(), Some(&job.meta.uid));
}

#[test]
fn a_job_whose_pod_has_started_is_never_superseded() {
    let scenario = settled("daily").with_job("daily-30064500", PodIs::Running).settle(at("2027-03-01T03:01:00Z"));
    let (_, kinds) = scenario.upgrade("registry/etl-worker:0.1.1").settle_with(at(TEN_PAST_THREE));
    assert!(!kinds.contains(&"delete_job"), "{kinds:?}");
}

#[test]
fn a_superseded_tick_is_not_run_again_after_the_schedule_has_changed() {
    let waiting = PodIs::Waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    let scenario = settled("daily").with_job("daily-30064500", waiting).settle(at("2027-03-01T03:01:00Z"));
    let edited = scenario.edit(|spec| spec.schedule = Some("0 4 * * *".into()));
    let (scenario, kinds) = edited.settle_with(at(TEN_PAST_THREE));
    assert!(kinds.contains(&"delete_job") && !kinds.contains(&"create_job"), "{kinds:?}");
    assert_eq!(scenario.state("daily-30064500"), Some(RunState::Superseded));
}

#[test]
fn a_run_by_hand_is_a_job_of_its_name() {
    let (scenario, kinds) =
        settled("daily").with_run("now", "2027-03-01T01:00:00Z").settle_with(at("2027-03-01T01:00:01Z"));
    assert_eq!(kinds, ["create_job", "run_status", "run_status", "status"]);
    assert_eq!(scenario.state("now"), Some(RunState::Pending));
    assert!(scenario.run("now").job_uid.is_some());
}

#[test]
fn a_run_by_hand_waits_its_turn() {
    let scenario = settled("daily")
        .with_job("daily-30064500", PodIs::Running)
        .with_run("first", "2027-03-01T03:01:00Z")
        .with_run("second", "2027-03-01T03:02:00Z");
    let (waiting, kinds) = scenario.clone().settle_with(at("2027-03-01T03:03:00Z"));
    assert!(!kinds.contains(&"create_job"), "{kinds:?}");
    assert_eq!(waiting.run("first").message.as_deref(), Some("waits for run daily-30064500"));
    let (skipping, _) =
        scenario.clone().edit(|spec| spec.when_busy = Some(WhenBusy::Skip)).settle_with(at("2027-03-01T03:03:00Z"));
    assert_eq!(skipping.state("first"), Some(RunState::Skipped));
    let done = waiting.with_job("daily-30064500", exited(0));
    let (done, kinds) = Scenario { observed: without_running_pod(done.observed.clone()), ..done }
        .settle_with(at("2027-03-01T03:10:00Z"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "create_job").count(), 1, "one at a time");
    assert_eq!(done.run("second").message.as_deref(), Some("waits for run first"));
}

fn without_running_pod(mut observed: super::Observed) -> super::Observed {
    observed.pods.retain(|pod| pod.worker != Some(crate::observe::view::WorkerState::Running));
    observed
}

#[test]
fn a_run_by_hand_runs_a_suspended_pipeline_and_waits_for_a_valid_manifest() {
    let suspended = settled("daily").edit(|spec| spec.suspend = true).settle(at("2027-03-01T00:30:00Z"));
    let (_, kinds) = suspended.with_run("now", "2027-03-01T01:00:00Z").settle_with(at("2027-03-01T01:00:01Z"));
    assert!(kinds.contains(&"create_job"), "{kinds:?}");
    let invalid = settled("daily").edit(|spec| spec.sinks[0].from = "totalz".into()).settle(at("2027-03-01T00:30:00Z"));
    let (invalid, kinds) = invalid.with_run("now", "2027-03-01T01:00:00Z").settle_with(at("2027-03-01T01:00:01Z"));
    assert!(!kinds.contains(&"create_job"), "{kinds:?}");
    assert!(
        invalid
            .run("now")
            .message
            .as_ref()
            .unwrap()
            .starts_with("waits until the manifest of daily is valid: spec.sinks[0].from")
    );
}

#[test]
fn runs_by_hand_with_impossible_names_are_refused_in_words() {
    let mut reserved = settled("daily").with_run("daily-30064500", "2027-03-01T01:00:00Z");
    reserved.observed.tick_names.insert("daily-30064500".into());
    let long = "x".repeat(64);
    for (scenario, name, reason) in [
        (reserved, "daily-30064500", "NameReserved"),
        (settled("daily").with_run(&long, "2027-03-01T01:00:00Z"), long.as_str(), "NameTooLong"),
        (settled("daily").with_run("now", "2027-03-01T01:00:00Z").with_taken("Job", "now", None), "now", "NameTaken"),
    ] {
        let (scenario, kinds) = scenario.settle_with(at("2027-03-01T01:00:01Z"));
        assert_eq!(kinds, ["run_status", "status"], "{name}");
        let ending = &scenario.run(name).conditions[0];
        assert_eq!((ending.type_.as_str(), ending.reason.as_str()), ("Failed", reason));
    }
}

#[test]
fn a_job_that_was_deleted_ends_its_run() {
    let scenario = settled("daily").with_run("now", "2027-03-01T01:00:00Z").settle(at("2027-03-01T01:00:01Z"));
    let mut scenario = scenario;
    scenario.observed.jobs.clear();
    let scenario = scenario.settle(at("2027-03-01T01:00:05Z"));
    assert_eq!(scenario.run("now").conditions[0].reason, "JobDeleted");
}

#[test]
fn a_pipeline_that_is_deleted_stops_its_runs_by_hand() {
    let scenario = settled("daily").with_run("now", "2027-03-01T01:00:00Z").settle(at("2027-03-01T01:00:01Z"));
    let (scenario, kinds) = scenario.without_pipeline().settle_with(at("2027-03-01T01:01:00Z"));
    assert_eq!(kinds, ["delete_job", "run_status"]);
    assert_eq!(scenario.run("now").conditions[0].reason, "PipelineDeleted");
}

#[test]
fn a_run_of_no_pipeline_waits_a_minute_and_fails() {
    let scenario =
        settled("daily").without_pipeline().with_run("now", "2027-03-01T01:00:00Z").settle(at("2027-03-01T01:00:01Z"));
    assert_eq!(scenario.state("now"), Some(RunState::Pending));
    assert_eq!(scenario.plan("2027-03-01T01:00:01Z").next_look, Some(SignedDuration::from_secs(59)));
    let scenario = scenario.settle(at("2027-03-01T01:01:00Z"));
    assert_eq!(scenario.run("now").conditions[0].reason, "PipelineNotFound");
}

#[test]
fn history_keeps_what_it_should() {
    let mut scenario = settled("daily");
    for day in 0..8_u32 {
        let pod = if day % 2 == 0 { exited(0) } else { exited(13) };
        scenario = scenario
            .with_job(&format!("daily-{}", 30_064_500 + day * 1440), pod)
            .settle(at(&format!("2027-03-{:02}T03:10:00Z", day + 1)));
    }
    let names = |state| scenario.observed.runs.iter().filter(|run| run.status.state == Some(state)).count();
    assert_eq!((names(RunState::Succeeded), names(RunState::Failed)), (3, 4));
    let mut jobs: Vec<_> = scenario.observed.jobs.iter().map(|job| job.meta.name.as_str()).collect();
    jobs.sort_unstable();
    assert_eq!(jobs, ["daily-30071700", "daily-30073140", "daily-30074580"], "one that succeeded, two that failed");
    assert_eq!(scenario.status().runs.len(), 7);
    assert_eq!(scenario.status().runs[0].name, "daily-30074580");
}

#[test]
fn a_persons_runs_stay_until_they_delete_them() {
    let mut scenario = settled("daily");
    for n in 0..6 {
        let name = format!("run-{n}");
        let made = format!("2027-03-01T01:0{n}:00Z");
        scenario = scenario.with_run(&name, &made).with_job_of_run(&name, exited(0)).settle(at("2027-03-01T03:10:00Z"));
    }
    assert_eq!(scenario.observed.runs.len(), 6);
    assert_eq!(scenario.observed.jobs.len(), 1);
}

#[test]
fn config_maps_stay_while_something_needs_them() {
    let mut scenario = settled("daily");
    for n in 0..6 {
        scenario = scenario.edit(|spec| spec.retries = Some(n)).settle(at(&format!("2027-03-01T00:{:02}:00Z", n + 1)));
    }
    assert_eq!(scenario.observed.config_maps.len(), 7, "all of the last hour");
    let scenario = scenario.settle(at("2027-03-01T02:30:00Z"));
    assert_eq!(scenario.observed.config_maps.len(), 3, "the last three");
}

#[test]
fn no_message_is_longer_than_a_status_takes() {
    let scenario = pipeline("daily")
        .edit(|spec| {
            let sink = spec.sinks[0].clone();
            spec.sinks = (0..60)
                .map(|n| {
                    let mut sink = sink.clone();
                    sink.name = format!("sink-{n}");
                    sink.from = format!("nothing_like_this_is_here_{n}");
                    sink
                })
                .collect();
        })
        .settle(at("2027-03-01T00:00:00Z"));
    let message = scenario.condition("Stalled").2;
    assert!(message.len() <= super::outcome::MESSAGE_BYTES_MAX, "{}", message.len());
    assert!(message.contains("; and ") && message.ends_with(" more"), "{message}");
}
