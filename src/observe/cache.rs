//! What the watches have seen, by name and by pipeline.
//!
//! A write's answer goes in as well, so that the next decision knows of it before the watch does. Two watches' events may
//! therefore arrive late: an older resource version never replaces a newer one, and a deletion removes only the object
//! with its UID.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::runtime::watcher::Event;
use std::sync::RwLock;
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
    inner: RwLock<Inner<V>>,
    ready: watch::Sender<bool>,
}

struct Inner<V> {
    objects: HashMap<(String, String), Arc<V>>,
    by_pipeline: HashMap<Key, BTreeSet<String>>,
    /// Names seen since a new list began.
    listed: Option<HashSet<(String, String)>>,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        let inner = Inner { objects: HashMap::new(), by_pipeline: HashMap::new(), listed: None };
        Self { inner: RwLock::new(inner), ready: watch::Sender::new(false) }
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
                inner.insert(view)
            }
            Event::InitDone => {
                let listed = inner.listed.take().unwrap_or_default();
                let gone: Vec<_> = inner.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                let keys = gone.iter().filter_map(|name| inner.remove(name, None)).collect();
                self.ready.send_replace(true);
                keys
            }
            Event::Apply(view) => inner.insert(view),
            Event::Delete(view) => inner.remove(&name_of(&view), Some(&view.meta().uid)).into_iter().chain(key_of(&view)).collect(),
        }
    }

    /// Takes in what a write gave back.
    pub fn written(&self, view: V) {
        self.inner.write().expect("no holder of this lock panics").insert(view);
    }

    /// Takes in that an object was deleted.
    pub fn deleted(&self, namespace: &str, name: &str, uid: &str) {
        let name = (namespace.to_owned(), name.to_owned());
        self.inner.write().expect("no holder of this lock panics").remove(&name, Some(uid));
    }

    /// An object by its name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<V>> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        inner.objects.get(&(namespace.to_owned(), name.to_owned())).map(Arc::clone)
    }

    /// What belongs to a pipeline, by name.
    pub fn of(&self, key: &Key) -> Vec<Arc<V>> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        let names = inner.by_pipeline.get(key).into_iter().flatten();
        names.filter_map(|name| inner.objects.get(&(key.namespace.clone(), name.clone())).map(Arc::clone)).collect()
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

impl<V: View> Inner<V> {
    fn insert(&mut self, view: V) -> Vec<Key> {
        let name = name_of(&view);
        let before = self.objects.get(&name);
        if before.is_some_and(|before| before.meta().version > view.meta().version) {
            return Vec::new();
        }
        let key = key_of(&view);
        let old_key = before.and_then(|before| key_of(before.as_ref()));
        if old_key != key
            && let Some(old_key) = &old_key
        {
            self.unlink(old_key, &name.1);
        }
        if let Some(key) = &key {
            self.by_pipeline.entry(key.clone()).or_default().insert(name.1.clone());
        }
        self.objects.insert(name, Arc::new(view));
        let changed = old_key.filter(|old_key| Some(old_key) != key.as_ref());
        key.into_iter().chain(changed).collect()
    }

    fn remove(&mut self, name: &(String, String), uid: Option<&str>) -> Option<Key> {
        let object = self.objects.get(name)?;
        if uid.is_some_and(|uid| uid != object.meta().uid) {
            return None;
        }
        let object = self.objects.remove(name)?;
        let key = key_of(object.as_ref())?;
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
