// Tokenizer for texts and pairs of texts, the same as shared/inference/tokenizer.py.

import { WordPiece } from "../../vendor/tokenizers/tokenizers.min.mjs";
import { normalise, wordsOf } from "./bert-text.js";
import { BundleError, InvalidInput } from "./errors.js";

/** @import { BertNormalizer } from "./bert-text.js" */
/** @import { EncodedText } from "./domain.js" */

/**
 * Token ids of one text, and the number of the word of each.
 * @typedef {{ids: number[], words: number[]}} Pieces
 */
/**
 * Part of a template: a special token, or the text 0 or 1.
 * @typedef {{id: number} | {text: 0 | 1}} Part
 */
/** @typedef {ReturnType<typeof createTextEncoder>} TextEncoder */

/**
 * Return the encoder of a bundle.
 *
 * Longer inputs are cut to `maxTokens` at the end, of a pair the longer text first. Control tokens that
 * a text contains literally, such as "[SEP]", are text like any other. Throws `BundleError` for a
 * tokenizer of another family.
 * @param {unknown} document the parsed tokenizer.json
 * @param {number} maxTokens
 */
export function createTextEncoder(document, maxTokens) {
  const { normalizer, model, templates } = readTokenizer(document);
  const wordPiece = new WordPiece(model);
  const unknown = /** @type {number} */ (wordPiece.unk_token_id);

  /** @param {string} text @returns {Pieces} */
  function piecesOf(text) {
    /** @type {Pieces} */
    const pieces = { ids: [], words: [] };
    wordsOf(normalise(text, normalizer)).forEach((word, number) => {
      for (const piece of wordPiece.encode([word])) {
        pieces.ids.push(wordPiece.tokens_to_ids.get(piece) ?? unknown);
        pieces.words.push(number);
      }
    });
    return pieces;
  }

  /**
   * Tokenise a text or pair, truncated to the model's limit.
   *
   * Throws `InvalidInput` if only special tokens remain, as of a text of invisible characters.
   * @param {string} text
   * @param {string | null} [pair]
   * @returns {EncodedText}
   */
  function encode(text, pair = null) {
    const texts = [text, ...(pair === null ? [] : [pair])].map(piecesOf);
    const template = templates[pair === null ? "single" : "pair"];
    const special = template.filter((part) => "id" in part).length;
    const kept = keptLengths(texts.map(({ ids }) => ids.length), maxTokens - special);
    if (kept.every((length) => length === 0)) {
      throw new InvalidInput("text: contains no character that the model knows; give at least 1 word", {
        field: "text",
      });
    }
    return assemble(template, texts, kept);
  }

  /** Number of tokens in the model's vocabulary. */
  const vocabulary = wordPiece.tokens_to_ids.size;
  return { encode, vocabulary, maxTokens };
}

/**
 * Put the special tokens around the texts.
 * @param {Part[]} template
 * @param {Pieces[]} texts
 * @param {number[]} kept number of tokens of each text that are kept
 * @returns {EncodedText}
 */
function assemble(template, texts, kept) {
  /** @type {EncodedText} */
  const encoded = { ids: [], typeIds: [], content: [], second: null, tokens: 0, truncated: false, rarePieces: 0 };
  /** @type {boolean[]} */
  const second = [];
  for (const part of template) {
    const text = "id" in part ? -1 : part.text;
    const ids = "id" in part ? [part.id] : texts[part.text].ids.slice(0, kept[part.text]);
    for (const id of ids) {
      encoded.ids.push(id);
      encoded.content.push(text >= 0);
      second.push(text === 1);
    }
  }
  encoded.tokens = encoded.ids.length;
  encoded.truncated = texts.some(({ ids }, i) => kept[i] < ids.length);
  for (const [i, { words }] of texts.entries()) {
    encoded.rarePieces += kept[i] - new Set(words.slice(0, kept[i])).size;
  }
  if (texts.length === 1) {
    encoded.typeIds = encoded.ids.map(() => 0);
    return encoded;
  }
  // separators belong to the text before them; an empty second text leaves its separator only
  const start = second.indexOf(true);
  const first = start < 0 ? encoded.tokens - 1 : start;
  encoded.typeIds = encoded.ids.map((_, i) => (i < first ? 0 : 1));
  encoded.second = second;
  return encoded;
}

/**
 * Return how many tokens of each text are kept: the longest text is cut first, as the crate
 * `tokenizers` does with its strategy "longest first".
 * @param {number[]} lengths
 * @param {number} most for all texts together
 */
export function keptLengths(lengths, most) {
  if (lengths.length === 1) return [Math.min(lengths[0], most)];
  if (lengths[0] + lengths[1] <= most) return lengths;
  const swapped = lengths[0] > lengths[1];
  const [short, long] = swapped ? [lengths[1], lengths[0]] : lengths;
  let [first, last] = [short, Math.max(short, most - short)];
  if (short > most) last = short;
  if (first + last > most) {
    first = Math.floor(most / 2);
    last = first + (most % 2);
  }
  return swapped ? [Math.min(last, long), first] : [first, Math.min(last, long)];
}

/**
 * @param {unknown} document
 * @returns {{normalizer: BertNormalizer, model: any, templates: {single: Part[], pair: Part[]}}}
 */
function readTokenizer(document) {
  const { normalizer, pre_tokenizer: split, model, post_processor: post, added_tokens: added } =
    /** @type {Record<string, any>} */ (Object(document));
  const family =
    normalizer?.type === "BertNormalizer" &&
    split?.type === "BertPreTokenizer" &&
    model?.type === "WordPiece" &&
    typeof model.vocab === "object" &&
    typeof model.vocab?.[model.unk_token] === "number";
  if (!family) throw unusable("is not of the BERT family (WordPiece), the only one that runs here");
  if (!Array.isArray(added) || added.some((token) => token?.special !== true)) {
    throw unusable("has added tokens that are no control tokens");
  }
  const templates = { single: templateOf(post, model.vocab, false), pair: templateOf(post, model.vocab, true) };
  return { normalizer, model, templates };
}

/**
 * Return the parts of a text or pair, from a post-processor that puts special tokens around the texts.
 * @param {any} post
 * @param {Record<string, number>} vocabulary
 * @param {boolean} pair
 * @returns {Part[]}
 */
function templateOf(post, vocabulary, pair) {
  if (post?.type === "BertProcessing") {
    const [start, separator] = [{ id: Number(post.cls[1]) }, { id: Number(post.sep[1]) }];
    return [start, { text: 0 }, separator, ...(pair ? [/** @type {Part} */ ({ text: 1 }), separator] : [])];
  }
  if (post?.type !== "TemplateProcessing") throw unusable("puts other special tokens around texts than BERT");
  return (pair ? post.pair : post.single).flatMap((/** @type {any} */ item) => {
    if (item.Sequence !== undefined) return [{ text: item.Sequence.id === "A" ? 0 : 1 }];
    const ids = post.special_tokens[item.SpecialToken.id]?.ids ?? [vocabulary[item.SpecialToken.id]];
    return ids.map((/** @type {number} */ id) => ({ id }));
  });
}

/** @param {string} problem */
function unusable(problem) {
  return new BundleError(`bundle: its tokenizer ${problem}; use a bundle of a BERT encoder, such as the shipped one`);
}
