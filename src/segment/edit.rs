//! Segment files written and removed on behalf of a caller: only what is right, and makes nothing wrong.

use super::Segments;
use super::Told;
use super::registry::EditError;
use crate::plan;
use crate::rules::Diagnostic;
use crate::rules::SegmentFile;
use crate::rules::has_errors;

impl Segments {
    /// Writes the file of a segment, which is live when this returns. Tells warnings and notes, and whether
    /// there was a file before.
    pub fn put(&self, id: &str, text: &str) -> Result<(Vec<Told>, bool), EditError> {
        let diagnostics = self.diagnostics(id, text);
        let file = format!("{id}.toml");
        let told = diagnostics.iter().map(|diagnostic| Told::new(&file, text, diagnostic));
        let told: Vec<Told> = told.take(super::MOST_TOLD).collect();
        if has_errors(&diagnostics) {
            return Err(EditError::Wrong(told));
        }
        let was_there = self.edit(id, Some(text))?;
        Ok((told, was_there))
    }

    /// Removes the file of a segment that no other asks.
    pub fn delete(&self, id: &str) -> Result<(), EditError> {
        self.edit(id, None).map(|_| ())
    }

    fn edit(&self, id: &str, text: Option<&str>) -> Result<bool, EditError> {
        let seen = self.parts.shards.namespaces();
        let order = self.parts.config.namespace_order();
        let was_there = self.registry.edit(id, text, &self.context(&order, &seen, None))?;
        self.scan_folder();
        Ok(was_there)
    }

    /// What the author of a file is told, beside the segments that are live.
    fn diagnostics(&self, id: &str, text: &str) -> Vec<Diagnostic> {
        let (file, mut diagnostics) = SegmentFile::parse(id, text);
        if has_errors(&diagnostics) {
            return diagnostics;
        }
        let live = self.live();
        let others = live.segments.values().map(|segment| &segment.file).filter(|f| f.id != id);
        let set: Vec<&SegmentFile> = others.chain([&file]).collect();
        let seen = self.parts.shards.namespaces();
        let order = self.parts.config.namespace_order();
        let schema = self.parts.shards.schema();
        let context = self.context(&order, &seen, Some(&schema));
        let checked = plan::check(&set, &context).into_iter().filter(|(of, _)| of == id);
        diagnostics.extend(checked.flat_map(|(_, diagnostics)| diagnostics));
        diagnostics
    }
}
