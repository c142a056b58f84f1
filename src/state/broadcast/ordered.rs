//! Entries in the order of their keys, in small shared blocks at the leaves of a shallow tree.
//!
//! INVARIANT: a clone shares everything, and a change copies at most one block on each level. A block
//! that becomes too long is split, one that becomes empty is taken out, and none are joined: the shape
//! tells of the past, the order of the entries does not.

use std::mem;
use std::sync::Arc;

use crate::error::Result;

/// The most entries, or the most nodes, in one block.
const BLOCK: usize = 64;

type Key = Arc<[u8]>;

#[derive(Clone)]
enum Node<V> {
    Entries(Vec<(Key, V)>),
    /// With each node but the first, a key that none of its keys is below and all keys of the nodes
    /// before it are. That of the first means nothing.
    Nodes(Vec<(Key, Arc<Node<V>>)>),
}

/// A map from bytes to values.
#[derive(Clone)]
pub(super) struct Ordered<V> {
    root: Arc<Node<V>>,
    len: usize,
}

/// What a block that became too long is split into, beside itself: the upper half and its first key.
type Split<V> = Option<(Key, Arc<Node<V>>)>;

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Entries(Vec::new())), len: 0 }
    }
}

impl<V> Ordered<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        let mut node = &self.root;
        loop {
            match &**node {
                Node::Entries(entries) => {
                    let place = place_of(entries, key).ok()?;
                    return entries.get(place).map(|(_, value)| value);
                }
                Node::Nodes(nodes) => node = &nodes.get(child_of(nodes, key))?.1,
            }
        }
    }

    pub(super) fn try_for_each(
        &self,
        visit: &mut impl FnMut(&[u8], &V) -> Result<()>,
    ) -> Result<()> {
        self.root.try_for_each(visit)
    }
}

impl<V: Clone> Ordered<V> {
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        let (before, split) = Node::insert(&mut self.root, key, value);
        if let Some(upper) = split {
            let lower = (Key::from([]), Arc::clone(&self.root));
            self.root = Arc::new(Node::Nodes(vec![lower, upper]));
        }
        self.len = self.len.saturating_add(usize::from(before.is_none()));
        before
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        // An absent key must not make shared blocks be copied.
        self.get(key)?;
        let removed = Node::remove(&mut self.root, key);
        self.len = self.len.saturating_sub(usize::from(removed.is_some()));
        if self.len == 0 {
            *self = Self::default();
        }
        removed
    }
}

impl<V> Node<V> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Entries(entries) => entries.is_empty(),
            Self::Nodes(nodes) => nodes.is_empty(),
        }
    }

    fn try_for_each(&self, visit: &mut impl FnMut(&[u8], &V) -> Result<()>) -> Result<()> {
        match self {
            Self::Entries(entries) => entries.iter().try_for_each(|(key, value)| visit(key, value)),
            Self::Nodes(nodes) => nodes.iter().try_for_each(|(_, node)| node.try_for_each(visit)),
        }
    }
}

impl<V: Clone> Node<V> {
    fn insert(node: &mut Arc<Self>, key: &[u8], value: V) -> (Option<V>, Split<V>) {
        match Arc::make_mut(node) {
            Self::Entries(entries) => match place_of(entries, key) {
                Ok(place) => {
                    let present = entries.get_mut(place);
                    (present.map(|(_, present)| mem::replace(present, value)), None)
                }
                Err(place) => {
                    entries.insert(place, (Key::from(key), value));
                    (None, split(entries).map(|(at, upper)| (at, Arc::new(Self::Entries(upper)))))
                }
            },
            Self::Nodes(nodes) => {
                let place = child_of(nodes, key);
                let Some((_, child)) = nodes.get_mut(place) else { return (None, None) };
                let (before, upper) = Self::insert(child, key, value);
                if let Some(upper) = upper {
                    nodes.insert(place.saturating_add(1), upper);
                }
                (before, split(nodes).map(|(at, upper)| (at, Arc::new(Self::Nodes(upper)))))
            }
        }
    }

    fn remove(node: &mut Arc<Self>, key: &[u8]) -> Option<V> {
        match Arc::make_mut(node) {
            Self::Entries(entries) => {
                let place = place_of(entries, key).ok()?;
                Some(entries.remove(place).1)
            }
            Self::Nodes(nodes) => {
                let place = child_of(nodes, key);
                let (_, child) = nodes.get_mut(place)?;
                let removed = Self::remove(child, key);
                if child.is_empty() {
                    nodes.remove(place);
                }
                removed
            }
        }
    }
}

fn place_of<V>(entries: &[(Key, V)], key: &[u8]) -> std::result::Result<usize, usize> {
    entries.binary_search_by(|(present, _)| (**present).cmp(key))
}

/// The node that has `key` if any has.
fn child_of<V>(nodes: &[(Key, Arc<Node<V>>)], key: &[u8]) -> usize {
    let upper = nodes.get(1..).unwrap_or_default();
    upper.partition_point(|(lowest, _)| **lowest <= *key)
}

/// Takes the upper half out of a block that is too long.
fn split<T>(block: &mut Vec<(Key, T)>) -> Option<(Key, Vec<(Key, T)>)> {
    if block.len() <= BLOCK {
        return None;
    }
    let upper = block.split_off(block.len().div_ceil(2));
    let lowest = Arc::clone(&upper.first()?.0);
    Some((lowest, upper))
}
