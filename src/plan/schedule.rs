//! The ConfigMap and the CronJob: what they should be, and since when the schedule is as it is.
//!
//! What the CronJob controller does, as its source has it (pkg/controller/cronjob, syncCronJob): it makes the Job of the
//! latest tick since `status.lastScheduleTime` (since its creation where there is none) that is within the starting
//! deadline. So a CronJob that is resumed, or given another schedule, fires a tick of the past at once. Against that,
//! `lastScheduleTime` is moved to now before either, and every Job carries the epoch: the time of the last resume or
//! change, before which a tick ends as Skipped should it fire after all.

use jiff::{SignedDuration, Timestamp};
use report_api::cron::Schedule;
use report_api::interval::job_of_tick;
use report_api::status::ScheduleEpoch;

use super::{Plan, Scene, Write};
use crate::build::{self, Resolved};
use crate::observe::view::time;

/// ConfigMaps that stay although nothing names them any more: for a look back.
const CONFIG_MAPS_KEPT: usize = 3;
/// How long any ConfigMap stays: a Job that was made a moment ago may not be seen yet.
const CONFIG_MAP_AGE: SignedDuration = SignedDuration::from_hours(1);

/// How long after a tick its Job may come before someone looks for it: the CronJob controller is a second or two late.
/// Where it is minutes late, because thousands are due at once, the look finds nothing and does no harm.
pub const TICK_DELAY: SignedDuration = SignedDuration::from_secs(20);

/// Since when the schedule is as it is; None without a schedule. It lives in the pipeline's status and changes when the
/// schedule, the time zone or its suspension does.
pub fn epoch(scene: &Scene) -> Option<ScheduleEpoch> {
    let schedule = format!("{} {}", scene.spec.schedule.as_deref()?, scene.spec.time_zone());
    let (suspended, before) = (scene.is_suspended(), scene.pipeline.status.schedule_epoch.as_ref());
    let since = match before {
        Some(before) if before.schedule == schedule && (suspended || !before.suspended) => before.since.clone(),
        _ => time(scene.now),
    };
    Some(ScheduleEpoch { since, schedule, suspended })
}

/// The manifest's ConfigMap, and those that nobody needs any more.
pub fn config_map(scene: &Scene, resolved: &Resolved, plan: &mut Plan) {
    let name = resolved.config_map_name();
    let mut own: Vec<_> = scene
        .observed
        .config_maps
        .iter()
        .filter(|map| map.meta.is_controlled_by(&scene.pipeline.meta.uid) && !map.meta.deleting)
        .collect();
    if scene.taken("ConfigMap", &name).is_none() && own.iter().all(|map| map.meta.name != name) {
        plan.writes.push(Write::CreateConfigMap(Box::new(build::config_map::build(resolved))));
    }
    own.sort_by(|a, b| (b.meta.created, &b.meta.name).cmp(&(a.meta.created, &a.meta.name)));
    for map in own.into_iter().skip(CONFIG_MAPS_KEPT) {
        let named = |config_map: &Option<String>| config_map.as_deref() == Some(map.meta.name.as_str());
        let needed = map.meta.name == name
            || scene.cron_job.is_some_and(|cron_job| named(&cron_job.config_map))
            || scene.observed.jobs.iter().any(|job| job.is_active() && named(&job.config_map))
            || scene.now.duration_since(map.meta.created) < CONFIG_MAP_AGE;
        if !needed {
            plan.writes.push(Write::DeleteConfigMap(map.meta.name.clone(), map.meta.uid.clone()));
        }
    }
}

/// The CronJob: made, brought to what it should be, suspended while the manifest can't be run, and deleted when the
/// manifest has no schedule any more and no scheduled run is under way, since its Jobs go with it.
pub fn cron_job(scene: &Scene, epoch: Option<&ScheduleEpoch>, plan: &mut Plan) {
    let name = &scene.pipeline.meta.name;
    let scheduled_run = scene.jobs.values().any(|own| own.scheduled && own.job.is_active());
    let (schedule, resolved, epoch) = match (&scene.spec.schedule, &scene.resolved, epoch) {
        (Some(schedule), Ok(resolved), Some(epoch)) => (schedule, resolved, epoch),
        (None, Ok(_), _) if !scheduled_run => {
            if let Some(cron_job) = scene.cron_job.filter(|cron_job| !cron_job.meta.deleting) {
                plan.writes.push(Write::DeleteCronJob(name.clone(), cron_job.meta.uid.clone()));
            }
            return;
        }
        _ => {
            if let Some(cron_job) = scene.cron_job.filter(|cron_job| !cron_job.suspended && !cron_job.meta.deleting) {
                plan.writes.push(Write::SuspendCronJob(name.clone(), cron_job.meta.uid.clone()));
            }
            return;
        }
    };
    let names_taken =
        scene.taken("CronJob", name).is_some() || scene.taken("ConfigMap", &resolved.config_map_name()).is_some();
    let mut wanted = build::cron_job::build(resolved, schedule, epoch.suspended, epoch.since.0);
    let Some(live) = scene.cron_job else {
        if !names_taken {
            plan.writes.push(Write::CreateCronJob(Box::new(wanted)));
        }
        return;
    };
    if live.meta.deleting || names_taken {
        return;
    }
    // The generation in the status is the one that the operator left: another one is someone else's change, to be undone.
    let generations = [scene.pipeline.status.cron_job_generation, scene.observed.cron_job_written];
    let same = live.applied.as_deref() == build::cron_job::applied_hash(&wanted);
    if same && generations.contains(&Some(live.meta.generation)) {
        return;
    }
    let fires_again = (live.suspended && !epoch.suspended)
        || live.schedule != *schedule
        || live.time_zone.as_deref() != Some(scene.spec.time_zone());
    if fires_again
        && let Some(past) = last_tick(scene, resolved)
        && live.last_schedule.is_none_or(|last| last < past)
    {
        plan.writes.push(Write::MoveLastSchedule { name: name.clone(), uid: live.meta.uid.clone(), to: past });
    }
    wanted.metadata.uid = Some(live.meta.uid.clone());
    plan.writes.push(Write::ApplyCronJob { cron_job: Box::new(wanted), created_fields: live.created_fields });
}

/// The last tick that is not to be run any more.
fn last_tick(scene: &Scene, resolved: &Resolved) -> Option<Timestamp> {
    resolved.checked.schedule.as_ref().and_then(|schedule| schedule.latest_at_or_before(scene.now))
}

/// The next tick, where there is one.
pub fn next_tick(scene: &Scene) -> Option<Timestamp> {
    let schedule: &Schedule = scene.resolved.as_ref().ok()?.checked.schedule.as_ref()?;
    if scene.is_suspended() { None } else { schedule.next_after(scene.now) }
}

/// The name of the tick that should have been run by now and was not. Its Job's name may be somebody else's: then the
/// controller goes on with no tick at all, and says nothing.
pub fn tick_missed(scene: &Scene) -> Option<String> {
    let (resolved, cron_job) = (scene.resolved.as_ref().ok()?, scene.cron_job?);
    let tick = resolved.checked.schedule.as_ref()?.latest_at_or_before(scene.now)?;
    let due = !scene.is_suspended()
        && !cron_job.suspended
        && scene.now.duration_since(tick) >= TICK_DELAY
        && tick > cron_job.meta.created
        && cron_job.last_schedule.is_none_or(|last| last < tick)
        && scene.pipeline.status.schedule_epoch.as_ref().is_none_or(|epoch| epoch.since.0 <= tick);
    let busy = scene.jobs.values().any(|own| own.scheduled && own.job.is_active());
    (due && !busy)
        .then(|| job_of_tick(&scene.pipeline.meta.name, tick))
        .filter(|name| !scene.jobs.contains_key(name.as_str()))
}
