//! The repository keeps itself: what a reader of the sources may rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `es-core`, from the ground up. A file names only what is in its own room or below.
const ROOMS: [&str; 4] = ["domain", "log", "engine", "evidence"];

type Module = Vec<String>;

/// The sources of a crate but its tests, by module.
fn sources(name: &str) -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
    let mut found = BTreeMap::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 5, "{} has too few sources: {}", root.display(), found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<Module, String>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths: BTreeSet<PathBuf> = entries.map(|entry| entry.expect("a file of the sources").path()).collect();
    for path in paths {
        let name = path.file_stem().unwrap_or_default();
        // The examples of the docs use the crate as others do.
        if ["tests", "lib", "main", "doc"].iter().any(|other| name == *other) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let within = path.strip_prefix(root).expect("it is below").with_extension("");
            let module = within.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let source = fs::read_to_string(&path).expect("a source in UTF-8");
            found.insert(module, without_tests_and_comments(&source));
        }
    }
}

fn without_tests_and_comments(source: &str) -> String {
    let tests =
        ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(crate) mod "].iter().filter_map(|start| source.find(start)).min();
    let code = source[..tests.unwrap_or(source.len())].lines();
    code.filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// All paths that `use` declarations name, from the crate's root on; and those that are written out in the code.
fn named(module: &Module, source: &str) -> Vec<Module> {
    let mut paths = Vec::new();
    let starts = ["use ", "pub use ", "pub(crate) use ", "pub(super) use "];
    let mut rest = source;
    while let Some(line_end) = rest.find('\n') {
        let line = &rest[..line_end];
        if starts.iter().any(|start| line.trim_start().starts_with(start)) {
            let declaration = rest.split(';').next().unwrap_or_default();
            let tree = declaration.split_once("use ").map_or("", |(_, tree)| tree);
            expand(&Module::new(), tree, &mut paths);
        } else {
            for (at, _) in line.match_indices("crate::") {
                let path = line[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
                paths.push(path.unwrap_or_default().split("::").map(str::to_owned).collect());
            }
        }
        rest = &rest[line_end + 1..];
    }
    paths.into_iter().filter_map(|path| from_root(module, path)).collect()
}

/// The paths of a tree as `a::{b, c::{d, e}}`.
fn expand(before: &Module, tree: &str, paths: &mut Vec<Module>) {
    let tree = tree.trim();
    if let Some(inside) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) {
        let mut depth = 0;
        let parts = inside.split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        parts.filter(|part| !part.trim().is_empty()).for_each(|part| expand(before, part, paths));
        return;
    }
    let mut path = before.clone();
    match tree.split_once("::") {
        Some((first, rest)) => {
            path.push(first.trim().to_owned());
            expand(&path, rest, paths);
        }
        None => {
            path.push(tree.split(" as ").next().unwrap_or_default().trim().to_owned());
            paths.push(path);
        }
    }
}

fn from_root(module: &Module, path: Module) -> Option<Module> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => {
            let mut full = module[..module.len().checked_sub(ups)?].to_vec();
            full.extend_from_slice(&path[ups..]);
            Some(full)
        }
        _ => None,
    }
}

/// Which files each file names.
fn arrows(sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let file_of =
        |path: Module| (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|path| sources.contains_key(path));
    let of = |(module, source): (&Module, &String)| {
        let files = named(module, source).into_iter().filter_map(file_of).filter(|file| file != module);
        (module.clone(), files.collect())
    };
    sources.iter().map(of).collect()
}

/// A circle of files, if there is any.
fn circle(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    let mut left = arrows.clone();
    loop {
        let ends: Vec<Module> = left
            .iter()
            .filter(|(_, to)| to.iter().all(|to| !left.contains_key(to)))
            .map(|(file, _)| file.clone())
            .collect();
        if ends.is_empty() {
            break;
        }
        ends.iter().for_each(|end| drop(left.remove(end)));
    }
    let mut way = vec![left.keys().next()?.clone()];
    loop {
        let next =
            left[&way[way.len() - 1]].iter().find(|to| left.contains_key(*to)).expect("none left is an end").clone();
        if let Some(before) = way.iter().position(|file| *file == next) {
            way.push(next);
            return Some(way.split_off(before));
        }
        way.push(next);
    }
}

fn shown(module: &Module) -> String {
    module.join("/")
}

fn floor(module: &Module) -> usize {
    let room = module[0].trim_end_matches(".rs");
    ROOMS.iter().position(|known| *known == room).unwrap_or(ROOMS.len())
}

/// Shows: an arrow between the rooms of `es-core` points down, and none goes through the crate's root.
#[test]
fn rooms_know_only_what_is_below() {
    let (mut up, sources) = (Vec::new(), sources("es-core"));
    for (from, source) in &sources {
        let named = named(from, source).into_iter();
        let through_the_root = named.filter(|path| !sources.keys().any(|file| file[0] == path[0]));
        up.extend(through_the_root.map(|path| format!("{} names {} in the crate's root", shown(from), shown(&path))));
    }
    for (from, all) in arrows(&sources) {
        for to in all {
            if floor(&to) > floor(&from) {
                up.push(format!("{} names {}", shown(&from), shown(&to)));
            }
        }
    }
    assert!(up.is_empty(), "arrows up: {up:#?}");
}

/// Shows: no files of a crate name each other in a circle.
#[test]
fn no_files_name_each_other_in_a_circle() {
    for name in ["derive", "es-core", "es-kafka", "es-projections"] {
        let found = circle(&arrows(&sources(name)));
        assert!(found.is_none(), "{name}: {:?}", found.map(|way| way.iter().map(shown).collect::<Vec<_>>()));
    }
}

#[test]
fn a_circle_and_what_names_what_are_found() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    let source =
        "use std::fmt;\nuse crate::b::{self, c::{D, e}};\npub(crate) use super::f;\nfn g() { crate::h::i() }\n";
    let found: Vec<String> = named(&module("x/y"), source).iter().map(shown).collect();
    assert_eq!(found, ["b/self", "b/c/D", "b/c/e", "x/f", "h/i"]);
    let sources =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(path, source)| (module(path), (*source).to_owned())).collect();
    let round =
        sources(&[("a", "use crate::b::B;\n"), ("b", "use crate::c;\n"), ("c", "use crate::b;\n"), ("d", "\n")]);
    assert_eq!(circle(&arrows(&round)).map(|way| way.len()), Some(3));
    let straight = sources(&[("a", "use crate::b::B;\n"), ("b", "use crate::c;\n"), ("c", "\n")]);
    assert_eq!(circle(&arrows(&straight)), None);
    assert_eq!(without_tests_and_comments("/// crate::a\nuse b;\n#[cfg(test)]\nmod tests {}"), "use b;\n");
}

/// Shows: the code of the tutorial is that of the example, which is compiled and tested.
#[test]
fn the_tutorial_shows_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (tutorial, example) = (read("docs/tutorial.md"), read("examples/shipping/src/main.rs"));
    let blocks: Vec<&str> = tutorial.split("```rust\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(blocks.len() > 5, "{} blocks of code", blocks.len());
    for block in blocks {
        assert!(example.contains(block), "the example has no such code:\n{block}");
    }
}

/// The pages: those at the root and all below `docs`.
fn pages() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of pages") {
            let path = entry.expect("a page").path();
            match path.is_dir() {
                true => collect(&path, found),
                false if path.extension().is_some_and(|extension| extension == "md") => found.push(path),
                false => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].iter().map(|name| root.join(name)).collect();
    collect(&root.join("docs"), &mut found);
    assert!(found.len() > 30, "{found:?}");
    found.sort();
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).expect("a page in UTF-8"));
    found.into_iter().map(read).collect()
}

/// The lines of a page that are prose: neither code nor a table, which can't be folded.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    (1..).zip(page.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence && !line.trim_start().starts_with('|')
    })
}

/// Shows: a page can be read in a window of 110 columns.
#[test]
fn lines_of_pages_are_short() {
    let mut long = Vec::new();
    for (path, page) in pages() {
        let wide = prose(&page).filter(|(_, line)| line.chars().count() > 110 && line.trim().contains(' '));
        long.extend(wide.map(|(number, line)| format!("{}:{number}: {line}", path.display())));
    }
    assert!(long.is_empty(), "wrap these at 110 characters: {long:#?}");
}

/// Shows: a link from one page to a file leads there.
#[test]
fn links_of_pages_lead_somewhere() {
    let mut dead = Vec::new();
    for (path, page) in pages() {
        let in_tables = page.lines().enumerate().filter(|(_, line)| line.starts_with('|'));
        for (number, line) in prose(&page).chain(in_tables) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = link.split('#').next().unwrap_or_default();
                let is_local = !file.is_empty() && !file.contains(':');
                if is_local && !path.parent().expect("a folder").join(file).exists() {
                    dead.push(format!("{}:{number}: {link}", path.display()));
                }
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}

/// Shows: the first page fits on two screens, and the second one on three.
#[test]
fn the_first_pages_are_short() {
    for (name, max) in [("README.md", 105), ("ARCHITECTURE.md", 150)] {
        let (_, page) = pages().into_iter().find(|(path, _)| path.ends_with(name)).expect("it is there");
        assert!(page.lines().count() <= max, "{name} has {} lines, more than {max}", page.lines().count());
    }
}

/// Shows: who needs the domain alone builds neither a runtime nor a store.
#[test]
fn the_domain_builds_alone() {
    let tree = |features: &[&str]| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["tree", "--locked", "--offline", "--package", "es-core", "--edges", "normal", "--prefix", "none"]);
        let done = cargo.args(features).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("names of crates")
    };
    let has = |tree: &str, name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    let (domain, all) = (tree(&["--no-default-features", "--features", "derive,testing"]), tree(&[]));
    for name in ["tokio", "fjall", "ed25519-dalek", "futures", "tracing"] {
        assert!(!has(&domain, name) && has(&all, name), "{name} in:\n{domain}");
    }
}
