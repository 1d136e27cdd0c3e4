//! The position of something in the user's own text.

/// `line L, column C`, both from 1; columns are characters.
pub(crate) fn line_and_column(text: &str, offset: usize) -> String {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    format!("line {line}, column {}", before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn places_are_lines_and_characters() {
        assert_eq!(line_and_column("abc", 0), "line 1, column 1");
        assert_eq!(line_and_column("a\néb", 4), "line 2, column 2");
        assert_eq!(line_and_column("é", 1), "line 1, column 1");
        assert_eq!(line_and_column("a\n", 99), "line 2, column 1");
    }
}
