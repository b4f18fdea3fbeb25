//! What stores with sorted keys share: finding the names in a dictionary without looking at everything below it.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::key::Key;
use crate::{Kind, Name};

/// The character after `/`, so that `DICTIONARY0` is the first text behind everything below `DICTIONARY/`.
const BEHIND_SLASH: char = '0';

/// The names in `dictionary`, in the order of their bytes. `first_at` gives the first key at or after a text. Costs one search for each name.
pub(crate) fn names<'k>(dictionary: Key<'_>, first_at: impl Fn(&str) -> Option<&'k str>) -> Vec<Name> {
    let mut names = Vec::new();
    let mut from = start_of(dictionary);
    while let Some(rest) = first_at(&from).and_then(|key| Key::new(key).ok()).and_then(|key| key.below(dictionary)) {
        let (name, kind) = rest.split_once('/').map_or((rest, Kind::Value), |(name, _)| (name, Kind::Dictionary));
        names.push(Name { name: name.to_owned(), kind });
        from = behind(dictionary, name, kind);
    }
    // `a-b` sorts before `a/c`, but the name `a` before the name `a-b`.
    names.sort_unstable();
    names
}

/// True when some key lies below `key`.
pub(crate) fn is_dictionary<'k>(key: Key<'_>, first_at: impl Fn(&str) -> Option<&'k str>) -> bool {
    key.is_root() || first_at(&start_of(key)).and_then(|found| Key::new(found).ok()).is_some_and(|found| found.below(key).is_some())
}

/// The text at which the keys below `dictionary` start.
pub(crate) fn start_of(dictionary: Key<'_>) -> String {
    let mut start = dictionary.as_str().to_owned();
    if !dictionary.is_root() {
        start.push('/');
    }
    start
}

/// The first text behind `name` in `dictionary`, and behind all that is below it.
pub(crate) fn behind(dictionary: Key<'_>, name: &str, kind: Kind) -> String {
    let mut text = start_of(dictionary);
    text.push_str(name);
    text.push(if kind == Kind::Dictionary { BEHIND_SLASH } else { '\0' });
    text
}
