//! The Merkle tree of RFC 6962, section 2.1: its root, and the proof that a leaf is in it. Leaves only ever come at the
//! end, so the roots of a few subtrees are all that is needed to go on, however many leaves there are.

use std::ops::Range as Span;

use sha2::{Digest, Sha256};

use crate::domain::hash::EventHash;

/// A node of the tree, a leaf among them.
pub type TreeHash = [u8; 32];

/// The hash of the leaf that stands for an event.
pub fn leaf_hash(event: &EventHash) -> TreeHash {
    leaf_of(&event.0)
}

fn leaf_of(data: &[u8]) -> TreeHash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

fn node_hash(left: &TreeHash, right: &TreeHash) -> TreeHash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A tree that leaves are added to: the roots of the full subtrees that it consists of, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    size: u64,
    roots: Vec<TreeHash>,
}

impl Tree {
    /// The tree whose subtrees have these roots, one after the other; `None` if there are not as many as a tree of this size has.
    pub(crate) fn from_bytes(size: u64, roots: &[u8]) -> Option<Self> {
        let (roots, rest) = roots.as_chunks();
        (rest.is_empty() && roots.len() == size.count_ones() as usize).then(|| Self { size, roots: roots.to_vec() })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.roots.concat()
    }

    /// The number of leaves.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn push(&mut self, leaf: TreeHash) {
        let mut node = leaf;
        // As in counting: each one at the end is a full subtree, and with the new one there is a full one of twice the size.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("there is a subtree for each one of the size");
            node = node_hash(&left, &node);
        }
        self.roots.push(node);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> TreeHash {
        let mut roots = self.roots.iter().rev();
        let Some(last) = roots.next() else { return Sha256::digest([]).into() };
        roots.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// Makes an inclusion proof from all leaves of a tree, given one after the other: it keeps no more than the proof.
#[derive(Debug)]
pub(crate) struct Prover {
    /// The leaves under each node of the proof, and that node, in the order of the proof.
    nodes: Vec<(Span<u64>, Tree)>,
    seen: u64,
}

impl Prover {
    /// For the leaf at `index` in a tree of `size` leaves, of which there is one.
    pub(crate) fn new(index: u64, size: u64) -> Self {
        debug_assert!(index < size, "leaf {index} is not in a tree of {size}");
        let (mut span, mut nodes) = (0..size, Vec::new());
        while span.end - span.start > 1 {
            let half = ((span.end - span.start) as u128).div_ceil(2).next_power_of_two() as u64;
            let middle = span.start + half;
            let (inside, beside) = if index < middle {
                (span.start..middle, middle..span.end)
            } else {
                (middle..span.end, span.start..middle)
            };
            nodes.push((beside, Tree::default()));
            span = inside;
        }
        nodes.reverse();
        Self { nodes, seen: 0 }
    }

    pub(crate) fn push(&mut self, leaf: TreeHash) {
        if let Some((_, tree)) = self.nodes.iter_mut().find(|(span, _)| span.contains(&self.seen)) {
            tree.push(leaf);
        }
        self.seen += 1;
    }

    /// The proof, from the leaf's neighbour up.
    pub(crate) fn finish(self) -> Vec<TreeHash> {
        self.nodes.into_iter().map(|(_, tree)| tree.root()).collect()
    }
}

/// The root of a tree of `size` leaves in which `leaf` is at `index`, if `proof` proves that: RFC 9162, section 2.1.3.2.
pub(crate) fn root_from_proof(leaf: TreeHash, index: u64, size: u64, proof: &[TreeHash]) -> Option<TreeHash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last, mut node) = (index, size - 1, leaf);
    for beside in proof {
        if last == 0 {
            return None;
        }
        if place & 1 == 1 || place == last {
            node = node_hash(beside, &node);
            while place & 1 == 0 && place != 0 {
                (place, last) = (place >> 1, last >> 1);
            }
        } else {
            node = node_hash(&node, beside);
        }
        (place, last) = (place >> 1, last >> 1);
    }
    (last == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(hash: &TreeHash) -> String {
        EventHash(*hash).to_string()
    }

    /// The leaves and roots that implementations of Certificate Transparency test with.
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves: [&[u8]; 8] = [
            b"",
            &[0x00],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &[0x40, 0x41, 0x42, 0x43],
            &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
            &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut tree = Tree::default();
        assert_eq!(hex(&tree.root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for (leaf, root) in leaves.into_iter().zip(roots) {
            tree.push(leaf_of(leaf));
            assert_eq!(hex(&tree.root()), root, "of {} leaves", tree.size());
        }
    }

    /// As section 2.1 of RFC 6962 defines it, word by word.
    fn defined(leaves: &[TreeHash]) -> TreeHash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            leaves => {
                let half = leaves.len().div_ceil(2).next_power_of_two();
                node_hash(&defined(&leaves[..half]), &defined(&leaves[half..]))
            }
        }
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proven_and_no_other() {
        let leaves: Vec<_> = (0..70_u8).map(|byte| leaf_of(&[byte])).collect();
        let mut tree = Tree::default();
        for size in 1..=leaves.len() {
            tree.push(leaves[size - 1]);
            assert_eq!(tree.root(), defined(&leaves[..size]), "of {size} leaves");
            assert_eq!(Tree::from_bytes(tree.size(), &tree.to_bytes()).as_ref(), Some(&tree));
            for index in 0..size {
                let mut prover = Prover::new(index as u64, size as u64);
                leaves[..size].iter().for_each(|leaf| prover.push(*leaf));
                let proof = prover.finish();
                let root = |leaf, index, size, proof: &[TreeHash]| root_from_proof(leaf, index, size, proof);
                let (at, of) = (index as u64, size as u64);
                assert_eq!(root(leaves[index], at, of, &proof), Some(tree.root()), "leaf {index} of {size}");
                assert_ne!(root(leaves[(index + 1) % 70], at, of, &proof), Some(tree.root()), "another leaf");
                assert_ne!(root(leaves[index], at + 1, of, &proof), Some(tree.root()), "at another place");
                let longer = [proof.as_slice(), &[leaves[0]]].concat();
                assert_eq!(root(leaves[index], at, of, &longer), None, "a proof with something after it");
                for part in 0..proof.len() {
                    let mut changed = proof.clone();
                    changed[part][31] ^= 1;
                    assert_ne!(root(leaves[index], at, of, &changed), Some(tree.root()), "part {part} changed");
                    assert_ne!(root(leaves[index], at, of, &proof[..part]), Some(tree.root()), "only {part} parts");
                }
            }
        }
    }

    #[test]
    fn a_tree_is_not_made_of_the_wrong_number_of_roots() {
        assert_eq!(Tree::from_bytes(0, &[]), Some(Tree::default()));
        for (size, bytes) in [(0, 32), (1, 0), (1, 31), (3, 32), (4, 64)] {
            assert_eq!(Tree::from_bytes(size, &vec![0; bytes]), None, "{bytes} bytes for {size} leaves");
        }
    }
}
