//! "Did you mean ...?"

/// The candidate nearest to `word`, when one is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let distances = candidates.into_iter().map(|candidate| (strsim::osa_distance(word, candidate), candidate));
    distances.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The end of an error message about an unknown `word`: what was probably meant, else what is allowed.
#[must_use]
pub fn hint(word: &str, allowed: &[&str]) -> String {
    match nearest(word, allowed.iter().copied()) {
        Some(meant) => format!("did you mean \"{meant}\"? (allowed: {})", allowed.join(", ")),
        None => format!("allowed: {}", allowed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_a_stranger_is_not() {
        let kinds = ["stack", "net", "block"];
        assert_eq!(nearest("stak", kinds), Some("stack"));
        assert_eq!(nearest("nte", kinds), Some("net"));
        assert_eq!(nearest("socket", kinds), None);
        assert_eq!(nearest("", kinds), None);
        assert_eq!(hint("blok", &kinds), "did you mean \"block\"? (allowed: stack, net, block)");
    }
}
