//! Items in small shared blocks, at the leaves of a shallow tree.
//!
//! INVARIANT: a clone shares everything, and a change copies at most one block of items and the
//! blocks above it, however many items there are.

use std::sync::Arc;

use crate::error::Result;

/// The most items, or the most nodes, in one block.
const BLOCK: usize = 64;

#[derive(Clone)]
enum Node<T> {
    Items(Vec<T>),
    Nodes(Vec<Arc<Node<T>>>),
}

/// A sequence that grows at its end.
#[derive(Clone)]
pub(super) struct Blocks<T> {
    root: Arc<Node<T>>,
    /// How many levels lie below the root; all leaves lie equally deep.
    height: u32,
    len: usize,
}

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Items(Vec::new())), height: 0, len: 0 }
    }
}

impl<T> Blocks<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn try_for_each(&self, visit: &mut impl FnMut(&T) -> Result<()>) -> Result<()> {
        self.root.try_for_each(visit)
    }
}

impl<T: Clone> Blocks<T> {
    pub(super) fn push(&mut self, item: T) {
        if !self.root.has_room() {
            self.root = Arc::new(Node::Nodes(vec![Arc::clone(&self.root)]));
            self.height = self.height.saturating_add(1);
        }
        Node::push(&mut self.root, self.height, item);
        self.len = self.len.saturating_add(1);
    }

    pub(super) fn to_vec(&self) -> Vec<T> {
        let mut items = Vec::with_capacity(self.len);
        self.root.append_to(&mut items);
        items
    }
}

impl<T> Node<T> {
    /// True when another item can be appended below this node.
    fn has_room(&self) -> bool {
        match self {
            Self::Items(items) => items.len() < BLOCK,
            Self::Nodes(nodes) => {
                nodes.len() < BLOCK || nodes.last().is_some_and(|last| last.has_room())
            }
        }
    }

    fn try_for_each(&self, visit: &mut impl FnMut(&T) -> Result<()>) -> Result<()> {
        match self {
            Self::Items(items) => items.iter().try_for_each(visit),
            Self::Nodes(nodes) => nodes.iter().try_for_each(|node| node.try_for_each(visit)),
        }
    }
}

impl<T: Clone> Node<T> {
    fn empty(height: u32) -> Self {
        if height == 0 { Self::Items(Vec::new()) } else { Self::Nodes(Vec::new()) }
    }

    /// Appends to a node that has room, `height` levels above the items.
    fn push(node: &mut Arc<Self>, height: u32, item: T) {
        match Arc::make_mut(node) {
            Self::Items(items) => items.push(item),
            Self::Nodes(nodes) => {
                let below = height.saturating_sub(1);
                if !nodes.last().is_some_and(|last| last.has_room()) {
                    nodes.push(Arc::new(Self::empty(below)));
                }
                if let Some(last) = nodes.last_mut() {
                    Self::push(last, below, item);
                }
            }
        }
    }

    fn append_to(&self, all: &mut Vec<T>) {
        match self {
            Self::Items(items) => all.extend_from_slice(items),
            Self::Nodes(nodes) => {
                for node in nodes {
                    node.append_to(all);
                }
            }
        }
    }
}
