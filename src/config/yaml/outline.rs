//! Where everything stands: the shape of the document, without aliases followed.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Place};

use super::syntax;
use crate::config::diagnostic::{Code, Diagnostic};
use crate::config::source::{Lines, Region, Span};

/// Most values a file may have with all aliases followed; a big installation has some thousands.
const MOST_VALUES: u64 = 100_000;
/// Deepest nesting; the settings themselves need eight.
const DEEPEST: u32 = 32;

/// The shape of the document; nodes refer to each other by number.
#[derive(Debug, Default)]
pub(in crate::config) struct Outline {
    nodes: Vec<OutlineNode>,
    pub(super) root: Option<usize>,
}

/// One node of it.
#[derive(Debug)]
pub(super) struct OutlineNode {
    pub(super) region: Region,
    pub(super) span: Span,
    pub(super) shape: Shape,
    /// Values below and including it, aliases followed.
    values: u64,
    depth: u32,
}

#[derive(Debug)]
pub(super) enum Shape {
    Scalar,
    List(Vec<usize>),
    Map(Vec<(usize, usize)>),
    Alias(usize),
}

impl Outline {
    pub(super) fn get(&self, id: usize) -> Option<&OutlineNode> {
        self.nodes.get(id)
    }

    /// The node itself or what it is an alias of.
    pub(super) fn resolve(&self, id: usize) -> Option<(usize, &OutlineNode)> {
        match self.nodes.get(id)? {
            OutlineNode { shape: Shape::Alias(target), .. } => self.nodes.get(*target).map(|node| (*target, node)),
            node => Some((id, node)),
        }
    }

    /// All scalars, keys included, by number.
    pub(in crate::config) fn scalars(&self) -> impl Iterator<Item = (usize, Region)> {
        self.nodes.iter().enumerate().filter(|(_, n)| matches!(n.shape, Shape::Scalar)).map(|(id, n)| (id, n.region))
    }
}

/// Reads the outline and reports what the settings do not take; `None` if there is no point in going on.
pub(super) fn read(text: &str, lines: &Lines, found: &mut Vec<Diagnostic>) -> Option<Outline> {
    let mut builder =
        Builder { lines, found, outline: Outline::default(), open: Vec::new(), anchors: BTreeMap::new(), fatal: false };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    while let Some(event) = parser.next_event() {
        let (event, place) = match event {
            Ok(next) => next,
            Err(error) => {
                let at = error.marker();
                let span = lines.place(at.line(), at.col() + 1);
                builder.found.push(syntax(span, error.info()));
                return None;
            }
        };
        if let Event::DocumentStart(_) = event {
            documents += 1;
            if documents > 1 {
                let span = lines.span(region(place));
                let help = "one file holds one document: remove the `---`";
                builder.report(Code::ManyDocuments, span, "a second document begins here", help);
            }
        }
        // What was refused is not looked at: it may be very large.
        if builder.fatal {
            return None;
        }
        builder.take(event, place);
    }
    (!builder.fatal).then_some(builder.outline)
}

fn region(place: Place) -> Region {
    Region { start: (place.start.line(), place.start.col()), end: (place.end.line(), place.end.col()) }
}

/// A list or mapping whose end has not come yet.
struct Open {
    id: usize,
    children: Vec<usize>,
    keys: BTreeSet<String>,
    map: bool,
}

struct Builder<'b> {
    lines: &'b Lines,
    found: &'b mut Vec<Diagnostic>,
    outline: Outline,
    open: Vec<Open>,
    anchors: BTreeMap<usize, usize>,
    fatal: bool,
}

impl Builder<'_> {
    fn report(&mut self, code: Code, span: Span, message: &str, help: &str) {
        self.fatal |= code != Code::DuplicateKey;
        let (message, help) = (message.to_owned(), Some(help.to_owned()));
        self.found.push(Diagnostic { code, span, setting: String::new(), message, help });
    }

    fn take(&mut self, event: Event<'_>, place: Place) {
        let region = region(place);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), region);
                let region = match style {
                    ScalarStyle::DoubleQuoted => self.lines.close_quote(region, '"'),
                    ScalarStyle::SingleQuoted => self.lines.close_quote(region, '\''),
                    _ => region,
                };
                self.check_key(&text, style, region);
                let id = self.add(region, Shape::Scalar, 1, 1);
                self.anchors.insert(anchor, id);
                self.attach(id);
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).copied();
                match target.and_then(|t| Some((t, self.outline.get(t)?))).map(|(t, node)| (t, node.values, node.depth))
                {
                    // An open node has no size yet: the alias stands inside its own anchor.
                    Some((target, values @ 1.., depth)) => {
                        let id = self.add(region, Shape::Alias(target), values, depth);
                        self.attach(id);
                    }
                    _ => {
                        let span = self.lines.span(region);
                        self.report(
                            Code::TooLarge,
                            span,
                            "this alias stands inside its own anchor",
                            "write the value out",
                        );
                    }
                }
            }
            Event::SequenceStart(anchor, tag) => self.start(false, anchor, tag.is_some(), region),
            Event::MappingStart(anchor, tag) => self.start(true, anchor, tag.is_some(), region),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
        }
    }

    fn start(&mut self, map: bool, anchor: usize, tagged: bool, region: Region) {
        self.refuse_tag(tagged, region);
        // Values 0 = still open.
        let id = self.add(region, Shape::List(Vec::new()), 0, 0);
        self.anchors.insert(anchor, id);
        self.open.push(Open { id, children: Vec::new(), keys: BTreeSet::new(), map });
        if self.open.len() > DEEPEST as usize {
            let span = self.lines.span(region);
            self.report(Code::TooLarge, span, "nested too deep", "no setting lies that deep");
        }
    }

    fn end(&mut self) {
        let Some(Open { id, children, map, .. }) = self.open.pop() else { return };
        let below = || children.iter().filter_map(|id| self.outline.get(*id));
        let values = below().fold(1_u64, |sum, node| sum.saturating_add(node.values));
        let depth = below().map(|node| node.depth).max().unwrap_or(0) + 1;
        let shape = if map {
            Shape::Map(children.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect())
        } else {
            Shape::List(children)
        };
        let Some(node) = self.outline.nodes.get_mut(id) else { return };
        (node.shape, node.values, node.depth) = (shape, values, depth);
        if values > MOST_VALUES || depth > DEEPEST {
            let span = node.span;
            self.report(Code::TooLarge, span, "this grows too large with its aliases followed", "use fewer aliases");
        }
        self.attach(id);
    }

    fn add(&mut self, region: Region, shape: Shape, values: u64, depth: u32) -> usize {
        let span = self.lines.span(region);
        self.outline.nodes.push(OutlineNode { region, span, shape, values, depth });
        self.outline.nodes.len() - 1
    }

    fn attach(&mut self, id: usize) {
        match self.open.last_mut() {
            Some(open) => open.children.push(id),
            None => self.outline.root = Some(id),
        }
    }

    fn refuse_tag(&mut self, tagged: bool, region: Region) {
        if tagged {
            let span = self.lines.span(region);
            self.report(
                Code::Unsupported,
                span,
                "settings take no YAML tags (`!…`)",
                "write the plain value, in quotes if it must be text",
            );
        }
    }

    /// If a key comes next: refuses merge keys and what is there already.
    fn check_key(&mut self, text: &str, style: ScalarStyle, region: Region) {
        let Some(open) = self.open.last_mut().filter(|open| open.map && open.children.len() % 2 == 0) else { return };
        let merge = text == "<<" && style == ScalarStyle::Plain;
        let fresh = open.keys.insert(text.to_owned());
        let span = self.lines.span(region);
        if merge {
            self.report(
                Code::Unsupported,
                span,
                "settings take no merge keys (`<<`)",
                "write the keys out; `key: *alias` works for whole values",
            );
        } else if !fresh {
            self.report(Code::DuplicateKey, span, "this key stands here a second time", "remove one of them");
        }
    }
}
