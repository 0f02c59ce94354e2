//! No circle between files remains within a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::arrows::{Arrows, arrows};
use super::{files, none};

/// The sets of files that lead back to themselves.
fn circles(arrows: &Arrows) -> Vec<BTreeSet<&str>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        next.entry(from).or_default().insert(to);
    }
    let reachable = |from| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(next.get(file).into_iter().flatten().filter(|to| seen.insert(**to)));
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|from| (*from, reachable(*from))).collect();
    let circle = |file: &str| -> BTreeSet<&str> {
        let back = |to: &&&str| reached.get(**to).is_some_and(|reached| reached.contains(file));
        reached[file].iter().filter(back).copied().collect()
    };
    let all: BTreeSet<_> = reached.keys().map(|file| circle(file)).filter(|circle| !circle.is_empty()).collect();
    all.into_iter().collect()
}

fn describe(circle: &BTreeSet<&str>, arrows: &Arrows) -> String {
    let mut text = format!("a circle of {} files:", circle.len());
    for ((from, to), names) in arrows {
        if circle.contains(from.as_str()) && circle.contains(to.as_str()) {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            write!(text, "\n    {from} -> {to}: {}", names.join(", ")).unwrap();
        }
    }
    text
}

#[test]
fn no_circle_between_files() {
    let files = files();
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.clone());
    let roots = files.iter().filter(|file| file.path.ends_with("src/lib.rs") || file.path.ends_with("src/main.rs"));
    let mut found = Vec::new();
    for root in roots {
        let arrows = arrows(&root.path, &text);
        found.extend(circles(&arrows).iter().map(|circle| describe(circle, &arrows)));
    }
    none("take one arrow out of each: move what both name into a file of its own, or to the one that is named", found);
}

/// The arrows of a crate with these files below `src`.
fn drawn(files: &[(&str, &str)]) -> Vec<String> {
    let text = |path: &str| {
        let file = files.iter().find(|(name, _)| path.strip_prefix("src/") == Some(name));
        file.map(|(_, text)| (*text).to_owned())
    };
    let short = |path: &str| path.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
    let one = |((from, to), names): (&(String, String), &BTreeSet<String>)| {
        format!("{}->{}: {}", short(from), short(to), names.iter().cloned().collect::<Vec<_>>().join(" "))
    };
    arrows("src/lib.rs", &text).iter().map(one).collect()
}

#[test]
fn a_use_and_a_path_are_arrows_and_a_declaration_is_none() {
    let b = "use crate::a::One; fn f() -> crate::a::Two { super::a::three() }";
    let found =
        drawn(&[("lib.rs", "mod a; pub mod b;"), ("a.rs", "struct One; struct Two; fn three() {}"), ("b.rs", b)]);
    assert_eq!(found, ["b->a: One Two three"]);
}

#[test]
fn a_name_that_is_handed_on_leads_to_where_it_is_defined() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::*;"),
        ("a/mod.rs", "mod deep; pub(crate) use deep::Deep; pub use self::deep::other as Renamed;"),
        ("a/deep.rs", "pub struct Deep; pub struct other;"),
        ("b.rs", "use crate::{Deep, a::Renamed}; use std::fmt::Display;"),
    ];
    assert_eq!(drawn(&files), ["b->a/deep: Deep other"]);
}

#[test]
fn everything_of_the_parent_is_what_of_it_is_named() {
    let child = "use super::*; impl Parent { fn f(self) { helper(self.field); self.unrelated(); } }";
    let files = [
        ("lib.rs", "mod parent;"),
        ("parent.rs", "mod child; struct Parent; fn helper() {} fn unrelated() {} fn field() {}"),
        ("parent/child.rs", child),
    ];
    assert_eq!(drawn(&files), ["parent/child->parent: Parent helper"]);
}

#[test]
fn modules_by_name_uses_within_functions_and_what_macros_are_given_count() {
    let b = "use crate::a; fn f() { use crate::c::{One, Two}; assert_eq!(a::f(), c!(crate::d::D)); }";
    let files = [
        ("lib.rs", "mod c; mod a; mod b; mod d;"),
        ("a.rs", "pub fn f() {}"),
        ("b.rs", b),
        ("c.rs", "macro_rules! c { () => { $crate::d::E } } pub struct One; pub struct Two;"),
        ("d.rs", "pub struct D; pub struct E;"),
    ];
    assert_eq!(drawn(&files), ["b->a: f", "b->c: One Two c", "b->d: D", "c->d: E"]);
}

#[test]
fn a_module_and_a_function_may_share_a_name() {
    let b = "use crate::a::Type; fn f() { crate::a::tool(crate::a::tool::Tool) }";
    let files = [
        ("lib.rs", "pub mod a; mod b;"),
        ("a.rs", "mod tool; pub use tool::{Type, tool};"),
        ("a/tool.rs", "pub fn tool() {} pub struct Type; pub struct Tool;"),
        ("b.rs", b),
    ];
    assert_eq!(drawn(&files), ["b->a/tool: Tool Type tool"]);
}

#[test]
fn tests_are_no_arrows() {
    let a = "struct A; #[cfg(test)] use crate::b::B; impl A { #[cfg(test)] fn f() { crate::b::B; } }
        #[cfg(all(test, unix))] mod tests { use crate::b::B; } #[test] fn g() { crate::b::B; }";
    assert!(drawn(&[("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", "pub struct B;")]).is_empty());
}

#[test]
fn circles_are_found_once_each_and_files_beside_them_are_not_in_them() {
    let arrow = |pair: (&str, &str)| ((pair.0.to_owned(), pair.1.to_owned()), BTreeSet::new());
    let arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("x", "a"), ("e", "y")];
    let arrows: Arrows = arrows.map(arrow).into();
    assert_eq!(circles(&arrows), [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["d", "e"])]);
    assert_eq!(circles(&[("a", "b"), ("b", "c")].map(arrow).into()), Vec::<BTreeSet<&str>>::new());
}
