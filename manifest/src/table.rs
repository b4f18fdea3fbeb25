//! A TOML table that is read field by field, each once, with the line of everything.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{Argument, Device, Problem, suggest};

/// What is left of a table.
#[derive(Debug)]
pub(super) struct Table<'t> {
    text: &'t str,
    /// `[[device]]` and the like; `None` for the whole file.
    header: Option<&'static str>,
    span: Range<usize>,
    entries: DeTable<'t>,
}

/// A value and where it is.
#[derive(Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    line: usize,
}

impl<T> Located<T> {
    /// What is wrong with it.
    pub(super) fn problem(&self, message: String) -> Problem {
        Problem { line: self.line, message }
    }
}

impl<'t> Table<'t> {
    /// Reads a whole file.
    pub(super) fn parse(text: &'t str) -> Result<Self, Problem> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { text, header: None, span: 0..0, entries: table.into_inner() }),
            Err(error) => {
                let line = error.span().map_or(1, |span| line_at(text, span.start));
                Err(Problem { line, message: format!("this is not TOML: {}", error.message().replace('\n', ", ")) })
            }
        }
    }

    /// The line of the table's header.
    pub(super) fn line(&self) -> usize {
        line_at(self.text, self.span.start)
    }

    pub(super) fn required_string(&mut self, field: &'static str, meaning: &str) -> Result<Located<String>, Problem> {
        if let Some(value) = self.string(field)? {
            return Ok(value);
        }
        // A field that is missing may be there, misspelt: then that is what to say.
        self.refuse_unknown("")?;
        let place = self.header.map_or_else(String::new, |header| format!(" in [[{header}]]"));
        Err(Problem { line: self.line(), message: format!("field \"{field}\" is missing{place}: {meaning}") })
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<Option<Located<String>>, Problem> {
        let Some((value, line)) = self.take(field) else { return Ok(None) };
        match value {
            DeValue::String(value) => Ok(Some(Located { value: value.into_owned(), line })),
            DeValue::Integer(number) => {
                let message = format!("{field} is a number, and text is wanted: write {field} = \"{}\"", number.as_str());
                Err(Problem { line, message })
            }
            other => Err(wrong_type(field, &other, "text", "\"...\"", line)),
        }
    }

    /// A list of texts; empty when it is not there.
    pub(super) fn strings(&mut self, field: &'static str) -> Result<Vec<Located<String>>, Problem> {
        let text = self.text;
        let Some((value, line)) = self.take(field) else { return Ok(Vec::new()) };
        let DeValue::Array(array) = value else { return Err(wrong_type(field, &value, "a list of texts", "[\"...\"]", line)) };
        let strings = array.into_iter().map(|element| {
            let line = line_at(text, element.span().start);
            match element.into_inner() {
                DeValue::String(value) => Ok(Located { value: value.into_owned(), line }),
                other => Err(wrong_type(field, &other, "text", "[\"...\"]", line)),
            }
        });
        strings.collect()
    }

    /// A boolean; false when it is not there.
    pub(super) fn boolean(&mut self, field: &'static str) -> Result<bool, Problem> {
        match self.take(field) {
            None => Ok(false),
            Some((DeValue::Boolean(value), _)) => Ok(value),
            Some((other, line)) => Err(wrong_type(field, &other, "true or false", "true", line)),
        }
    }

    /// A text, a number or a truth value, as text.
    pub(super) fn scalar(&mut self, field: &'static str) -> Result<Option<Located<String>>, Problem> {
        let Some((value, line)) = self.take(field) else { return Ok(None) };
        let value = match value {
            DeValue::String(value) => value.into_owned(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            other => return Err(wrong_type(field, &other, "text, a decimal number, true or false", "\"...\"", line)),
        };
        Ok(Some(Located { value, line }))
    }

    /// The tables of an array such as `[[device]]`.
    pub(super) fn tables(&mut self, field: &'static str) -> Result<Vec<Table<'t>>, Problem> {
        let Some((value, line)) = self.take(field) else { return Ok(Vec::new()) };
        let not_tables = |line| Problem { line, message: format!("{field} is to be a list of tables: write [[{field}]] above each") };
        let DeValue::Array(array) = value else { return Err(not_tables(line)) };
        let text = self.text;
        let tables = array.into_iter().map(|element| {
            let span = element.span();
            match element.into_inner() {
                DeValue::Table(entries) => Ok(Table { text, header: Some(field), span, entries }),
                _ => Err(not_tables(line_at(text, span.start))),
            }
        });
        tables.collect()
    }

    /// Refuses what was not read.
    pub(super) fn finish(&self, context: &str) -> Result<(), Problem> {
        self.refuse(context, |_| true)
    }

    /// Refuses fields that no such table has.
    pub(super) fn refuse_unknown(&self, context: &str) -> Result<(), Problem> {
        let allowed = self.allowed();
        self.refuse(context, |name| !allowed.contains(&name))
    }

    /// Refuses the first field, among those not read, for which `is_wrong` says so.
    fn refuse(&self, context: &str, is_wrong: impl Fn(&str) -> bool) -> Result<(), Problem> {
        let wrong = self.entries.iter().filter(|(key, _)| is_wrong(key.get_ref()));
        let Some((key, _)) = wrong.min_by_key(|(key, _)| key.span().start) else { return Ok(()) };
        let name = key.get_ref();
        let message = format!("{context}unknown field \"{name}\": {}", suggest::hint(name, self.allowed()));
        Err(Problem { line: line_at(self.text, key.span().start), message })
    }

    fn allowed(&self) -> &'static [&'static str] {
        match self.header {
            None => &["name", "optimize", "prng", "device", "arg"],
            Some("device") => &Device::FIELDS,
            Some(_) => Argument::FIELDS,
        }
    }

    fn take(&mut self, field: &str) -> Option<(DeValue<'t>, usize)> {
        let value = self.entries.remove(field)?;
        let line = line_at(self.text, value.span().start);
        Some((value.into_inner(), line))
    }
}

fn wrong_type(field: &str, found: &DeValue<'_>, wanted: &str, example: &str, line: usize) -> Problem {
    Problem { line, message: format!("{field} is a value of type {}, and {wanted} is wanted: write {field} = {example}", found.type_str()) }
}

/// The line of a place in a text, counted from 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
