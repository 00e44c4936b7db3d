//! The key by which attempts are counted: coarser than what any backend takes for one account.
//!
//! A spelling that the backend finds the account by, and that is counted apart, is a fresh number of attempts. So whatever
//! some collation gives no weight, or the weight of another letter or digit, counts as that here (the first level of DUCET,
//! `unaccent` of PostgreSQL, and collations that know nothing of newer characters). Accounts that differ in such things
//! alone share a counter. That costs them a wait at worst: nobody is logged in by this key.

use unicode_normalization::char::is_combining_mark;

use super::fold::fold;

/// Letters that NFKD leaves whole and some backends take for others, lower case.
const LETTERS: &[(&str, &str)] = &[
    ("ɑᴀᶏⱥꞛ", "a"),
    ("ƀƃɓʙᴃᵬᶀ", "b"),
    ("ƈȼɕᴄꞓ", "c"),
    ("ðđƌȡɖɗᴅᴆᵭᶁᶑꝱꝺ", "d"),
    ("ɇɛᴇᶒᶓⱸǝə", "e"),
    ("ƒᵮᶂꜰꝼ", "f"),
    ("ǥɠɡɢʛᵹᶃꞡ", "g"),
    ("ħɦɧʜⱨ", "h"),
    ("ɨɩɪᵻᶖ", "i"),
    ("ȷɉɟʝᴊ", "j"),
    ("ƙᴋᶄⱪꝁꝃꝅꞣ", "k"),
    ("łƚȴɫɬɭʟᴌᶅⱡꝇꝉꝲ", "l"),
    ("ɱᴍᵯᶆꝳ", "m"),
    ("ŋƞȵɲɳɴᵰᶇꝴꞑꞥ", "n"),
    ("øɔɵᴏⱺꝋꝍꞝ", "o"),
    ("ƥᴘᵱᵽᶈꝑꝓꝕ", "p"),
    ("ĸʠꝗꝙ", "q"),
    ("ɍɼɽɾʀᵲᵳᶉꝵꝶꞃꞧ", "r"),
    ("ȿʂᵴᶊẜẝꜱꞅꞩ", "s"),
    ("ŧƫƭȶʈᴛᵵⱦꝷꞇ", "t"),
    ("ʉᴜᵾᶙꞟ", "u"),
    ("ʋᴠᶌỽⱱⱴꝟ", "v"),
    ("ᴡⱳ", "w"),
    ("ᶍ", "x"),
    ("ƴɏʏỿ", "y"),
    ("ƶȥɀʐʑᴢᵶᶎⱬ", "z"),
    ("℘", "p"),
    ("₤", "l"),
    ("ꜳ", "aa"),
    ("æᴁ", "ae"),
    ("ꜵ", "ao"),
    ("ꜷ", "au"),
    ("ꜹꜻ", "av"),
    ("ꜽ", "ay"),
    ("₠", "ce"),
    ("₢", "cr"),
    ("ȸ", "db"),
    ("ʣʥ", "dz"),
    ("₣", "fr"),
    ("ƕ", "hv"),
    ("ỻ", "ll"),
    ("ʪ", "ls"),
    ("ʫ", "lz"),
    ("œɶ", "oe"),
    ("ƣ", "oi"),
    ("ꝏ", "oo"),
    ("₧", "pts"),
    ("ȹ", "qp"),
    ("₹", "rs"),
    ("℞", "rx"),
    ("þᵺꝥꝧ", "th"),
    ("₺", "tl"),
    ("ʦ", "ts"),
    ("ᵫ", "ue"),
    ("ꝡ", "vy"),
    ("ґ", "г"),
    ("ך", "כ"),
    ("ם", "מ"),
    ("ן", "נ"),
    ("ף", "פ"),
    ("ץ", "צ"),
];

/// The zeros of the scripts; the other nine digits follow each (`Nd` of Unicode 17).
const ZEROS: &[u32] = &[
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
    0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
    0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0x104a0, 0x10d30, 0x10d40, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0,
    0x11450, 0x114d0, 0x11650, 0x116c0, 0x116d0, 0x116da, 0x11730, 0x118e0, 0x11950, 0x11bf0, 0x11c50, 0x11d50,
    0x11da0, 0x11de0, 0x11f50, 0x16130, 0x16a60, 0x16ac0, 0x16b50, 0x16d70, 0x1e140, 0x1e2f0, 0x1e4f0, 0x1e5f1,
    0x1e950,
];

/// Stands for a number that is no digit of [`ZEROS`] (`〡`, `፩`, `❶`): whoever weighs it weighs it as one.
const NUMBER: char = '\u{fffd}';

/// The account as it is counted.
pub(super) fn counted(text: &str) -> String {
    let folded = fold(text);
    let mut plain = String::with_capacity(folded.len());
    folded.chars().for_each(|c| add(&mut plain, c));
    if plain.contains(NUMBER) {
        // Any of the digits could be written so: all spellings that do it are one.
        plain = plain.chars().map(|c| if c.is_ascii_digit() { NUMBER } else { c }).collect();
    }
    // Signs count for nothing, for there are many that are some backend's `-`, `.` or nothing. In a Latin word all letters
    // else weigh nothing to a collation that does not know them, nor do those of newer scripts anywhere.
    let words = plain.split(|c: char| c.is_ascii_punctuation());
    let is_latin = |word: &str| word.chars().any(|c| c.is_ascii_alphabetic());
    let counts = |c: char, latin: bool| c.is_ascii() || c == NUMBER || (!latin && is_of_an_old_script(c));
    let key: String = words.flat_map(|word| word.chars().filter(move |c| counts(*c, is_latin(word)))).collect();
    // Nothing but signs, or a script of its own: then these are the name.
    if key.is_empty() { folded } else { key }
}

/// Whether the oldest collations in use weigh a letter: those of SQL Server from before Unicode 3 know Greek, Cyrillic,
/// Armenian, Hebrew, Arabic, nine scripts of India, Thai, Lao, Georgian, Hangul, Kana, Bopomofo and the first Han.
fn is_of_an_old_script(c: char) -> bool {
    matches!(
        c,
        '\u{370}'..='\u{4ff}'
            | '\u{531}'..='\u{5ea}'
            | '\u{600}'..='\u{6ff}'
            | '\u{900}'..='\u{d7f}'
            | '\u{e00}'..='\u{eff}'
            | '\u{10a0}'..='\u{11ff}'
            | '\u{3041}'..='\u{312f}'
            | '\u{4e00}'..='\u{9fa5}'
            | '\u{ac00}'..='\u{d7a3}'
    )
}

fn add(plain: &mut String, c: char) {
    if c.is_ascii() {
        return plain.extend(Some(c).filter(|c| !c.is_ascii_whitespace()));
    }
    if is_combining_mark(c) || is_filler(c) {
        return;
    }
    let c = unsquared(full_size(c));
    if let Some(digit) = digit(c) {
        return plain.push(digit);
    }
    if let Some((_, plain_letters)) = LETTERS.iter().find(|(letters, _)| letters.contains(c)) {
        return plain.push_str(plain_letters);
    }
    if c.is_numeric() {
        plain.push(NUMBER);
    } else if c.is_alphabetic() {
        plain.push(c);
    }
}

/// Letters without weight, and those that only make words longer.
fn is_filler(c: char) -> bool {
    matches!(
        c,
        '\u{115f}'
            | '\u{1160}'
            | '\u{3164}'
            | '\u{ffa0}'
            | '\u{640}'
            | '\u{7fa}'
            | '\u{824}'
            | '\u{828}'
            | '\u{1843}'
            | '\u{1cf2}'
            | '\u{1cf3}'
            | '\u{fe73}'
    )
}

fn digit(c: char) -> Option<char> {
    let c = u32::from(c);
    let value = ZEROS.iter().find_map(|zero| c.checked_sub(*zero).filter(|value| *value < 10))?;
    char::from_digit(value, 10)
}

/// Kana are Katakana, and large.
fn full_size(c: char) -> char {
    let shifted = |by: u32| char::from_u32(u32::from(c).saturating_add(by)).unwrap_or(c);
    match c {
        'ぁ' | 'ぃ' | 'ぅ' | 'ぇ' | 'ぉ' | 'っ' | 'ゃ' | 'ゅ' | 'ょ' | 'ゎ' => shifted(0x61),
        'ァ' | 'ィ' | 'ゥ' | 'ェ' | 'ォ' | 'ッ' | 'ャ' | 'ュ' | 'ョ' | 'ヮ' => shifted(1),
        'ぁ'..='ゖ' => shifted(0x60),
        _ => c,
    }
}

/// Letters in black circles and squares, which are symbols without a decomposition.
fn unsquared(c: char) -> char {
    let letter = |from: char| u8::try_from(u32::from(c).saturating_sub(u32::from(from))).ok();
    let letter = match c {
        '\u{1f150}'..='\u{1f169}' => letter('\u{1f150}'),
        '\u{1f170}'..='\u{1f189}' => letter('\u{1f170}'),
        _ => None,
    };
    letter.map_or(c, |letter| char::from(b'a'.saturating_add(letter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_some_backend_takes_for_one_account_are_counted_as_one() {
        for (one, spellings) in [
            // Marks that enclose, or say how to draw, and letters without width.
            (
                "alice",
                &["alice\u{20dd}", "a\u{488}lice", "a\u{489}\u{20e0}lice", "al\u{fe0f}ice", "al\u{e0101}ice"][..],
            ),
            (
                "alice",
                &["al\u{200d}ice", "al\u{feff}ice", "al\u{3164}ice", "al\u{fff9}ice", "al\u{1d173}ice", "al ice"],
            ),
            (
                "alice",
                &["Al\u{131}ce", "ɑłıƈɇ", "🅰lice", "ⓐⓛⓘⓒⓔ", "𝐚lice", "alice🍣", "al·ice", "alice\u{e000}", "aliceሀ"],
            ),
            ("soren", &["Søren", "SØREN", "so\u{338}ren", "ꜱꝋʀᴇɴ"]),
            ("strasse", &["Straße", "STRAẞE", "straſse"]),
            ("thaedoe", &["þæðœ"]),
            (
                "anna7examplecom",
                &[
                    "anna7@example.com",
                    "anna٧@example.com",
                    "anna７@example.com",
                    "añna𝟟@example.com",
                    "anna७@example.com",
                ],
            ),
            ("12345678", &["１２٣٤۵६৭𝟪", "①②③④⑤⑥⑦⑧", "¹²³⁴⁵⁶⁷⁸", "12345678ሀ", "123ሁ45678\u{1780}"]),
            // `unaccent` of PostgreSQL, and collations that know no signs.
            (
                "maxmusterpxde",
                &["max.muster-p@x.de", "max。muster–℘@x。de", "max\u{ad}muster\u{2014}p@x.de", "max’muster@px.de"],
            ),
            ("maxrs", &["max₹", "MAXRs"]),
            ("иван1", &["ИВАН1", "ива\u{489}н١"]),
            ("サクラ", &["さくら", "ｻｸﾗ", "サクﾗ"]),
            ("ヤツト", &["やっと", "ヤット", "ャット"]),
            ("محمد", &["محـمد", "مُحَمَّد"]),
            ("🍣", &["🍣\u{fe0f}"]),
        ] {
            for spelling in spellings {
                assert_eq!(counted(spelling), one, "{spelling:?}");
            }
            assert_eq!(counted(one), one);
        }
        // Numbers without a table: however many of them there are.
        let odd = counted("❶2345678");
        for spelling in ["1❷345678", "〡〢〣〤〥〦〧〨", "፩2345678", "1234567፰"] {
            assert_eq!(counted(spelling), odd, "{spelling}");
        }
    }

    #[test]
    fn accounts_that_differ_are_counted_apart() {
        for (one, other) in [
            ("alice", "alice2"),
            ("a@x", "a+1@x"),
            ("ሰላም", "አበበ"),
            ("สมชาย1", "สมหญิง1"),
            ("7", "8"),
            ("иван1", "пётр1"),
            ("иван@example.com", "пётр@example.com"),
            ("山田", "田中"),
            ("가나", "각나"),
            ("★", "☆"),
        ] {
            assert_ne!(counted(one), counted(other), "{one} {other}");
        }
    }

    #[test]
    fn no_character_of_the_table_is_out_of_reach() {
        for (letters, plain) in LETTERS {
            for letter in letters.chars() {
                assert_eq!(fold(&letter.to_string()), letter.to_string(), "{letter:?} {:x}", u32::from(letter));
                assert_eq!(counted(&letter.to_string()), *plain, "{letter}");
            }
        }
        assert!(ZEROS.iter().all(|zero| char::from_u32(*zero).is_some_and(char::is_numeric) || *zero == 0x11de0));
    }
}
