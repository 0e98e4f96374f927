// Checks of a text before a request is made, as in shared/text.py.

import { InvalidInput, TooLarge } from "./errors.js";

export const MAX_TEXT_CHARS = 20_000;
/** White space as Python's str.strip knows it. */
const BLANK = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/;
const REFUSED = /\0|\p{Surrogate}/u;

/** Return the number of characters, which are code points as in Python. @param {string} text */
export function charsOf(text) {
  let chars = 0;
  for (const _ of text) chars += 1;
  return chars;
}

/**
 * Check that a text can be classified; throws `TooLarge` or `InvalidInput`, which names the field.
 * @param {string} text
 * @param {string} [field]
 */
export function checkText(text, field = "text") {
  const chars = charsOf(text);
  if (chars > MAX_TEXT_CHARS) {
    const shown = [chars, MAX_TEXT_CHARS].map((count) => count.toLocaleString("en-US"));
    throw new TooLarge(`${field}: ${shown[0]} characters; at most ${shown[1]} are allowed`, {
      field,
      limit: MAX_TEXT_CHARS,
    });
  }
  if (BLANK.test(text)) {
    throw new InvalidInput(`${field}: is empty; give at least 1 character that is not white space`, {
      field,
      limit: 1,
    });
  }
  const refused = REFUSED.exec(text);
  if (refused !== null) {
    const kind = refused[0] === "\0" ? "the character U+0000" : "a lone surrogate";
    const place = charsOf(text.slice(0, refused.index)) + 1;
    throw new InvalidInput(`${field}: holds ${kind} at character ${place}; send valid Unicode without it`, { field });
  }
}

/**
 * Check the text and the pair of a request for a task.
 * @param {string} text
 * @param {string | null} pair
 * @param {{pairs: boolean, task: string}} task
 */
export function checkInput(text, pair, { pairs, task }) {
  checkText(text);
  if (pair === null && pairs) {
    throw new InvalidInput(`pair: the task ${task} needs a second text`, { field: "pair" });
  }
  if (pair !== null && !pairs) {
    throw new InvalidInput(`pair: the task ${task} uses none; leave it out`, { field: "pair" });
  }
  if (pair !== null) checkText(pair, "pair");
}
