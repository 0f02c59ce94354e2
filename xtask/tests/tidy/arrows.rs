//! Which file of a crate names what which other file defines.
//!
//! An arrow runs from file A to file B when A names, in a `use` or by a path, something that B defines. A name that is only
//! re-exported leads to the file that defines it. Declarations of modules, re-exports and code of tests are no arrows, and
//! neither are methods, which a parser alone cannot tell apart.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, ImplItem, Item, TraitItem, UseTree, Visibility};

/// From a file to a file, with the names that the first takes from the second.
pub(crate) type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// The path of a module from the crate's root, which is empty.
type Path = Vec<String>;

/// What a name in a module stands for.
enum Target {
    Module(Path),
    Defined,
    /// What this path leads to, read in the module that says it.
    Alias(Path),
}

struct Module {
    file: String,
    /// A module, a macro and a function may share a name.
    names: BTreeMap<String, Vec<Target>>,
    /// The modules all of whose names are here too.
    globs: Vec<Path>,
    /// What it imports for itself.
    imports: Vec<Path>,
    code: Vec<TokenStream>,
}

/// The arrows between the files of a crate, of which `text` gives the text by path. `root` is the path of its `lib.rs`.
pub(crate) fn arrows(root: &str, text: &dyn Fn(&str) -> Option<String>) -> Arrows {
    let mut house = House { modules: BTreeMap::new(), macros: BTreeMap::new() };
    house.read_file(root, folder(root), Vec::new(), text);
    house.arrows()
}

fn folder(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(folder, _)| format!("{folder}/"))
}

struct House {
    modules: BTreeMap<Path, Module>,
    /// The files that define the macros that are found by their place in the text.
    macros: BTreeMap<String, String>,
}

impl House {
    /// `children` is the folder in which the file's modules lie.
    fn read_file(&mut self, file: &str, children: String, path: Path, text: &dyn Fn(&str) -> Option<String>) {
        let Some(source) = text(file) else { panic!("{file} is declared, and is not there") };
        let parsed = syn::parse_file(&source).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.read_module(file, &children, path, parsed.items, text);
    }

    fn read_module(
        &mut self,
        file: &str,
        children: &str,
        path: Path,
        items: Vec<Item>,
        text: &dyn Fn(&str) -> Option<String>,
    ) {
        let module = Module {
            file: file.to_owned(),
            names: BTreeMap::new(),
            globs: Vec::new(),
            imports: Vec::new(),
            code: Vec::new(),
        };
        self.modules.insert(path.clone(), module);
        for item in items {
            if is_of_tests(attributes(&item)) {
                continue;
            }
            match item {
                Item::Mod(item) => {
                    let name = item.ident.to_string();
                    let child: Path = path.iter().cloned().chain([name.clone()]).collect();
                    self.module(&path).name(&name, Target::Module(child.clone()));
                    let below = format!("{children}{name}/");
                    if let Some((_, items)) = item.content {
                        self.read_module(file, &below, child, items, text);
                    } else {
                        let alone = format!("{children}{name}.rs");
                        let file = if text(&alone).is_some() { alone } else { format!("{below}mod.rs") };
                        self.read_file(&file, below, child, text);
                    }
                }
                Item::Use(item) => {
                    let is_export = !matches!(item.vis, Visibility::Inherited);
                    self.module(&path).import(&item.tree, &mut Vec::new(), is_export);
                }
                item => self.define(file, &path, item),
            }
        }
    }

    fn module(&mut self, path: &[String]) -> &mut Module {
        self.modules.get_mut(path).expect("a module is entered before what is in it")
    }

    fn define(&mut self, file: &str, path: &[String], mut item: Item) {
        let name = match &item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::TraitAlias(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        let name = name.map(ToString::to_string);
        if let (Item::Macro(item), Some(name)) = (&item, &name) {
            self.macros.insert(name.clone(), file.to_owned());
            if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) {
                self.module(&[]).name(name, Target::Defined);
            }
        }
        drop_tests(&mut item);
        let module = self.module(path);
        if let Some(name) = name {
            module.name(&name, Target::Defined);
        }
        module.code.push(item.into_token_stream());
    }

    fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (path, module) in &self.modules {
            let mut draw = |target: Option<(String, String)>| {
                if let Some((file, name)) = target.filter(|(file, _)| *file != module.file) {
                    arrows.entry((module.file.clone(), file)).or_default().insert(name);
                }
            };
            for import in &module.imports {
                draw(self.find(path, import));
            }
            for tokens in &module.code {
                let mut names = Names { found: Vec::new() };
                names.read(tokens.clone(), &[]);
                for (name, kind) in names.found {
                    let found = match kind {
                        Kind::Macro if name.len() == 1 => {
                            let place = self.macros.get(&name[0]).map(|file| (file.clone(), name[0].clone()));
                            place.or_else(|| self.find(path, &name))
                        }
                        Kind::Macro | Kind::Path => self.find(path, &name),
                    };
                    draw(found);
                }
            }
        }
        arrows
    }

    /// The file that defines what a path leads to, and its name there. Nothing for what is of another crate.
    fn find(&self, module: &[String], path: &[String]) -> Option<(String, String)> {
        self.find_within(module, path, &mut BTreeSet::new())
    }

    fn find_within(
        &self,
        module: &[String],
        path: &[String],
        asked: &mut BTreeSet<(Path, Path)>,
    ) -> Option<(String, String)> {
        // `use other::other` of another crate leads to itself, and to a longer path every time.
        if path.len() > 16 || !asked.insert((module.to_vec(), path.to_vec())) {
            return None;
        }
        let (first, rest) = path.split_first()?;
        let parent = || module.split_last().map(|(_, parent)| parent.to_vec());
        match first.as_str() {
            "crate" => return self.find_within(&[], rest, asked),
            "self" => return self.find_within(module, rest, asked),
            "super" => return self.find_within(&parent()?, rest, asked),
            _ => {}
        }
        let here = self.modules.get(module)?;
        let of_name = |target: &Target| match target {
            Target::Module(child) => self.find_within(child, rest, asked),
            // An exported macro is at the root, wherever it is defined.
            Target::Defined => {
                let file = self.macros.get(first).filter(|_| module.is_empty()).unwrap_or(&here.file);
                Some((file.clone(), first.clone()))
            }
            Target::Alias(alias) => {
                let whole: Path = alias.iter().chain(rest).cloned().collect();
                self.find_within(module, &whole, asked)
            }
        };
        let targets = here.names.get(first).into_iter().flatten();
        let (modules, others): (Vec<_>, Vec<_>) = targets.partition(|target| matches!(target, Target::Module(_)));
        let found = modules.into_iter().chain(others).find_map(of_name);
        if found.is_some() {
            return found;
        }
        here.globs.iter().find_map(|glob| self.find_within(&self.module_at(module, glob)?, path, asked))
    }

    /// The module that a path leads to, if it is one of this crate.
    fn module_at(&self, module: &[String], path: &[String]) -> Option<Path> {
        let Some((first, rest)) = path.split_first() else { return Some(module.to_vec()) };
        match first.as_str() {
            "crate" => return self.module_at(&[], rest),
            "self" => return self.module_at(module, rest),
            "super" => return self.module_at(&module[..module.len().checked_sub(1)?], rest),
            _ => {}
        }
        self.modules.get(module)?.names.get(first)?.iter().find_map(|target| match target {
            Target::Module(child) => self.module_at(child, rest),
            Target::Alias(alias) => self.module_at(&self.module_at(module, alias)?, rest),
            Target::Defined => None,
        })
    }
}

impl Module {
    fn name(&mut self, name: &str, target: Target) {
        self.names.entry(name.to_owned()).or_default().push(target);
    }

    fn import(&mut self, tree: &UseTree, before: &mut Path, is_export: bool) {
        match tree {
            UseTree::Path(tree) => {
                before.push(tree.ident.to_string());
                self.import(&tree.tree, before, is_export);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, is_export);
                }
            }
            UseTree::Glob(_) => self.globs.push(before.clone()),
            UseTree::Name(name) => self.alias(name.ident.to_string(), &name.ident.to_string(), before, is_export),
            UseTree::Rename(name) => self.alias(name.rename.to_string(), &name.ident.to_string(), before, is_export),
        }
    }

    fn alias(&mut self, known_as: String, name: &str, before: &[String], is_export: bool) {
        let mut path = before.to_vec();
        path.extend((name != "self").then(|| name.to_owned()));
        let known_as = if known_as == "self" { path.last().cloned().unwrap_or_default() } else { known_as };
        if !is_export {
            self.imports.push(path.clone());
        }
        self.name(&known_as, Target::Alias(path));
    }
}

enum Kind {
    Path,
    Macro,
}

/// The paths in code that may lead to an item.
struct Names {
    found: Vec<(Path, Kind)>,
}

impl Names {
    /// Reads code, in which every path begins with `before`: it is not empty within the braces of a `use`.
    fn read(&mut self, tokens: TokenStream, before: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let punct = |at: usize, c: char| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == c);
        let colons = |at: usize| punct(at, ':') && punct(at + 1, ':');
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.read(group.stream(), &[]),
                // A method or a field; `..name` is a path again.
                TokenTree::Punct(dot) if dot.as_char() == '.' && dot.spacing() == Spacing::Alone => {
                    let is_range = at > 0 && punct(at - 1, '.');
                    at += usize::from(!is_range && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_))));
                }
                // What a type has.
                TokenTree::Punct(_) if colons(at) && at > 0 && punct(at - 1, '>') => {
                    at += 2 + usize::from(matches!(tokens.get(at + 2), Some(TokenTree::Ident(_))));
                    continue;
                }
                TokenTree::Ident(word) if *word == "fn" && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_))) => {
                    at += 1
                }
                TokenTree::Ident(first) => {
                    let mut path = before.to_vec();
                    path.push(first.to_string());
                    at += 1;
                    while colons(at)
                        && let Some(TokenTree::Ident(next)) = tokens.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    if colons(at)
                        && let Some(TokenTree::Group(group)) = tokens.get(at + 2)
                        && group.delimiter() == Delimiter::Brace
                    {
                        self.read(group.stream(), &path);
                        at += 3;
                        continue;
                    }
                    let is_call = matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
                    let is_macro = punct(at, '!') && matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
                    // A lower-case word that is not called may be anything: a variable, a field, a keyword.
                    let is_type = path.last().is_some_and(|name| name.starts_with(char::is_uppercase));
                    if is_macro {
                        self.found.push((path, Kind::Macro));
                    } else if path.len() > 1 || is_call || is_type {
                        self.found.push((path, Kind::Path));
                    }
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }
}

fn is_of_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && {
                let condition = attribute.to_token_stream().to_string();
                condition.contains("test") && !condition.contains("not")
            }
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Takes what is of tests alone out of an implementation or a trait.
fn drop_tests(item: &mut Item) {
    match item {
        Item::Impl(item) => item.items.retain(|item| {
            !is_of_tests(match item {
                ImplItem::Const(item) => &item.attrs,
                ImplItem::Fn(item) => &item.attrs,
                ImplItem::Type(item) => &item.attrs,
                _ => &[],
            })
        }),
        Item::Trait(item) => item.items.retain(|item| {
            !is_of_tests(match item {
                TraitItem::Fn(item) => &item.attrs,
                _ => &[],
            })
        }),
        _ => {}
    }
}
