//! What the watches have seen, by name and by pipeline.
//!
//! A write's answer goes in as well, so that the next decision knows of it before the watch does. Two watches' events may
//! therefore arrive late: an older resource version never replaces a newer one, and a deletion removes only the object
//! with its UID.
//!
//! Objects are kept packed, as deflated JSON. Thousands of settled pipelines are only ever kept, and one that is looked at
//! is unpacked in some microseconds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::sync::{Arc, RwLock};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::view::View;

/// A pipeline's namespace and name: what is reconciled.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The pipeline's name.
    pub pipeline: String,
}

/// Views of one kind.
pub struct Cache<V> {
    inner: RwLock<Inner>,
    ready: watch::Sender<bool>,
    _view: PhantomData<fn() -> V>,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<(String, String), Entry>,
    by_pipeline: HashMap<Key, BTreeSet<String>>,
    /// Names seen since a new list began.
    listed: Option<HashSet<(String, String)>>,
}

struct Entry {
    version: u64,
    uid: Box<str>,
    pipeline: Option<Box<str>>,
    packed: Box<[u8]>,
}

impl Entry {
    fn pack(view: &impl View) -> Self {
        let json = serde_json::to_vec(view).expect("a view has only text keys");
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        let packed = encoder.write_all(&json).and_then(|()| encoder.finish()).expect("a Vec takes all bytes");
        let meta = view.meta();
        Self {
            version: meta.version,
            uid: meta.uid.as_str().into(),
            pipeline: view.pipeline().map(Into::into),
            packed: packed.into(),
        }
    }

    fn unpack<V: View>(&self) -> Arc<V> {
        let mut json = Vec::new();
        DeflateDecoder::new(&*self.packed).read_to_end(&mut json).expect("this was packed here");
        Arc::new(serde_json::from_slice(&json).expect("this was packed here"))
    }

    fn key(&self, namespace: &str) -> Option<Key> {
        let pipeline = self.pipeline.as_deref()?.to_owned();
        Some(Key { namespace: namespace.to_owned(), pipeline })
    }
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self { inner: RwLock::default(), ready: watch::Sender::new(false), _view: PhantomData }
    }
}

impl<V: View> Cache<V> {
    /// Takes in what a watch saw. Gives the pipelines that it is about.
    pub fn watched(&self, event: Event<V>) -> Vec<Key> {
        let mut inner = self.inner.write().expect("no holder of this lock panics");
        match event {
            Event::Init => {
                inner.listed = Some(HashSet::new());
                Vec::new()
            }
            Event::InitApply(view) => {
                if let Some(listed) = &mut inner.listed {
                    listed.insert(name_of(&view));
                }
                inner.insert(&view)
            }
            Event::InitDone => {
                let listed = inner.listed.take().unwrap_or_default();
                let gone: Vec<_> = inner.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                let keys = gone.iter().filter_map(|name| inner.remove(name, None)).collect();
                self.ready.send_replace(true);
                keys
            }
            Event::Apply(view) => inner.insert(&view),
            Event::Delete(view) => {
                inner.remove(&name_of(&view), Some(&view.meta().uid)).into_iter().chain(key_of(&view)).collect()
            }
        }
    }

    /// Takes in what a write gave back.
    pub fn written(&self, view: V) {
        self.inner.write().expect("no holder of this lock panics").insert(&view);
    }

    /// Takes in that an object was deleted.
    pub fn deleted(&self, namespace: &str, name: &str, uid: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        self.inner.write().expect("no holder of this lock panics").remove(&name, Some(uid));
    }

    /// An object by its name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        inner.objects.get(&(namespace.to_owned(), name.to_owned())).map(Entry::unpack)
    }

    /// What belongs to a pipeline, by name.
    pub fn of(&self, key: &Key) -> Vec<Arc<V>> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        let names = inner.by_pipeline.get(key).into_iter().flatten();
        names.filter_map(|name| inner.objects.get(&(key.namespace.clone(), name.clone())).map(Entry::unpack)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.read().expect("no holder of this lock panics").objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until the first list is complete.
    pub async fn wait_until_ready(&self) {
        // The sender lives as long as the cache, so this can only end by becoming ready.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

impl Inner {
    fn insert(&mut self, view: &impl View) -> Vec<Key> {
        let name = name_of(view);
        let before = self.objects.get(&name);
        if before.is_some_and(|before| before.version > view.meta().version) {
            return Vec::new();
        }
        let key = key_of(view);
        let old_key = before.and_then(|before| before.key(&name.0)).filter(|old_key| Some(old_key) != key.as_ref());
        if let Some(old_key) = &old_key {
            self.unlink(old_key, &name.1);
        }
        if let Some(key) = &key {
            self.by_pipeline.entry(key.clone()).or_default().insert(name.1.clone());
        }
        self.objects.insert(name, Entry::pack(view));
        key.into_iter().chain(old_key).collect()
    }

    fn remove(&mut self, name: &(String, String), uid: Option<&str>) -> Option<Key> {
        let entry = self.objects.get(name)?;
        if uid.is_some_and(|uid| uid != &*entry.uid) {
            return None;
        }
        let key = self.objects.remove(name)?.key(&name.0)?;
        self.unlink(&key, &name.1);
        Some(key)
    }

    fn unlink(&mut self, key: &Key, name: &str) {
        if let Some(names) = self.by_pipeline.get_mut(key) {
            names.remove(name);
            if names.is_empty() {
                self.by_pipeline.remove(key);
            }
        }
    }
}

fn name_of(view: &impl View) -> (String, String) {
    (view.meta().namespace.clone(), view.meta().name.clone())
}

fn key_of(view: &impl View) -> Option<Key> {
    let pipeline = view.pipeline()?.to_owned();
    Some(Key { namespace: view.meta().namespace.clone(), pipeline })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::observe::view::{JobView, PipelineView};

    fn job(version: u64, uid: &str) -> JobView {
        let mut job = fixtures::failed_job("BackoffLimitExceeded");
        job.meta.version = version;
        job.meta.uid = uid.into();
        job
    }

    fn key() -> Key {
        Key { namespace: "shop".into(), pipeline: "daily".into() }
    }

    #[test]
    fn what_is_packed_reads_back() {
        let cache = Cache::<PipelineView>::default();
        let scenario = fixtures::settled("daily").with_job("daily-30064500", fixtures::exited(13));
        let scenario = scenario.settle(fixtures::at("2027-03-01T03:10:00Z"));
        let view = PipelineView::clone(scenario.observed.pipeline.as_ref().unwrap());
        cache.written(view.clone());
        assert_eq!(*cache.get("shop", "daily").unwrap(), view);
    }

    #[test]
    fn news_that_come_late_change_nothing() {
        let cache = Cache::<JobView>::default();
        cache.written(job(7, "new"));
        assert_eq!(cache.watched(Event::Apply(job(6, "old"))), []);
        assert_eq!(cache.get("shop", "daily-30064500").unwrap().meta.uid, "new");
        cache.watched(Event::Delete(job(6, "old")));
        assert_eq!(cache.of(&key()).len(), 1, "the deletion was of the one before");
        assert_eq!(cache.watched(Event::Delete(job(8, "new"))), [key(), key()]);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_new_list_forgets_what_it_does_not_have() {
        let cache = Cache::<JobView>::default();
        cache.watched(Event::Apply(job(1, "a")));
        assert!(!cache.is_ready());
        cache.watched(Event::Init);
        assert_eq!(cache.watched(Event::InitDone), [key()]);
        assert!(cache.is_empty() && cache.is_ready());
    }

    #[test]
    fn an_object_that_changes_its_pipeline_is_news_for_both() {
        let cache = Cache::<JobView>::default();
        cache.watched(Event::Apply(job(1, "a")));
        let mut moved = job(2, "a");
        moved.pipeline = Some("other".into());
        assert_eq!(cache.watched(Event::Apply(moved)).len(), 2);
        assert!(cache.of(&key()).is_empty());
    }
}
