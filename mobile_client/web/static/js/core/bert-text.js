// Normalisation of a text and its division into words, exactly as the tokenizers of the BERT family do
// it in Python (crate `tokenizers`, BertNormalizer and BertPreTokenizer). The JavaScript package of
// that name differs: it lowers the case of the text as a whole, which changes a final Σ, does not
// separate Chinese characters beyond U+FFFF, and takes the categories of the browser's Unicode.

import { MARKS, PUNCTUATION, REMOVED } from "./unicode-categories.js";

/**
 * Settings of a BertNormalizer in tokenizer.json; without `strip_accents`, accents are stripped if the
 * case is lowered.
 * @typedef {object} BertNormalizer
 * @property {boolean} clean_text
 * @property {boolean} handle_chinese_chars
 * @property {boolean | null} strip_accents
 * @property {boolean} lowercase
 */

const CHINESE =
  "\\u{4e00}-\\u{9fff}\\u{3400}-\\u{4dbf}\\u{20000}-\\u{2a6df}\\u{2a700}-\\u{2b73f}\\u{2b740}-\\u{2b81f}" +
  "\\u{2b920}-\\u{2ceaf}\\u{f900}-\\u{faff}\\u{2f800}-\\u{2fa1f}";
/** Characters of Unicode 13 and 16 that browsers decompose and the crate does not. */
const WHOLE =
  "\\u{105c9}\\u{105e4}\\u{11383}\\u{11385}\\u{1138e}\\u{11391}\\u{113c5}\\u{113c7}-\\u{113c8}\\u{11938}" +
  "\\u{16121}-\\u{16128}\\u{16d68}-\\u{16d6a}";
const WHITE_SPACE = /\p{White_Space}/gu;
const SETS = {
  chinese: new RegExp(`[${CHINESE}]`, "gu"),
  decomposed: new RegExp(`[^${WHOLE}]+`, "gu"),
  marks: new RegExp(`[${MARKS}]`, "gu"),
  removed: new RegExp(`[${REMOVED}]`, "gu"),
  words: new RegExp(`[${PUNCTUATION}]|[^\\p{White_Space}${PUNCTUATION}]+`, "gu"),
};

/**
 * Return the normalised text.
 * @param {string} text
 * @param {BertNormalizer} settings
 */
export function normalise(text, settings) {
  let result = text;
  if (settings.clean_text) result = result.replace(SETS.removed, "").replace(WHITE_SPACE, " ");
  if (settings.handle_chinese_chars) result = result.replace(SETS.chinese, " $& ");
  if (settings.strip_accents ?? settings.lowercase) {
    result = result.replace(SETS.decomposed, (part) => part.normalize("NFD")).replace(SETS.marks, "");
  }
  // each character alone: the lower case of a final Σ depends on its neighbours
  return settings.lowercase ? Array.from(result, (char) => char.toLowerCase()).join("") : result;
}

/**
 * Return the words of a normalised text; each punctuation mark is a word.
 * @param {string} text
 * @returns {string[]}
 */
export function wordsOf(text) {
  return text.match(SETS.words) ?? [];
}
